-- Version 3: keys that log their users in. At once; nothing is copied. The rules for the next one
-- stand in sqlite_schema.sql.

-- A public CURVE key (40 characters of Z85) and the one user whose login it is.
CREATE TABLE keys (
    key  TEXT PRIMARY KEY,
    user TEXT NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX keys_by_user ON keys (user);

-- The key that a session was opened with, and is bound to; empty: it was opened with a password.
ALTER TABLE sessions ADD COLUMN key TEXT NOT NULL DEFAULT '';
