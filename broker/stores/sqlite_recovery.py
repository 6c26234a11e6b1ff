"""What the journal beside a database holds that the database does not, and taking it in.

Source: docs/DURABILITY.md, "The journal".
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from broker.core.ports import StoreFullError
from broker.stores.sqlite_changes import Changes
from broker.stores.sqlite_errors import meaning
from broker.stores.sqlite_journal import (
    JOURNAL_NAME,
    NO_RUN,
    DamagedError,
    Journal,
    front,
    lay,
    records,
)

#: The first version of the schema that knows of it.
_VERSION_MIN: Final = 5


def run_of(database: sqlite3.Connection) -> int:
    """Return the run of the journal that the database names, `NO_RUN` where it names none."""
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version < _VERSION_MIN:
        return NO_RUN
    run: int = database.execute("SELECT run FROM journal").fetchone()[0]
    return run


def outstanding(database: sqlite3.Connection, path: Path) -> Changes:
    """Return what the database at ``path`` has still to take in. Nothing is written.

    Errors: `DamagedError` (the journal is damaged or gone), `OSError`, `sqlite3.Error`.
    """
    changes = Changes()
    _read(changes, database, path)
    return changes


def _read(changes: Changes, database: sqlite3.Connection, path: Path) -> None:
    for body in records(path.with_name(JOURNAL_NAME), run_of(database)):
        changes.unpack(body)


def is_damaged(database: sqlite3.Connection, path: Path) -> bool:
    """Tell whether the journal of the database at ``path`` is damaged or gone, or not its own.

    That is one which was begun by a commit that the database has lost.
    """
    try:
        outstanding(database, path)
    except DamagedError:
        return True
    found = front(path.with_name(JOURNAL_NAME))
    if found in (NO_RUN, run_of(database)):
        return False
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if version < _VERSION_MIN:
        return False
    former: int = database.execute("SELECT former FROM journal").fetchone()[0]
    return found != former


def recover(database: sqlite3.Connection, path: Path) -> None:
    """Take in what can be read of the journal; afterwards the database names none.

    For a connection that syncs each commit. Errors: `sqlite3.Error`, `OSError`.
    """
    if run_of(database) == NO_RUN:
        return
    changes = Changes()
    with suppress(DamagedError):  # whoever wants that refused has asked before
        _read(changes, database, path)
    take_in(database, changes, former=front(path.with_name(JOURNAL_NAME)))


def begin(database: sqlite3.Connection, path: Path) -> Journal | None:
    """Begin a journal; None where there is no room for one: each batch goes into the database then.

    Errors: `sqlite3.Error`, `OSError`.
    """
    place = path.with_name(JOURNAL_NAME)
    if not lay(place):
        return None
    journal = Journal(place)
    try:
        database.execute("UPDATE journal SET run = ?, former = ?", (journal.run, front(place)))
    except sqlite3.Error as error:
        if isinstance(meaning(error), StoreFullError):
            return None
        raise
    return journal


def take_in(database: sqlite3.Connection, changes: Changes, *, former: int = NO_RUN) -> None:
    """Write changes into a database, which names no journal any more.

    ``former``: the run at the front of the one that is left. Errors: `sqlite3.Error`.
    """

    def run(statement: str, values: Sequence[Any]) -> list[Any]:
        return database.execute(statement, values).fetchall()

    run("BEGIN IMMEDIATE", ())
    try:
        changes.insert(run)
        changes.move(run)
        run("UPDATE journal SET run = ?, former = ?", (NO_RUN, former))
        run("COMMIT", ())
    finally:
        if database.in_transaction:
            run("ROLLBACK", ())
