"""What leaves the log of every engine, and that nothing leaves which somebody waits for.

The rules themselves are tried one by one in tests/core/test_retention.py.
"""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.core.dedup import DedupLimits
from broker.core.model import Account, Room
from broker.core.ports import Store, StoreLimits
from broker.core.retention import STEP_ROWS
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_log import FREE_PAGES_KEPT
from tests.stores.engines import Engine
from tests.stores.steps import (
    NOW_MS,
    Reopen,
    ack,
    expire,
    failing_batch,
    history,
    ids,
    kept,
    send,
    tidy,
    with_room,
    with_users,
)

KEPT_MS = 1_000
LATER_MS = NOW_MS + KEPT_MS + 1
LIMITS = StoreLimits(retention_read_ms=KEPT_MS)


@pytest.fixture
def short(engine: Engine) -> Store:
    return with_users(engine.open(LIMITS), "ann", "bob", "eve")


def fill(store: Store, to: str, count: int, text: str = "x") -> list[int]:
    first = history(store, user=to).messages
    start = first[-1].seq if first else 0
    with store.batch():
        return [store.append(to, "ann", f"{to}{start + n}", text, NOW_MS).seq for n in range(count)]


def seqs(store: Store, user: str = "bob") -> list[int]:
    return [each.seq for each in history(store, user=user, limit=10_000).messages]


# --- every engine ----------------------------------------------------------------------------


def test_what_was_read_goes_when_its_time_is_over(short: Store, reopen: Reopen) -> None:
    send(short, "m1")
    send(short, "m2", now_ms=NOW_MS + 1)
    ack(short)
    tidy(short, LATER_MS - 1)
    assert kept(short) == ["m1", "m2"]
    tidy(short, LATER_MS)
    store = reopen(short)
    assert kept(store) == kept(store, "sent", user="ann") == ["m2"]


def test_what_waits_stays_however_old_it_is(short: Store, reopen: Reopen) -> None:
    for number in range(5):
        send(short, f"b{number}")
        send(short, f"e{number}", to="eve")
    ack(short)
    tidy(short, LATER_MS)
    store = reopen(short)
    assert (kept(store), ids(store, "eve")) == ([], [f"e{number}" for number in range(5)])
    assert kept(store, "sent", user="ann") == ids(store, "eve")


def test_rooms_have_a_time_of_their_own(engine: Engine, reopen: Reopen) -> None:
    limits = StoreLimits(retention_read_ms=KEPT_MS, retention_room_ms=10 * KEPT_MS)
    store = with_room(engine.open(limits), "ann", "bob")
    send(store, "sent")
    send(store, "said", to="#den")
    ack(store)
    tidy(store, LATER_MS)
    store = reopen(store)
    assert kept(store) == ["said"]
    tidy(store, NOW_MS + 10 * KEPT_MS + 1)
    assert kept(reopen(store)) == []


def test_what_expired_is_told_for_as_long_as_what_was_read(short: Store, reopen: Reopen) -> None:
    send(short, "m1", ttl_ms=10 * KEPT_MS)
    expired_ms = NOW_MS + 10 * KEPT_MS
    assert expire(short, expired_ms) == ["m1"]
    tidy(short, expired_ms + KEPT_MS)
    store = reopen(short)
    assert kept(store, "sent", user="ann") == ["m1"]
    tidy(store, expired_ms + KEPT_MS + 1)
    assert kept(reopen(store), "sent", user="ann") == []


def test_above_so_many_bytes_the_oldest_that_were_read_go_before_their_time(
    engine: Engine, reopen: Reopen
) -> None:
    limits = StoreLimits(retention_bytes_max=20, dedup=DedupLimits(ids_max=2))
    store = with_users(engine.open(limits), "bob", "eve")
    send(store, "waits", "x" * 50, to="eve")
    for number in range(5):
        send(store, f"m{number}", "\u00e9" * 5)
    tidy(store, NOW_MS)
    assert len(kept(store)) == 5, "what is unread does not count"
    ack(store)
    store = reopen(store)
    tidy(store, NOW_MS)
    store = reopen(store)
    assert kept(store) == ["m3", "m4"], "no more than must go"
    assert ids(store, "eve") == ["waits"]
    for number in range(5, 7):
        send(store, f"m{number}", "\u00e9" * 5)
        ack(store)
    with failing_batch(store):
        store.tidy(NOW_MS)
    assert len(kept(store)) == 4
    tidy(store, NOW_MS)
    assert kept(reopen(store)) == ["m5", "m6"]


@pytest.mark.usefixtures("ids_over_all")
def test_those_whose_ids_must_be_remembered_stay_all_the_same(
    engine: Engine, reopen: Reopen
) -> None:
    limits = StoreLimits(retention_bytes_max=0, dedup=DedupLimits(ids_max=3))
    store = with_users(engine.open(limits), "bob")
    sent = [send(store, f"m{number}") for number in range(5)]
    ack(store)
    tidy(store, NOW_MS)
    store = reopen(store)
    assert kept(store) == ["m2", "m3", "m4"]
    assert [send(store, f"m{number}") for number in (2, 3, 4)] == sent[2:]


def test_a_step_looks_at_a_bounded_number_of_rows(short: Store, reopen: Reopen) -> None:
    sent = fill(short, "bob", 3 * STEP_ROWS)
    ack(short)
    store = reopen(short)
    with store.batch():
        assert store.tidy(LATER_MS)
    assert seqs(store) == sent[STEP_ROWS:]
    assert tidy(store, LATER_MS) == 3
    assert seqs(reopen(store)) == []


def test_a_walk_goes_on_behind_what_stays(engine: Engine, short: Store) -> None:
    fill(short, "eve", STEP_ROWS)
    fill(short, "bob", STEP_ROWS)
    ack(short)
    assert tidy(short, LATER_MS) == (3 if engine.one_log else 2)
    assert (seqs(short), len(seqs(short, "eve"))) == ([], STEP_ROWS)


def test_a_walk_begins_anew_and_finds_what_was_acknowledged_since(short: Store) -> None:
    sent = fill(short, "bob", 10)
    tidy(short, LATER_MS)
    ack(short, sent[4])
    tidy(short, LATER_MS)
    assert seqs(short) == sent[5:]


def test_a_step_sees_what_its_own_batch_has_stored(engine: Engine) -> None:
    limits = StoreLimits(retention_read_ms=KEPT_MS, retention_unread_ms=KEPT_MS)
    store = with_users(engine.open(limits), "ann", "bob")
    with store.batch():
        seq = store.append("bob", "ann", "m1", "x", NOW_MS).seq
        store.tidy(LATER_MS)
        assert [each.seq for each in store.expire(LATER_MS)] == [seq]
    assert ids(store) == []


def test_a_step_that_is_rolled_back_deletes_nothing(short: Store, reopen: Reopen) -> None:
    sent = fill(short, "bob", 5)
    ack(short, sent[3])
    with failing_batch(short):
        short.tidy(LATER_MS)
        assert seqs_within(short) == sent[4:]
    store = reopen(short)
    assert seqs(store) == sent
    assert len(kept(store, "sent", user="ann")) == 5
    assert len(ids(store)) == 1


def seqs_within(store: Store) -> list[int]:
    found = store.history("bob", "inbox", before=None, after=0, limit=99, bytes_max=99)
    return [each.seq for each in found.messages]


def test_a_removal_that_is_rolled_back_keeps_the_messages(short: Store, reopen: Reopen) -> None:
    sent = fill(short, "bob", 5)
    with failing_batch(short):
        short.remove(Account, "bob")
    tidy(short, LATER_MS)
    assert seqs(reopen(short)) == sent


@pytest.mark.parametrize("seed", range(3))
def test_any_history_keeps_exactly_what_waits(short: Store, reopen: Reopen, seed: int) -> None:
    chance = random.Random(seed)
    waiting: dict[str, list[int]] = {"bob": [], "eve": []}
    store = short
    for number in range(150):
        user = chance.choice(["bob", "eve"])
        if chance.random() < 0.7:
            waiting[user].append(send(store, str(number), to=user))
        elif waiting[user]:
            seq = chance.choice(waiting[user])
            ack(store, seq, user)
            waiting[user] = [each for each in waiting[user] if each > seq]
        if chance.random() < 0.1:
            tidy(store, LATER_MS)
        if chance.random() < 0.02:
            store = reopen(store)
    tidy(store, LATER_MS)
    assert {user: seqs(store, user) for user in waiting} == waiting
    assert [each.seq for each in history(store, "sent", user="ann", limit=1_000).messages] == (
        sorted(waiting["bob"] + waiting["eve"])
    )


# --- the file --------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kotak.db"


@pytest.fixture
def file(path: Path) -> Iterator[SqliteStore]:
    store = with_users(SqliteStore(path, LIMITS), "ann", "bob")
    yield store
    store.close()


def rows(store: SqliteStore, table: str = "messages") -> int:
    count: int = store._database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
    return count


def test_no_row_is_left_of_what_is_gone(file: SqliteStore) -> None:
    with_room(file, "ann", "bob")
    ack(file, send(file, "old"), device="phone")
    send(file, "old too", to="#den", now_ms=NOW_MS - 10**12)
    tidy(file, LATER_MS)
    assert rows(file, "purged") == 2
    for number in range(3):
        send(file, f"m{number}", ttl_ms=1_000)
        send(file, f"d{number}", to="#den", ttl_ms=1_000)
    expire(file, NOW_MS + 1_000)
    with file.batch():
        file.remove(Account, "bob")
        file.remove(Room, "#den")
    tidy(file, NOW_MS + 10**12)
    tables = ("messages", "expiries", "readers", "purged", "members", "rooms")
    assert [rows(file, table) for table in tables] == [0] * len(tables)


def test_the_rows_of_a_removed_room_go_as_if_they_had_been_read(
    file: SqliteStore, path: Path
) -> None:
    with_room(file, "ann")
    send(file, "m1", to="#den")
    with file.batch():
        file.remove(Room, "#den")
    file.close()
    for _ in range(2):
        store = SqliteStore(path, LIMITS)
        tidy(store, LATER_MS - 1)
        assert rows(store) == 1
        store.close()
    store = SqliteStore(path, LIMITS)
    tidy(store, LATER_MS)
    assert rows(store) == 0
    store.close()


def test_the_file_becomes_shorter(file: SqliteStore, path: Path) -> None:
    fill(file, "bob", FREE_PAGES_KEPT * 2, text="x" * 4_000)
    ack(file)
    file._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.stat().st_size
    tidy(file, LATER_MS)
    file._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < before * 0.6


def test_a_file_that_cannot_shrink_is_not_tidied_for_ever(path: Path) -> None:
    """One that was copied by VACUUM without incremental vacuum: its pages are used again."""
    with_users(store := SqliteStore(path, LIMITS), "ann", "bob").close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA auto_vacuum = NONE")
    database.execute("VACUUM")
    database.close()
    store = SqliteStore(path, LIMITS)
    fill(store, "bob", FREE_PAGES_KEPT * 2, text="x" * 4_000)
    ack(store)
    tidy(store, LATER_MS)
    assert rows(store) == 0
    store.close()
