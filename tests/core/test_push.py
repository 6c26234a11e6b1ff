"""Live push through `Service.turn`: order, window, silence, peers that are gone or slow."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.handlers import Policy
from broker.core.ports import DEFAULT_LIMITS, StoreLimits
from broker.core.subscriptions import IN_FLIGHT_BYTES_MAX, TICK_MS
from broker.wire.errors import Code
from broker.wire.limits import (
    EVENT_BYTES_MAX,
    SUBSCRIBER_SILENCE_MS,
    SUBSCRIPTIONS_PER_USER_MAX,
    TEXT_BYTES_MAX,
)
from tests.core.fakes import ADMIN, World


class Pair:
    """Ann sends, Ben receives on connection ``r``, which is `World.call`'s."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.ann = world.user("ann")
        self.ben = world.user("ben")
        self._sent = 0

    def send(self, count: int = 1, text: str = "hai") -> None:
        for _ in range(count):
            self._sent += 1
            self.world.ok("chat", self.ann, to="ben", text=text, id=f"m{self._sent}")

    def subscribe(self, **args: Any) -> Any:
        return self.world.ok("subscribe", self.ben, **args)

    def pushed(self) -> list[int]:
        """Return the sequences pushed since the last look, from all events, in order."""
        events, self.world.events = self.world.events, []
        messages = [m for _, body in events if body["kind"] == "messages" for m in body["messages"]]
        return [message["seq"] for message in messages]

    def idle(self, turns: int = 1) -> None:
        for _ in range(turns):
            self.world.turn()


@pytest.fixture
def pair() -> Pair:
    return Pair(World(Policy(), limits=DEFAULT_LIMITS))


def test_what_waits_comes_first_and_then_what_is_sent_in_order(pair: Pair) -> None:
    pair.send(2)
    assert pair.subscribe()["cursor"] == 0
    pair.send(2)
    assert pair.pushed() == [1, 2, 3, 4]


def test_an_event_names_its_subscription_and_what_was_pushed_before(pair: Pair) -> None:
    pair.send()
    number = pair.subscribe()["subscription"]
    pair.send()
    bodies = [body for _, body in pair.world.events]
    assert [body["subscription"] for body in bodies] == [number, number]
    assert [body["after"] for body in bodies] == [0, 1]
    assert bodies[0]["messages"][0] == {
        "seq": 1, "at_ms": pair.world.now_ms, "from": "ann", "name": "ann", "id": "m1",
        "text": "hai",
    }  # fmt: skip


def test_a_receiver_begins_where_it_says(pair: Pair) -> None:
    pair.send(3)
    pair.subscribe(after=2)
    assert pair.pushed() == [3]


def test_the_window_bounds_what_is_unacknowledged_and_an_ack_opens_it(pair: Pair) -> None:
    pair.send(5)
    pair.subscribe(window=2)
    assert pair.pushed() == [1, 2]
    pair.idle(3)
    assert pair.pushed() == []
    pair.world.ok("ack", pair.ben, seq=1)
    assert pair.pushed() == [3]
    pair.world.ok("ack", pair.ben, seq=3)
    assert pair.pushed() == [4, 5]


def test_an_ack_by_another_session_opens_the_window_and_hides_the_messages(pair: Pair) -> None:
    pair.send(4)
    pair.subscribe(window=1)
    assert pair.pushed() == [1]
    pair.world.ok("ack", pair.world.login("ben"), seq=3)
    assert pair.pushed() == [4]


def test_a_batch_that_fails_pushes_nothing(pair: Pair) -> None:
    pair.subscribe()
    assert pair.world.code("chat", pair.ann, to="ben", text="x" * (TEXT_BYTES_MAX + 1), id="m")
    pair.world.store.full = True
    pair.world.code("chat", pair.ann, to="ben", text="x", id="m")
    assert pair.pushed() == []


def test_two_receivers_of_one_user_both_get_everything(pair: Pair) -> None:
    pair.subscribe()
    other = pair.world.login("ben")
    pair.world.turn((b"other", [pair.world.frame("subscribe", other)]))
    pair.send()
    assert [route for route, _ in pair.world.events] == [b"r", b"other"]


def test_subscribing_again_replaces_and_begins_anew(pair: Pair) -> None:
    pair.send(2)
    pair.subscribe()
    pair.subscribe()
    assert pair.pushed() == [1, 2, 1, 2]
    assert pair.world.service.subscriptions == 1


def test_unsubscribing_ends_it_and_may_be_repeated(pair: Pair) -> None:
    pair.subscribe()
    assert pair.world.ok("unsubscribe", pair.ben) == {}
    assert pair.world.ok("unsubscribe", pair.ben) == {}
    pair.send()
    assert pair.pushed() == []


def test_a_receiver_whose_session_ends_is_told(pair: Pair) -> None:
    pair.subscribe()
    pair.world.ok("logout", pair.ben)
    pair.send()
    assert [body["kind"] for _, body in pair.world.events] == ["ended"]
    assert pair.world.service.subscriptions == 0


def test_a_silent_receiver_loses_its_subscription_and_a_ping_keeps_it(pair: Pair) -> None:
    pair.subscribe()
    pair.world.now_ms += SUBSCRIBER_SILENCE_MS
    pair.world.ok("ping", pair.ben)
    pair.world.now_ms += SUBSCRIBER_SILENCE_MS
    pair.idle()
    assert pair.world.service.subscriptions == 1
    pair.world.now_ms += TICK_MS
    pair.idle()
    assert [body["kind"] for _, body in pair.world.events] == ["ended"]


def test_a_receiver_that_had_no_room_for_its_end_is_told_again_until_it_hears(pair: Pair) -> None:
    pair.subscribe()
    pair.world.now_ms += SUBSCRIBER_SILENCE_MS + TICK_MS
    for _ in range(3):
        pair.idle()
        assert [body["kind"] for _, body in pair.world.events] == ["ended"]
        pair.world.events.clear()
        pair.world.service.lost({b"r": False})
        pair.world.now_ms += TICK_MS
    pair.idle(2)
    assert [body["kind"] for _, body in pair.world.events] == ["ended"]


def test_a_connection_that_is_gone_takes_its_subscription_along(pair: Pair) -> None:
    pair.subscribe()
    pair.world.service.lost({b"r": True, b"never seen": True})
    assert pair.world.service.subscriptions == 0


def test_what_could_not_be_handed_over_is_pushed_again_a_second_later(pair: Pair) -> None:
    pair.subscribe()
    pair.send(2)
    assert pair.pushed() == [1, 2]
    pair.world.service.lost({b"r": False})
    pair.idle()
    assert pair.pushed() == []
    pair.world.now_ms += TICK_MS
    pair.idle()
    assert pair.pushed() == [1, 2]


def test_an_event_holds_a_bounded_amount_of_text_and_the_rest_follows(pair: Pair) -> None:
    text = "x" * TEXT_BYTES_MAX
    each = EVENT_BYTES_MAX // TEXT_BYTES_MAX
    pair.send(each + 1, text)
    pair.subscribe()
    assert pair.pushed() == list(range(1, each + 1))
    assert pair.world.service.patience_ms == 0
    pair.idle()
    assert pair.pushed() == [each + 1]
    assert pair.world.service.patience_ms > 0


def test_text_in_flight_is_bounded_whatever_the_window(pair: Pair) -> None:
    text = "x" * TEXT_BYTES_MAX
    most = IN_FLIGHT_BYTES_MAX // TEXT_BYTES_MAX
    pair.send(most + 5, text)
    pair.subscribe(window=1_000)
    pair.idle(10)
    assert len(pair.pushed()) == most
    assert pair.world.service.patience_ms > 0
    pair.world.ok("ack", pair.ben, seq=most)
    pair.idle(2)
    assert len(pair.pushed()) == 5


def test_a_user_has_a_bounded_number_of_subscriptions(pair: Pair) -> None:
    for number in range(SUBSCRIPTIONS_PER_USER_MAX):
        pair.world.turn((b"%d" % number, [pair.world.frame("subscribe", pair.ben)]))
    assert pair.world.code("subscribe", pair.ben) is Code.BUSY
    pair.world.service.lost({b"0": True})
    pair.subscribe()


def test_a_removed_user_is_pushed_nothing(pair: Pair) -> None:
    pair.subscribe()
    pair.world.ok("user_remove", ADMIN, user="ben")
    pair.world.code("chat", pair.ann, to="ben", text="x", id="m")
    pair.idle()
    assert [body["kind"] for _, body in pair.world.events] in ([], ["ended"])


def test_a_receiver_whose_messages_were_deleted_before_their_turn_came_is_told(pair: Pair) -> None:
    """Its device had no room while another reader acknowledged them, and they grew old."""
    world = World(Policy(), limits=StoreLimits(retention_read_ms=1_000))
    ann, ben = world.user("ann"), world.user("ben")
    phone = world.login("ben", device="phone")
    world.ok("subscribe", phone, window=1)
    one, two, three = world.send(ann, "ben", "one", "two", "three")
    world.ok("ack", ben, seq=three)
    world.now_ms += 1_001
    world.service.tidy(world.now_ms)
    world.send(ann, "ben", "four")
    assert [body["kind"] for _, body in world.events] == ["messages", "ended"]
    again = world.ok("subscribe", phone, after=one)
    assert again["history_lost"] == {"first": one, "last": three}
    assert [body["kind"] for _, body in world.events[2:]] == ["messages"]
    assert world.events[-1][1]["messages"][0]["text"] == "four"
    assert two < three
