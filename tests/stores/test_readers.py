"""Readers: the user's cursor and those of its devices. Source: docs/PROTOCOL.md, "Readers"."""

from __future__ import annotations

import pytest

from broker.core.model import Account, Lost
from broker.core.ports import Store, StoreLimits
from broker.wire.errors import Code
from broker.wire.limits import DEVICES_PER_USER_MAX
from tests.stores.engines import MAILBOX_MESSAGES_MAX, Engine
from tests.stores.steps import (
    NOW_MS,
    Reopen,
    account,
    ack,
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

READ_MS = 1_000
LATER_MS = NOW_MS + READ_MS + 1
DEVICES = [f"d{number:02}" for number in range(DEVICES_PER_USER_MAX)]


@pytest.fixture
def short(engine: Engine) -> Store:
    """A store that keeps what was read for a second."""
    return with_users(engine.open(StoreLimits(retention_read_ms=READ_MS)), "bob")


# --- cursors ---------------------------------------------------------------------------------


def test_each_reader_gets_every_message_until_it_acknowledges_it_itself(
    store: Store, reopen: Reopen
) -> None:
    login(with_users(store, "bob"), "phone", "desk")
    seqs = [send(store, f"m{number}") for number in range(3)]
    assert ack(store, seqs[1], device="phone") == seqs[1]
    assert ack(store, seqs[0]) == seqs[0]
    store = reopen(store)
    assert ids(store, device="phone") == ["m2"]
    assert ids(store, device="desk") == ["m0", "m1", "m2"]
    assert ids(store) == ["m1", "m2"]
    assert read(store, device="phone").cursor == seqs[1]


def test_a_device_begins_where_the_user_stands_when_it_becomes_known(
    store: Store, reopen: Reopen
) -> None:
    with_users(store, "bob")
    seqs = [send(store, f"m{number}") for number in range(3)]
    ack(store, seqs[0])
    assert ack(store, 0, device="phone") == seqs[0]
    ack(store, seqs[2])
    store = reopen(store)
    assert ids(store, device="phone") == ["m1", "m2"], "the user's cursor is not its own"
    assert ids(store, device="new") == []


def test_a_device_never_goes_back_nor_past_the_last_message(store: Store, reopen: Reopen) -> None:
    login(with_users(store, "bob"), "phone")
    seqs = [send(store, f"m{number}") for number in range(2)]
    assert ack(store, device="phone") == seqs[1]
    store = reopen(store)
    assert ack(store, seqs[0], device="phone") == seqs[1]
    send(store, "m2")
    assert ids(store, device="phone") == ["m2"]


def test_the_limit_counts_what_the_furthest_reader_has_not_read(
    store: Store, reopen: Reopen
) -> None:
    login(with_users(store, "bob"), "phone")
    seqs = [send(store, f"m{number}") for number in range(MAILBOX_MESSAGES_MAX)]
    refused(Code.MAILBOX_FULL, lambda: send(store, "one more"))
    ack(store, seqs[1], device="phone")
    store = reopen(store)
    send(store, "one more")
    send(store, "two more")
    refused(Code.MAILBOX_FULL, lambda: send(store, "three more"))
    assert len(ids(store)) == MAILBOX_MESSAGES_MAX + 2, "the user itself has read nothing"


def test_one_device_too_many_takes_the_place_of_the_furthest_behind(
    store: Store, reopen: Reopen
) -> None:
    login(with_users(store, "bob"), *DEVICES)
    seqs = [send(store, f"m{number}") for number in range(2)]
    for device in DEVICES:
        ack(store, seqs[0], device=device)
    ack(store, seqs[1])
    store = reopen(store)
    with store.batch():
        for device in DEVICES[1:]:
            store.acknowledge("bob", device, seqs[1])
    login(store, "newcomer")
    store = reopen(store)
    assert ids(store, device=DEVICES[1]) == ids(store, device="newcomer") == []
    assert read(store, device=DEVICES[0]).cursor == seqs[1], "it is a stranger like any other"


def test_a_device_that_is_replaced_in_the_batch_that_moved_it_stays_replaced(
    store: Store, reopen: Reopen
) -> None:
    with_users(store, "bob")
    first, last = send(store, "m1"), send(store, "m2")
    login(store, *DEVICES)
    with store.batch():
        for device in DEVICES[1:]:
            store.acknowledge("bob", device, last)
        store.acknowledge("bob", DEVICES[0], first)
        store.acknowledge("bob", "", last)
        store.acknowledge("bob", "newcomer", 0)
    store = reopen(store)
    assert read(store, device=DEVICES[0]).cursor == last, "its own cursor was below"


def test_a_failed_batch_changes_no_device(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    first, second = send(store, "m1"), send(store, "m2")
    login(store, *DEVICES)
    with store.batch():
        for device in DEVICES[1:]:
            store.acknowledge("bob", device, first)
    with failing_batch(store):
        store.acknowledge("bob", DEVICES[3], second)
        store.acknowledge("bob", "newcomer", second)
        store.acknowledge("bob", DEVICES[0], second)
    store = reopen(store)
    found = [read(store, device=device).cursor for device in DEVICES]
    assert found == [0] + [first] * (DEVICES_PER_USER_MAX - 1)
    assert read(store, device="newcomer").cursor == 0
    assert len(ids(store)) == 2
    ack(store, first, device="newcomer")  # replaces the one at 0, not another
    assert [read(reopen(store), device=device).cursor for device in DEVICES[:1]] == [0]


def test_devices_go_with_their_account(store: Store, reopen: Reopen) -> None:
    login(with_users(store, "bob"), "phone")
    ack(store, send(store, "m1"), device="phone")
    with store.batch():
        store.remove(Account, "bob")
        store.put(account("bob"))
    store = reopen(store)
    assert read(store, device="phone").cursor == 0
    send(store, "m2")
    assert ids(store, device="phone") == ["m2"]


# --- delivered -------------------------------------------------------------------------------


def test_delivered_is_how_far_this_reader_was_given_messages_before(store: Store) -> None:
    login(with_users(store, "bob"), "phone")
    seqs = [send(store, f"m{number}") for number in range(3)]
    assert read(store, limit=2).delivered == 0
    assert read(store, limit=1).delivered == seqs[1], "not what this very page gives"
    assert read(store, after=seqs[2]).delivered == seqs[1], "an empty page gives nothing"
    assert read(store).delivered == seqs[1]
    assert read(store).delivered == seqs[2]
    assert read(store, device="phone").delivered == 0
    assert read(store, device="phone").delivered == seqs[2]


def test_what_is_only_counted_is_not_delivered(store: Store) -> None:
    with_users(store, "bob")
    send(store, "m1")
    page = read(store, limit=0)
    assert (page.messages, page.more, read(store).delivered) == ([], True, 0)


def test_after_a_restart_what_was_stored_may_have_been_delivered(engine: Engine) -> None:
    store = with_users(engine.open(), "bob")
    before = send(store, "m1")
    store = engine.reopen(store)
    forgotten = engine.reopens and not engine.remembers_given
    assert read(store).delivered == (before if forgotten else 0)
    send(store, "m2")
    assert read(store).delivered == before, "not what came since"


def test_a_device_whose_place_was_taken_may_have_got_anything(store: Store) -> None:
    login(with_users(store, "bob"), *DEVICES)
    last = send(store, "m1")
    assert read(store, device=DEVICES[0]).delivered == 0
    login(store, "newcomer")
    assert ids(store, device=DEVICES[0]) == ["m1"]
    assert read(store, device=DEVICES[0]).delivered == last
    assert read(login(store, DEVICES[0]), device=DEVICES[0]).delivered == last


def test_that_holds_for_what_was_said_in_a_room_too(store: Store) -> None:
    login(with_room(store, "ann", "bob"), *DEVICES)
    last = send(store, "m1", to="#den")
    login(store, "newcomer")
    assert read(login(store, DEVICES[0]), device=DEVICES[0]).delivered == last


# --- what a reader lost ----------------------------------------------------------------------


def test_a_device_is_told_what_was_deleted_before_it_read_it(short: Store, reopen: Reopen) -> None:
    store = login(short, "phone", "desk")
    seqs = [send(store, f"m{number}") for number in range(3)]
    ack(store, seqs[0], device="phone")
    ack(store, seqs[1])
    ack(store, seqs[1], device="desk")
    tidy(store, LATER_MS)
    for _ in range(2):
        assert lost(store, device="phone") == Lost(seqs[0] + 1, seqs[1])
        assert lost(store) is lost(store, device="desk") is None
        assert ids(store, device="phone") == ["m2"]
        store = reopen(store)
    ack(store, seqs[1], device="phone")
    store = reopen(store)
    assert lost(store, device="phone") is None


def test_what_everybody_has_read_is_no_loss(short: Store, reopen: Reopen) -> None:
    store = login(short, "phone")
    last = send(store, "m1")
    ack(store, last)
    ack(store, last, device="phone")
    tidy(store, LATER_MS)
    store = reopen(store)
    assert kept(store) == []
    assert lost(store) is lost(store, device="phone") is None


def test_a_loss_is_acknowledged_though_nothing_is_left(short: Store, reopen: Reopen) -> None:
    store = login(short, "phone")
    last = send(store, "m1")
    ack(store, last)
    tidy(store, LATER_MS)
    store = reopen(store)
    assert ack(store, device="phone") == last
    assert lost(store, device="phone") is None


def test_a_loss_in_a_failed_batch_is_none(short: Store, reopen: Reopen) -> None:
    store = login(short, "phone")
    ack(store, send(store, "m1"))
    with failing_batch(store):
        store.tidy(LATER_MS)
    store = reopen(store)
    assert lost(store, device="phone") is None
    assert ids(store, device="phone") == kept(store) == ["m1"]


def test_a_loss_does_not_shrink_by_a_later_one_that_lies_below(
    engine: Engine, reopen: Reopen
) -> None:
    """The clock may go back while the broker is down, so that the younger row is the older one."""
    limits = StoreLimits(retention_read_ms=READ_MS, retention_room_ms=1)
    store = login(with_users(engine.open(limits), "bob"), "phone")
    send(store, "m1", now_ms=NOW_MS + READ_MS // 2)
    last = send(store, "m2", now_ms=NOW_MS)
    ack(store)
    tidy(store, LATER_MS)
    assert (kept(store), lost(store, device="phone")) == (["m1"], Lost(1, last))
    tidy(store, LATER_MS + READ_MS)
    store = reopen(store)
    assert (kept(store), lost(store, device="phone")) == ([], Lost(1, last))
