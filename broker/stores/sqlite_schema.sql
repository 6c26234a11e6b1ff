-- Kotak's store, version 1. One file, one broker, one connection that writes.
--
-- Rules for changing it:
--  1. Never edit a step that was released; add the next file, sqlite_schema_N.sql (see sqlite_schema.py).
--  2. A step and its `user_version` are one transaction: old or new schema, never half.
--  3. A step must not need more room than a tenth of the file; say in its comment how long it takes.
--  4. A file of a newer version is refused, and so is one without our application_id.

-- A user and its mailbox. `id` is the mailbox's key and is never used twice.
CREATE TABLE accounts (
    id            INTEGER PRIMARY KEY AUTOINCREMENT,
    user          TEXT NOT NULL UNIQUE,
    name          TEXT NOT NULL,
    password_hash TEXT NOT NULL
) STRICT;

-- The log: appended in order of `seq`, never updated, no index beside the rowid (one costs 4x).
-- (sender, message_id) is the key of deduplication; it lives in the message's own row, so that the
-- two cannot come apart. `stored_ms` is in milliseconds since the epoch.
CREATE TABLE messages (
    seq        INTEGER PRIMARY KEY,
    mailbox    INTEGER NOT NULL,
    sender     TEXT NOT NULL,
    message_id TEXT NOT NULL,
    stored_ms  INTEGER NOT NULL,
    text       TEXT NOT NULL
) STRICT;

-- What is acknowledged: everything in `mailbox` up to and with `seq`.
CREATE TABLE cursors (
    mailbox INTEGER PRIMARY KEY,
    seq     INTEGER NOT NULL
) STRICT;

-- Sessions, by SHA-256 of the token; in order of rowid they are in order of opening.
CREATE TABLE sessions (
    digest     BLOB NOT NULL UNIQUE,
    user       TEXT NOT NULL,
    opened_ms  INTEGER NOT NULL,
    expires_ms INTEGER NOT NULL
) STRICT;
CREATE INDEX sessions_by_user ON sessions (user);
