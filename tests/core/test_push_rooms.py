"""Live push over rooms: who is woken, from when to when, also where a batch failed in between."""

from __future__ import annotations

import pytest

from broker.core.handlers import Policy
from broker.core.ports import DEFAULT_LIMITS, StoreFullError
from broker.core.subscriptions import TICK_MS
from broker.wire.errors import Code
from broker.wire.limits import EVENT_BYTES_MAX, TEXT_BYTES_MAX
from tests.core.fakes import World


class Trio(World):
    """Ann and Ben in ``#r``, Cat outside. Ben receives on connection ``r``."""

    def __init__(self) -> None:
        super().__init__(Policy(), limits=DEFAULT_LIMITS)
        self.ann, self.ben, self.cat = (self.user(each) for each in ("ann", "ben", "cat"))
        self.ok("room_create", self.ann, room="#r", open=True)
        self.ok("room_join", self.ben, room="#r")

    def pushed(self) -> list[str]:
        """Return the texts pushed since the last look."""
        events, self.events = self.events, []
        return [each["text"] for _, body in events for each in body.get("messages", ())]

    def fails(self, *frames: bytes) -> None:
        """Send a batch that finds no room, not even at its second attempt."""
        self.store.commit_faults = [StoreFullError(), StoreFullError()]
        replies = self.batch(*frames)
        assert {reply.error and reply.error.code for reply in replies} == {Code.STORAGE_FULL}


@pytest.fixture
def trio() -> Trio:
    return Trio()


def test_what_is_said_in_a_room_is_pushed_to_its_members_with_its_name(trio: Trio) -> None:
    trio.ok("subscribe", trio.ben)
    trio.turn((b"cat", [trio.frame("subscribe", trio.cat)]))
    trio.send(trio.ann, "#r", "hi")
    ((route, body),) = trio.events
    assert (route, body["messages"][0]["room"]) == (b"r", "#r")
    trio.send(trio.ann, "ben", "to you")
    assert "room" not in trio.events[1][1]["messages"][0]


def test_own_messages_in_a_room_are_pushed_too(trio: Trio) -> None:
    trio.ok("subscribe", trio.ben)
    trio.send(trio.ben, "#r", "mine")
    assert trio.pushed() == ["mine"]


def test_who_joins_while_subscribed_is_pushed_what_is_said_from_then_on(trio: Trio) -> None:
    trio.ok("subscribe", trio.cat)
    trio.send(trio.ann, "#r", "before")
    trio.ok("room_join", trio.cat, room="#r")
    trio.send(trio.ann, "#r", "after")
    assert trio.pushed() == ["after"]


def test_who_leaves_while_subscribed_is_pushed_nothing_more(trio: Trio) -> None:
    trio.ok("subscribe", trio.ben)
    trio.ok("room_leave", trio.ben, room="#r")
    trio.send(trio.ann, "#r", "hi")
    assert trio.pushed() == []


def test_an_invitation_is_pushed(trio: Trio) -> None:
    trio.ok("subscribe", trio.cat)
    trio.ok("room_invite", trio.ann, room="#r", user="cat")
    assert len(trio.pushed()) == 1


def test_a_member_that_subscribes_again_is_woken_once(trio: Trio) -> None:
    trio.ok("subscribe", trio.ben)
    trio.ok("subscribe", trio.ben)
    trio.send(trio.ann, "#r", "hi")
    assert trio.pushed() == ["hi"]


def test_what_was_said_in_a_room_that_was_left_holds_no_window_closed(trio: Trio) -> None:
    trio.ok("subscribe", trio.ben, window=1)
    (seq,) = trio.send(trio.ann, "#r", "in the room")
    trio.ok("room_leave", trio.ben, room="#r")
    trio.ok("ack", trio.ben, seq=seq)
    trio.send(trio.ann, "ben", "to you")
    assert trio.pushed() == ["in the room", "to you"]


def test_leaving_lets_what_waits_come_at_once(trio: Trio) -> None:
    trio.ok("subscribe", trio.ben, window=1)
    trio.send(trio.ann, "#r", "in the room")
    trio.send(trio.ann, "ben", "to you")
    trio.ok("room_leave", trio.ben, room="#r")
    assert trio.pushed() == ["in the room", "to you"]


# --- batches that fail -----------------------------------------------------------------------


def test_a_leave_that_was_rolled_back_loses_no_wake_up(trio: Trio) -> None:
    trio.ok("subscribe", trio.ben)
    trio.fails(trio.frame("room_leave", trio.ben, room="#r"))
    trio.send(trio.ann, "#r", "hi")
    assert trio.pushed() == ["hi"]


def test_a_leave_that_was_rolled_back_opens_no_window(trio: Trio) -> None:
    trio.ok("subscribe", trio.ben, window=1)
    trio.send(trio.ann, "#r", "one", "two")
    trio.fails(trio.frame("room_leave", trio.ben, room="#r"))
    assert trio.pushed() == ["one"]


def test_a_join_that_was_rolled_back_wakes_nobody(trio: Trio) -> None:
    trio.ok("subscribe", trio.cat)
    trio.fails(trio.frame("room_join", trio.cat, room="#r"))
    assert "#r" not in trio.service._subscriptions
    trio.send(trio.ann, "#r", "hi")
    assert trio.pushed() == []


def test_a_subscription_of_a_batch_that_failed_is_none(trio: Trio) -> None:
    trio.fails(trio.frame("subscribe", trio.ben))
    trio.send(trio.ann, "ben", "hi")
    assert trio.events == []
    assert trio.service.subscriptions == 0


def test_the_subscription_that_one_of_a_failed_batch_would_have_replaced_goes_on(
    trio: Trio,
) -> None:
    number = trio.ok("subscribe", trio.ben, window=7)["subscription"]
    trio.fails(trio.frame("subscribe", trio.ben), trio.frame("unsubscribe", trio.ben))
    trio.send(trio.ann, "#r", "hi")
    assert [body["subscription"] for _, body in trio.events] == [number]


# --- peers without room ----------------------------------------------------------------------


def test_what_is_repeated_claims_no_gap(trio: Trio) -> None:
    """Sequences of other mailboxes lie in between: the receiver must not take them for a loss."""
    trio.ok("subscribe", trio.ben)
    trio.send(trio.ann, "ben", "one")
    trio.ok("ack", trio.ben, seq=1)
    trio.send(trio.ann, "cat", "not yours", "neither")
    trio.send(trio.ann, "ben", "two")
    trio.service.lost({b"r": False})
    trio.now_ms += TICK_MS
    trio.events.clear()
    trio.turn()
    ((_, body),) = trio.events
    assert body["after"] == 1
    assert [each["text"] for each in body["messages"]] == ["two"]


def test_a_receiver_whose_peer_has_no_room_is_left_alone_for_a_second(trio: Trio) -> None:
    """However much waits for it, and whatever else is said: trying costs as much as sending."""
    for number in range(EVENT_BYTES_MAX // TEXT_BYTES_MAX * 2):
        trio.ok("chat", trio.ann, to="ben", text="x" * TEXT_BYTES_MAX, id=f"m{number}")
    trio.ok("subscribe", trio.ben)
    assert trio.service.patience_ms == 0, "there is more to push"
    trio.service.lost({b"r": False})
    assert trio.service.patience_ms > 0
    trio.events.clear()
    trio.send(trio.ann, "#r", "hi")
    trio.ok("ack", trio.ben, seq=1)
    assert trio.events == []
    trio.now_ms += TICK_MS
    trio.turn()
    assert trio.events


def test_text_in_flight_is_counted_in_bytes(trio: Trio) -> None:
    text = "\u00e9" * (TEXT_BYTES_MAX // 2)
    for number in range(20):
        trio.ok("chat", trio.ann, to="ben", text=text, id=f"m{number}")
    trio.ok("subscribe", trio.ben, window=1_000)
    for _ in range(9):
        trio.turn()
    assert len(trio.pushed()) == 16
