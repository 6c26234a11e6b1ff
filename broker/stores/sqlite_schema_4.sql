-- Version 4: roles, and senders that a user takes nothing from. At once; nothing is copied. The rules
-- for the next one stand in sqlite_schema.sql.

ALTER TABLE accounts ADD COLUMN role TEXT NOT NULL DEFAULT 'user';

CREATE TABLE blocks (
    user   TEXT NOT NULL,
    sender TEXT NOT NULL,
    PRIMARY KEY (user, sender)
) STRICT, WITHOUT ROWID;
