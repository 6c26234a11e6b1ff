"""A log that was damaged at rest is refused; one that a power cut left unfinished is not."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.core.model import Account
from broker.core.ports import StoreFailedError, StoreUnusableError
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_epoch import WITNESS_NAME
from broker.stores.sqlite_wal import damaged
from tests.stores.sqlite_steps import as_killed, open_at

BOB = Account("bob", "Bob", "hash")
SECRET = "nobody else may read this"
HEADER, FRAME = 32, 24 + 4_096


@pytest.fixture
def left(tmp_path: Path) -> Path:
    """Return the database of a broker that was killed after ten commits of one message each."""
    path = tmp_path / "kotak.db"
    store = open_at(path, journal=False)
    with store.batch():
        store.put(BOB)
    for number in range(10):
        with store.batch():
            store.append("bob", "bob", f"m{number}", SECRET, 1_000)
    copy = as_killed(path, tmp_path / "left")
    store.close()
    return copy


def wal_of(path: Path) -> Path:
    return path.with_name("kotak.db-wal")


def frames(path: Path) -> list[int]:
    """Return where the frames of the log's own begin."""
    log = wal_of(path).read_bytes()
    places = range(HEADER, len(log) - FRAME + 1, FRAME)
    return [at for at in places if log[at + 8 : at + 16] == log[16:24]]


def spoil(path: Path, place: int, size: int = 1) -> None:
    log = bytearray(wal_of(path).read_bytes())
    for at in range(place, place + size):
        log[at] ^= 0xFF
    wal_of(path).write_bytes(log)


def messages(path: Path) -> int:
    store = SqliteStore(path)
    try:
        return len(store.read("bob", "", 0, 100, 1_000_000).messages)
    finally:
        store.close()


def test_a_log_that_nobody_damaged_is_read(left: Path) -> None:
    assert messages(left) == 10


@pytest.mark.parametrize(
    "place",
    [
        lambda places: places[2] + 500,  # a page
        lambda places: places[2] + 18,  # a frame's checksum
        lambda places: places[2] + 9,  # what names the log that it belongs to
        lambda _: 26,  # the log's own checksum
        lambda _: 1,  # what says that it is a log
    ],
)
def test_damage_in_the_midst_of_the_log_is_refused_and_nothing_is_touched(
    left: Path, place: Callable[[list[int]], int]
) -> None:
    spoil(left, place(frames(left)))
    before = [each.read_bytes() for each in (left, wal_of(left))]
    with pytest.raises(StoreUnusableError, match=r"log of .* is damaged.*remove kotak\.seen"):
        SqliteStore(left)
    assert [each.read_bytes() for each in (left, wal_of(left))] == before


def test_a_header_of_zeros_before_frames_is_damage(left: Path) -> None:
    log = bytearray(wal_of(left).read_bytes())
    log[:HEADER] = bytes(HEADER)
    wal_of(left).write_bytes(log)
    with pytest.raises(StoreUnusableError, match="is damaged"):
        SqliteStore(left)


def test_whoever_removes_the_witness_goes_on_and_the_loss_is_told(left: Path) -> None:
    spoil(left, frames(left)[-3] + 500)
    left.with_name(WITNESS_NAME).unlink()
    store = SqliteStore(left)
    with store.batch():
        kept = store.read("bob", "", 0, 100, 1_000_000).messages
    assert 0 < len(kept) < 10
    lost = store.epoch.lost
    assert lost.first == kept[-1].seq + 1
    assert lost.last >= 10
    store.close()


def test_a_last_commit_that_is_torn_is_what_a_power_cut_leaves(left: Path) -> None:
    spoil(left, frames(left)[-1] + 500, 512)
    assert messages(left) == 9


def test_frames_of_an_earlier_log_behind_the_present_one_are_no_damage(left: Path) -> None:
    """SQLite begins at the front again after a checkpoint, and does not wipe what was there."""
    database = sqlite3.connect(left, isolation_level=None)
    database.execute("PRAGMA wal_checkpoint(PASSIVE)")
    database.execute("UPDATE accounts SET name = 'Bobby'")
    later = as_killed(left, left.parent / "later")
    database.close()
    assert len(frames(later)) < 5
    assert messages(later) == 10


def test_without_an_index_or_a_log_nothing_is_told(tmp_path: Path) -> None:
    assert not damaged(tmp_path / "kotak.db-wal")
    (tmp_path / "kotak.db-shm").write_bytes(b"short")
    assert not damaged(tmp_path / "kotak.db-wal")


def test_a_database_that_is_refused_keeps_its_log(left: Path) -> None:
    """Given damage that the look at the structure finds, and a log that was never moved."""
    with left.open("r+b") as file:
        file.seek(7 * 4_096)  # a page that the log does not hold
        file.write(bytes(range(256)) * 16)
    before = [each.read_bytes() for each in (left, wal_of(left))]
    with pytest.raises(StoreUnusableError):
        SqliteStore(left)
    assert [each.read_bytes() for each in (left, wal_of(left))] == before


def test_a_text_that_cannot_be_decoded_is_not_quoted(tmp_path: Path) -> None:
    """SQLite's module puts the whole value into its error: no text may come out so."""
    store = SqliteStore(tmp_path / "kotak.db")
    with store.batch():
        store.put(BOB)
        store.append("bob", "bob", "m", SECRET, 1_000)
    with store.batch():
        store._begin()
        store._run("UPDATE messages SET text = CAST(x'ff' || text AS TEXT)")
    with pytest.raises(StoreFailedError, match="cannot be decoded") as caught, store.batch():
        store.read("bob", "", 0, 100, 1_000_000)
    assert SECRET not in str(caught.value)
    store.close()
