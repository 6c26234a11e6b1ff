"""What a session repeats and what it raises when the broker refuses: a fake clock, no socket."""

from __future__ import annotations

import pytest

from broker.wire.errors import Code
from clients.errors import (
    Blocked,
    Busy,
    Forbidden,
    InternalError,
    RateLimited,
    RequestError,
    RequestTimeout,
    Unavailable,
)
from clients.session import GRAIN_MS
from clients.way import BACKOFF_MS_MAX
from tests.clients.session_bench import Bench


def test_busy_is_repeated_after_the_time_that_the_broker_asked_for() -> None:
    bench = Bench(random=0.0)
    call = bench.call("login")
    bench.turn()
    bench.error(call, Code.BUSY, retry_after_ms=300)
    assert bench.turn(299) == []
    assert bench.turn(1) == [("login", call.request_id)]
    bench.ok(call.request_id, {"token": "x"})
    assert call.value() == {"token": "x"}


def test_a_busy_login_keeps_nobody_else_waiting() -> None:
    bench = Bench()
    login = bench.call("login")
    bench.turn()
    bench.error(login, Code.BUSY, retry_after_ms=300)
    chat = bench.chat()
    assert bench.turn() == [("chat", chat.request_id)]


def test_a_refusal_that_cannot_be_repeated_in_time_is_raised_at_once() -> None:
    bench = Bench()
    call = bench.call("login", timeout_ms=200)
    bench.turn()
    bench.error(call, Code.BUSY, retry_after_ms=300)
    with pytest.raises(Busy) as caught:
        call.value()
    assert caught.value.retry_after_ms == 300


@pytest.mark.parametrize("command", ["login", "auth", "passwd", "register"])
def test_after_too_many_wrong_passwords_the_time_to_wait_is_told_at_once(command: str) -> None:
    """A login that waits for a minute without a word looks as if the broker were gone."""
    bench = Bench()
    call = bench.call(command, timeout_ms=120_000)
    bench.turn()
    bench.error(call, Code.RATE_LIMITED, retry_after_ms=4_000)
    with pytest.raises(RateLimited) as caught:
        call.value()
    assert caught.value.retry_after_ms == 4_000
    assert bench.turn(10_000) == []


def test_younger_chats_wait_until_an_unavailable_one_is_repeated() -> None:
    bench = Bench(random=0.0)
    first, second = bench.chat("1"), bench.chat("2")
    bench.turn()
    bench.error(first, Code.UNAVAILABLE, retry_after_ms=100)
    third = bench.chat("3")
    ack = bench.call("ack")
    assert bench.turn(50) == [("ack", ack.request_id)]
    bench.ok(second.request_id)
    assert bench.ids(50) == [first.request_id, third.request_id]


def test_a_hold_outlives_a_reconnect() -> None:
    bench = Bench(random=0.0)
    chat = bench.chat()
    bench.turn()
    bench.error(chat, Code.UNAVAILABLE, retry_after_ms=500)
    bench.session.lost(bench.now, "gone")
    assert bench.turn(100) == []
    assert bench.session.wanted == 2
    assert bench.ids(400) == [chat.request_id]


def test_chats_whose_hold_ends_without_a_connection_go_out_in_order_with_the_next_one() -> None:
    bench = Bench(random=0.0, connect=False)
    first, second = bench.chat("1"), bench.chat("2")
    bench.turn()
    bench.session.connected(bench.now)
    bench.turn()
    bench.error(first, Code.UNAVAILABLE, retry_after_ms=500)
    bench.session.lost(bench.now, "gone")
    assert bench.turn(500) == []
    bench.session.connected(bench.now)
    assert bench.ids() == [first.request_id, second.request_id]


def test_what_was_refused_and_then_met_no_connection_fails_as_what_it_was_refused_for() -> None:
    """That is what is known of it: it was not carried out."""
    bench = Bench(random=0.0, connect=False)
    chat = bench.chat(timeout_ms=1_000)
    bench.turn()
    bench.session.connected(bench.now)
    bench.turn()
    bench.error(chat, Code.UNAVAILABLE, retry_after_ms=500)
    bench.session.lost(bench.now, "gone")
    bench.turn(1_000)
    assert isinstance(chat.error, Unavailable)


def test_a_pipeline_over_the_rate_is_repeated_from_the_refused_one_on_and_in_order() -> None:
    bench = Bench(random=0.0)
    chats = [bench.chat(str(n)) for n in range(6)]
    bench.turn()
    for chat in chats[:2]:
        bench.ok(chat.request_id)
    for chat in chats[2:5]:  # each is told the time that is left
        bench.error(chat, Code.RATE_LIMITED, retry_after_ms=1_000)
        bench.now += 10
    chats.append(bench.chat("started meanwhile"))
    assert bench.ids(1_000 - 11) == []
    bench.error(chats[5], Code.RATE_LIMITED, retry_after_ms=500)
    assert bench.ids(499) == []
    assert bench.ids(1 + GRAIN_MS) == [chat.request_id for chat in chats[2:]]


def test_a_rate_limit_keeps_nothing_but_chats_waiting() -> None:
    bench = Bench()
    chat = bench.chat()
    bench.turn()
    bench.error(chat, Code.RATE_LIMITED, retry_after_ms=1_000)
    others = [bench.call(command) for command in ("ack", "kotakmasuk", "room_join")]
    assert bench.ids() == [call.request_id for call in others]


def test_a_rate_limit_beyond_the_deadline_is_raised_as_what_it_is() -> None:
    bench = Bench()
    hasty, patient = bench.chat("1", timeout_ms=900), bench.chat("2")
    bench.turn()
    for chat in (hasty, patient):
        bench.error(chat, Code.RATE_LIMITED, retry_after_ms=1_000)
    with pytest.raises(RateLimited) as caught:
        hasty.value()
    assert caught.value.retry_after_ms == 1_000
    assert not patient.done


@pytest.mark.parametrize(
    "code",
    [Code.NO_SUCH_ROOM, Code.NO_SUCH_MESSAGE, Code.ROOM_EXISTS, Code.TOO_MANY, Code.BLOCKED],
)
def test_what_waiting_does_not_mend_is_not_repeated(code: Code) -> None:
    bench = Bench()
    call = bench.call("room_join")
    bench.turn()
    bench.error(call, code)
    assert isinstance(call.error, RequestError)
    assert call.error.code is code
    assert bench.ids(60_000) == []


@pytest.mark.parametrize(("code", "error"), [(Code.BLOCKED, Blocked), (Code.FORBIDDEN, Forbidden)])
def test_a_message_that_may_not_be_sent_fails_alone_and_holds_up_no_other(
    code: Code, error: type[RequestError]
) -> None:
    bench = Bench()
    refused, other = bench.chat("1"), bench.chat("2")
    bench.turn()
    bench.error(refused, code)
    later = bench.chat("3")
    assert bench.ids() == [later.request_id]
    bench.ok(other.request_id)
    assert isinstance(refused.error, error)
    assert other.error is None


def test_unavailable_until_the_deadline_is_raised_as_what_it_is() -> None:
    bench = Bench()
    call = bench.call(timeout_ms=5_000)
    while not call.done:
        if bench.turn(10):
            bench.error(call, Code.UNAVAILABLE)
    assert type(call.error) is Unavailable
    assert call.sends > 3


def test_an_internal_fault_is_repeated_once() -> None:
    bench = Bench()
    call = bench.chat()
    bench.turn()
    bench.error(call, Code.INTERNAL)
    _, sent = bench.wait_for_send(at_most_ms=BACKOFF_MS_MAX)
    assert sent == [("chat", call.request_id)]
    bench.error(call, Code.INTERNAL)
    assert type(call.error) is InternalError


def test_a_repeated_logout_whose_session_is_gone_has_succeeded() -> None:
    bench = Bench()
    call = bench.call("logout")
    bench.turn()
    bench.session.lost(bench.now, "gone")
    bench.wait_for_send(at_most_ms=BACKOFF_MS_MAX)
    bench.error(call, Code.UNAUTHORIZED)
    assert call.value() == {}


def test_silence_after_a_repetition_is_a_timeout_whatever_was_answered_before() -> None:
    bench = Bench()
    call = bench.chat(timeout_ms=900)
    bench.turn()
    bench.error(call, Code.UNAVAILABLE)
    bench.wait_for_send(at_most_ms=BACKOFF_MS_MAX)
    bench.turn(900)
    assert isinstance(call.error, RequestTimeout)
