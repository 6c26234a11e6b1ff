"""A full disk: what was kept in reserve, what goes on with it, and how it comes back."""

from __future__ import annotations

import errno
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from broker.core.model import Account, Membership, Room, SessionRecord
from broker.core.ports import Record, StoreFailedError, StoreFullError, StoreUnusableError
from broker.stores import sqlite_ballast, sqlite_schema
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_ballast import BALLAST_NAME, SparingError
from broker.wire.errors import Code
from tests.core.fakes import FaultyStore, World
from tests.stores.sqlite_steps import FaultyConnection, acknowledge, ids, make, open_at, send

BOB = Account("bob", "Bob", "hash")
MIB = 1_048_576


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kotak.db"


@pytest.fixture
def ballast(path: Path) -> Path:
    return path.with_name(BALLAST_NAME)


@pytest.fixture
def disk(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A disk whose room is what the test says. Looked at with each batch."""
    disk = SimpleNamespace(f_frsize=4_096, f_bavail=100 * MIB // 4_096)
    monkeypatch.setattr(os, "statvfs", lambda _: disk)
    monkeypatch.setattr(sqlite_ballast, "RETRY_S", 0)
    return disk


@pytest.fixture
def store(path: Path, disk: SimpleNamespace) -> Iterator[SqliteStore]:
    make(path, "m1")
    store = open_at(path, journal=False)
    yield store
    store.close()


def fill_disk(store: SqliteStore, disk: SimpleNamespace, fails: str = "COMMIT") -> FaultyConnection:
    """Leave no room, so that statements of one kind find none."""
    disk.f_bavail = 0
    connection = FaultyConnection(store._database, fails, sqlite3.SQLITE_FULL)
    store._database = cast("sqlite3.Connection", connection)
    return connection


def spare(store: SqliteStore, disk: SimpleNamespace) -> None:
    """Meet the full disk once, by a message that is refused."""
    connection = fill_disk(store, disk)
    with pytest.raises(StoreFullError):
        send(store, "refused")
    connection.fails = ""


def test_the_reserve_lies_there_from_the_first_start_on_and_stays(
    store: SqliteStore, ballast: Path
) -> None:
    assert ballast.stat().st_size == sqlite_ballast.BALLAST_BYTES
    before = ballast.stat().st_mtime_ns
    store.close()
    assert ballast.exists(), "else the room would be gone when it is needed at a start"
    store.__init__(ballast.with_name("kotak.db"))  # type: ignore[misc]
    assert ballast.stat().st_mtime_ns == before, "a start writes it only where it is not"


def test_on_a_full_disk_the_reserve_is_given_up_and_the_log_moved(
    store: SqliteStore, disk: SimpleNamespace, ballast: Path
) -> None:
    spare(store, disk)
    assert not ballast.exists()
    assert store._wal._index[4] == store._wal._index[24], "the log begins at its front again"


def test_while_it_is_gone_reading_and_acknowledging_go_on(
    store: SqliteStore, disk: SimpleNamespace
) -> None:
    spare(store, disk)
    assert ids(store) == ["m1"]
    acknowledge(store, 1)
    assert ids(store) == []
    with store.batch():
        store.remove(SessionRecord, b"d")
        store.tidy(1_000)
    with store.batch():
        assert store.append("bob", "ann", "m1", "hi", 1_000).seq == 1, "a retry has its answer"


GROWING: tuple[Record, ...] = (
    Account("eve", "Eve", "hash"),
    Room("#r", "bob", open=False, history=False),
    Membership("#r", "bob", joined=True),
    SessionRecord(b"d", "bob", 1, 2),
)


@pytest.mark.parametrize("record", GROWING, ids=lambda record: type(record).__name__)
def test_what_makes_the_store_larger_is_refused_before_anything_is_tried(
    store: SqliteStore, disk: SimpleNamespace, record: Record
) -> None:
    spare(store, disk)
    statements: list[str] = []
    store._database.set_trace_callback(statements.append)
    for step in (lambda: store.put(record), lambda: store.append("bob", "ann", "m2", "hi", 1)):
        with pytest.raises(SparingError), store.batch():
            step()
    assert not [each for each in statements if each.startswith("INSERT")]


def test_with_room_again_everything_goes_on_with_the_next_batch(
    store: SqliteStore, disk: SimpleNamespace, ballast: Path
) -> None:
    spare(store, disk)
    with pytest.raises(StoreFullError):
        send(store, "m2")
    disk.f_bavail = 100 * MIB // 4_096
    assert send(store, "m2") == [2]
    assert ballast.stat().st_size == sqlite_ballast.BALLAST_BYTES


def test_a_little_room_is_not_enough_to_go_on(store: SqliteStore, disk: SimpleNamespace) -> None:
    """It would be full again with the next message, again and again."""
    spare(store, disk)
    disk.f_bavail = sqlite_ballast.BALLAST_BYTES // 4_096 + 1
    with pytest.raises(StoreFullError):
        send(store, "m2")


def test_room_is_looked_for_a_few_times_a_second_only(
    store: SqliteStore, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, looks = [100.0], list[object]()

    def look(path: object) -> SimpleNamespace:
        looks.append(path)
        return disk

    monkeypatch.setattr(sqlite_ballast, "RETRY_S", 0.5)
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    spare(store, disk)
    monkeypatch.setattr(os, "statvfs", look)
    for tenth in range(1, 21):
        now[0] = 100 + tenth / 10
        ids(store)
    assert len(looks) == 4


def test_a_disk_that_is_full_again_while_the_reserve_is_laid_down_leaves_nothing_of_it(
    store: SqliteStore, disk: SimpleNamespace, ballast: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare(store, disk)
    disk.f_bavail = 100 * MIB // 4_096
    monkeypatch.setattr(os, "write", failing(errno.ENOSPC))
    assert ids(store) == ["m1"]
    assert not ballast.exists()
    assert store._ballast.sparing


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def test_a_disk_that_fails_while_the_reserve_is_laid_down_ends_the_store(
    store: SqliteStore, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    spare(store, disk)
    disk.f_bavail = 100 * MIB // 4_096
    monkeypatch.setattr(os, "fsync", failing(errno.EIO))
    with pytest.raises(StoreFailedError, match="beside the database"):
        ids(store)


def test_a_full_disk_in_a_checkpoint_is_no_failure_of_the_batch(
    store: SqliteStore, disk: SimpleNamespace, ballast: Path
) -> None:
    store._wal.pages_max = 1
    fill_disk(store, disk, "PRAGMA wal_checkpoint").fails_once = True
    assert send(store, "m2") == [2]
    assert not ballast.exists()
    assert ids(store) == ["m1", "m2"]
    assert not store._wal.due, "with the reserve it was moved"


def test_a_disk_without_room_for_a_reserve_serves_readers_from_the_start(
    path: Path, ballast: Path, disk: SimpleNamespace
) -> None:
    make(path, "m1")
    ballast.unlink()
    disk.f_bavail = 0
    store = SqliteStore(path)
    assert ids(store) == ["m1"]
    with pytest.raises(SparingError):
        send(store, "m2")
    acknowledge(store, 1)
    store.close()


def test_a_start_on_a_full_disk_uses_the_reserve_and_without_one_says_what_helps(
    path: Path, ballast: Path, disk: SimpleNamespace, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path, "m1")
    disk.f_bavail = 0
    connect = sqlite3.connect

    def full(*args: object, **options: object) -> sqlite3.Connection:
        if ballast.exists() or not there:
            error = sqlite3.OperationalError("disk I/O error")
            error.sqlite_errorcode = sqlite3.SQLITE_IOERR_SHMSIZE
            raise error
        return cast("sqlite3.Connection", connect(*args, **options))  # type: ignore[call-overload]

    monkeypatch.setattr(sqlite3, "connect", full)
    monkeypatch.setattr(sqlite_schema, "fill", lambda *_: False)
    there = True
    store = SqliteStore(path)
    assert ids(store) == ["m1"]
    store.close()
    there = False
    with pytest.raises(StoreUnusableError, match=r"no room on the disk.*Nothing is lost"):
        SqliteStore(path)


@pytest.mark.parametrize(
    ("number", "sentence"), [(errno.ENOSPC, "no room on the disk"), (errno.EIO, "cannot be used")]
)
def test_where_sqlite_opens_nothing_a_probe_tells_a_full_disk_from_one_that_fails(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, sentence: str
) -> None:
    make(path, "m1")
    path.with_name(BALLAST_NAME).unlink()
    before = path.read_bytes()

    def unable(*_: object, **__: object) -> sqlite3.Connection:
        error = sqlite3.OperationalError("unable to open database file")
        error.sqlite_errorcode = sqlite3.SQLITE_CANTOPEN
        raise error

    monkeypatch.setattr(sqlite3, "connect", unable)
    monkeypatch.setattr(os, "open", failing(number))
    with pytest.raises(StoreUnusableError, match=sentence):
        SqliteStore(path)
    assert path.read_bytes() == before


def test_one_refused_send_does_not_cost_its_batch_the_acknowledgements(
    store: SqliteStore, disk: SimpleNamespace
) -> None:
    """Through the service: also in the very batch that meets the full disk."""
    world = World(store=cast("FaultyStore", store))
    token = world.user("ann")
    sent = world.batch(world.frame("chat", token, to="ann", text="hi", id="1"))[0].result["seq"]
    connection = fill_disk(store, disk, "INSERT INTO messages")
    for number in range(3):
        refused, taken, read = world.batch(
            world.frame("chat", token, to="ann", text="no", id=f"no{number}"),
            world.frame("ack", token, seq=sent),
            world.frame("inbox", token),
        )
        assert refused.error
        assert refused.error.code == Code.STORAGE_FULL
        assert taken.result == {"cursor": sent}
        assert read.result["messages"] == []
        connection.fails = ""
