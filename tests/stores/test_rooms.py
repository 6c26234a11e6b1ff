"""Rooms: logs that their members read in one order with what was sent to them alone.

Source: docs/PROTOCOL.md, "rooms", "room_join"; `broker.core.ports.Store`.
"""

from __future__ import annotations

import pytest

from broker.core.model import Account, Lost, Membership, Room
from broker.core.ports import Store, StoreLimits
from broker.wire.errors import Code
from tests.stores.engines import MAILBOX_MESSAGES_MAX, Engine
from tests.stores.steps import (
    NOW_MS,
    Reopen,
    account,
    ack,
    expire,
    failing_batch,
    history,
    ids,
    join,
    kept,
    leave,
    login,
    lost,
    message,
    read,
    refused,
    send,
    tidy,
    with_room,
    with_users,
)

ROOM_MS = 1_000
LATER_MS = NOW_MS + ROOM_MS + 1


@pytest.fixture
def room(store: Store) -> Store:
    return with_room(store, "ann", "bob")


@pytest.fixture
def short(engine: Engine) -> Store:
    """A store that keeps what was said in a room for a second."""
    return with_room(engine.open(StoreLimits(retention_room_ms=ROOM_MS)), "ann", "bob")


def remove_room(store: Store) -> None:
    with store.batch():
        store.remove(Room, "#den")


# --- reading ---------------------------------------------------------------------------------


def test_what_is_said_in_a_room_is_read_in_one_order_with_the_rest(
    room: Store, reopen: Reopen
) -> None:
    with_room(room, "bob", room="#attic", owner="bob")
    first = send(room, "m1")
    seqs = [send(room, "m2", to="#den"), send(room, "m3", to="#attic", sender="bob")]
    send(room, "m4")
    store = reopen(room)
    assert ids(store) == ["m1", "m2", "m3", "m4"]
    assert read(store).messages[:2] == [message(first, "m1"), message(seqs[0], "m2", to="#den")]
    assert (ids(store, limit=2), read(store, limit=3).more) == (["m1", "m2"], True)
    assert not read(store, limit=4).more
    assert ids(store, after=seqs[0]) == ["m3", "m4"]


def test_the_own_messages_are_read_too(room: Store, reopen: Reopen) -> None:
    send(room, "m1", to="#den")
    assert ids(reopen(room), "ann") == ["m1"]


def test_one_cursor_covers_the_mailbox_and_the_rooms(room: Store, reopen: Reopen) -> None:
    send(room, "m1")
    said = send(room, "m2", to="#den")
    send(room, "m3")
    assert ack(room, said) == said
    store = reopen(room)
    assert ids(store) == ["m3"]
    assert ids(store, "ann") == ["m2"], "each member has its own"
    last = send(store, "m4", to="#den")
    assert ack(store) == last
    assert ids(reopen(store)) == []


def test_a_device_reads_rooms_with_its_own_cursor(room: Store, reopen: Reopen) -> None:
    login(room, "phone")
    said = send(room, "m1", to="#den")
    ack(room, said, device="phone")
    store = reopen(room)
    assert (ids(store, device="phone"), ids(store)) == ([], ["m1"])


def test_pages_over_rooms_follow_each_other_without_gap_or_overlap(
    engine: Engine, reopen: Reopen
) -> None:
    store = with_room(engine.open(StoreLimits()), "ann", "bob")
    with_room(store, "ann", "bob", room="#attic")
    places = ["bob", "#den", "#attic", "#den", "#den", "bob", "#attic", "bob", "bob", "#den"]
    sent = [send(store, str(n), to=to) for n, to in enumerate(places)]
    store = reopen(store)
    for limit in range(1, len(sent) + 2):
        seen: list[int] = []
        more = True
        while more:
            page = read(store, after=seen[-1] if seen else 0, limit=limit)
            seen += [each.seq for each in page.messages]
            more = page.more
        assert seen == sent


def test_delivered_counts_what_rooms_gave(room: Store) -> None:
    said = send(room, "m1", to="#den")
    assert read(room).delivered == 0
    assert read(room).delivered == said
    assert read(room, "ann").delivered == 0


# --- joining and leaving ---------------------------------------------------------------------


def test_a_member_reads_what_is_said_from_joining_to_leaving(room: Store, reopen: Reopen) -> None:
    send(room, "before", to="#den")
    with_users(room, "eve")
    join(room, "eve")
    said = send(room, "within", to="#den")
    store = reopen(room)
    assert ids(store, "eve") == ["within"]
    leave(store, "eve")
    store = reopen(store)
    assert ids(store, "eve") == []
    assert ack(store, said, "eve") == 0, "nothing of hers goes so far"
    send(store, "after", to="#den")
    join(store, "eve")
    send(store, "again", to="#den")
    assert ids(reopen(store), "eve") == ["again"]


def test_joining_twice_moves_nothing(room: Store, reopen: Reopen) -> None:
    send(room, "m1", to="#den")
    join(room, "bob")
    store = reopen(room)
    join(store, "bob")
    assert ids(reopen(store)) == ["m1"]


def test_joining_in_the_batch_that_says_something(room: Store, reopen: Reopen) -> None:
    with_users(room, "eve")
    with room.batch():
        room.append("#den", "ann", "before", "hi", NOW_MS)
        room.put(Membership("#den", "eve", joined=True))
        room.append("#den", "ann", "after", "hi", NOW_MS)
    assert ids(reopen(room), "eve") == ["after"]


def test_an_invitation_alone_reads_nothing(room: Store, reopen: Reopen) -> None:
    with_users(room, "eve")
    with room.batch():
        room.put(Membership("#den", "eve", joined=False))
    send(room, "m1", to="#den")
    store = reopen(room)
    assert ids(store, "eve") == []
    refused(Code.NO_SUCH_ROOM, lambda: send(store, "m2", to="#den", sender="eve"))
    refused(Code.NO_SUCH_ROOM, lambda: history(store, "#den", user="eve"))


def test_a_failed_batch_lets_nobody_in_or_out(room: Store, reopen: Reopen) -> None:
    with_users(room, "eve")
    send(room, "m1", to="#den")
    with failing_batch(room):
        room.put(Membership("#den", "eve", joined=True))
        room.append("#den", "eve", "m2", "hi", NOW_MS)
        room.remove(Membership, ("#den", "bob"))
        room.put(Membership("#den", "bob", joined=True))
    store = reopen(room)
    refused(Code.NO_SUCH_ROOM, lambda: send(store, "m3", to="#den", sender="eve"))
    assert (ids(store), ids(store, "eve")) == (["m1"], [])


# --- sending ---------------------------------------------------------------------------------


def test_only_a_member_sends_to_a_room(room: Store, reopen: Reopen) -> None:
    store = reopen(with_users(room, "eve"))
    refused(Code.NO_SUCH_ROOM, lambda: send(store, "m1", to="#den", sender="eve"))
    refused(Code.NO_SUCH_ROOM, lambda: send(store, "m1", to="#den", sender="nobody"))
    refused(Code.NO_SUCH_ROOM, lambda: send(store, "m1", to="#none"))
    leave(store, "ann")
    refused(Code.NO_SUCH_ROOM, lambda: send(store, "m1", to="#den"))
    assert ids(store) == []


def test_an_id_is_stored_once_in_a_room_too(room: Store, reopen: Reopen) -> None:
    said = send(room, "m1", to="#den")
    store = reopen(room)
    assert send(store, "m1", to="#den") == said
    refused(Code.CONFLICT, lambda: send(store, "m1", "ho", to="#den"))
    assert ids(store) == ["m1"]


@pytest.mark.usefixtures("ids_over_all")
def test_an_id_of_a_room_is_none_for_a_user(room: Store, reopen: Reopen) -> None:
    send(room, "m1", to="#den")
    store = reopen(room)
    refused(Code.CONFLICT, lambda: send(store, "m1", to="bob"))
    assert ids(store) == ["m1"]


def test_a_room_is_full_by_what_it_keeps_read_or_not(room: Store, reopen: Reopen) -> None:
    for number in range(MAILBOX_MESSAGES_MAX):
        send(room, f"m{number}", to="#den")
    ack(room)
    ack(room, user="ann")
    store = reopen(room)
    refused(Code.MAILBOX_FULL, lambda: send(store, "one more", to="#den"))
    tidy(store, NOW_MS + 10**12)
    send(store, "one more", to="#den")
    assert ids(reopen(store)) == ["one more"]


def test_the_bytes_that_a_room_keeps_are_bounded(engine: Engine, reopen: Reopen) -> None:
    store = with_room(engine.open(StoreLimits(mailbox_bytes_max=10)), "ann")
    send(store, "m1", "12345678", to="#den")
    ack(store, user="ann")
    store = reopen(store)
    refused(Code.MAILBOX_FULL, lambda: send(store, "m2", "123", to="#den"))
    send(store, "m3", "12", to="#den")
    refused(Code.MAILBOX_FULL, lambda: send(store, "m4", "1", to="#den"))


# --- what leaves -----------------------------------------------------------------------------


def test_a_room_keeps_its_messages_for_a_while_read_or_not(short: Store, reopen: Reopen) -> None:
    send(short, "m1", to="#den")
    ack(short)
    send(short, "m2", to="#den", now_ms=NOW_MS + 1)
    tidy(short, LATER_MS - 1)
    assert kept(short, "#den") == ["m1", "m2"]
    tidy(short, LATER_MS)
    store = reopen(short)
    assert kept(store, "#den") == kept(store) == ids(store) == ["m2"]


def test_a_member_is_told_what_was_deleted_before_it_read_it(short: Store, reopen: Reopen) -> None:
    first = send(short, "m1", to="#den")
    second = send(short, "m2", to="#den")
    ack(short, first)
    ack(short, second, "ann")
    with_users(short, "eve")
    join(short, "eve")
    tidy(short, LATER_MS)
    store = reopen(short)
    assert lost(store) == Lost(first + 1, second)
    assert lost(store, "ann") is None
    assert lost(store, "eve") is None, "she came later"
    assert ack(store) == second, "though the room is empty"
    assert lost(reopen(store)) is None


def test_who_leaves_has_lost_nothing(short: Store, reopen: Reopen) -> None:
    send(short, "m1", to="#den")
    tidy(short, LATER_MS)
    leave(short, "bob")
    assert lost(reopen(short)) is None


def test_a_room_that_is_removed_is_gone_with_all_that_was_said(room: Store, reopen: Reopen) -> None:
    send(room, "m1")
    send(room, "m2", to="#den")
    send(room, "m3", to="#den")
    remove_room(room)
    store = reopen(room)
    assert store.find(Room, "#den") is None
    assert store.find_all(Membership, of="bob") == store.find_all(Membership, of="#den") == []
    assert ids(store) == kept(store) == ["m1"]
    assert (ids(store, "ann"), kept(store, "sent", user="ann")) == ([], ["m1"])
    refused(Code.NO_SUCH_ROOM, lambda: history(store, "#den"))
    refused(Code.NO_SUCH_ROOM, lambda: send(store, "m4", to="#den"))


def test_a_room_of_the_same_name_shows_nothing_of_the_old_one(room: Store, reopen: Reopen) -> None:
    send(room, "m1", to="#den")
    remove_room(room)
    with_room(room, "ann", "bob", history=True)
    store = reopen(room)
    assert ids(store) == kept(store, "#den") == kept(store, "sent", user="ann") == []
    last = send(store, "m2", to="#den")
    tidy(store, NOW_MS + 10**12)
    store = reopen(store)
    assert lost(store) is not None
    assert lost(store) == Lost(1, last)


@pytest.mark.usefixtures("ids_over_all")
def test_an_id_used_in_a_room_that_is_gone_is_still_known(room: Store, reopen: Reopen) -> None:
    said = send(room, "m1", to="#den")
    remove_room(room)
    store = reopen(room)
    assert send(store, "m1", to="#den") == said
    assert send(store, "m1", "another text") == said, "there is no copy to compare it with"
    with_room(store, "ann", "bob")
    assert send(store, "m1", to="#den") == said, "also in a new room of the name"


def test_a_removed_room_is_tidied_without_a_trace(short: Store, reopen: Reopen) -> None:
    send(short, "m1", to="#den")
    last = send(short, "m2", to="#den")
    remove_room(short)
    tidy(short, NOW_MS + 10**12)
    store = reopen(short)
    assert lost(store) is None
    assert send(store, "m3") > last


def test_a_removal_that_failed_leaves_the_room_as_it_was(room: Store, reopen: Reopen) -> None:
    send(room, "m1", to="#den")
    with failing_batch(room):
        room.append("#den", "bob", "m2", "hi", NOW_MS)
        room.remove(Room, "#den")
        room.put(Room("#den", "eve", open=True, history=True))
        room.put(Membership("#den", "bob", joined=True))
        room.append("#den", "bob", "m3", "hi", NOW_MS)
    store = reopen(room)
    assert store.find(Room, "#den") == Room("#den", "ann", open=False, history=False, members=2)
    assert ids(store) == ids(store, "ann") == kept(store, "sent", user="ann") == ["m1"]
    assert kept(store, "sent") == []
    assert send(store, "m4", to="#den") > 0


def test_an_account_that_is_removed_leaves_its_rooms(room: Store, reopen: Reopen) -> None:
    send(room, "m1", to="#den")
    with room.batch():
        room.remove(Account, "ann")
        room.put(account("ann"))
    store = reopen(room)
    found = store.find(Room, "#den")
    assert found is not None
    assert found.members == 1
    assert ids(store) == ["m1"], "what was said stays said"
    assert ids(store, "ann") == []
    refused(Code.NO_SUCH_ROOM, lambda: send(store, "m2", to="#den"))


def test_a_page_is_whole_however_much_of_a_room_has_expired_beside_it(store: Store) -> None:
    with_room(store, "ann", "bob")
    for message_id in ("m0", "m1"):
        send(store, message_id, to="#den")
    for message_id in ("late0", "late1"):
        send(store, message_id, to="#den", ttl_ms=10)
    last = send(store, "last", to="#den")
    assert len(read(store).messages) == 5
    expire(store, NOW_MS + 20)
    page = history(store, before=last, limit=1)
    assert ([each.message_id for each in page.messages], page.more) == (["m1"], True)


def test_a_reader_gets_what_stands_behind_what_has_expired_in_a_room(store: Store) -> None:
    with_room(store, "ann", "bob")
    for number in range(4):
        send(store, f"late{number}", to="#den", ttl_ms=10)
    send(store, "last", to="#den")
    assert read(store, limit=1).more
    expire(store, NOW_MS + 20)
    page = read(store, limit=1)
    assert ([each.message_id for each in page.messages], page.more) == (["last"], False)
