"""Readers through the service: devices, what comes again, and what was lost."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.handlers import Policy
from broker.core.ports import DEFAULT_LIMITS, StoreFullError, StoreLimits
from broker.stores.memory import MemoryStore
from broker.wire.errors import Code
from broker.wire.limits import DEVICES_PER_USER_MAX, SEQ_MAX
from tests.core.fakes import World


@pytest.fixture
def world() -> World:
    return World(Policy(), limits=DEFAULT_LIMITS)


def flags(messages: list[dict[str, Any]]) -> list[bool]:
    return [each.get("redelivered", False) for each in messages]


# --- devices ---------------------------------------------------------------------------------


def test_each_device_reads_everything_until_it_acknowledges_it_itself(world: World) -> None:
    ann, phone = world.user("ann"), world.user("ben", device="phone")
    desk = world.login("ben", device="desk")
    (first, _) = world.send(ann, "ben", "one", "two")
    assert world.ok("ack", phone, seq=first) == {"cursor": first}
    assert world.texts(phone) == ["two"]
    assert world.texts(desk) == world.texts(world.login("ben")) == ["one", "two"]


def test_sessions_of_one_device_share_its_cursor_and_those_without_the_users(world: World) -> None:
    ann, first = world.user("ann"), world.user("ben", device="phone")
    second, plain, other = (
        world.login("ben", device="phone"),
        world.login("ben"),
        world.login("ben"),
    )
    (seq,) = world.send(ann, "ben", "hi")
    world.ok("ack", first, seq=seq)
    assert world.texts(second) == []
    assert world.texts(plain) == ["hi"]
    world.ok("ack", plain, seq=seq)
    assert world.texts(other) == []


def test_a_new_device_begins_where_its_user_stands_when_it_logs_in(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    one, two = world.send(ann, "ben", "one", "two")
    world.ok("ack", ben, seq=one)
    phone = world.login("ben", device="phone")
    world.ok("ack", ben, seq=two)
    assert world.texts(phone) == ["two"], "what the user reads later is the device's to read yet"
    assert world.ok("inbox", world.login("ben", device="phone"))["cursor"] == one


def test_the_seventeenth_device_takes_the_place_of_the_one_furthest_behind(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    devices = [world.login("ben", device=f"d{n}") for n in range(DEVICES_PER_USER_MAX)]
    seqs = world.send(ann, "ben", "one", "two")
    for device in devices[1:]:
        world.ok("ack", device, seq=seqs[0])
    world.ok("ack", ben, seq=seqs[1])
    world.login("ben", device="new")
    assert all(world.texts(device) == ["two"] for device in devices[1:])
    assert world.texts(devices[0]) == [], "it reads on from where the user stands"


def test_an_ack_of_one_device_opens_no_window_of_another(world: World) -> None:
    ann, phone = world.user("ann"), world.user("ben", device="phone")
    desk = world.login("ben", device="desk")
    for route, token in ((b"phone", phone), (b"desk", desk)):
        world.turn((route, [world.frame("subscribe", token, window=1)]))
    (first, _) = world.send(ann, "ben", "one", "two")
    world.events.clear()
    world.ok("ack", phone, seq=first)
    pushed = [(route, body["messages"][0]["text"]) for route, body in world.events]
    assert pushed == [(b"phone", "two")]


def test_a_device_is_named_as_a_user_is(world: World) -> None:
    world.user("ben")
    for device in ("", "No", "a b", "x" * 33):
        login = {"user": "ben", "password": "password", "device": device}
        assert world.code("login", **login) in (Code.BAD_REQUEST, Code.TOO_LARGE)


# --- redelivered -----------------------------------------------------------------------------


def test_a_message_read_before_bears_the_mark_and_a_new_one_does_not(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "one")
    assert flags(world.ok("inbox", ben)["messages"]) == [False]
    world.send(ann, "ben", "two")
    assert flags(world.ok("inbox", ben)["messages"]) == [True, False]


def test_a_device_is_told_of_its_own_deliveries_only(world: World) -> None:
    ann, phone = world.user("ann"), world.user("ben", device="phone")
    desk = world.login("ben", device="desk")
    world.send(ann, "ben", "one")
    world.texts(phone)
    assert flags(world.ok("inbox", desk)["messages"]) == [False]
    assert flags(world.ok("inbox", phone)["messages"]) == [True]


def test_what_is_pushed_again_bears_the_mark(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("subscribe", ben)
    world.send(ann, "ben", "one")
    world.ok("subscribe", ben)
    assert [flags(body["messages"]) for _, body in world.events] == [[False], [True]]


def test_what_was_read_by_a_batch_that_failed_was_given_to_nobody(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "one")
    world.store.commit_faults = [StoreFullError()]
    assert flags(world.ok("inbox", ben)["messages"]) == [False]


# --- history lost ----------------------------------------------------------------------------


def lost(world: World, token: str, **args: Any) -> list[Any]:
    """Return what a page and a subscription tell."""
    return [world.ok(each, token, **args).get("history_lost") for each in ("inbox", "subscribe")]


def test_who_comes_with_the_epoch_and_a_position_of_it_lost_nothing(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "one")
    epoch = world.ok("inbox", ben)["epoch"]
    assert world.ok("subscribe", ben)["epoch"] == epoch
    for args in ({}, {"after": 1}, {"after": 1, "epoch": epoch}, {"epoch": epoch}):
        assert lost(world, ben, **args) == [None, None]
    assert lost(world, ben, after=SEQ_MAX) == [None, None], "a position that stands for the end"


def test_a_position_that_was_never_given_out_tells_of_a_loss_and_hides_nothing(
    world: World,
) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "one")
    assert lost(world, ben, after=5) == [{"first": 2, "last": 5}] * 2
    assert [body["messages"][0]["text"] for _, body in world.events] == ["one"]


def test_who_comes_with_an_old_epoch_is_told_what_may_be_gone() -> None:
    world = World(Policy(), engine=MemoryStore(first_seq=101))
    ben = world.user("ben")
    assert lost(world, ben, after=40, epoch=1) == [{"first": 1, "last": 100}] * 2
    assert lost(world, ben, epoch=1) == [{"first": 1, "last": 100}] * 2
    assert lost(world, ben, after=140, epoch=1) == [{"first": 1, "last": 140}] * 2


def test_a_device_that_stayed_away_for_too_long_is_told_until_it_acknowledges() -> None:
    world = World(Policy(), limits=StoreLimits(retention_read_ms=1_000))
    ann, ben = world.user("ann"), world.user("ben")
    phone = world.login("ben", device="phone")
    one, two = world.send(ann, "ben", "one", "two")
    world.ok("ack", ben, seq=two)
    world.now_ms += 1_001
    world.service.tidy(world.now_ms)
    (three,) = world.send(ann, "ben", "three")
    assert lost(world, phone) == [{"first": one, "last": two}] * 2
    assert world.texts(phone) == ["three"]
    assert lost(world, ben) == [None, None], "who has read it lost nothing"
    world.ok("ack", phone, seq=three)
    assert lost(world, phone) == [None, None]


def test_who_missed_two_losses_is_told_of_both_wherever_its_cursor_stands() -> None:
    """The device has gone on in the new epoch, and this client of it has not heard of that yet."""
    limits = StoreLimits(retention_read_ms=1_000)
    world = World(Policy(), engine=MemoryStore(limits, first_seq=101))
    ann, ben = world.user("ann"), world.user("ben")
    phone = world.login("ben", device="phone")
    one, _, three = world.send(ann, "ben", "one", "two", "three")
    world.ok("ack", phone, seq=one)
    world.ok("ack", ben, seq=three)
    world.now_ms += 1_001
    world.service.tidy(world.now_ms)
    assert lost(world, phone) == [{"first": one + 1, "last": three}] * 2
    assert lost(world, phone, after=40, epoch=1) == [{"first": 1, "last": three}] * 2


def test_what_was_deleted_unread_is_told_beside_a_position_that_was_never_given_out() -> None:
    world = World(Policy(), limits=StoreLimits(retention_read_ms=1_000))
    ann, ben = world.user("ann"), world.user("ben")
    phone = world.login("ben", device="phone")
    one, two = world.send(ann, "ben", "one", "two")
    world.ok("ack", ben, seq=two)
    world.now_ms += 1_001
    world.service.tidy(world.now_ms)
    assert lost(world, phone, after=two + 7) == [{"first": one, "last": two + 7}] * 2
