"""Messages that end by themselves. Source: docs/PROTOCOL.md, "chat" (`ttl_ms`)."""

from __future__ import annotations

import pytest

from broker.core.mailboxes import EXPIRED_PER_STEP_MAX
from broker.core.model import Account, Message, Room
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
    ids,
    kept,
    login,
    lost,
    read,
    refused,
    send,
    tidy,
    with_room,
    with_users,
)

TTL_MS = 1_000
DUE_MS = NOW_MS + TTL_MS


@pytest.fixture
def users(store: Store) -> Store:
    return with_users(store, "ann", "bob")


def test_what_is_unread_in_time_is_returned_once_and_never_delivered(
    users: Store, reopen: Reopen
) -> None:
    send(users, "m1")
    seq = send(users, "m2", "secret", ttl_ms=TTL_MS)
    send(users, "m3")
    store = reopen(users)
    assert expire(store, DUE_MS - 1) == []
    assert ids(store) == ["m1", "m2", "m3"]
    with store.batch():
        found = store.expire(DUE_MS)
        assert found == [Message(seq, NOW_MS, "ann", "m2", "", "bob")], "without its text"
    for _ in range(2):
        assert ids(store) == kept(store) == ["m1", "m3"]
        assert expire(store, DUE_MS + 10**9) == []
        store = reopen(store)


def test_what_was_read_in_time_is_not_returned_and_goes_too(users: Store, reopen: Reopen) -> None:
    login(users, "phone")
    ack(users, send(users, "m1", ttl_ms=TTL_MS))
    store = reopen(users)
    assert expire(store, DUE_MS) == []
    assert ids(store, device="phone") == kept(store) == []
    assert lost(store, device="phone") is None
    store = reopen(store)
    assert expire(store, DUE_MS) == []
    assert ids(store, device="phone") == kept(store) == []


def test_messages_expire_by_time_not_by_order(users: Store, reopen: Reopen) -> None:
    send(users, "m1", ttl_ms=3 * TTL_MS)
    send(users, "m2", ttl_ms=TTL_MS)
    send(users, "m3", ttl_ms=2 * TTL_MS)
    send(users, "m4", ttl_ms=TTL_MS)
    store = reopen(users)
    assert expire(store, DUE_MS) == ["m2", "m4"]
    store = reopen(store)
    assert ids(store) == ["m1", "m3"]
    assert expire(store, NOW_MS + 10 * TTL_MS) == ["m1", "m3"], "in order of sequence"


def test_what_expired_makes_room(users: Store, reopen: Reopen) -> None:
    for number in range(MAILBOX_MESSAGES_MAX):
        send(users, f"m{number}", ttl_ms=TTL_MS)
    refused(Code.MAILBOX_FULL, lambda: send(users, "one more"))
    expire(users, DUE_MS)
    store = reopen(users)
    for number in range(MAILBOX_MESSAGES_MAX):
        send(store, f"n{number}")
    refused(Code.MAILBOX_FULL, lambda: send(store, "one more"))


def test_the_bytes_of_what_expired_make_room(engine: Engine, reopen: Reopen) -> None:
    store = with_users(engine.open(StoreLimits(mailbox_bytes_max=10)), "bob")
    send(store, "m1", "x" * 6, ttl_ms=TTL_MS)
    send(store, "m2", "x" * 4)
    expire(store, DUE_MS)
    store = reopen(store)
    refused(Code.MAILBOX_FULL, lambda: send(store, "m3", "x" * 7))
    send(store, "m3", "x" * 6)


def test_in_the_middle_of_what_was_read_the_rest_stays_read(users: Store, reopen: Reopen) -> None:
    login(users, "phone")
    for number in range(3):
        last = send(users, f"m{number}", ttl_ms=TTL_MS if number == 1 else None)
    ack(users, last)
    send(users, "m3")
    expire(users, DUE_MS)
    store = reopen(users)
    expire(store, DUE_MS)
    assert ids(store) == ["m3"]
    assert ids(store, device="phone") == ["m0", "m2", "m3"]


def test_a_cursor_may_pass_what_expired(users: Store, reopen: Reopen) -> None:
    last = send(users, "m1", ttl_ms=TTL_MS)
    expire(users, DUE_MS)
    store = reopen(users)
    assert ack(store) == last
    send(store, "m2")
    assert ids(reopen(store)) == ["m2"]


def test_what_is_said_in_a_room_expires_for_all(store: Store, reopen: Reopen) -> None:
    with_room(store, "ann", "bob")
    send(store, "m1", to="#den", ttl_ms=TTL_MS)
    ack(store)
    store = reopen(store)
    assert expire(store, DUE_MS) == ["m1"]
    store = reopen(store)
    assert ids(store, "ann") == kept(store, "#den") == kept(store) == []
    assert lost(store, "ann") is None


def test_an_expiry_that_fails_did_not_happen(users: Store, reopen: Reopen) -> None:
    send(users, "m1", ttl_ms=TTL_MS)
    with failing_batch(users):
        assert users.expire(DUE_MS)
        assert users.read("bob", "", 0, 9, 99).messages == []
    assert ids(users) == kept(users) == ["m1"]
    store = reopen(users)
    assert ids(store) == kept(store) == ["m1"]
    assert expire(store, DUE_MS) == ["m1"]


def test_a_message_of_a_failed_batch_expires_nobody_elses(users: Store, reopen: Reopen) -> None:
    with failing_batch(users):
        users.append("bob", "ann", "m1", "hi", NOW_MS, ttl_ms=TTL_MS)
    send(users, "m2")  # under the same sequence
    store = reopen(users)
    assert expire(store, DUE_MS) == []
    assert ids(store) == ["m2"]


def test_stored_and_expired_in_one_batch(users: Store, reopen: Reopen) -> None:
    send(users, "m0")
    for failing in (True, False):
        with failing_batch(users) if failing else users.batch():
            users.append("bob", "ann", "m1", "hi", NOW_MS, ttl_ms=TTL_MS)
            users.append("bob", "ann", "m2", "hi", NOW_MS)
            assert [each.message_id for each in users.expire(DUE_MS)] == ["m1"]
    store = reopen(users)
    assert ids(store) == ["m0", "m2"]
    assert kept(store, "sent", user="ann") == ["m0", "m1", "m2"]


def test_a_step_takes_so_many_at_most_and_the_next_one_the_rest(engine: Engine) -> None:
    store = with_users(engine.open(StoreLimits()), "bob")
    count = EXPIRED_PER_STEP_MAX + 7
    with store.batch():
        for number in range(count):
            store.append("bob", "ann", str(number), "x", NOW_MS, ttl_ms=TTL_MS)
    store = engine.reopen(store)
    assert len(expire(store, DUE_MS)) == EXPIRED_PER_STEP_MAX
    store = engine.reopen(store)
    assert len(expire(store, DUE_MS)) == 7
    assert ids(store) == []


def test_nothing_expires_in_a_mailbox_that_is_gone(store: Store, reopen: Reopen) -> None:
    with_room(store, "ann", "bob")
    send(store, "m1", ttl_ms=TTL_MS)
    send(store, "m2", to="#den", ttl_ms=TTL_MS)
    with store.batch():
        store.remove(Account, "bob")
        store.remove(Room, "#den")
        store.put(account("bob"))
    assert expire(store, DUE_MS) == []
    assert expire(reopen(store), DUE_MS) == []


def test_a_removal_that_failed_keeps_the_time_of_expiry(users: Store, reopen: Reopen) -> None:
    send(users, "m1", ttl_ms=TTL_MS)
    with failing_batch(users):
        users.remove(Account, "bob")
    assert expire(reopen(users), DUE_MS) == ["m1"]


def test_an_expired_message_keeps_its_id(users: Store, reopen: Reopen) -> None:
    seq = send(users, "m1", ttl_ms=TTL_MS)
    expire(users, DUE_MS)
    store = reopen(users)
    assert send(store, "m1") == seq
    assert ids(store) == []


# --- unread for too long ---------------------------------------------------------------------


@pytest.fixture
def strict(engine: Engine) -> Store:
    """A store where unread messages expire after a second."""
    limits = StoreLimits(retention_unread_ms=TTL_MS, retention_room_ms=10 * TTL_MS)
    return with_room(engine.open(limits), "ann", "bob")


def test_what_is_unread_for_too_long_expires(strict: Store, reopen: Reopen) -> None:
    ack(strict, send(strict, "read"))
    send(strict, "unread")
    send(strict, "said", to="#den")
    send(strict, "young", now_ms=NOW_MS + 1)
    store = reopen(strict)
    tidy(store, DUE_MS)
    assert expire(store, DUE_MS) == []
    tidy(store, DUE_MS + 1)
    tidy(store, DUE_MS + 1)
    assert expire(store, DUE_MS + 1) == ["unread"]
    tidy(store, DUE_MS + 1)
    assert expire(store, DUE_MS + 1) == []
    store = reopen(store)
    assert ids(store) == ["said", "young"]
    assert kept(store) == ["read", "said", "young"]
    assert read(store).lost is None


def test_a_time_to_live_that_ends_with_the_patience_expires_once(
    strict: Store, reopen: Reopen
) -> None:
    send(strict, "m1", ttl_ms=TTL_MS + 1)
    send(strict, "m2", ttl_ms=TTL_MS + 1)
    store = reopen(strict)
    tidy(store, DUE_MS + 1)
    assert expire(store, DUE_MS + 1) == ["m1", "m2"]


def test_a_walk_that_failed_makes_nothing_expire(strict: Store) -> None:
    send(strict, "m1")
    with failing_batch(strict):
        strict.tidy(DUE_MS + 1)
    assert expire(strict, DUE_MS + 1) == []
    assert ids(strict) == ["m1"]
