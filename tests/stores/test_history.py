"""History: what is kept, read or not, page by page. Source: docs/PROTOCOL.md, "history"."""

from __future__ import annotations

from itertools import pairwise

import pytest

from broker.core.model import Account, State
from broker.core.ports import Store, StoreLimits
from broker.wire.errors import Code
from tests.stores.engines import Engine
from tests.stores.steps import (
    NOW_MS,
    Reopen,
    account,
    ack,
    expire,
    failing_batch,
    history,
    join,
    kept,
    leave,
    login,
    message,
    read,
    refused,
    send,
    with_room,
    with_users,
)

KINDS = ["inbox", "sent", "#den"]


@pytest.fixture
def told(engine: Engine) -> Store:
    """Twelve messages of ann's: to bob, to the room that both are in, and to others."""
    store = with_room(engine.open(StoreLimits()), "ann", "bob", history=True)
    with_users(store, "eve")
    for number in range(4):
        send(store, f"b{number}")
        send(store, f"d{number}", to="#den")
        send(store, f"e{number}", to="eve")
    return engine.reopen(store)


def seqs(
    store: Store, of: str, *, before: int | None = None, after: int | None = None, limit: int = 100
) -> tuple[list[int], bool]:
    user = "ann" if of == "sent" else "bob"
    page = history(store, of, user=user, before=before, after=after, limit=limit)
    return [each.seq for each in page.messages], page.more


# --- pages -----------------------------------------------------------------------------------


def test_what_each_kind_of_history_holds(told: Store) -> None:
    assert kept(told) == ["b0", "d0", "b1", "d1", "b2", "d2", "b3", "d3"]
    assert kept(told, "#den") == ["d0", "d1", "d2", "d3"]
    assert len(kept(told, "sent", user="ann")) == 12
    assert kept(told, "sent") == []
    assert kept(told, user="ann") == ["d0", "d1", "d2", "d3"]
    assert kept(told, user="eve") == ["e0", "e1", "e2", "e3"]


@pytest.mark.parametrize("of", KINDS)
def test_pages_backward_meet_without_gap_or_overlap(told: Store, of: str) -> None:
    whole, _ = seqs(told, of)
    for limit in range(1, len(whole) + 2):
        found: list[int] = []
        more = True
        while more:
            page, more = seqs(told, of, before=found[0] if found else None, limit=limit)
            assert len(page) == min(limit, len(whole) - len(found))
            found = page + found
        assert found == whole


@pytest.mark.parametrize("of", KINDS)
def test_pages_forward_meet_without_gap_or_overlap(told: Store, of: str) -> None:
    whole, _ = seqs(told, of)
    for limit in range(1, len(whole) + 2):
        found: list[int] = []
        more = True
        while more:
            page, more = seqs(told, of, after=found[-1] if found else 0, limit=limit)
            assert len(page) == min(limit, len(whole) - len(found))
            found += page
        assert found == whole


@pytest.mark.parametrize("of", KINDS)
def test_the_bounds_themselves_are_left_out(told: Store, of: str) -> None:
    whole, _ = seqs(told, of)
    for low, high in pairwise(whole):
        assert seqs(told, of, before=high, limit=1)[0] == [low]
        assert seqs(told, of, after=low, limit=1)[0] == [high]
    assert seqs(told, of, before=whole[0]) == seqs(told, of, after=whole[-1]) == ([], False)
    assert seqs(told, of, before=0) == ([], False)
    assert seqs(told, of, before=2**63 - 1) == seqs(told, of, after=0) == (whole, False)


@pytest.mark.parametrize(("bytes_max", "count"), [(0, 1), (9, 1), (10, 2), (14, 2), (15, 3)])
def test_a_page_is_bounded_by_bytes_from_the_end_that_it_is_next_to(
    store: Store, reopen: Reopen, bytes_max: int, count: int
) -> None:
    with_users(store, "bob")
    sent = [send(store, f"m{number}", "a\u00e9\u00e9") for number in range(3)]
    store = reopen(store)
    newest = history(store, bytes_max=bytes_max)
    assert [each.seq for each in newest.messages] == sent[-count:]
    oldest = history(store, after=0, bytes_max=bytes_max)
    assert [each.seq for each in oldest.messages] == sent[:count]
    assert newest.more is oldest.more is (count < 3)


def test_a_long_history_is_paged_in_order(engine: Engine) -> None:
    store = with_users(engine.open(StoreLimits()), "ann", "bob")
    with store.batch():
        sent = [store.append("bob", "ann", str(n), "x", NOW_MS).seq for n in range(700)]
    store = engine.reopen(store)
    ack(store, sent[300])
    for of in ("inbox", "sent"):
        assert seqs(store, of, limit=600) == (sent[100:], True)
        assert seqs(store, of, before=sent[650], limit=333) == (sent[317:650], True)
        assert seqs(store, of, after=sent[10], limit=690) == (sent[11:], False)


# --- what is in it ---------------------------------------------------------------------------


def test_history_holds_what_was_read_and_moves_nothing(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    first, second = send(store, "m1"), send(store, "m2")
    ack(store, first)
    store = reopen(store)
    found = history(store)
    assert found == ([message(first, "m1"), message(second, "m2")], None, False)
    page = read(store)
    assert (page.messages, page.cursor) == ([message(second, "m2")], first)


def test_history_is_not_a_delivery(store: Store) -> None:
    with_users(store, "bob")
    send(store, "m1")
    history(store)
    assert read(store).delivered == 0


def test_history_within_the_batch_that_stores(store: Store) -> None:
    with_users(store, "ann", "bob")
    with store.batch():
        seq = store.append("bob", "ann", "m1", "hi", NOW_MS).seq
        for after in (0, None):
            found = store.history("bob", "inbox", before=None, after=after, limit=9, bytes_max=9)
            assert found.messages == [message(seq, "m1")]


def test_a_failed_batch_leaves_no_trace_in_history(store: Store, reopen: Reopen) -> None:
    """Steps that touch one another's mailboxes: what one sent is what the other received."""
    with_room(store, "ann", "bob")
    with_users(store, "eve")
    send(store, "m1")
    send(store, "m2", to="eve")
    with failing_batch(store):
        store.append("bob", "ann", "m3", "hi", NOW_MS)
        store.append("#den", "ann", "m4", "hi", NOW_MS)
        store.remove(Account, "bob")
        store.append("eve", "ann", "m5", "hi", NOW_MS)
        store.remove(Account, "eve")
        store.put(account("bob"))
        store.append("bob", "ann", "m6", "hi", NOW_MS)
        store.remove(Account, "ann")
    store = reopen(store)
    assert kept(store, "sent", user="ann") == ["m1", "m2"]
    assert (kept(store), kept(store, user="eve")) == (["m1"], ["m2"])
    assert kept(store, "#den") == []
    send(store, "m7", to="eve")
    store = reopen(store)
    assert kept(store, "sent", user="ann") == ["m1", "m2", "m7"]
    assert kept(store, user="eve") == ["m2", "m7"]


def test_members_read_back_to_their_joining_or_further_where_the_room_allows(
    store: Store, reopen: Reopen
) -> None:
    with_room(store, "ann", history=False)
    with_room(store, "ann", room="#open", history=True)
    for room in ("#den", "#open"):
        send(store, f"before {room}", to=room)
    with_users(store, "eve")
    for room in ("#den", "#open"):
        join(store, "eve", room)
        send(store, f"after {room}", to=room)
    store = reopen(store)
    assert kept(store, "#den", user="eve") == ["after #den"]
    assert kept(store, "#open", user="eve") == ["before #open", "after #open"]
    assert kept(store, user="eve") == ["after #den", "after #open"]
    low = read(store, "eve").messages[0].seq
    assert history(store, "#den", user="eve", before=low).messages == []
    assert not history(store, "#den", user="eve", limit=1).more


def test_the_history_of_a_room_is_for_its_members(store: Store, reopen: Reopen) -> None:
    with_room(store, "ann", "bob", history=True)
    send(store, "m1", to="#den")
    leave(store, "bob")
    store = reopen(store)
    refused(Code.NO_SUCH_ROOM, lambda: history(store, "#den"))
    refused(Code.NO_SUCH_ROOM, lambda: history(store, "#none"))
    refused(Code.NO_SUCH_USER, lambda: history(store, user="nobody"))
    assert kept(store) == []


def test_what_a_user_sent_stays_told_after_leaving_the_room(store: Store, reopen: Reopen) -> None:
    with_room(store, "ann", "bob")
    send(store, "m1", to="#den")
    leave(store, "ann")
    assert kept(reopen(store), "sent", user="ann") == ["m1"]


# --- accounts that come and go ---------------------------------------------------------------


def test_a_new_account_of_the_name_has_received_nothing(store: Store, reopen: Reopen) -> None:
    with_users(store, "ann", "bob")
    ack(store, send(store, "read"))
    send(store, "unread")
    send(store, "short", ttl_ms=1_000)
    expire(store, NOW_MS + 1_000)
    with store.batch():
        store.append("bob", "ann", "staged", "hi", NOW_MS)
        store.acknowledge("bob", "", 2)
        store.remove(Account, "bob")
        store.put(account("bob"))
    store = reopen(store)
    assert kept(store) == kept(store, "sent", user="ann") == []
    assert read(store)[:3] == ([], False, 0)
    send(store, "m5")
    store = reopen(store)
    assert kept(store) == kept(store, "sent", user="ann") == ["m5"]


def test_a_new_account_of_the_name_has_sent_nothing(store: Store, reopen: Reopen) -> None:
    with_users(store, "ann", "bob")
    send(store, "m1")
    with store.batch():
        store.append("bob", "ann", "m2", "hi", NOW_MS)
        store.remove(Account, "ann")
        store.put(account("ann"))
    store = reopen(store)
    assert kept(store, "sent", user="ann") == []
    assert kept(store) == ["m1", "m2"], "what was sent stays with its recipient"
    send(store, "m3")
    assert kept(reopen(store), "sent", user="ann") == ["m3"]


@pytest.mark.usefixtures("ids_over_all")
def test_the_ids_of_a_removed_account_are_free(store: Store, reopen: Reopen) -> None:
    with_users(store, "ann", "bob")
    old = send(store, "m1")
    with store.batch():
        store.remove(Account, "ann")
        store.put(account("ann"))
    store = reopen(store)
    again = send(store, "m1", "another text")
    assert again > old
    store = reopen(store)
    assert kept(store, "sent", user="ann") == ["m1"]
    assert send(store, "m1", "another text") == again


def test_ids_of_a_removal_that_failed_are_still_known(store: Store, reopen: Reopen) -> None:
    with_users(store, "ann", "bob")
    old = send(store, "m1")
    with failing_batch(store):
        store.remove(Account, "ann")
        store.put(account("ann"))
        store.append("bob", "ann", "m1", "hi", NOW_MS)
    store = reopen(store)
    assert send(store, "m1") == old
    assert kept(store) == kept(store, "sent", user="ann") == ["m1"]


# --- states ----------------------------------------------------------------------------------


def states(store: Store) -> list[State] | None:
    return history(store, "sent", user="ann").states


def test_only_what_was_sent_has_states(told: Store) -> None:
    assert history(told).states is history(told, "#den").states is None
    assert states(told) == [State.STORED] * 12


def test_a_message_is_stored_then_delivered_then_acknowledged(store: Store) -> None:
    login(with_users(store, "ann", "bob"), "phone")
    first = send(store, "m1")
    send(store, "m2")
    assert states(store) == [State.STORED, State.STORED]
    read(store, device="phone", limit=1)
    assert states(store) == [State.DELIVERED, State.STORED]
    read(store)
    assert states(store) == [State.DELIVERED, State.DELIVERED]
    ack(store, first, device="phone")
    assert states(store) == [State.ACKNOWLEDGED, State.DELIVERED]


def test_acknowledged_and_expired_outlive_a_restart(store: Store, reopen: Reopen) -> None:
    with_users(store, "ann", "bob")
    ack(store, send(store, "m1"))
    send(store, "m2", ttl_ms=1_000)
    expire(store, NOW_MS + 1_000)
    assert states(reopen(store)) == [State.ACKNOWLEDGED, State.EXPIRED]


def test_what_expired_stays_expired_when_later_ones_are_read(store: Store, reopen: Reopen) -> None:
    with_users(store, "ann", "bob")
    send(store, "m1", ttl_ms=1_000)
    send(store, "m2")
    expire(store, NOW_MS + 1_000)
    ack(store)
    assert states(reopen(store)) == [State.EXPIRED, State.ACKNOWLEDGED]


def test_a_failed_batch_changes_no_state(store: Store) -> None:
    with_users(store, "ann", "bob")
    seq = send(store, "m1", ttl_ms=1_000)
    with failing_batch(store):
        store.read("bob", "", 0, 9, 99)
        store.acknowledge("bob", "", seq)
    assert states(store) == [State.STORED]
    with failing_batch(store):
        store.expire(NOW_MS + 1_000)
    assert states(store) == [State.STORED]


def test_messages_of_a_room_are_stored_whoever_reads_them(store: Store, reopen: Reopen) -> None:
    with_room(store, "ann", "bob")
    send(store, "m1", to="#den")
    read(store)
    ack(store)
    assert states(reopen(store)) == [State.STORED]
