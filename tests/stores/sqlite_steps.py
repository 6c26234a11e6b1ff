"""Steps of tests that look into the SQLite store, and a connection that fails as a dying disk."""

from __future__ import annotations

import itertools
import shutil
import sqlite3
from pathlib import Path
from typing import Any, cast
from unittest.mock import patch

from broker.core.model import Account
from broker.core.ports import (
    DEFAULT_LIMITS,
    StoreLimits,
)
from broker.stores import sqlite_recovery
from broker.stores.sqlite import SqliteStore
from tests.stores import steps

BOB = Account("bob", "Bob", "hash")


def open_at(
    path: Path,
    *,
    check: bool = True,
    limits: StoreLimits = DEFAULT_LIMITS,
    journal: bool = True,
) -> SqliteStore:
    """Open a store; ``journal``: is there room for one? Else each batch is a commit of SQLite."""
    if journal:
        return SqliteStore(path, limits, check=check)
    with patch.object(sqlite_recovery, "lay", lambda _: False):
        return SqliteStore(path, limits, check=check)


def as_killed(path: Path, folder: Path) -> Path:
    """Copy what a kill now would leave that counts; return where the database is there."""
    folder.mkdir(mode=0o700)
    for name in ("kotak.db", "kotak.db-wal", "kotak.journal", "kotak.seen"):
        if path.with_name(name).exists():
            shutil.copy(path.with_name(name), folder / name)
    return folder / path.name


_NUMBERS = itertools.count()


def killed(path: Path) -> Path:
    """Copy what a kill now would leave."""
    return as_killed(path, path.parent.parent / f"killed{next(_NUMBERS)}")


def after_a_kill(path: Path, user: str = "bob") -> list[str]:
    """Return what waits, read by a start on what a kill now would leave."""
    store = open_at(killed(path))
    try:
        return steps.ids(store, user)
    finally:
        store.close()


def in_table(store: SqliteStore) -> list[str]:
    """Return the ids that the database has, within the transaction under way if there is one."""
    rows = store._database.execute("SELECT message_id FROM messages ORDER BY seq")
    return [each for (each,) in rows]


def checkpoint(store: SqliteStore) -> None:
    """Take into the database what stands in the journal."""
    with store.batch():
        store._begin()


def send(store: SqliteStore, *ids: str, text: str = "hi") -> list[int]:
    with store.batch():
        return [store.append("bob", "ann", each, text, 1_000).seq for each in ids]


def ids(store: SqliteStore) -> list[str]:
    with store.batch():
        return [each.message_id for each in store.read("bob", "", 0, 1_000, 10**9).messages]


def acknowledge(store: SqliteStore, seq: int) -> None:
    with store.batch():
        store.acknowledge("bob", "", seq)


def pragma(store: SqliteStore, name: str) -> Any:
    return store._database.execute(f"PRAGMA {name}").fetchone()[0]


def make(path: Path, *messages: str) -> None:
    """Leave a closed database of ours behind."""
    store = open_at(path)
    with store.batch():
        store.put(BOB)
    send(store, *messages)
    store.close()


class FaultyConnection:
    """A connection whose statements of one kind fail as a dying disk's do."""

    def __init__(
        self, real: sqlite3.Connection, fails: str, code: int = sqlite3.SQLITE_IOERR
    ) -> None:
        self.real = real
        self.fails = fails
        self.fails_once = False
        self._code = code

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        self._fail_at(statement)
        return self.real.execute(statement, *values)

    def executemany(self, statement: str, rows: Any) -> sqlite3.Cursor:
        self._fail_at(statement)
        return self.real.executemany(statement, rows)

    def _fail_at(self, statement: str) -> None:
        if self.fails and statement.startswith(self.fails):
            self.fails = "" if self.fails_once else self.fails
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = self._code
            error.sqlite_errorname = "SQLITE_IOERR"
            raise error

    def __getattr__(self, name: str) -> Any:
        return getattr(self.real, name)


def faulty(
    store: SqliteStore, fails: str, code: int = sqlite3.SQLITE_FULL, *, once: bool = False
) -> FaultyConnection:
    """Let statements of one kind fail; ``once``: only the next of them."""
    connection = FaultyConnection(store._database, fails, code)
    connection.fails_once = once
    store._database = cast("sqlite3.Connection", connection)
    return connection
