-- Version 5: the journal beside the database. At once; nothing is copied. The rules for the next one
-- stand in sqlite_schema.sql.

-- One row: which records of kotak.journal this database has not taken in (0: there are none), and
-- which ones that it has may still stand at its front. Any other there were written after a commit
-- that this database has lost.
CREATE TABLE journal (
    run INTEGER NOT NULL,
    former INTEGER NOT NULL
) STRICT;
INSERT INTO journal VALUES (0, 0);
