"""`history` and `status` through the service: pages, states, and whose business a message is."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.handlers import Policy
from broker.core.ports import DEFAULT_LIMITS
from broker.wire.errors import Code
from broker.wire.limits import INBOX_BYTES_MAX, TEXT_BYTES_MAX
from tests.core.fakes import ADMIN, START_MS, World


@pytest.fixture
def world() -> World:
    return World(Policy(), limits=DEFAULT_LIMITS)


def page(world: World, token: str, **args: Any) -> tuple[list[str], bool]:
    found = world.ok("history", token, **args)
    return [each["text"] for each in found["messages"]], found["more"]


# --- history ---------------------------------------------------------------------------------


def test_history_tells_what_was_read_and_what_was_not_and_moves_nothing(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    (first, _) = world.send(ann, "ben", "one", "two")
    world.ok("ack", ben, seq=first)
    assert page(world, ben) == (["one", "two"], False)
    inbox = world.ok("inbox", ben)
    assert inbox["cursor"] == first
    assert "redelivered" not in inbox["messages"][0], "being told of is not being delivered"


def test_a_message_of_history_names_its_recipient_and_only_sent_ones_their_state(
    world: World,
) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "hi")
    message = {
        "seq": 1, "at_ms": START_MS, "from": "ann", "name": "ann", "id": "hi", "text": "hi",
        "to": "ben",
    }  # fmt: skip
    assert world.ok("history", ben)["messages"] == [message]
    assert world.ok("history", ann)["messages"] == []
    assert world.ok("history", ann, of="sent")["messages"] == [message | {"state": "stored"}]


def test_pages_go_back_from_the_newest_and_forward_from_a_position(world: World) -> None:
    ann = world.user("ann")
    world.send(ann, "ann", *"abcde")
    assert page(world, ann, limit=2) == (["d", "e"], True)
    assert page(world, ann, limit=2, before=4) == (["b", "c"], True)
    assert page(world, ann, limit=2, before=2) == (["a"], False)
    assert page(world, ann, limit=2, after=0) == (["a", "b"], True)
    assert page(world, ann, limit=2, after=3) == (["d", "e"], False)
    assert page(world, ann, of="sent", limit=2, before=4) == (["b", "c"], True)
    assert world.code("history", ann, before=1, after=1) is Code.BAD_REQUEST


def test_a_page_holds_a_bounded_amount_of_text(world: World) -> None:
    ann = world.user("ann")
    most = INBOX_BYTES_MAX // TEXT_BYTES_MAX
    for number in range(most + 1):
        world.ok("chat", ann, to="ann", text="x" * TEXT_BYTES_MAX, id=f"m{number}")
    for direction in ({}, {"after": 0}):
        found = world.ok("history", ann, limit=1_000, **direction)
        assert (len(found["messages"]), found["more"]) == (most, True)


def test_history_of_a_room_is_for_its_members(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#r", open=True)
    assert world.code("history", ben, of="#r") is Code.NO_SUCH_ROOM
    assert world.code("history", ben, of="#none") is Code.NO_SUCH_ROOM
    world.send(ann, "#r", "before")
    world.ok("room_join", ben, room="#r")
    world.send(ann, "#r", "after")
    assert page(world, ben, of="#r") == (["after"], False)
    assert page(world, ann, of="#r") == (["before", "after"], False)
    message = world.ok("history", ann)["messages"][0]
    assert (message["room"], message["to"]) == ("#r", "#r")


def test_a_room_with_history_shows_what_was_said_before_one_came(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#r", open=True, history=True)
    world.send(ann, "#r", "before")
    world.ok("room_join", ben, room="#r")
    assert page(world, ben, of="#r") == (["before"], False)
    assert world.texts(ben) == [], "it may be looked up, but it waits for nobody"
    assert page(world, ben) == ([], False)


# --- status ----------------------------------------------------------------------------------


def state(world: World, token: str, to: str, seq: int) -> str:
    told: str = world.ok("status", token, to=to, seq=seq)["state"]
    return told


def test_a_message_goes_from_stored_to_delivered_to_acknowledged(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    (seq,) = world.send(ann, "ben", "hi")
    told = {"state": "stored", "at_ms": START_MS, "id": "hi"}
    assert world.ok("status", ann, to="ben", seq=seq) == told
    world.texts(ben)
    assert state(world, ann, "ben", seq) == "delivered"
    world.ok("ack", ben, seq=seq)
    assert state(world, ann, "ben", seq) == "acknowledged"


def test_a_pushed_message_is_delivered(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("subscribe", ben)
    (seq,) = world.send(ann, "ben", "hi")
    assert state(world, ann, "ben", seq) == "delivered"


def test_one_device_that_has_read_is_enough(world: World) -> None:
    ann, phone = world.user("ann"), world.user("ben", device="phone")
    (seq,) = world.send(ann, "ben", "hi")
    world.ok("ack", phone, seq=seq)
    assert state(world, ann, "ben", seq) == "acknowledged"


def test_a_message_that_expired_unread_is_told_so_to_its_sender(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    read, unread = world.send(ann, "ben", "read", "unread", ttl_ms=1_000)
    world.ok("ack", ben, seq=read)
    world.now_ms += 1_000
    assert state(world, ann, "ben", unread) == "expired"
    assert state(world, ann, "ben", read) == "acknowledged"


def test_messages_of_a_room_are_stored_until_they_expire(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#r", open=True)
    world.ok("room_join", ben, room="#r")
    (seq,) = world.send(ann, "#r", "hi", ttl_ms=1_000)
    world.ok("ack", ben, seq=seq)
    assert state(world, ann, "#r", seq) == "stored"
    world.now_ms += 1_000
    assert state(world, ann, "#r", seq) == "expired"


def test_status_is_the_senders_and_names_what_was_sent(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    (seq,) = world.send(ann, "ben", "hi")
    assert world.code("status", ben, to="ben", seq=seq) is Code.NO_SUCH_MESSAGE
    assert world.code("status", ann, to="ann", seq=seq) is Code.NO_SUCH_MESSAGE
    assert world.code("status", ann, to="ben", seq=seq + 1) is Code.NO_SUCH_MESSAGE
    world.ok("user_remove", ADMIN, user="ben")
    assert world.code("status", ann, to="ben", seq=seq) is Code.NO_SUCH_MESSAGE
