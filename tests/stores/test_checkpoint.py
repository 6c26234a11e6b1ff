"""The log: moved into the database in time, its errors heard, nothing synced after one."""

from __future__ import annotations

import errno
import os
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import cast

import pytest

from broker.core.model import Account
from broker.core.ports import StoreFailedError, StoreUnusableError
from broker.stores import sqlite_checkpoint
from broker.stores.sqlite import SqliteStore
from tests.stores.sqlite_steps import FaultyConnection, ids, make, open_at, send

CHECKPOINT = "PRAGMA wal_checkpoint"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kotak.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = open_at(path, journal=False)
    with store.batch():
        store.put(Account("bob", "Bob", "hash"))
    yield store
    store.close()


def frames(store: SqliteStore) -> int:
    """Return how many pages are in the log."""
    return store._wal._index[sqlite_checkpoint._FRAMES]


def faulty(store: SqliteStore, fails: str, code: int) -> FaultyConnection:
    """Let statements of one kind fail."""
    connection = FaultyConnection(store._database, fails, code)
    store._database = cast("sqlite3.Connection", connection)
    return connection


def found_after(path: Path) -> list[str]:
    """Open the store anew and return the ids that wait there."""
    store = SqliteStore(path)
    found = ids(store)
    store.close()
    return found


def test_the_pages_of_the_log_are_counted_as_sqlite_counts_them(store: SqliteStore) -> None:
    for number in range(30):
        send(store, f"m{number}", text="x" * 1_000 * number)
        counted = frames(store)
        if number % 5 == 0:
            moved = store._database.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
            assert moved == (0, counted, counted)


def test_the_log_is_due_from_so_many_pages_on_unless_the_database_has_them(
    store: SqliteStore,
) -> None:
    send(store, "m1")
    store._wal.pages_max = frames(store) + 1
    assert not store._wal.due
    store._wal.pages_max -= 1
    assert store._wal.due
    store._wal.checkpoint()
    assert not store._wal.due


def test_the_log_is_moved_when_it_is_long_enough_and_begins_again_at_its_front(
    store: SqliteStore, path: Path
) -> None:
    store._wal.pages_max = 20
    for number in range(100):
        send(store, str(number), text="x" * 3_000)
        assert not store._wal.due
        assert frames(store) < 30
    assert path.stat().st_size > 100 * 3_000


def test_sqlite_itself_moves_nothing_after_a_commit(store: SqliteStore) -> None:
    """Its errors would be heard by nobody."""
    assert store._database.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)


def test_a_checkpoint_that_fails_ends_the_store_and_the_batch_is_not_answered_ok(
    store: SqliteStore, path: Path
) -> None:
    store._wal.pages_max = 1
    faulty(store, CHECKPOINT, sqlite3.SQLITE_IOERR)
    with pytest.raises(StoreFailedError):
        send(store, "m1")
    assert found_after(path) == ["m1"], "it was committed: the sender's retry finds it"


def test_a_full_disk_in_a_checkpoint_is_no_failure_of_the_batch(store: SqliteStore) -> None:
    store._wal.pages_max = 1
    connection = faulty(store, CHECKPOINT, sqlite3.SQLITE_FULL)
    assert send(store, "m1") == [1]
    assert ids(store) == ["m1"]
    connection.fails = ""
    with store.batch():
        store.acknowledge("bob", "", 1)
    assert not store._wal.due


def test_a_log_that_is_kept_in_another_way_is_refused(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    SqliteStore(path).close()
    monkeypatch.setattr(sqlite_checkpoint, "_INDEX_VERSION", 1)
    with pytest.raises(StoreUnusableError, match="keeps its log in a way"):
        SqliteStore(path)
    monkeypatch.undo()
    SqliteStore(path).close()


def run(code: str, path: Path) -> None:
    """Run Python in a process of its own."""
    subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=60)


def test_another_process_meets_the_locks_of_an_open_store(store: SqliteStore, path: Path) -> None:
    """A handle of the index that is closed takes SQLite's locks along.

    Whoever came next would believe to be the first, and empty the index under our feet.
    """
    send(store, "m1")
    alone = (
        "import fcntl, sys; index = open(sys.argv[1] + '-shm', 'r+b')\n"
        "try: fcntl.lockf(index, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, 128)\n"  # SQLite's UNIX_SHM_DMS
        "except BlockingIOError: sys.exit()\n"
        "sys.exit('nobody is here')"
    )
    run(alone, path)


def test_a_store_that_failed_takes_no_further_batch_and_syncs_nothing_at_its_end(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    send(store, "m1")
    before, synced = path.read_bytes(), list[int]()
    connection = faulty(store, "COMMIT", sqlite3.SQLITE_IOERR)
    with pytest.raises(StoreFailedError):
        send(store, "m2")
    connection.fails = ""
    with pytest.raises(StoreFailedError, match="failed before"):
        send(store, "m3")
    monkeypatch.setattr(os, "fsync", synced.append)
    store.close()
    assert not synced
    assert path.read_bytes() == before, "its close moved the log"
    monkeypatch.undo()
    assert found_after(path) == ["m1"]


def test_a_checkpoint_that_fails_at_the_end_is_not_tried_again(
    store: SqliteStore, path: Path
) -> None:
    send(store, "m1")
    before = path.read_bytes()
    faulty(store, CHECKPOINT, sqlite3.SQLITE_IOERR)
    store.close()
    assert path.read_bytes() == before
    assert found_after(path) == ["m1"]


def test_an_abandoned_database_moves_nothing_even_when_its_process_ends(path: Path) -> None:
    """What was committed last is in the log alone; an orderly end would move it."""
    make(path, "m1")
    before = path.read_bytes()
    run(
        "import sqlite3, sys; from broker.stores.sqlite_checkpoint import abandon;"
        "database = sqlite3.connect(sys.argv[1], isolation_level=None);"
        "database.execute('CREATE TABLE later (x)'); abandon(database); del database",
        path,
    )
    assert path.read_bytes() == before
    assert found_after(path) == ["m1"]


@pytest.mark.parametrize("number", [errno.EIO, errno.EROFS])
def test_a_disk_that_fails_while_the_file_is_opened_is_not_synced_again(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    make(path, "m1")
    synced: list[int] = []

    def fail(descriptor: int) -> None:
        synced.append(descriptor)
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StoreUnusableError, match="cannot be used"):
        SqliteStore(path)
    assert len(synced) == 1
    monkeypatch.undo()
    assert found_after(path) == ["m1"]
