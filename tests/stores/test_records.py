"""The directory of every store: accounts, sessions, rooms, memberships. Source: `Store`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from broker.core.model import Account, LoginKey, Membership, Room, SessionRecord
from broker.core.ports import Key, Record, Store
from broker.wire.errors import Code
from tests.stores.steps import (
    NOW_MS,
    Reopen,
    account,
    failing_batch,
    ids,
    join,
    read,
    refused,
    send,
    with_room,
    with_users,
)


def session(number: int, user: str = "ann", expires_ms: int = NOW_MS + 9) -> SessionRecord:
    bound = "k" * 40 if number % 2 else ""
    return SessionRecord(bytes([number]) * 32, user, NOW_MS + number, expires_ms, "phone", bound)


def put(store: Store, *records: Record) -> None:
    with store.batch():
        for record in records:
            store.put(record)


RECORDS: list[tuple[Record, Record, Key]] = [
    (account("bob"), account("bob", "Robert", "new hash"), "bob"),
    (session(1), replace(session(1), expires_ms=NOW_MS + 99), session(1).digest),
    (Room("#a", "ann", True, False), Room("#a", "ann", False, True), "#a"),
    (Membership("#den", "ann", False), Membership("#den", "ann", True), ("#den", "ann")),
    (LoginKey("k" * 40, "ann"), LoginKey("k" * 40, "bob"), "k" * 40),
]


def all_of(store: Store) -> list[list[object]]:
    return [
        list(store.find_all(Account)),
        list(store.find_all(SessionRecord)),
        list(store.find_all(Room)),
        list(store.find_all(Membership)),
        list(store.find_all(LoginKey)),
    ]


@pytest.mark.parametrize(("first", "second", "key"), RECORDS)
def test_a_record_is_stored_replaced_and_removed(
    store: Store, reopen: Reopen, first: Record, second: Record, key: Key
) -> None:
    kind: type[Any] = type(first)
    with_users(store, "ann")
    with_room(store)
    before = all_of(store)
    for record in (first, second, second):
        put(store, record)
        store = reopen(store)
        assert store.find(kind, key) == record
    with store.batch():
        store.remove(kind, key)
        assert store.find(kind, key) is None
    store = reopen(store)
    assert all_of(store) == before
    with store.batch():
        store.remove(kind, key)
    assert all_of(store) == before


@pytest.mark.parametrize(("first", "second", "key"), RECORDS)
def test_a_failed_batch_changes_no_record(
    store: Store, reopen: Reopen, first: Record, second: Record, key: Key
) -> None:
    kind: type[Any] = type(first)
    with_users(store, "ann")
    with_room(store)
    with failing_batch(store):
        store.put(first)
    assert store.find(kind, key) is None
    put(store, first)
    before = all_of(store)
    with failing_batch(store):
        store.put(second)
    with failing_batch(store):
        store.remove(kind, key)
        store.put(second)
        store.remove(kind, key)
    assert all_of(store) == before
    assert all_of(reopen(store)) == before


def test_keys_are_found_by_their_user_and_are_no_mailboxes(store: Store, reopen: Reopen) -> None:
    with_users(store, "ann", "bob")
    put(store, LoginKey("b", "ann"), LoginKey("bob", "ann"), LoginKey("c", "bob"))
    store = reopen(store)
    assert [each.key for each in store.find_all(LoginKey, of="ann")] == ["b", "bob"]
    send(store, "m1")
    with store.batch():
        store.remove(LoginKey, "bob")
    store = reopen(store)
    assert [each.key for each in store.find_all(LoginKey)] == ["b", "c"]
    assert ids(store) == ["m1"]


def test_a_new_password_keeps_the_mailbox(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    send(store, "m1")
    put(store, account("bob", "Robert", "new hash"))
    assert ids(reopen(store)) == ["m1"]


def test_accounts_come_in_order_of_user_page_by_page(store: Store, reopen: Reopen) -> None:
    store = reopen(with_users(store, "d", "b", "a", "c", "aa"))

    def users(after: str, limit: int) -> list[str]:
        return [each.user for each in store.find_all(Account, after=after, limit=limit)]

    assert users("", 0) == ["a", "aa", "b", "c", "d"]
    assert users("", 3) == ["a", "aa", "b"]
    assert users("b", 3) == ["c", "d"]
    assert users("d", 3) == []
    assert users("bb", 1) == ["c"]


def test_sessions_come_oldest_first_of_one_user_or_of_all(store: Store, reopen: Reopen) -> None:
    records = [session(3), session(1, "bob"), session(2)]
    put(store, *records)
    store = reopen(store)
    assert store.find_all(SessionRecord) == records
    assert store.find_all(SessionRecord, of="ann") == [records[0], records[2]]
    assert store.find_all(SessionRecord, of="ann", limit=1) == [records[0]]
    assert store.find_all(SessionRecord, of="eve") == []
    assert store.find(SessionRecord, b"\0" * 32) is None


def test_a_session_that_is_extended_keeps_its_place(store: Store, reopen: Reopen) -> None:
    longer = session(1, expires_ms=NOW_MS + 99)
    put(store, session(1), session(2), longer)
    assert reopen(store).find_all(SessionRecord) == [longer, session(2)]


def test_sessions_keep_their_order_when_a_removal_fails(store: Store, reopen: Reopen) -> None:
    records = [session(number) for number in range(3)]
    put(store, *records)
    with failing_batch(store):
        store.remove(SessionRecord, records[0].digest)
        store.remove(SessionRecord, records[2].digest)
    assert reopen(store).find_all(SessionRecord) == records


def test_memberships_of_a_user_by_room_and_of_a_room_by_user(store: Store, reopen: Reopen) -> None:
    with_users(store, "ann", "bob", "eve")
    for room in ("#b", "#a"):
        with_room(store, room=room)
    found = [
        Membership(room, user, joined)
        for room, user, joined in [
            ("#b", "bob", True),
            ("#a", "eve", False),
            ("#a", "bob", True),
            ("#a", "ann", True),
        ]
    ]
    put(store, *found)
    store = reopen(store)
    b, eve, bob, ann = found
    assert store.find_all(Membership, of="bob") == [bob, b]
    assert store.find_all(Membership, of="#a") == [ann, bob, eve]
    assert store.find_all(Membership, of="#a", after="ann", limit=1) == [bob]
    assert store.find_all(Membership, of="#a", after="eve") == []
    assert store.find_all(Membership, of="#none") == []


def test_a_room_is_asked_how_many_are_in_it(store: Store, reopen: Reopen) -> None:
    with_room(store, "ann", "bob")
    put(store, account("eve"), Membership("#den", "eve", joined=False))

    def counts() -> tuple[int, list[int]]:
        room = store.find(Room, "#den")
        assert room is not None
        return room.members, [each.members for each in store.find_all(Room)]

    assert counts() == (2, [2])
    with failing_batch(store):
        store.put(Membership("#den", "eve", joined=True))
        store.remove(Membership, ("#den", "ann"))
        store.remove(Membership, ("#den", "bob"))
    store = reopen(store)
    assert counts() == (2, [2])
    with store.batch():
        store.remove(Membership, ("#den", "bob"))
    store = reopen(store)
    assert counts() == (1, [1])


def test_a_membership_of_nobody_or_nowhere_is_refused_and_leaves_nothing(
    store: Store, reopen: Reopen
) -> None:
    with_room(store, "ann")
    with store.batch():
        refused(Code.NO_SUCH_USER, lambda: store.put(Membership("#den", "eve", joined=True)))
        refused(Code.NO_SUCH_ROOM, lambda: store.put(Membership("#no", "ann", joined=False)))
        store.remove(Membership, ("#no", "eve"))
    store = reopen(store)
    assert store.find_all(Membership) == [Membership("#den", "ann", joined=True)]


def test_a_membership_that_is_taken_back_to_an_invitation_reads_no_longer(
    store: Store, reopen: Reopen
) -> None:
    with_room(store, "ann", "bob")
    put(store, Membership("#den", "bob", joined=False))
    send(store, "m1", to="#den")
    store = reopen(store)
    assert read(store).messages == []
    join(store, "bob")
    send(store, "m2", to="#den")
    assert ids(reopen(store)) == ["m2"]
