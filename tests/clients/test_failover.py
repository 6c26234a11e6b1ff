"""A session and several brokers: when it goes on to another, what it repeats, when it returns.

A fake clock, brokers of one store, and no socket; see `fleet_world`.
"""

from __future__ import annotations

from collections import deque
from typing import Any

import pytest

from broker.wire.envelope import encode_error, encoder
from broker.wire.errors import Code, WireError
from clients.errors import ConnectionFailed, RequestTimeout, Unauthorized, Unavailable
from clients.fleet import RETURN_MS, ranked
from clients.way import CONNECT_ELSEWHERE_MS, TURN_MS
from tests.clients.fleet_world import RETRY_MS, Node, State, World, run, run_until

FIRST, SECOND, THIRD = ranked([f"tcp://10.0.0.{number}:1" for number in (1, 2, 3)], "shafwa")
SLACK_MS = 200
#: When whoever failed may have been gone back to for certain (the lots are 0.5 here).
BACK_MS = RETURN_MS + SLACK_MS


@pytest.fixture
def world() -> World:
    return World(FIRST, SECOND, THIRD)


@pytest.fixture
def node(world: World) -> Node:
    return Node(world)


def done(*calls: Any) -> Any:
    return lambda: all(call.done for call in calls)


def chat_somehow(world: World, node: Node, text: str = "hi") -> float:
    """Send one message and return how long its answer took."""
    call = node.chat(text)
    took_ms = run_until(world, node, done=done(call))
    call.value()
    return took_ms


# --- whom it asks ------------------------------------------------------------------------------


def test_the_users_first_broker_is_asked_and_no_other(world: World, node: Node) -> None:
    for text in "abc":
        chat_somehow(world, node, text)
    run(world, node, ms=5 * RETURN_MS)
    assert {address for address, _ in world.asked} == {FIRST}
    assert len(world.wires) == 1


def test_the_user_of_a_login_is_known_before_the_first_connection(world: World) -> None:
    node = Node(world, key=None)
    node.session.prefer("shafwa", world.now)
    chat_somehow(world, node)
    assert {address for address, _ in world.asked} == {FIRST}


# --- going on ----------------------------------------------------------------------------------


@pytest.mark.parametrize("state", [State.DOWN, State.HOLE, State.FROZEN, State.STOPPING])
def test_whatever_is_wrong_with_the_first_the_next_one_is_asked(
    world: World, node: Node, state: State
) -> None:
    world.become(FIRST, state)
    took_ms = chat_somehow(world, node)
    assert node.at == SECOND
    assert took_ms <= max(CONNECT_ELSEWHERE_MS, 2 * RETRY_MS) + SLACK_MS


@pytest.mark.parametrize("command", ["chat", "kotakmasuk", "login"])
def test_whatever_is_refused_is_asked_of_the_next_broker_at_once(
    world: World, node: Node, command: str
) -> None:
    world.become(FIRST, State.STOPPING)
    call = node.chat("hi") if command == "chat" else node.ask(command)
    assert run_until(world, node, done=done(call)) <= 60
    assert (SECOND, command) in world.asked


def test_who_has_failed_keeps_no_other_broker_waiting(world: World, node: Node) -> None:
    world.become(FIRST, State.DOWN)
    world.become(SECOND, State.DOWN)
    assert chat_somehow(world, node) <= 130, "two refusals, and the shortest wait behind each"


@pytest.mark.parametrize("state", [State.DOWN, State.HOLE, State.FROZEN])
def test_each_broker_has_its_share_of_a_short_call(world: World, node: Node, state: State) -> None:
    """Two of three fail in the slowest way, and 1.2 s are enough for all."""
    world.become(FIRST, state)
    world.become(SECOND, state)
    call = node.chat("hi", timeout_ms=1_200)
    run(world, node, ms=1_300)
    assert call.value()
    assert node.at == THIRD


@pytest.mark.parametrize("answers_lost", [False, True])
def test_what_was_unanswered_is_repeated_there_in_order_and_stored_once(
    world: World,
    node: Node,
    answers_lost: bool,  # noqa: FBT001 - pytest's parameter
) -> None:
    chat_somehow(world, node, "0")
    calls = [node.chat(str(number)) for number in range(1, 400)]
    node.turn()
    world.become(FIRST, State.DOWN, answers_lost=answers_lost)
    calls.append(node.chat("400"))
    took_ms = run_until(world, node, done=done(*calls))
    assert took_ms <= SLACK_MS
    assert world.texts == [str(number) for number in range(401)]
    assert [call.value()["seq"] for call in calls] == list(range(2, 402))


def test_a_broker_that_wakes_up_late_stores_nothing_twice(world: World, node: Node) -> None:
    chat_somehow(world, node, "a")
    world.become(FIRST, State.FROZEN)
    calls = [node.chat(text) for text in "bc"]
    run_until(world, node, done=done(*calls))
    world.become(FIRST, State.UP)
    chat_somehow(world, node, "d")
    assert world.texts == list("abcd")


def test_a_round_of_failures_is_followed_by_longer_waits_and_then_by_service(
    world: World, node: Node
) -> None:
    for address in (FIRST, SECOND, THIRD):
        world.become(address, State.DOWN)
    call = node.chat("hi")
    run(world, node, ms=3_000)
    tries = len(world.wires)
    assert 10 < tries < 40
    world.become(SECOND, State.UP)
    assert run_until(world, node, done=done(call)) <= 600
    assert node.at == SECOND


def test_a_rolling_restart_is_not_seen_by_callers(world: World) -> None:
    """Each broker says so, closes, and is back a second later, while messages are sent and read."""
    sender, reader = Node(world), Node(world, key="fadly")
    subscription = reader.subscribe()
    reports: list[bool] = []
    subscription.on_connection = reports.append
    run(world, sender, reader, ms=200)
    calls: list[Any] = []
    waits: list[float] = []

    def send() -> None:
        begin, call = world.now, sender.chat(str(len(calls)))
        call.on_done = lambda _: waits.append(world.now - begin)
        calls.append(call)

    for address in (FIRST, SECOND, THIRD):
        for state, ms in ((State.STOPPING, 400), (State.DOWN, 1_000), (State.UP, 2_000)):
            world.become(address, state)
            for _ in range(ms // 100):
                send()
                run(world, sender, reader, ms=100)
    run(world, sender, reader, ms=2_000)
    assert [call.value()["seq"] for call in calls] == list(range(1, 103))
    assert world.texts == reader.received == [str(number) for number in range(102)]
    assert max(waits) <= 600, "at worst one stays with a broker until it closes"
    assert sum(wait > 50 for wait in waits) <= 12, "and few wait at all"
    assert reports == []


def test_a_broker_that_is_drained_after_the_others_were_restarted_is_left_in_time(
    world: World, node: Node
) -> None:
    """The others failed a while ago, and are back: a drained one may stay so for hours."""
    for address in (FIRST, SECOND):
        world.become(address, State.STOPPING)
        chat_somehow(world, node)
        world.become(address, State.UP)
    world.become(THIRD, State.STOPPING)
    assert chat_somehow(world, node) <= 15_000
    assert node.at != THIRD


# --- unavailable -------------------------------------------------------------------------------


def test_answers_on_their_way_are_taken_in_before_a_stopping_broker_is_left(
    world: World, node: Node
) -> None:
    chat_somehow(world, node, "0")
    ping = node.ask("ping")
    world.become(FIRST, State.STOPPING)
    chat = node.chat("1")
    run_until(world, node, done=done(ping, chat))
    assert [asked for asked in world.asked if asked[1] == "ping"] == [(FIRST, "ping")]


def test_where_all_take_nothing_nobody_runs_in_circles(world: World, node: Node) -> None:
    """As when the store is gone: 10 000 clients must not make a storm of connections of it."""
    for address in (FIRST, SECOND, THIRD):
        world.become(address, State.STOPPING)
    call = node.chat("hi")
    run(world, node, ms=RETURN_MS / 2)
    assert len(world.wires) <= 4
    for address in (FIRST, SECOND, THIRD):
        world.become(address, State.UP)
    assert run_until(world, node, done=done(call)) <= 2_500


def test_the_next_refusal_is_waited_out_unless_the_call_would_fail(
    world: World, node: Node
) -> None:
    world.become(FIRST, State.STOPPING)
    world.become(SECOND, State.STOPPING)
    patient = node.chat("patient")
    assert TURN_MS <= run_until(world, node, done=done(patient)) <= TURN_MS + 500
    other = Node(world)
    hasty = other.chat("hasty", timeout_ms=900)
    run(world, other, ms=900)
    assert hasty.value()
    assert other.at == THIRD


def test_a_refusal_that_no_broker_mends_says_what_each_of_them_said(
    world: World, node: Node
) -> None:
    for address in (FIRST, SECOND, THIRD):
        world.become(address, State.STOPPING)
    call = node.chat("hi", timeout_ms=700)
    run(world, node, ms=800)
    assert type(call.error) is Unavailable
    for address in (FIRST, SECOND, THIRD):
        assert address in call.error.message
    assert call.error.message.count("the broker is stopping") == 3


def test_a_first_broker_that_stays_drained_is_tried_more_and_more_seldom(
    world: World, node: Node
) -> None:
    """It answers the ping by which it is tried, and takes nothing all the same."""
    world.become(FIRST, State.STOPPING)
    waits = []
    for _ in range(600):
        waits.append(chat_somehow(world, node))
        run(world, node, ms=1_000)
    assert max(waits) <= 100
    refused = [asked for asked in world.asked if asked == (FIRST, "chat")]
    assert 3 <= len(refused) <= 6


# --- coming back -------------------------------------------------------------------------------


def gone_on(world: World, node: Node) -> None:
    """Have the client go on to its second broker, the first being back after that."""
    chat_somehow(world, node, "before")
    world.become(FIRST, State.DOWN)
    run_until(world, node, done=done(node.chat("meanwhile")))
    world.become(FIRST, State.UP)
    assert node.at == SECOND


def test_the_first_broker_is_gone_back_to_after_a_while(world: World, node: Node) -> None:
    gone_on(world, node)
    run(world, node, ms=RETURN_MS - 1_000)
    assert node.at == SECOND
    run(world, node, ms=2_000)
    assert node.at == FIRST
    assert chat_somehow(world, node) <= 20, "by a connection that stood already"


def test_clients_come_back_spread_over_half_a_minute(world: World) -> None:
    nodes = [Node(world, random=lambda lot=lot: lot / 20) for lot in range(21)]  # type: ignore[misc]
    calls = [node.chat(str(number)) for number, node in enumerate(nodes)]
    run_until(world, *nodes, done=done(*calls))
    world.become(FIRST, State.DOWN)
    begin = world.now
    calls = [node.chat(f"{number}'") for number, node in enumerate(nodes)]
    run_until(world, *nodes, done=done(*calls))
    world.become(FIRST, State.UP)
    back: dict[int, float] = {}
    while len(back) < len(nodes):
        run(world, *nodes, ms=200, step_ms=50)
        for number, node in enumerate(nodes):
            if node.at == FIRST:
                back.setdefault(number, world.now - begin)
        assert world.now - begin < 2 * RETURN_MS
    assert min(back.values()) >= RETURN_MS / 2
    for number in range(1, len(nodes)):
        assert 500 < back[number] - back[number - 1] < 2_500


@pytest.mark.parametrize("pause_ms", [0, 50, 70, 110])
def test_it_goes_back_while_one_request_follows_the_other(
    world: World, node: Node, pause_ms: float
) -> None:
    """A client that is never idle would else stay for ever, and its broker without its users."""
    gone_on(world, node)
    world.pauses_ms = {SECOND: pause_ms}
    calls: list[Any] = []
    while node.at != FIRST:
        calls.append(node.chat(str(len(calls))))
        run(world, node, ms=10)
        assert len(calls) < 4_000
    run_until(world, node, done=done(*calls))
    texts = ["before", "meanwhile", *(str(number) for number in range(len(calls)))]
    assert world.texts == texts
    chats = [asked for asked in world.asked if asked[1] == "chat"]
    assert len(chats) == len(texts), "nothing had to be repeated"


def lose_a_request(node: Node) -> None:
    """Have what is sent now never arrive."""
    node.turn()
    assert node.link is not None
    node.link.requests.clear()


def test_it_does_not_go_back_while_an_answer_is_missing_and_tries_again_later(
    world: World, node: Node
) -> None:
    gone_on(world, node)
    run(world, node, ms=RETURN_MS - 300)
    call = node.chat("lost on its way")
    lose_a_request(node)
    run(world, node, ms=1_000)
    assert not call.done
    run(world, node, ms=1_000)
    assert call.value(), "it is sent again here, where it was sent before"
    assert node.at == SECOND
    run(world, node, ms=RETURN_MS - 1_500)
    assert node.at == SECOND
    run(world, node, ms=1_500)
    assert node.at == FIRST


def test_it_does_not_go_back_while_somebody_logs_in(world: World, node: Node) -> None:
    gone_on(world, node)
    run(world, node, ms=RETURN_MS - 1_000)
    login = node.ask("login")
    node.turn()
    assert node.link is not None
    working, node.link.requests = node.link.requests, deque()
    run(world, node, ms=4_000)
    assert node.at == SECOND, "a login that is worked on is not begun anew elsewhere"
    node.link.requests.extend(working)
    run_until(world, node, done=done(login))
    run(world, node, ms=1_000)
    assert node.at == FIRST
    assert [asked for asked in world.asked if asked[1] == "login"] == [(SECOND, "login")]


@pytest.mark.parametrize("state", [State.DOWN, State.HOLE, State.FROZEN])
def test_a_first_broker_that_stays_away_is_tried_beside_the_second_and_more_seldom(
    world: World, node: Node, state: State
) -> None:
    gone_on(world, node)
    world.become(FIRST, state)
    wires = len(world.wires)
    for _ in range(100):
        assert chat_somehow(world, node) <= 20, "nobody waits for that"
        run(world, node, ms=3_000)
    assert node.at == SECOND
    assert 2 <= len(world.wires) - wires <= 4


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 400", encode_error(encoder(), 1, WireError(Code.UNAVAILABLE, "no store"))],
)
def test_whoever_answers_anything_but_ok_when_it_is_tried_is_not_gone_back_to(
    world: World, node: Node, answer: bytes
) -> None:
    gone_on(world, node)
    run_until(world, node, done=lambda: node.scout)
    assert node.scout is not None
    node.scout.replies.clear()
    node.scout.replies.append(answer)
    run(world, node, ms=3_000)
    assert node.at == SECOND
    assert node.scout is None


def test_a_subscription_goes_back_without_a_word(world: World, node: Node) -> None:
    reports: list[bool] = []
    node.subscribe().on_connection = reports.append
    gone_on(world, node)
    sender = Node(world, key="afif")
    while node.at != FIRST:
        chat_somehow(world, sender, str(len(world.stored)))
        run(world, node, ms=500)
    for text in ("from there", "as well"):
        chat_somehow(world, sender, text)
        run(world, node, sender, ms=1_000)
        assert node.received == world.texts
    assert reports == []


def test_a_reader_is_told_once_nobody_answers(world: World, node: Node) -> None:
    reports: list[bool] = []
    node.subscribe().on_connection = reports.append
    run(world, node, ms=200)
    for address in (FIRST, SECOND, THIRD):
        world.become(address, State.DOWN)
    run(world, node, ms=1_000)
    assert reports == [False]
    world.become(THIRD, State.UP)
    run(world, node, ms=1_000)
    assert reports == [False, True]


# --- errors ------------------------------------------------------------------------------------


def test_a_call_that_no_broker_took_names_them_all(world: World, node: Node) -> None:
    for address, state in ((FIRST, State.DOWN), (SECOND, State.HOLE), (THIRD, State.DOWN)):
        world.become(address, state)
    call = node.chat("hi", timeout_ms=3_000)
    run(world, node, ms=2_990)
    assert not call.done, "not before its time is over"
    run(world, node, ms=20)
    with pytest.raises(ConnectionFailed, match="not sent: are they running") as caught:
        call.value()
    assert caught.value.message_id == "id1"
    for address in (FIRST, THIRD):
        assert f"{address}: the broker closed the connection" in caught.value.message
    assert f"{SECOND}: no answer to the attempt to connect" in caught.value.message


def test_a_call_that_somebody_took_may_have_been_carried_out(world: World, node: Node) -> None:
    for address in (FIRST, SECOND, THIRD):
        world.become(address, State.FROZEN)
    call = node.chat("hi", timeout_ms=3_000)
    run(world, node, ms=3_100)
    with pytest.raises(RequestTimeout, match="same message id is safe") as caught:
        call.value()
    assert f"{FIRST}: the broker stopped answering" in caught.value.message


def test_a_broker_with_another_store_says_that_it_does_not_know_the_session(
    world: World, node: Node
) -> None:
    chat_somehow(world, node)
    node.session.fleet.login_at = FIRST
    world.become(SECOND, State.FOREIGN)
    world.become(FIRST, State.DOWN)
    call = node.chat("hi")
    run_until(world, node, done=done(call))
    with pytest.raises(Unauthorized, match="do not share a store") as caught:
        call.value()
    assert SECOND in caught.value.message
    assert FIRST in caught.value.message
