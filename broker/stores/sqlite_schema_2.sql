-- Version 2: devices, rooms, expiry, epochs. Copies the cursors (a second for 100 000 mailboxes);
-- nothing else grows. The rules for the next one stand in sqlite_schema.sql.

-- Messages above it were sent by this account; older ones of the name by one that was removed.
ALTER TABLE accounts ADD COLUMN since INTEGER NOT NULL DEFAULT 0;

-- Empty: the session shares the user's cursor.
ALTER TABLE sessions ADD COLUMN device TEXT NOT NULL DEFAULT '';

-- What a reader has acknowledged: everything in `mailbox`, and in the rooms of its user, up to and
-- with `seq`. The user's own cursor has no device.
CREATE TABLE readers (
    mailbox INTEGER NOT NULL,
    device  TEXT NOT NULL,
    seq     INTEGER NOT NULL,
    PRIMARY KEY (mailbox, device)
) STRICT, WITHOUT ROWID;
INSERT INTO readers SELECT mailbox, '', seq FROM cursors;
DROP TABLE cursors;

-- A room. The key of its log in `messages.mailbox` is -id.
CREATE TABLE rooms (
    id      INTEGER PRIMARY KEY AUTOINCREMENT,
    room    TEXT NOT NULL UNIQUE,
    owner   TEXT NOT NULL,
    open    INTEGER NOT NULL,
    history INTEGER NOT NULL
) STRICT;

-- Who is in a room, reading from above `since` on, or (not `joined`) invited.
CREATE TABLE members (
    room   TEXT NOT NULL,
    user   TEXT NOT NULL,
    joined INTEGER NOT NULL,
    since  INTEGER NOT NULL DEFAULT 0,
    PRIMARY KEY (room, user)
) STRICT, WITHOUT ROWID;
CREATE INDEX members_by_user ON members (user);

-- Messages that end by themselves: when, and when they did so unread (NULL: not so, or not yet).
CREATE TABLE expiries (
    seq        INTEGER PRIMARY KEY,
    expires_ms INTEGER NOT NULL,
    expired_ms INTEGER
) STRICT;

-- The highest sequence of a mailbox that was deleted before all of its readers had read it.
CREATE TABLE purged (
    mailbox INTEGER PRIMARY KEY,
    seq     INTEGER NOT NULL
) STRICT;

-- One row: which history the sequences belong to, and what was lost when it began. `high`: sequences
-- up to it were given out though no row bears them. `witnessed`: kotak.seen was written.
CREATE TABLE epoch (
    number     INTEGER NOT NULL,
    first_lost INTEGER NOT NULL,
    last_lost  INTEGER NOT NULL,
    high       INTEGER NOT NULL,
    witnessed  INTEGER NOT NULL
) STRICT;
INSERT INTO epoch VALUES (abs(random() % 9007199254740991) + 1, 0, 0, 0, 0);
