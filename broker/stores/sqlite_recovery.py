"""Takes into a database what the journal beside it holds, as it is opened.

Source: docs/DURABILITY.md, "The journal".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from broker.stores.sqlite_changes import Changes
from broker.stores.sqlite_journal import JOURNAL_NAME, NO_RUN, DamagedError, records

#: The first version of the schema that knows of it.
VERSION_MIN: Final = 5


def journal_damaged(database: sqlite3.Connection, path: Path) -> bool:
    """Tell whether the journal is damaged or gone; nothing is written. Errors: `OSError`."""
    try:
        for _ in records(path.with_name(JOURNAL_NAME), _run_of(database)):
            pass
    except DamagedError:
        return True
    return False


def pending(database: sqlite3.Connection, path: Path) -> bool:
    """Tell whether the journal has something that the database does not."""
    try:
        return any(True for _ in records(path.with_name(JOURNAL_NAME), _run_of(database)))
    except DamagedError:
        return True


def recover(database: sqlite3.Connection, path: Path) -> None:
    """Take in what can be read of the journal; afterwards the database names none.

    For a connection that syncs each commit. Errors: `sqlite3.Error`, `OSError`.
    """
    run = _run_of(database)
    if run == NO_RUN:
        return
    changes = Changes()
    try:
        for body in records(path.with_name(JOURNAL_NAME), run):
            changes.unpack(body)
    except DamagedError:
        pass  # it was refused before, unless what is lost will be announced

    def execute(statement: str, values: Sequence[Any]) -> list[Any]:
        return database.execute(statement, values).fetchall()

    database.execute("BEGIN IMMEDIATE")
    try:
        changes.insert(execute)
        changes.move(execute)
        database.execute("UPDATE journal SET run = ?", (NO_RUN,))
        database.execute("COMMIT")
    finally:
        if database.in_transaction:
            database.execute("ROLLBACK")


def names_journal(database: sqlite3.Connection) -> bool:
    """Tell whether the database expects a journal beside it."""
    return _run_of(database) != NO_RUN


def _run_of(database: sqlite3.Connection) -> int:
    """Return the run that the database names."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version < VERSION_MIN:
        return NO_RUN
    run: int = database.execute("SELECT run FROM journal").fetchone()[0]
    return run
