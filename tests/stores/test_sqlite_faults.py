"""A disk that is full or fails, under the durable store."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from broker.core.model import Account, SessionRecord
from broker.core.ports import (
    StoreFailedError,
    StoreFullError,
)
from broker.stores.sqlite import SqliteStore
from broker.wire.errors import Code, WireError
from tests.core.fakes import FaultyStore, World
from tests.stores.sqlite_steps import (
    BOB,
    FaultyConnection,
    acknowledge,
    ids,
    make,
    open_at,
    pragma,
    send,
)
from tests.stores.steps import expire, with_room


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kotak.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = open_at(path, journal=False)
    with store.batch():
        store.put(BOB)
    yield store
    store.close()


def fill(store: SqliteStore) -> None:
    """Forbid the file to grow."""
    store._database.execute(f"PRAGMA max_page_count = {pragma(store, 'page_count')}").fetchone()


def make_room(store: SqliteStore) -> None:
    store._database.execute("PRAGMA max_page_count = 1000000").fetchone()
    store._ballast._retry_at = 0  # it is looked for at once


def test_no_room_at_the_commit_undoes_the_batch_and_passes(store: SqliteStore) -> None:
    first = send(store, "m1")
    fill(store)
    with pytest.raises(StoreFullError):
        send(store, "big", text="x" * 60_000)
    assert ids(store) == ["m1"]
    acknowledge(store, first[0])
    assert ids(store) == []
    make_room(store)
    assert send(store, "big", text="x" * 60_000) == [first[0] + 1]
    assert ids(store) == ["big"]


def no_room_in_a_step(store: SqliteStore) -> None:
    with store.batch():
        store.append("bob", "ann", "big", "x" * 60_000, 1_000)
        store.tidy(1_000)


def test_no_room_in_a_step_ends_the_batch_and_nothing_is_written_outside(
    store: SqliteStore, path: Path
) -> None:
    send(store, "m1")
    fill(store)
    with pytest.raises(StoreFullError):
        no_room_in_a_step(store)
    make_room(store)
    assert not store._database.in_transaction
    store.close()
    again = open_at(path)
    assert ids(again) == ["m1"]
    again.close()


def test_no_room_in_a_step_is_no_bug_of_one_request(store: SqliteStore) -> None:
    """Through the service: whoever took it for one would go on outside of a transaction."""
    world = World(store=cast("FaultyStore", store))
    token = world.user("ann")
    fill(store)
    texts = ["hi"] * 16 + ["x" * 60_000]  # the first sixteen are one statement, and fit
    chats = [
        world.frame("chat", token, to="ann", text=text, id=str(number))
        for number, text in enumerate(texts)
    ]
    *sent, read = world.batch(*chats, world.frame("inbox", token))
    assert {reply.error and reply.error.code for reply in sent} == {Code.STORAGE_FULL}
    assert read.result["messages"] == []
    make_room(store)
    assert store._database.execute("SELECT count(*) FROM messages").fetchone() == (0,)
    assert [reply.error for reply in world.batch(*chats)] == [None] * 17


def remove(store: SqliteStore) -> None:
    with store.batch():
        store.remove(Account, "bob")


def send_ending(store: SqliteStore) -> int:
    """Store a message that ends by itself, and return when that is over."""
    with store.batch():
        store.append("bob", "ann", "m2", "hi", 1_000, ttl_ms=1_000)
    return 2_000


STEPS: dict[str, Callable[[SqliteStore], object]] = {
    "BEGIN": lambda store: send(store, "m2"),
    "INSERT INTO messages": lambda store: send(store, "m2"),
    "COMMIT": lambda store: send(store, "m2"),
    "SELECT seq, stored_ms": ids,
    "SELECT seq, stored_ms, sender": lambda store: send(store, "m1"),  # the first copy
    "SELECT user, name": lambda store: store.find(Account, "bob"),
    "SELECT digest": lambda store: store.find_all(SessionRecord, of="bob"),
    "INSERT INTO expiries": lambda store: expire(store, send_ending(store)),
    "INSERT INTO rooms": lambda store: with_room(store, "bob"),
    "INSERT INTO readers": lambda store: acknowledge(store, 1),
    "DELETE FROM messages": remove,
}


@pytest.mark.parametrize("statement", list(STEPS))
def test_an_io_error_anywhere_says_that_the_store_failed_and_undoes_the_batch(
    store: SqliteStore, path: Path, statement: str
) -> None:
    send(store, "m1")
    faulty = FaultyConnection(store._database, statement)
    store._database = cast("sqlite3.Connection", faulty)
    with pytest.raises(StoreFailedError, match="SQLITE_IOERR: disk I/O error"):
        STEPS[statement](store)
    faulty.fails = ""
    assert not faulty.in_transaction
    with pytest.raises(StoreFailedError, match="failed before"):
        ids(store)
    again = open_at(path)
    assert ids(again) == ["m1"]
    again.close()


def refuse_and_fail_to_roll_back(store: SqliteStore) -> None:
    with store.batch():
        store.put(Account("eve", "Eve", "hash"))
        raise WireError(Code.INTERNAL, "any")


def test_a_rollback_that_fails_says_that_the_store_failed(store: SqliteStore) -> None:
    faulty = FaultyConnection(store._database, "ROLLBACK")
    store._database = cast("sqlite3.Connection", faulty)
    with pytest.raises(StoreFailedError):
        refuse_and_fail_to_roll_back(store)


def test_closing_survives_a_checkpoint_that_fails(path: Path) -> None:
    make(path)
    store = open_at(path)
    send(store, "m1")
    store._database = cast("sqlite3.Connection", FaultyConnection(store._database, "PRAGMA wal"))
    store.close()
    again = open_at(path)
    assert ids(again) == ["m1"]
    again.close()
