-- Version 5: the journal beside the database. At once; nothing is copied. The rules for the next one
-- stand in sqlite_schema.sql.

-- One row: which records of kotak.journal this database has not taken in (0: there are none).
CREATE TABLE journal (
    run INTEGER NOT NULL
) STRICT;
INSERT INTO journal VALUES (0);
