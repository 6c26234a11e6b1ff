"""A disk that is full or fails, under the journal and the database that takes it in.

Source: docs/DURABILITY.md, "The journal".
"""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.core.ports import StoreFailedError, StoreFullError
from broker.stores import sqlite, sqlite_ballast
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_ballast import BALLAST_NAME
from tests.stores.sqlite_steps import (
    acknowledge,
    after_a_kill,
    faulty,
    ids,
    in_table,
    killed,
    open_at,
    send,
)
from tests.stores.steps import with_users


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


# --- a disk that fails ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("call", "number"),
    [("pwrite", errno.EIO), ("fdatasync", errno.EIO), ("fdatasync", errno.ENOSPC)],
)
def test_a_journal_that_cannot_be_written_fails_the_store_and_nothing_more_is_answered(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    send(store, "m1")
    monkeypatch.setattr(os, call, failing(number))
    with pytest.raises(StoreFailedError, match="in the journal"):
        send(store, "m2")
    monkeypatch.undo()
    with pytest.raises(StoreFailedError, match="failed before"):
        ids(store)
    left = killed(path)
    before = {each.name: each.read_bytes() for each in path.parent.iterdir()}
    store.close()
    assert {each.name: each.read_bytes() for each in path.parent.iterdir()} == before
    # Written, but not answered: it may be there. What was answered is.
    again = open_at(left)
    assert ids(again) == (["m1"] if call == "pwrite" else ["m1", "m2"])
    again.close()


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO messages", "UPDATE journal", "COMMIT"])
def test_a_database_that_fails_as_it_takes_the_journal_in_fails_the_store_and_loses_nothing(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(sqlite, "JOURNALLED_MAX", 2)
    send(store, "m1")
    faulty(store, statement, sqlite3.SQLITE_IOERR)
    with pytest.raises(StoreFailedError, match="SQLITE_IOERR"):
        send(store, "m2")
    with pytest.raises(StoreFailedError, match="failed before"):
        ids(store)
    assert after_a_kill(path) == ["m1", "m2"]
    store.close()
    assert after_a_kill(path) == ["m1", "m2"]


# --- a full disk ---------------------------------------------------------------------------------


@pytest.mark.parametrize("statement", ["BEGIN", "INSERT INTO messages", "UPDATE journal", "COMMIT"])
def test_a_full_disk_as_the_journal_is_taken_in_gives_up_the_reserve_and_loses_nothing(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    monkeypatch.setattr(sqlite, "JOURNALLED_MAX", 3)
    monkeypatch.setattr(sqlite_ballast, "RETRY_S", 3_600)
    send(store, "m1", "m2")
    faulty(store, statement, once=True)
    assert send(store, "m3") == [3], "it stands in the journal: it is answered"
    assert not path.with_name(BALLAST_NAME).exists()
    assert ids(store) == ["m1", "m2", "m3"]
    assert after_a_kill(path) == ["m1", "m2", "m3"]
    with pytest.raises(StoreFullError):
        send(store, "refused")
    acknowledge(store, 2)
    assert ids(store) == ["m3"]
    assert after_a_kill(path) == ["m3"]
    store._ballast._retry_at = 0
    assert send(store, "m4") == [4]
    assert path.with_name(BALLAST_NAME).exists()
    assert after_a_kill(path) == ["m3", "m4"]


def test_a_file_system_that_has_no_room_to_overwrite_sends_the_batch_into_the_database(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that copies on writing: the room in the journal is there, and is not to be had."""
    send(store, "m1")
    monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC))
    send(store, "m2")
    assert in_table(store) == ["m1", "m2"]
    assert after_a_kill(path) == ["m1", "m2"]
    faulty(store, "COMMIT", once=True)
    with pytest.raises(StoreFullError):
        send(store, "m3")
    monkeypatch.undo()
    assert ids(store) == after_a_kill(path) == ["m1", "m2"]


@pytest.mark.parametrize("pieces", range(3))
def test_a_record_that_was_cut_short_by_want_of_room_is_none(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, pieces: int
) -> None:
    """Nor is it in the way of the next one."""
    send(store, "m1")
    left, pwrite = [pieces], os.pwrite

    def partial(handle: int, content: bytes, place: int) -> int:
        left[0] -= 1
        return pwrite(handle, content[:9], place) if left[0] >= 0 else failing(errno.ENOSPC)()

    monkeypatch.setattr(os, "pwrite", partial)
    faulty(store, "COMMIT", once=True)
    with pytest.raises(StoreFullError):
        send(store, "refused")
    monkeypatch.undo()
    assert after_a_kill(path) == ["m1"]
    store._ballast._retry_at = 0
    assert send(store, "m2") == [2]
    assert in_table(store) == []
    assert after_a_kill(path) == ["m1", "m2"]


def test_a_disk_that_stays_full_keeps_what_stands_in_the_journal(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "JOURNALLED_MAX", 2)
    monkeypatch.setattr(sqlite_ballast, "RETRY_S", 3_600)
    send(store, "m1")
    connection = faulty(store, "INSERT INTO messages")
    assert send(store, "m2") == [2]
    for _ in range(3):
        with pytest.raises(StoreFullError):
            acknowledge(store, 1)
        assert ids(store) == ["m1", "m2"]
    assert after_a_kill(path) == ["m1", "m2"]
    store.close()
    assert path.with_name("kotak.journal").exists(), "only there they are"
    connection.fails = ""
    again = open_at(path)
    assert ids(again) == ["m1", "m2"]
    assert in_table(again) == ["m1", "m2"]
    again.close()


def test_a_step_for_which_there_is_no_room_refuses_its_batch_and_no_earlier_one(
    store: SqliteStore, path: Path
) -> None:
    send(store, "m1")
    faulty(store, "INSERT INTO messages", once=True)
    with pytest.raises(StoreFullError):
        with_users(store, "zoe")
    assert ids(store) == ["m1"]
    assert after_a_kill(path) == ["m1"]


def test_without_room_for_a_journal_each_batch_is_a_commit(path: Path) -> None:
    store = with_users(open_at(path, journal=False), "ann", "bob")
    send(store, "m1")
    assert in_table(store) == ["m1"]
    acknowledge(store, 1)
    send(store, "m2")
    assert not path.with_name("kotak.journal").exists()
    assert after_a_kill(path) == ["m2"]
    store.close()
    again = open_at(path)
    send(again, "m3")
    assert in_table(again) == ["m1", "m2"], "with room again, from the next start on"
    assert after_a_kill(path) == ["m2", "m3"]
    again.close()


def test_with_room_again_the_journal_goes_on_behind_what_was_not_taken_in(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing of it may be overwritten as long as the database does not have it."""
    monkeypatch.setattr(sqlite, "JOURNALLED_MAX", 2)
    send(store, "m1")
    connection = faulty(store, "COMMIT")
    assert send(store, "m2") == [2]
    store._ballast._retry_at = 0
    for number in (3, 4):  # each tries to be taken in, and is not
        assert send(store, f"m{number}") == [number]
        assert after_a_kill(path) == [f"m{each}" for each in range(1, number + 1)]
        store._ballast._retry_at = 0
    connection.fails = ""
    assert send(store, "m5") == [5]
    assert in_table(store) == ["m1", "m2", "m3", "m4", "m5"]
    assert after_a_kill(path) == ["m1", "m2", "m3", "m4", "m5"]
