"""The subscription without a socket: what it asks for, what it takes in, and when it says so."""

from __future__ import annotations

from typing import Any

import pytest

from broker.wire.errors import Code
from broker.wire.limits import SUBSCRIBER_SILENCE_MS
from clients.errors import (
    BadRequest,
    Busy,
    ClientClosed,
    ConnectionFailed,
    InternalError,
    RequestError,
    Unauthorized,
)
from clients.outbox import PENDING_MAX
from clients.results import Message
from clients.session import GRAIN_MS
from clients.subscription import HEARTBEAT_MS
from tests.clients.session_bench import TIMEOUT_MS, Bench
from tests.clients.subscription_desk import WINDOW, Desk, acks, written

# --- what arrives ----------------------------------------------------------------------------


def test_messages_arrive_in_order_and_whole() -> None:
    desk = Desk(answer=False)
    request = desk.answer_subscribe()
    assert request[2:] == ("t", {"window": WINDOW})
    assert not desk.subscription.done
    desk.push(3, 5, after=0)
    assert desk.subscription.next(0) == Message(3, 1, "shafwa", "", "i3", "hi")
    assert desk.read() == [5]


def test_a_reader_may_begin_behind_a_sequence() -> None:
    desk = Desk(after=7, answer=False)
    assert desk.answer_subscribe()[3] == {"window": WINDOW, "after": 7}
    desk.push(6, 8, after=5)
    assert desk.read() == [8]


def test_repeated_messages_are_dropped() -> None:
    desk = Desk()
    desk.push(1, 2, after=0)
    desk.push(1, 2, 3, after=0)
    desk.push(2, after=0)
    assert desk.read() == [1, 2, 3]


def test_a_gap_is_closed_by_subscribing_again_behind_the_last_one_received() -> None:
    desk = Desk()
    desk.push(1, 2, after=0)
    desk.push(4, after=3)
    desk.push(5, after=4)  # of the same subscription: it comes again
    assert desk.read() == [1, 2]
    assert desk.answer_subscribe(2)[3] == {"window": WINDOW, "after": 2}
    desk.push(3, 4, 5, after=2, number=2)
    assert desk.read() == [3, 4, 5]


def test_what_another_session_acknowledged_is_no_gap() -> None:
    desk = Desk(answer=False)
    desk.answer_subscribe(cursor=10)
    desk.push(11, after=10)
    assert desk.read() == [11]
    assert desk.sent() == []


def test_events_of_another_subscription_are_not_ours() -> None:
    desk = Desk(answer=False)
    desk.push(1, after=0, number=4)  # before the answer: of a former loop
    desk.answer_subscribe(5)
    desk.push(2, after=0, number=4)
    desk.bench.event(4, "ended")
    assert desk.read() == []
    assert desk.sent() == []


def test_a_subscribe_that_the_session_repeated_replaces_the_one_that_was_answered() -> None:
    desk = Desk()
    desk.push(1, after=0, number=2)
    assert desk.read() == [1]
    desk.push(2, after=1, number=1)
    assert desk.read() == []


def test_kinds_of_a_later_version_are_left_alone() -> None:
    desk = Desk()
    desk.bench.event(1, "weather", degrees=30)
    desk.push(1, after=0)
    assert desk.read() == [1]


@pytest.mark.parametrize("fields", [{}, {"after": 0}, {"after": 0, "messages": [{"seq": 1}]}])
def test_an_event_without_its_fields_is_no_broker_of_ours(fields: dict[str, Any]) -> None:
    desk = Desk()
    wanted = desk.bench.session.wanted
    desk.bench.event(1, "messages", **fields)
    assert desk.bench.session.wanted != wanted


def test_events_without_a_subscription_are_left_alone() -> None:
    bench = Bench()
    call = bench.call()
    bench.turn()
    bench.event(1, "messages", after=0, messages=[written(1)])
    bench.ok(call.request_id, {"cursor": 1})
    assert call.value() == {"cursor": 1}


def test_no_more_than_the_window_waits_for_the_reader() -> None:
    desk = Desk()
    desk.push(*range(1, WINDOW + 3), after=0)
    assert desk.read() == list(range(1, WINDOW + 1))
    assert desk.answer_subscribe(2)[3]["after"] == WINDOW


# --- reconnecting ----------------------------------------------------------------------------


def test_a_new_connection_subscribes_again_behind_the_last_one_received() -> None:
    desk = Desk()
    desk.push(1, 2, after=0)
    assert desk.read() == [1, 2]
    request = desk.break_connection()
    assert request[3] == {"window": WINDOW, "after": 2}
    desk.bench.ok(request[0], {"subscription": 1, "cursor": 0})
    desk.push(2, 3, after=1)
    assert desk.read() == [3]


def test_it_subscribes_again_when_the_reader_has_caught_up_so_that_the_window_holds() -> None:
    desk = Desk()
    desk.push(1, 2, after=0)
    desk.bench.session.lost(desk.bench.now, "gone")
    assert desk.sent(5_000) == []
    assert desk.next() == 1
    assert desk.sent(5_000) == []
    assert desk.next() == 2
    assert desk.the_one_sent("subscribe", 5_000)[3]["after"] == 2


def test_however_long_the_broker_is_gone_it_is_waited_for() -> None:
    desk = Desk()
    desk.bench._connect = False
    for _ in range(50):
        desk.bench.session.lost(desk.bench.now, "gone")
        desk.bench.turn(100_000)
    assert not desk.subscription.done
    desk.bench.session.connected(desk.bench.now)
    assert "subscribe" in [request[1] for request in desk.sent()]


def test_the_reader_is_told_once_that_the_connection_broke_and_once_that_it_is_back() -> None:
    desk = Desk()
    desk.bench.session.lost(desk.bench.now, "gone")
    assert desk.reports == []  # not before somebody waits: the reader may be leaving
    desk.sent()
    assert desk.reports == [False]
    request = desk.break_connection()
    assert desk.reports == [False]
    desk.bench.ok(request[0], {"subscription": 1, "cursor": 0})
    assert desk.reports == [False, True]


def test_the_first_connection_is_waited_for_no_longer_than_was_asked() -> None:
    desk = Desk(answer=False)
    desk.bench._connect = False
    desk.bench.turn()
    desk.bench.turn(TIMEOUT_MS)
    with pytest.raises(ConnectionFailed):
        desk.next()
    assert desk.reports == []


def test_after_the_end_it_subscribes_again() -> None:
    desk = Desk()
    desk.push(1, after=0)
    desk.read()
    desk.bench.event(1, "ended")
    assert desk.answer_subscribe(2)[3]["after"] == 1
    desk.push(2, after=1, number=2)
    assert desk.read() == [2]


@pytest.mark.parametrize(
    ("code", "error"),
    [(Code.UNAUTHORIZED, Unauthorized), (Code.BAD_REQUEST, BadRequest)],
)
def test_what_a_subscribe_is_refused_for_is_raised(code: Code, error: type[RequestError]) -> None:
    desk = Desk()
    desk.bench.event(1, "ended")
    desk.refuse(desk.the_one_sent("subscribe"), code)
    with pytest.raises(error):
        desk.next()
    assert desk.sent(HEARTBEAT_MS) == []


def test_a_broker_with_too_many_subscriptions_is_asked_again() -> None:
    desk = Desk()
    request = desk.break_connection()
    desk.refuse(request, Code.BUSY)
    assert not desk.subscription.done
    assert desk.the_one_sent("subscribe", 5_000)[3] == request[3]


def test_an_answer_without_its_fields_is_a_fault_of_the_broker() -> None:
    desk = Desk(answer=False)
    desk.bench.ok(desk.the_one_sent("subscribe")[0], {"cursor": 1})
    with pytest.raises(InternalError):
        desk.next()


# --- acknowledging ---------------------------------------------------------------------------


def test_a_message_is_acknowledged_once_nothing_else_is_there() -> None:
    desk = Desk()
    desk.push(1, 2, 3, after=0)
    desk.work(2)
    assert acks(desk.sent()) == []
    desk.work(1)
    assert acks(desk.sent()) == [3]


def test_half_a_window_is_acknowledged_though_more_is_there() -> None:
    desk = Desk()
    desk.push(*range(1, 11), after=0)
    desk.work(WINDOW // 2 - 1)
    assert acks(desk.sent()) == []
    desk.work(1)
    assert acks(desk.sent()) == [WINDOW // 2]


def test_one_acknowledgement_is_under_way_and_the_next_is_the_newest() -> None:
    desk = Desk()
    desk.push(1, after=0)
    desk.work(1)
    first = desk.the_one_sent("ack")
    for seq in range(2, 40):
        desk.push(seq, after=seq - 1)
        desk.work(1)
    assert desk.sent() == []
    desk.bench.ok(first[0], {"cursor": 1})
    assert acks(desk.sent()) == [39]


def test_what_was_only_handed_out_is_not_acknowledged() -> None:
    desk = Desk()
    desk.push(1, 2, after=0)
    assert desk.read() == [1, 2]
    assert desk.sent() == []
    assert [call.command for call in desk.leave()] == ["unsubscribe"]


def test_an_acknowledgement_survives_the_connection() -> None:
    desk = Desk()
    desk.push(1, after=0)
    desk.work(1)
    desk.sent()
    desk.bench.session.lost(desk.bench.now, "gone")
    assert acks(desk.sent(5_000)) == [1]


def test_leaving_acknowledges_what_was_worked_on_and_then_unsubscribes() -> None:
    desk = Desk()
    desk.push(1, 2, 3, after=0)
    desk.work(2)
    desk.next()
    assert [call.command for call in desk.leave()] == ["ack", "unsubscribe"]
    sent = desk.sent()
    assert acks(sent) == [2]
    assert [request[1:3] for request in sent] == [("ack", "t"), ("unsubscribe", "t")]


def test_leaving_takes_the_place_of_an_acknowledgement_under_way() -> None:
    desk = Desk()
    desk.push(1, after=0)
    desk.work(1)
    desk.push(2, after=1)
    desk.work(1)
    desk.leave()
    assert acks(desk.sent()) == [2]
    assert desk.bench.session.pending == 2


def test_without_a_connection_leaving_waits_for_nobody() -> None:
    desk = Desk()
    desk.push(1, after=0)
    desk.work(1)
    desk.bench.session.lost(desk.bench.now, "gone")
    assert desk.leave() == []
    assert desk.bench.session.pending == 0


def test_a_client_full_of_requests_leaves_all_the_same() -> None:
    """The broker will notice the silence."""
    desk = Desk()
    desk.push(1, after=0)
    desk.next()
    for _ in range(PENDING_MAX):
        desk.bench.call("kotakmasuk")
    assert desk.leave() == []
    assert desk.bench.session.subscription is None
    assert not [request for request in desk.sent() if request[1] == "unsubscribe"]


def test_a_subscription_that_has_failed_does_not_come_back_with_the_connection() -> None:
    desk = Desk()
    desk.refuse(desk.the_one_sent("ping", HEARTBEAT_MS), Code.UNAUTHORIZED)
    desk.bench.session.lost(desk.bench.now, "gone")
    assert desk.sent(10_000) == []
    assert desk.bench.session.wanted == 0, "nobody waits for anything"


def test_an_unsubscribe_without_an_answer_does_not_end_the_next_subscription() -> None:
    desk = Desk()
    desk.leave()
    assert [request[1] for request in desk.sent()] == ["unsubscribe"]
    desk.subscribe()
    again = [request[1] for _ in range(20) for request in desk.sent(500)]
    assert "subscribe" in again
    assert "unsubscribe" not in again


def test_a_session_that_ended_is_noticed_by_an_acknowledgement() -> None:
    desk = Desk()
    desk.push(1, 2, after=0)
    desk.work(2)
    desk.refuse(desk.the_one_sent("ack"), Code.UNAUTHORIZED)
    with pytest.raises(Unauthorized):
        desk.next()
    assert desk.leave() == []


# --- heartbeats and limits -------------------------------------------------------------------


def test_a_silent_subscriber_says_with_its_token_that_it_lives() -> None:
    desk = Desk()
    assert desk.sent(HEARTBEAT_MS - 1) == []
    ping = desk.the_one_sent("ping", 1 + GRAIN_MS)
    assert ping[2] == "t"
    desk.bench.ok(ping[0], {"now_ms": 1})
    assert desk.sent(HEARTBEAT_MS - 1) == []
    assert desk.the_one_sent("ping", 1 + GRAIN_MS)
    assert HEARTBEAT_MS * 3 <= SUBSCRIBER_SILENCE_MS


def test_the_session_wakes_its_caller_for_the_heartbeat() -> None:
    desk = Desk()
    after_ms, sent = desk.bench.wait_for_send(at_most_ms=HEARTBEAT_MS + 100)
    assert after_ms == pytest.approx(HEARTBEAT_MS, abs=50)
    assert [command for command, _ in sent] == ["ping"]


def test_an_acknowledgement_is_a_heartbeat() -> None:
    desk = Desk()
    desk.sent(HEARTBEAT_MS - 1)
    desk.push(1, after=0)
    desk.work(1)
    desk.bench.ok(desk.the_one_sent("ack")[0], {"cursor": 1})
    assert desk.sent(HEARTBEAT_MS - 1) == []


def test_an_unanswered_heartbeat_does_not_make_the_timer_spin() -> None:
    desk = Desk()
    desk.bench._connect = False
    desk.sent(HEARTBEAT_MS)
    desk.bench.session.lost(desk.bench.now, "gone")
    desk.bench.turn(3 * HEARTBEAT_MS)
    assert desk.subscription.due_ms - desk.bench.now > 1_000


def test_a_session_that_ended_is_noticed_by_a_heartbeat() -> None:
    desk = Desk()
    desk.refuse(desk.the_one_sent("ping", HEARTBEAT_MS), Code.UNAUTHORIZED)
    with pytest.raises(Unauthorized):
        desk.next()


def test_a_client_holds_one_subscription() -> None:
    desk = Desk()
    with pytest.raises(Busy, match="already"):
        desk.subscribe()
    desk.leave()
    desk.subscribe()


def test_a_client_full_of_requests_acknowledges_once_there_is_room() -> None:
    desk = Desk()
    desk.push(1, after=0)
    calls = [desk.bench.call("kotakmasuk") for _ in range(PENDING_MAX)]
    desk.work(1)
    assert acks(desk.sent()) == []
    desk.bench.session.abandon(calls[0])
    assert acks(desk.sent(100)) == [1]


def test_closing_the_client_wakes_its_reader() -> None:
    desk = Desk()
    woken: list[bool] = []
    desk.subscription.on_done = lambda: woken.append(True)
    desk.bench.session.close()
    assert woken == [True]
    with pytest.raises(ClientClosed):
        desk.next()
