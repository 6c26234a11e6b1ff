"""The session without a socket: a fake clock, and frames passed by hand."""

from __future__ import annotations

from math import inf

import msgpack
import pytest

from broker.wire import limits
from broker.wire.envelope import encode_error, encoder
from broker.wire.errors import Code, WireError
from clients.errors import (
    BadRequest,
    Busy,
    ClientClosed,
    ConnectionFailed,
    NoSuchUser,
    RequestTimeout,
    TooLarge,
)
from clients.outbox import PENDING_MAX
from clients.request import Call
from clients.way import BACKOFF_MS_MAX, CONNECT_MS, RECONNECT_MS_MAX
from tests.clients.session_bench import RETRY_MS, Bench


def test_a_request_is_sent_once_connected_and_answered_by_its_id() -> None:
    bench = Bench()
    one, two = bench.call(), bench.call()
    assert bench.turn() == [("ack", one.request_id), ("ack", two.request_id)]
    bench.ok(two.request_id, {"cursor": 2})
    assert two.value() == {"cursor": 2}
    assert not one.done
    assert bench.session.pending == 1


def test_nothing_is_handed_out_before_the_connection_stands() -> None:
    bench = Bench(connect=False)
    bench.call()
    assert bench.turn() == []
    assert bench.session.wanted == 1
    bench.call()
    assert bench.turn() == []
    assert bench.session.wanted == 1, "and the one that is being made will do for all"
    bench.session.connected(bench.now)
    assert len(bench.turn()) == 2


def test_no_connection_is_wanted_before_the_first_request() -> None:
    bench = Bench()
    bench.turn(10_000)
    assert bench.session.wanted == 0


def test_a_zeromq_message_holds_no_more_frames_than_the_protocol_allows() -> None:
    bench = Bench()
    for number in range(limits.FRAMES_PER_MESSAGE_MAX + 1):
        bench.chat(str(number))
    bench.session.tick(bench.now)
    bench.session.connected(bench.now)
    sizes = [len(bench.session.take()) for _ in range(3)]
    assert sizes == [limits.FRAMES_PER_MESSAGE_MAX, 1, 0]


def test_what_found_no_room_is_taken_again_in_the_same_order() -> None:
    bench = Bench(connect=False)
    calls = [bench.chat(str(n)) for n in range(3)]
    bench.turn()
    bench.session.connected(bench.now)
    bench.session.take()
    bench.session.give_back()
    assert bench.ids() == [call.request_id for call in calls]
    assert [call.sends for call in calls] == [1, 1, 1]


# --- replies ---------------------------------------------------------------------------------


def test_late_and_repeated_replies_are_ignored() -> None:
    bench = Bench()
    call = bench.call()
    bench.turn()
    bench.ok(call.request_id, {"cursor": 1})
    bench.ok(call.request_id, {"cursor": 2})
    bench.ok(99)
    bench.error(call, Code.INTERNAL)
    assert call.value() == {"cursor": 1}


def test_replies_that_share_a_frame_settle_their_calls() -> None:
    bench = Bench()
    first, second, third = (bench.chat(text) for text in "abc")
    bench.turn()
    refusal = {"code": "no_such_user", "message": "because"}
    bench.raw(
        msgpack.packb(
            [
                [first.request_id, "OK", {"seq": 1}],
                [second.request_id, "ERROR", refusal],
                [99, "OK", {}],
                [third.request_id, "OK", {"seq": 3}],
            ]
        )
    )
    assert (first.value(), third.value()) == ({"seq": 1}, {"seq": 3})
    with pytest.raises(NoSuchUser):
        second.value()


def test_an_error_is_raised_as_the_class_of_its_code() -> None:
    bench = Bench()
    call = bench.chat()
    bench.turn()
    bench.error(call, Code.NO_SUCH_USER)
    with pytest.raises(NoSuchUser, match="because"):
        call.value()
    assert bench.session.pending == 0


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"\xc1",
        b"HTTP/1.1 400",
        msgpack.packb(7),
        msgpack.packb([1, "OK"]),
        msgpack.packb([1, "OK", [1]]),
        msgpack.packb(["1", "OK", {}]),
        msgpack.packb([[1], "OK", {}]),
        msgpack.packb([1, "MAYBE", {}]),
        msgpack.packb([1, "ERROR", "text"]),
        msgpack.packb([]),
        msgpack.packb([[1, "OK"]]),
        msgpack.packb([[99, "OK", {}], 7]),
    ],
)
def test_a_peer_that_does_not_speak_the_protocol_is_left(frame: bytes) -> None:
    bench = Bench()
    call = bench.call(timeout_ms=500)
    bench.turn()
    bench.raw(frame)
    assert bench.session.wanted == 0
    assert not call.done


def test_a_reply_without_an_id_disturbs_nobody() -> None:
    bench = Bench()
    call = bench.call()
    bench.turn()
    bench.raw(
        encode_error(encoder(), None, WireError(Code.BAD_REQUEST, "too many frames")),
        msgpack.packb([None, "OK", {}]),
    )
    assert bench.session.wanted == 1
    assert not call.done


# --- deadlines -------------------------------------------------------------------------------


def test_a_call_without_an_answer_fails_at_its_deadline_and_says_what_is_unknown() -> None:
    bench = Bench()
    call = bench.chat(timeout_ms=700)
    bench.turn()
    bench.turn(699)
    assert not call.done
    bench.turn(1)
    with pytest.raises(RequestTimeout, match="same message id is safe") as caught:
        call.value()
    assert caught.value.message_id == "id-hi"
    assert "tcp://fake:1" in str(caught.value)


def test_a_call_that_never_met_a_connection_says_that_it_was_not_carried_out() -> None:
    bench = Bench(connect=False)
    call = bench.chat(timeout_ms=700)
    bench.turn()
    bench.session.lost(bench.now, "the connection was refused")
    bench.turn(700)
    with pytest.raises(ConnectionFailed, match=r"tcp://fake:1 .*refused"):
        call.value()


def test_what_failed_is_not_sent_afterwards() -> None:
    bench = Bench(connect=False)
    bench.chat(timeout_ms=700)
    later = bench.chat("later")
    bench.turn()
    bench.turn(700)
    bench.session.connected(bench.now)
    assert bench.ids() == [later.request_id]


def test_each_call_has_a_deadline_of_its_own() -> None:
    bench = Bench()
    long, short = bench.call(timeout_ms=900), bench.call(timeout_ms=300)
    bench.turn()
    bench.turn(300)
    assert (long.done, short.done) == (False, True)
    bench.turn(600)
    assert long.done


# --- broken connections ----------------------------------------------------------------------


def test_after_a_break_everything_unanswered_is_repeated_oldest_first_with_the_same_bytes() -> None:
    bench = Bench()
    calls = [bench.chat(str(n)) for n in range(5)]
    frames = [call.frame for call in calls]
    bench.turn()
    bench.ok(calls[0].request_id)
    bench.ok(calls[3].request_id)
    bench.session.lost(bench.now, "the broker closed the connection")
    calls.append(bench.chat("new"))
    _, sent = bench.wait_for_send(at_most_ms=BACKOFF_MS_MAX)
    assert [request_id for _, request_id in sent] == [calls[n].request_id for n in (1, 2, 4, 5)]
    assert [call.frame for call in calls[:5]] == frames
    assert bench.session.wanted == 2


def wait_after_a_loss(bench: Bench, *, final: bool = False) -> float:
    """Break the connection, or the attempt to make one; return after how long another begins."""
    while not bench.session.wanted:
        bench.turn(1)
    begin = bench.now
    bench.session.lost(bench.now, "refused", final=final)
    while not bench.session.wanted:
        bench.turn(1)
    return bench.now - begin


def test_attempts_to_connect_back_off_and_begin_anew_once_the_broker_was_heard() -> None:
    bench = Bench(connect=False)
    bench.call(timeout_ms=10**6)
    waits = [wait_after_a_loss(bench) for _ in range(9)]
    assert waits[:4] == [50, 100, 200, 400]
    assert waits[4:] == [RECONNECT_MS_MAX] * 5, "so soon is it back when its broker is"
    bench.session.connected(bench.now)
    bench.turn()
    bench.ok(99)
    bench.session.lost(bench.now, "gone")
    assert bench.session.due_ms - bench.now == 50


def test_a_client_that_no_broker_admits_tries_more_seldom() -> None:
    """Each try costs both sides a handshake, and waits for a person."""
    bench = Bench(connect=False)
    bench.call(timeout_ms=10**6)
    waits = [wait_after_a_loss(bench, final=True) for _ in range(9)]
    assert waits[-1] == BACKOFF_MS_MAX


def test_clients_that_lost_their_broker_together_come_back_spread_over_half_the_wait() -> None:
    """Ten thousand of them must not all knock at the same moment."""
    waits = []
    for number in range(100):
        bench = Bench(random=number / 100, connect=False)
        bench.call(timeout_ms=10**6)
        waits.append([wait_after_a_loss(bench) for _ in range(6)][-1])
    for begin in range(RECONNECT_MS_MAX // 2, RECONNECT_MS_MAX, 50):
        assert sum(begin <= wait < begin + 50 for wait in waits) == 20


def test_jitter_halves_the_wait_at_most() -> None:
    bench = Bench(random=0.0, connect=False)
    bench.call()
    bench.turn()
    bench.session.lost(bench.now, "refused")
    assert bench.session.due_ms - bench.now == 25


def test_an_attempt_to_connect_that_nobody_answers_is_given_up() -> None:
    bench = Bench(connect=False)
    bench.call()
    bench.turn()
    bench.turn(CONNECT_MS)
    assert bench.session.wanted == 0


def test_where_more_attempts_would_end_alike_what_was_never_sent_fails_at_once() -> None:
    """What was sent may have been carried out, and what has no deadline waits for a person."""
    bench = Bench()
    sent = bench.call()
    bench.turn()
    bench.session.lost(bench.now, "the broker closed the connection")
    unsent, patient = bench.chat(), bench.call(timeout_ms=inf)
    bench.session.fail_unsent("the key is not admitted")
    with pytest.raises(ConnectionFailed, match="not admitted") as caught:
        unsent.value()
    assert caught.value.message_id == "id-hi"
    assert not sent.done
    assert not patient.done


def test_an_idle_client_does_not_reconnect_until_it_is_used() -> None:
    bench = Bench()
    call = bench.call()
    bench.turn()
    bench.ok(call.request_id)
    bench.session.lost(bench.now, "gone")
    bench.turn(60_000)
    assert bench.session.wanted == 0
    bench.call()
    assert len(bench.turn()) == 1


# --- silence ---------------------------------------------------------------------------------


def test_silence_is_probed_and_then_judged_a_broken_connection() -> None:
    bench = Bench()
    call = bench.chat()
    bench.turn()
    assert bench.turn(RETRY_MS - 1) == []
    assert [command for command, _ in bench.turn(1)] == ["ping"]
    bench.turn(RETRY_MS)
    assert bench.session.wanted == 0
    _, sent = bench.wait_for_send(at_most_ms=BACKOFF_MS_MAX)
    assert sent == [("chat", call.request_id)]


def test_a_slow_command_is_not_repeated_while_the_broker_answers_the_probe() -> None:
    bench = Bench()
    bench.call("login")
    bench.turn()
    ((_, probe),) = bench.turn(RETRY_MS)
    bench.ok(probe)
    assert bench.turn(RETRY_MS) == []
    assert bench.session.wanted == 1
    wait_ms, sent = bench.wait_for_send(at_most_ms=10 * RETRY_MS)
    assert sent[0][0] == "login"
    assert wait_ms == 4 * RETRY_MS


def test_a_lost_reply_is_asked_for_again_with_everything_younger_in_order() -> None:
    bench = Bench()
    old, lost, answered, young = [bench.chat(str(n)) for n in range(4)]
    bench.turn()
    bench.ok(old.request_id)
    bench.ok(answered.request_id)
    bench.turn(RETRY_MS - 1)
    newest = bench.chat("newest")
    sent = bench.turn(1)
    assert {command for command, _ in sent} == {"ping", "chat"}
    bench.ok(sent[0][1])
    repeated = [request_id for command, request_id in bench.turn(RETRY_MS) if command == "chat"]
    assert repeated == [lost.request_id, young.request_id, newest.request_id]
    assert bench.session.wanted == 1


def test_any_answer_shows_that_the_connection_works() -> None:
    bench = Bench()
    bench.chat("lost")
    other = bench.call()
    bench.turn()
    bench.turn(RETRY_MS)
    bench.ok(other.request_id)  # but the probe's answer was lost as well
    bench.turn(RETRY_MS)
    assert bench.session.wanted == 1


def test_repetitions_on_a_working_connection_become_rarer() -> None:
    bench = Bench()
    bench.call(timeout_ms=10**6)
    bench.turn()
    repeated: list[float] = []
    begin = bench.now
    while len(repeated) < 3:
        for command, request_id in bench.turn(100):
            if command == "ping":
                bench.ok(request_id)
            else:
                repeated.append(bench.now - begin)
                begin = bench.now
    assert repeated[0] < repeated[1] < repeated[2]


# --- limits ----------------------------------------------------------------------------------


@pytest.mark.parametrize("text", ["x" * 65_537, "é" * 32_769, "\N{GRINNING FACE}" * 16_385])
def test_a_text_over_the_limit_is_refused_before_it_is_sent(text: str) -> None:
    bench = Bench()
    with pytest.raises(TooLarge, match="65536"):
        bench.chat(text)
    assert bench.session.pending == 0


def test_the_longest_text_is_sent() -> None:
    bench = Bench()
    bench.session.chat(
        "fadly", "é" * 32_768, message_id="m", token="t", now_ms=bench.now, timeout_ms=1
    )
    assert len(bench.turn()) == 1


def test_a_frame_over_the_limit_is_refused_before_it_is_sent() -> None:
    bench = Bench()
    with pytest.raises(TooLarge, match="131072"):
        bench.session.start("any", None, {"x": "y" * 131_072}, bench.now, 1)


@pytest.mark.parametrize("value", [object(), 2**64, "\ud800", {"deep": {1, 2}}])
def test_arguments_that_cannot_be_encoded_are_a_bad_request_and_are_not_quoted(
    value: object,
) -> None:
    bench = Bench()
    with pytest.raises(BadRequest) as caught:
        bench.session.start("login", None, {"password": value, "x": "s3cret"}, bench.now, 1)
    assert "s3cret" not in str(caught.value)
    assert caught.value.__cause__ is None
    bench.call()  # the encoder is still good
    assert len(bench.turn()) == 1


def test_too_many_unanswered_requests_are_refused() -> None:
    bench = Bench()
    for _ in range(PENDING_MAX):
        bench.call()
    with pytest.raises(Busy, match="unanswered"):
        bench.call()


def test_closing_fails_what_waits_and_what_comes() -> None:
    bench = Bench()
    call = bench.call()
    bench.turn()
    bench.session.close()
    with pytest.raises(ClientClosed):
        call.value()
    with pytest.raises(ClientClosed):
        bench.call()
    assert bench.session.wanted == 0


def test_an_abandoned_call_is_neither_sent_nor_reported() -> None:
    bench = Bench(connect=False)
    call = bench.call()
    reported: list[Call] = []
    call.on_done = reported.append
    bench.turn()
    bench.session.abandon(call)
    bench.session.connected(bench.now)
    assert bench.turn() == []
    bench.ok(call.request_id)
    assert not reported


def test_a_call_that_is_abandoned_while_it_waits_for_room_is_not_sent() -> None:
    bench = Bench()
    first = bench.chat("1")
    bench.turn()
    second, third = bench.chat("2"), bench.chat("3")
    bench.session.abandon(second)
    bench.session.abandon(first)
    assert bench.ids() == [third.request_id]
    assert bench.session.pending == 1


def test_a_repetition_does_not_overtake_what_still_waits_for_room() -> None:
    bench = Bench()
    old, young = bench.chat("1"), bench.chat("2")
    bench.turn()
    old.patience = 4  # it was repeated before, so the younger one is looked at first
    bench.session.lost(bench.now, "gone")
    bench.now += BACKOFF_MS_MAX
    bench.session.tick(bench.now)
    bench.session.connected(bench.now)  # and the socket takes nothing
    for _ in range(2):
        bench.now += RETRY_MS - 1
        bench.raw(msgpack.packb([None, "OK", {}]))  # the broker is there
        bench.now += 1
        bench.session.tick(bench.now)
    chats = [request_id for command, request_id in bench.turn() if command == "chat"]
    assert chats == [old.request_id, young.request_id]
