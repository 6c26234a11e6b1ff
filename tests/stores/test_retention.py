"""What leaves the SQLite log, and that nothing leaves which somebody waits for."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from broker.core.dedup import DedupLimits
from broker.core.model import Account
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_retention import FREE_PAGES_KEPT, STEP_ROWS

KEPT_MS = 1_000
START_MS = 1_000_000
LATER_MS = START_MS + 2 * KEPT_MS


def opened(path: Path) -> SqliteStore:
    return SqliteStore(
        path, mailbox_messages_max=100_000, dedup=DedupLimits(), retention_read_ms=KEPT_MS
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kotak.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = opened(path)
    with store.batch():
        for user in ("ann", "ben", "eve"):
            store.put_account(user, Account(user, user, "hash"))
    yield store
    store.close()


def send(store: SqliteStore, to: str, count: int, *, at_ms: int = START_MS, text: str = "x") -> int:
    with store.batch():
        for _ in range(count):
            seq = store.append(to, "ann", f"m{store.mailboxes.next_seq}", text, at_ms).seq
    return seq


def ack(store: SqliteStore, user: str, seq: int) -> None:
    with store.batch():
        store.acknowledge(user, seq)


def tidy(store: SqliteStore, now_ms: int) -> int:
    """Walk to the end and return how many steps it took."""
    for steps in range(1, 10_000):
        with store.batch():
            if not store.tidy(now_ms):
                return steps
    raise AssertionError("the walk has no end")


def failing(store: SqliteStore, step: Callable[[], object]) -> None:
    """Take one step in a batch that fails after it."""
    with suppress(ZeroDivisionError), store.batch():
        step()
        raise ZeroDivisionError


def stored(store: SqliteStore) -> list[int]:
    return [seq for (seq,) in store._database.execute("SELECT seq FROM messages ORDER BY seq")]


def test_acknowledged_messages_go_when_their_time_is_over(store: SqliteStore) -> None:
    ack(store, "ben", send(store, "ben", 3))
    tidy(store, START_MS + KEPT_MS)
    assert stored(store) == [1, 2, 3]
    tidy(store, LATER_MS)
    assert stored(store) == []


def test_what_waits_stays_however_old_it_is(store: SqliteStore, path: Path) -> None:
    for _ in range(5):
        send(store, "ben", 2)
        last = send(store, "eve", 1)
    ack(store, "ben", last)
    tidy(store, LATER_MS)
    assert stored(store) == [3, 6, 9, 12, 15]
    store.close()
    again = opened(path)
    assert [m.seq for m in again.read("eve", 0, 10, 1_000).messages] == [3, 6, 9, 12, 15]
    again.close()


def test_a_step_looks_at_a_bounded_number_of_rows(store: SqliteStore) -> None:
    ack(store, "ben", send(store, "ben", 3 * STEP_ROWS))
    with store.batch():
        assert store.tidy(LATER_MS)
    assert len(stored(store)) == 2 * STEP_ROWS
    assert tidy(store, LATER_MS) == 3
    assert stored(store) == []


def test_a_walk_begins_anew_and_finds_what_was_acknowledged_since(store: SqliteStore) -> None:
    last = send(store, "ben", 10)
    tidy(store, LATER_MS)
    ack(store, "ben", last - 5)
    tidy(store, LATER_MS)
    assert stored(store) == [6, 7, 8, 9, 10]


def test_sequences_are_not_used_again_after_everything_has_gone(
    store: SqliteStore, path: Path
) -> None:
    ack(store, "ben", send(store, "ben", 5))
    tidy(store, LATER_MS)
    store.close()
    again = opened(path)
    assert send(again, "ben", 1) == 6
    again.close()


def test_a_step_that_is_rolled_back_deletes_nothing(store: SqliteStore) -> None:
    ack(store, "ben", send(store, "ben", 5))
    failing(store, lambda: store.tidy(LATER_MS))
    assert len(stored(store)) == 5


def test_a_removal_that_is_rolled_back_keeps_the_messages(store: SqliteStore) -> None:
    send(store, "ben", 5)
    failing(store, lambda: store.put_account("ben", None))
    tidy(store, LATER_MS)
    assert len(stored(store)) == 5


def test_the_file_becomes_shorter(store: SqliteStore, path: Path) -> None:
    pages = FREE_PAGES_KEPT * 2
    ack(store, "ben", send(store, "ben", pages, text="x" * 4_000))
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    before = path.stat().st_size
    tidy(store, LATER_MS)
    store._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    assert path.stat().st_size < before * 0.6


def test_any_history_keeps_exactly_what_waits(store: SqliteStore) -> None:
    chance = random.Random(7)
    waiting: dict[str, list[int]] = {"ben": [], "eve": []}
    for _ in range(200):
        user = chance.choice(["ben", "eve"])
        if chance.random() < 0.7:
            waiting[user].append(send(store, user, 1))
        elif waiting[user]:
            seq = chance.choice(waiting[user])
            ack(store, user, seq)
            waiting[user] = [each for each in waiting[user] if each > seq]
        if chance.random() < 0.1:
            tidy(store, LATER_MS)
    tidy(store, LATER_MS)
    assert stored(store) == sorted(waiting["ben"] + waiting["eve"])


def test_a_file_that_cannot_shrink_is_not_tidied_for_ever(path: Path) -> None:
    """One that was copied by VACUUM without incremental vacuum: its pages are used again."""
    store = opened(path)
    with store.batch():
        for user in ("ann", "ben"):
            store.put_account(user, Account(user, user, "hash"))
    store.close()
    database = sqlite3.connect(path)
    database.execute("PRAGMA auto_vacuum = NONE")
    database.execute("VACUUM")
    database.close()
    again = opened(path)
    ack(again, "ben", send(again, "ben", FREE_PAGES_KEPT * 2, text="x" * 4_000))
    tidy(again, LATER_MS)
    assert stored(again) == []
    again.close()
