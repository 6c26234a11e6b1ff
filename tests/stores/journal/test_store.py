"""What stands in the journal is stored as well as what stands in the database.

Source: docs/DURABILITY.md, "The journal".
"""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from broker.core import mailboxes
from broker.core.model import Account, State
from broker.stores import sqlite, sqlite_journal
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_journal import RECORD_BYTES_MAX, Journal
from broker.wire.errors import Code
from tests.stores import steps
from tests.stores.sqlite_steps import (
    acknowledge,
    after_a_kill,
    checkpoint,
    ids,
    in_table,
    killed,
    open_at,
    send,
)
from tests.stores.steps import Interrupted, expire, failing_batch, kept, refused, with_users

# --- an answer -----------------------------------------------------------------------------------


def test_an_ok_is_on_the_disk_before_the_database_has_anything(
    store: SqliteStore, path: Path
) -> None:
    statements: list[str] = []
    store._database.set_trace_callback(statements.append)
    assert send(store, "m1", "m2") == [1, 2]
    acknowledge(store, 1)
    assert send(store, "m3") == [3]
    assert not [each for each in statements if not each.startswith("SELECT")]
    assert in_table(store) == []
    assert after_a_kill(path) == ["m2", "m3"]


def test_one_kill_after_another_loses_and_doubles_nothing(store: SqliteStore, path: Path) -> None:
    send(store, "m1")
    for number in range(2, 6):
        path = killed(path)
        next_one = open_at(path)
        assert ids(next_one) == [f"m{each}" for each in range(1, number)]
        send(next_one, f"m{number}")
    assert after_a_kill(path) == ["m1", "m2", "m3", "m4", "m5"]


def test_a_batch_that_only_read_writes_no_record(store: SqliteStore) -> None:
    send(store, "m1")
    number = store._journal and store._journal._number
    assert ids(store) == ["m1"]
    assert store._journal
    assert store._journal._number == number == 1


def test_all_kinds_of_what_is_journalled_come_back(store: SqliteStore, path: Path) -> None:
    """A text of any letters, a time, a room's message, cursors of devices, each at its time."""
    steps.with_room(store, "ann", "bob", history=True)
    checkpoint(store)
    steps.login(store, "phone")
    with store.batch():
        store.append("bob", "ann", "m1", "a\u00e9\u4e2d\U0001f600\0", steps.NOW_MS)
        store.append("#den", "ann", "m2", "room", steps.NOW_MS)
        store.append("bob", "eve", "m3", "", steps.NOW_MS + 5, ttl_ms=50)
        store.acknowledge("bob", "phone", 1)
    assert in_table(store) == []
    again = open_at(killed(path))
    assert steps.history(again).messages == steps.history(store).messages
    assert steps.history(again, "#den").messages == steps.history(store, "#den").messages
    for device in ("", "phone"):
        found, expected = (steps.read(each, device=device) for each in (again, store))
        assert found._replace(delivered=0) == expected._replace(delivered=0)
    assert expire(again, steps.NOW_MS + 55) == ["m3"]
    again.close()


# --- into the database ---------------------------------------------------------------------------


def test_any_other_change_takes_the_journal_along_and_begins_it_anew(
    store: SqliteStore, path: Path
) -> None:
    send(store, "m1")
    with store.batch():
        store.append("bob", "ann", "m2", "hi", 1_000)
        store.put(Account("zoe", "Zoe", "hash"))
    assert in_table(store) == ["m1", "m2"]
    assert store._journal
    assert not store._journal.used
    assert after_a_kill(path) == ["m1", "m2"]
    send(store, "m3")
    assert in_table(store) == ["m1", "m2"]
    assert after_a_kill(path) == ["m1", "m2", "m3"]


def test_so_many_changes_are_taken_in_and_one_less_is_not(
    store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite, "JOURNALLED_MAX", 3)
    send(store, "m1")
    acknowledge(store, 1)
    assert in_table(store) == []
    send(store, "m2")
    assert in_table(store) == ["m1", "m2"]
    send(store, "m3")
    assert in_table(store) == ["m1", "m2"]


def test_a_journal_that_is_full_is_taken_in_however_few_the_changes(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_journal, "DUE_BYTES", 4 * 1_024)
    for number in range(4):
        assert in_table(store) == []
        send(store, f"m{number}", text="x" * 600)
    assert in_table(store) == ["m0", "m1", "m2", "m3"]
    assert after_a_kill(path) == ["m0", "m1", "m2", "m3"]


def test_a_batch_that_is_too_large_goes_to_the_database_behind_what_came_before(
    store: SqliteStore, path: Path
) -> None:
    send(store, "m1")
    acknowledge(store, 1)
    large = [f"large{number}" for number in range(RECORD_BYTES_MAX // 4_000 + 1)]
    seqs = send(store, *large, text="x" * 4_000)
    assert seqs == list(range(2, 2 + len(large)))
    assert in_table(store) == ["m1", *large]
    send(store, "m2")
    assert after_a_kill(path) == [*large, "m2"]


def test_a_kill_right_after_it_was_taken_in_leaves_all_of_it_once(
    store: SqliteStore, path: Path
) -> None:
    send(store, "m1", "m2")
    acknowledge(store, 1)
    checkpoint(store)
    assert after_a_kill(path) == ["m2"]


@pytest.mark.parametrize("before", [True, False])
def test_a_kill_beside_the_commit_that_takes_it_in_leaves_all_of_it_once(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch, *, before: bool
) -> None:
    """Before the COMMIT the records count, after it they do not: also with nothing between."""
    send(store, "m1", "m2")
    left: list[Path] = []
    run, restart = SqliteStore._run, Journal.restart

    def run_watched(self: SqliteStore, statement: str, *values: tuple[object, ...]) -> object:
        if before and statement == "COMMIT":
            left.append(killed(path))
        return run(self, statement, *values)

    def restart_watched(self: Journal, number: int) -> None:
        if not before:
            left.append(killed(path))
        restart(self, number)

    monkeypatch.setattr(SqliteStore, "_run", run_watched)
    monkeypatch.setattr(Journal, "restart", restart_watched)
    checkpoint(store)
    monkeypatch.undo()
    (place,) = left
    assert (place.parent / "kotak.journal").read_bytes()[:8] != bytes(8)
    again = open_at(place)
    assert in_table(again) == ["m1", "m2"]
    assert send(again, "m3") == [3]
    assert after_a_kill(place) == ["m1", "m2", "m3"]
    again.close()


def test_records_of_the_run_before_lie_behind_the_new_one_and_come_not_back(
    store: SqliteStore, path: Path
) -> None:
    """The journal is not wiped: what lies there is old, though it looks as a record does."""
    for number in range(6):
        send(store, f"old{number}")
    checkpoint(store)
    acknowledge(store, 6)
    send(store, "new")
    assert after_a_kill(path) == ["new"]


# --- a batch that fails --------------------------------------------------------------------------


def test_a_batch_of_the_journal_that_fails_leaves_nothing_of_it(
    store: SqliteStore, path: Path
) -> None:
    send(store, "m1")
    with failing_batch(store):
        store.append("bob", "ann", "never", "hi", 1_000)
        store.acknowledge("bob", "", 1)
    assert send(store, "m2") == [2]
    assert ids(store) == ["m1", "m2"]
    assert after_a_kill(path) == ["m1", "m2"]


def test_a_batch_of_the_database_that_fails_leaves_what_was_journalled(
    store: SqliteStore, path: Path
) -> None:
    """It had been handed to SQLite in that transaction, and is not in the database after all."""
    send(store, "m1", "m2")
    acknowledge(store, 1)
    with failing_batch(store):
        store.append("bob", "ann", "never", "hi", 1_000)
        store.put(Account("zoe", "Zoe", "hash"))
        assert in_table(store) == ["m1", "m2"]
    assert in_table(store) == []
    assert ids(store) == ["m2"]
    assert kept(store) == ["m1", "m2"]
    assert after_a_kill(path) == ["m2"]
    assert send(store, "m3") == [3]
    checkpoint(store)
    assert in_table(store) == ["m1", "m2", "m3"]
    assert after_a_kill(path) == ["m2", "m3"]


def test_an_interruption_of_the_commit_itself_undoes_the_batch(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*_: object) -> bool:
        raise Interrupted

    send(store, "m1")
    monkeypatch.setattr(Journal, "append", interrupted)
    with pytest.raises(Interrupted):
        send(store, "m2")
    monkeypatch.undo()
    assert send(store, "m3") == [2]
    assert ids(store) == after_a_kill(path) == ["m1", "m3"]


# --- reading -------------------------------------------------------------------------------------


@pytest.mark.parametrize("counts", list(itertools.product(range(3), repeat=3)))
@pytest.mark.parametrize("writing", [False, True])
def test_messages_are_found_over_the_borders_of_table_journal_and_batch(
    store: SqliteStore, counts: tuple[int, int, int], *, writing: bool
) -> None:
    """``writing``: the journalled ones have been handed to SQLite meanwhile."""
    table, journal, batch = counts
    for number in range(table):
        send(store, f"t{number}")
    checkpoint(store)
    for number in range(journal):
        send(store, f"j{number}")
    with store.batch():
        for number in range(batch):
            store.append("bob", "ann", f"b{number}", f"text {number}", steps.NOW_MS)
        if writing:
            store._begin()
        wanted = [f"{kind}{n}" for kind, count in zip("tjb", counts, strict=True)
                  for n in range(count)]  # fmt: skip
        page = store.read("bob", "", 0, 100, 10**6)
        assert [each.message_id for each in page.messages] == wanted
        assert [each.seq for each in page.messages] == [*range(1, len(wanted) + 1)]
        for limit, before in itertools.product(range(1, 7), (None, 2, 4, 6)):
            newest = store.history(
                "bob", "inbox", before=before, after=None, limit=limit, bytes_max=10**6
            )
            there = wanted[: before - 1] if before else wanted
            assert [each.message_id for each in newest.messages] == there[-limit:]
            assert newest.more == (len(there) > limit)
        for limit, after in itertools.product(range(1, 7), range(6)):
            later = store.history(
                "bob", "inbox", before=None, after=after, limit=limit, bytes_max=10**6
            )
            assert [m.message_id for m in later.messages] == wanted[after:][:limit]


def test_a_page_ends_at_its_bytes_also_among_what_is_journalled(store: SqliteStore) -> None:
    send(store, "m1", "m2", "m3", text="x" * 100)
    with store.batch():
        page = store.read("bob", "", 0, 100, 250)
        newest = store.history("bob", "inbox", before=None, after=None, limit=9, bytes_max=250)
    assert [each.message_id for each in page.messages] == ["m1", "m2"]
    assert page.more
    assert [each.message_id for each in newest.messages] == ["m2", "m3"]


def test_a_repeated_id_is_answered_and_a_conflict_told_wherever_the_first_copy_is(
    store: SqliteStore, path: Path
) -> None:
    (seq,) = send(store, "m1", text="first")
    assert in_table(store) == []
    assert send(store, "m1", text="first") == [seq]
    refused(Code.CONFLICT, lambda: send(store, "m1", text="other"))
    refused(Code.CONFLICT, lambda: steps.send(store, "m1", "first", to="eve"))
    with store.batch():
        staged = store.append("bob", "ann", "m2", "staged", 1_000).seq
        assert store.append("bob", "ann", "m2", "staged", 1_000).seq == staged
        refused(Code.CONFLICT, lambda: store.append("bob", "ann", "m2", "other", 1_000))
    again = open_at(killed(path))
    assert send(again, "m1", text="first") == [seq]
    refused(Code.CONFLICT, lambda: send(again, "m1", text="other"))
    again.close()


# --- what ends -----------------------------------------------------------------------------------


def test_a_journalled_message_expires(store: SqliteStore, path: Path) -> None:
    with store.batch():
        store.append("bob", "ann", "short", "hi", 1_000, ttl_ms=500)
        store.append("bob", "ann", "long", "hi", 1_000, ttl_ms=5_000)
    left = killed(path)
    assert expire(store, 1_500) == ["short"]
    assert ids(store) == after_a_kill(path) == ["long"]
    again = open_at(left)  # killed before it had expired
    assert expire(again, 1_499) == []
    assert expire(again, 1_500) == ["short"]
    assert expire(again, 6_000) == ["long"]
    again.close()


def test_a_message_that_expires_in_the_batch_that_stored_it_is_gone(
    store: SqliteStore, path: Path
) -> None:
    with store.batch():
        store.append("bob", "ann", "m1", "hi", 1_000, ttl_ms=1)
        assert [each.message_id for each in store.expire(1_001)] == ["m1"]
    assert ids(store) == after_a_kill(path) == []


def test_a_user_who_is_removed_takes_journalled_messages_and_cursors_along(
    store: SqliteStore, path: Path
) -> None:
    send(store, "m1", "m2")
    steps.send(store, "other", to="eve")
    acknowledge(store, 1)
    with store.batch():
        store.append("bob", "ann", "m3", "hi", 1_000)
        store.acknowledge("bob", "phone", 2)
        store.remove(Account, "bob")
    assert in_table(store) == ["other"]
    assert store._database.execute("SELECT count(*) FROM readers").fetchone() == (0,)
    assert after_a_kill(path, "eve") == ["other"]
    again = with_users(open_at(killed(path)), "bob")
    assert ids(again) == []
    assert kept(again) == []
    again.close()


def test_a_removal_that_failed_leaves_journalled_messages_waiting(
    store: SqliteStore, path: Path
) -> None:
    send(store, "m1", "m2")
    acknowledge(store, 1)
    with failing_batch(store):
        store.remove(Account, "bob")
    assert ids(store) == ["m2"]
    history = steps.history(store, "sent", user="ann")
    assert history.states == [State.ACKNOWLEDGED, State.DELIVERED]
    assert after_a_kill(path) == ["m2"]


def test_the_cursor_of_a_device_that_was_replaced_does_not_come_back(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "DEVICES_PER_USER_MAX", 2)
    send(store, "m1", "m2")
    for device, seq in (("old", 1), ("kept", 2)):
        with store.batch():
            store.acknowledge("bob", device, seq)
    with store.batch():
        store.acknowledge("bob", "new", 1)
    readers = "SELECT device, seq FROM readers ORDER BY device"
    assert store._database.execute(readers).fetchall() == [("kept", 2), ("new", 1)]
    again = open_at(killed(path))
    assert again._database.execute(readers).fetchall() == [("kept", 2), ("new", 1)]
    again.close()


def test_a_cursor_that_was_moved_in_the_batch_that_replaces_its_device_does_not_come_back(
    store: SqliteStore, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mailboxes, "DEVICES_PER_USER_MAX", 2)
    send(store, "m1", "m2")
    with store.batch():
        for device, seq in (("old", 1), ("kept", 2), ("new", 1)):
            store.acknowledge("bob", device, seq)
    readers = "SELECT device, seq FROM readers ORDER BY device"
    assert store._database.execute(readers).fetchall() == [("kept", 2), ("new", 1)]
