"""A file of schema version 1 is taken over with everything that is in it."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.model import Account, Lost, SessionRecord, State
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_schema import APPLICATION_ID, MIGRATIONS
from tests.stores.steps import ack, history, ids, kept, read, send, with_room


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A database as version 1 left it: bob has read 3 of 5; eve was removed, 7 is of nobody."""
    path = tmp_path / "kotak.db"
    database = sqlite3.connect(path)
    database.executescript(
        f"PRAGMA auto_vacuum = INCREMENTAL; PRAGMA journal_mode = wal;\n{MIGRATIONS[0]}\n"
        f"PRAGMA application_id = {APPLICATION_ID}; PRAGMA user_version = 1;"
    )
    database.executemany(
        "INSERT INTO accounts VALUES (?, ?, ?, 'hash')",
        [(1, "ann", "Ann"), (2, "bob", "Bob")],
    )
    database.executemany(
        "INSERT INTO messages VALUES (?, ?, ?, ?, ?, ?)",
        [(seq, 2, "ann", f"m{seq}", 1_000 + seq, f"text {seq}") for seq in (1, 2, 3, 5, 6)]
        + [(4, 1, "bob", "m4", 1_004, "text 4"), (7, 9, "eve", "m7", 1_007, "text 7")],
    )
    database.executemany("INSERT INTO cursors VALUES (?, ?)", [(2, 3)])
    database.executemany(
        "INSERT INTO sessions VALUES (?, ?, 1, 2)", [(b"b" * 32, "bob"), (b"a" * 32, "ann")]
    )
    database.commit()
    database.close()
    return path


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = SqliteStore(path)
    yield store
    store.close()


def test_accounts_and_sessions_are_there(store: SqliteStore) -> None:
    assert store.find_all(Account) == [Account("ann", "Ann", "hash"), Account("bob", "Bob", "hash")]
    assert store.find_all(SessionRecord) == [
        SessionRecord(b"b" * 32, "bob", 1, 2),
        SessionRecord(b"a" * 32, "ann", 1, 2),
    ]


def test_cursors_and_messages_are_there(store: SqliteStore) -> None:
    assert (ids(store), read(store).cursor) == (["m5", "m6"], 3)
    assert (ids(store, "ann"), read(store, "ann").cursor) == (["m4"], 0)
    assert store.depth().messages == 3
    assert read(store).messages[0].text == "text 5"


def test_history_reaches_back_over_the_migration(store: SqliteStore) -> None:
    assert kept(store) == ["m1", "m2", "m3", "m5", "m6"]
    found = history(store, "sent", user="ann")
    assert [each.message_id for each in found.messages] == kept(store)
    assert found.states == [State.ACKNOWLEDGED] * 3 + [State.STORED] * 2
    assert kept(store, "sent") == ["m4"]


def test_ids_and_sequences_go_on(store: SqliteStore) -> None:
    assert send(store, "m5", "text 5") == 5
    assert send(store, "new") == 8


def test_the_epoch_is_quiet(path: Path) -> None:
    numbers = set()
    for _ in range(3):
        store = SqliteStore(path)
        assert store.epoch.lost == Lost(0, 0)
        assert read(store).lost is None
        numbers.add(store.epoch.number)
        store.close()
    assert len(numbers) == 1


def test_what_is_new_works_over_what_is_old(store: SqliteStore) -> None:
    with_room(store, "ann", "bob")
    send(store, "said", to="#den")
    assert ids(store) == ["m5", "m6", "said"]
    assert ack(store, device="phone") == 8


def test_a_migration_that_is_killed_is_done_again(path: Path, tmp_path: Path) -> None:
    """The copy is taken while the step's transaction is open."""
    database = sqlite3.connect(path, isolation_level=None)
    database.execute("BEGIN IMMEDIATE")
    for statement in MIGRATIONS[1].split(";\n")[:4]:
        database.execute(statement)
    (tmp_path / "after").mkdir()
    for name in ("kotak.db", "kotak.db-wal"):
        shutil.copy(path.with_name(name), tmp_path / "after" / name)
    database.execute("ROLLBACK")
    database.close()
    again = SqliteStore(tmp_path / "after" / "kotak.db")
    assert ids(again) == ["m5", "m6"]
    again.close()
