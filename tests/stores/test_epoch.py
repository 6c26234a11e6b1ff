"""Which history a database belongs to, and that no sequence is ever given out twice.

Source: docs/PROTOCOL.md, "When history was lost"; docs/DURABILITY.md.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.core.model import Account, Lost, Room
from broker.core.ports import StoreLimits
from broker.stores.memory import MemoryStore
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_epoch import WITNESS_NAME
from tests.stores.steps import (
    NOW_MS,
    ack,
    expire,
    failing_batch,
    ids,
    read,
    send,
    tidy,
    with_room,
    with_users,
)

LATER_MS = NOW_MS + 10**12


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "data" / "kotak.db"


@pytest.fixture
def witness(path: Path) -> Path:
    """The folder is made, with bob in it and five messages, and closed."""
    path.parent.mkdir()
    store = with_users(SqliteStore(path), "ann", "bob")
    for number in range(5):
        send(store, f"m{number}")
    store.close()
    return path.with_name(WITNESS_NAME)


def seen(witness: Path) -> dict[str, int]:
    found: dict[str, int] = json.loads(witness.read_text())
    return found


def epoch(path: Path) -> tuple[int, Lost]:
    store = SqliteStore(path)
    store.close()
    return store.epoch


# --- quiet -----------------------------------------------------------------------------------


def test_a_restart_is_the_same_epoch(path: Path, witness: Path) -> None:
    first = epoch(path)
    assert first[1] == Lost(0, 0)
    assert epoch(path) == first
    assert seen(witness) == {"epoch": first[0], "last": 5}


def test_a_new_folder_begins_an_epoch_of_its_own(path: Path, witness: Path) -> None:
    first = epoch(path)
    shutil.rmtree(path.parent)
    path.parent.mkdir()
    assert epoch(path)[0] != first[0]
    assert not seen(witness)["last"]


def test_a_kill_is_the_same_epoch(path: Path, witness: Path, tmp_path: Path) -> None:
    store = SqliteStore(path)
    send(store, "more")
    shutil.copytree(path.parent, tmp_path / "killed")
    assert epoch(tmp_path / "killed" / "kotak.db") == store.epoch
    store.close()


def test_a_witness_that_lags_behind_is_no_loss(path: Path, witness: Path) -> None:
    old = witness.read_bytes()
    store = SqliteStore(path)
    send(store, "more")
    store.close()
    witness.write_bytes(old)
    assert epoch(path) == store.epoch


def test_a_folder_put_back_whole_is_not_told_from_a_restart(path: Path, witness: Path) -> None:
    """What nothing bears witness to cannot be known; the documents say so."""
    copy = path.parent.with_name("copy")
    shutil.copytree(path.parent, copy)
    send(opened := SqliteStore(path), "more")
    opened.close()
    assert epoch(copy / "kotak.db") == opened.epoch


# --- an earlier state ------------------------------------------------------------------------


def earlier_copy(path: Path, witness: Path) -> None:
    copy = path.read_bytes()
    store = SqliteStore(path)
    send(store, "lost one")
    send(store, "lost two")
    store.close()
    path.write_bytes(copy)


def without_witness(path: Path, witness: Path) -> None:
    witness.unlink()


def witness_of_another(path: Path, witness: Path) -> None:
    witness.write_text(json.dumps(seen(witness) | {"epoch": 7}))


def spoilt_witness(path: Path, witness: Path) -> None:
    witness.write_text('{"epoch": 7')


def empty_witness(path: Path, witness: Path) -> None:
    witness.write_text("")


def witness_of_nonsense(path: Path, witness: Path) -> None:
    witness.write_text('["epoch", null]')


CHANGES: list[tuple[Callable[[Path, Path], None], int]] = [
    (earlier_copy, 7),
    (without_witness, 5),
    (witness_of_another, 5),
    (spoilt_witness, 5),
    (empty_witness, 5),
    (witness_of_nonsense, 5),
]


@pytest.mark.parametrize(("change", "given_out"), CHANGES)
def test_what_is_not_the_latest_state_begins_a_new_epoch_above_all_given_out(
    path: Path, witness: Path, change: Callable[[Path, Path], None], given_out: int
) -> None:
    before = epoch(path)
    change(path, witness)
    store = SqliteStore(path)
    assert store.epoch.number != before[0]
    assert store.epoch.lost.first == 6
    assert store.epoch.lost.last > given_out
    assert len(ids(store)) == 5, "what there is, is read on"
    assert send(store, "new") == store.epoch.lost.last + 1
    store.close()
    assert epoch(path) == store.epoch, "a new epoch begins once"
    assert epoch(path) == store.epoch


def test_a_client_of_the_first_epoch_is_told_of_every_loss_since(path: Path, witness: Path) -> None:
    """Whoever was away during two losses comes with an epoch before the first of them."""
    numbers, losses = [epoch(path)[0]], []
    for _ in range(3):
        earlier_copy(path, witness)
        number, lost = epoch(path)
        numbers.append(number)
        losses.append(lost)
    assert len(set(numbers)) == 4
    assert [lost.first for lost in losses] == [6, 6, 6], "messages 6 and 7 went first"
    assert losses[0].last < losses[1].last < losses[2].last


def test_a_copy_from_before_the_first_loss_knows_of_it_again(
    path: Path, witness: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "copy.db"
    shutil.copy(path, copy)
    earlier_copy(path, witness)
    send(store := SqliteStore(path), "after the first loss")
    store.close()
    shutil.copy(copy, path)
    again = epoch(path)[1]
    assert again.first == 6
    assert again.last > store.mailboxes.last


def test_what_was_stored_before_a_new_epoch_may_have_been_delivered(
    path: Path, witness: Path
) -> None:
    earlier_copy(path, witness)
    store = SqliteStore(path)
    assert read(store).delivered == store.epoch.lost.last
    store.close()


def test_it_is_logged(path: Path, witness: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "kotak.store"):
        epoch(path)
        assert not caplog.records
        witness.unlink()
        epoch(path)
    assert "begins a new epoch" in caplog.text


def test_the_store_in_memory_has_a_new_epoch_each_time() -> None:
    first, second = MemoryStore(first_seq=100), MemoryStore(first_seq=200)
    assert first.epoch.number != second.epoch.number
    assert second.epoch.lost == Lost(1, 199)
    assert send(with_users(second, "bob"), "m1") == 200


# --- the witness -----------------------------------------------------------------------------


def test_the_witness_is_written_at_the_end_of_a_walk(path: Path, witness: Path) -> None:
    store = SqliteStore(path)
    send(store, "more")
    assert seen(witness)["last"] == 5
    tidy(store, NOW_MS)
    assert seen(witness)["last"] == 6
    store.close()


def test_the_witness_never_runs_ahead_of_what_is_committed(path: Path, witness: Path) -> None:
    store = SqliteStore(path)
    with failing_batch(store):
        store.append("bob", "ann", "lost", "hi", NOW_MS)
        store.tidy(NOW_MS)
        assert seen(witness)["last"] == 5
    assert seen(witness)["last"] == 5
    with store.batch():
        store.append("bob", "ann", "more", "hi", NOW_MS)
        store.tidy(NOW_MS)
        assert seen(witness)["last"] == 5
    store.close()
    assert seen(witness)["last"] == 6


def fail_to_replace(number: int) -> Callable[[Path, Path], Path]:
    """Let the witness, and it alone, not come by its name."""
    succeed = Path.replace

    def replace(new: Path, to: Path) -> Path:
        if to.name == WITNESS_NAME:
            raise OSError(number, os.strerror(number))
        return succeed(new, to)

    return replace


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EIO, errno.EACCES])
def test_a_witness_that_cannot_be_written_does_not_hurt(
    path: Path, witness: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = epoch(path)
    monkeypatch.setattr(Path, "replace", fail_to_replace(number))
    store = SqliteStore(path)
    send(store, "more")
    tidy(store, NOW_MS)
    store.close()
    monkeypatch.undo()
    assert epoch(path) == before
    assert epoch(path) == before


def test_a_first_start_without_a_witness_is_quiet_later(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path.parent.mkdir()
    monkeypatch.setattr(Path, "replace", fail_to_replace(errno.ENOSPC))
    before = epoch(path)
    assert epoch(path) == before
    monkeypatch.undo()
    assert epoch(path) == before
    path.with_name(WITNESS_NAME).unlink()
    assert epoch(path) != before, "but once it was written it must be there"


def test_a_first_start_that_ends_before_the_witness_is_believed_is_quiet(
    path: Path, witness: Path
) -> None:
    before = epoch(path)
    database = sqlite3.connect(path)
    database.execute("UPDATE epoch SET witnessed = 0")
    database.commit()
    database.close()
    assert epoch(path) == before


def test_the_witness_is_for_its_owner_only(witness: Path) -> None:
    assert witness.stat().st_mode & 0o777 == 0o600


def test_an_ordinary_start_writes_nothing_into_the_database(path: Path, witness: Path) -> None:
    """A full disk must not keep the broker from starting and serving readers."""
    epoch(path)
    before = path.read_bytes()
    epoch(path)
    assert path.read_bytes() == before


# --- sequences -------------------------------------------------------------------------------

LIMITS = StoreLimits(retention_read_ms=1, retention_room_ms=1)


def all_read(store: SqliteStore) -> None:
    ack(store)
    tidy(store, LATER_MS)


def all_expired(store: SqliteStore) -> None:
    expire(store, LATER_MS)
    tidy(store, LATER_MS)
    tidy(store, 2 * LATER_MS)


def recipient_removed(store: SqliteStore) -> None:
    with store.batch():
        store.remove(Account, "bob")
        store.put(Account("bob", "Bob", "hash"))


def all_removed(store: SqliteStore) -> None:
    with store.batch():
        for user in ("ann", "bob"):
            store.remove(Account, user)
        store.remove(Room, "#den")
    tidy(store, LATER_MS)
    with_users(store, "bob")


def removed_with_what_came_in_the_batch(store: SqliteStore) -> None:
    with store.batch():
        store.append("bob", "ann", "last", "hi", NOW_MS)
        store.remove(Account, "bob")
        store.put(Account("bob", "Bob", "hash"))


def said_in_a_room_that_was_tidied(store: SqliteStore) -> None:
    send(store, "said", to="#den")
    tidy(store, LATER_MS)


@pytest.mark.parametrize(
    "clear",
    [
        all_read,
        all_expired,
        recipient_removed,
        all_removed,
        removed_with_what_came_in_the_batch,
        said_in_a_room_that_was_tidied,
    ],
)
def test_sequences_go_on_above_what_no_row_bears_any_more(
    path: Path, clear: Callable[[SqliteStore], None]
) -> None:
    path.parent.mkdir()
    given: list[int] = []
    for round_ in range(3):
        store = SqliteStore(path, LIMITS)
        with_room(store, "ann", "bob")
        given += [send(store, f"{round_}-{number}", ttl_ms=1_000) for number in range(3)]
        clear(store)
        highest = store.mailboxes.last
        store.close()
        store = SqliteStore(path, LIMITS)
        assert store.mailboxes.last == highest
        assert store.epoch.lost == Lost(0, 0), "and no loss is told"
        given.append(send(store, f"{round_}-after"))
        assert given[-1] > highest
        ack(store)
        store.close()
    assert given == sorted(set(given))
