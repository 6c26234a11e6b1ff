"""Whatever fails, and in whatever order: each message is stored once, read once, and in order."""

from __future__ import annotations

from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.clients.fleet_world import Node, State, World, run, run_until

BROKERS = ("tcp://a:1", "tcp://b:1", "tcp://c:1")
#: None: the broker's connections are cut, and it goes on.
WHAT = (None, State.UP, State.DOWN, State.FROZEN, State.HOLE, State.STOPPING)


def fail(world: World, broker: str, state: State | None, *, answers_lost: bool) -> None:
    if state is not None:
        world.become(broker, state, answers_lost=answers_lost)
        return
    if answers_lost:
        world.work(answers_lost=True)
    for wire in world.wires:
        if wire.address == broker:
            world.cut(wire)


@settings(max_examples=60, deadline=None)
@given(
    faults=st.lists(
        st.tuples(
            st.sampled_from(BROKERS),
            st.sampled_from(WHAT),
            st.booleans(),
            st.integers(0, 2_000),
            st.integers(0, 3),
        ),
        max_size=12,
    ),
    seed=st.integers(0, 2**16),
)
def test_each_message_is_stored_once_and_read_once_in_order(
    faults: list[tuple[str, State | None, bool, int, int]], seed: int
) -> None:
    world, luck = World(*BROKERS), Random(seed)
    sender = Node(world, random=luck.random)
    reader = Node(world, key="fadly", random=luck.random)
    reader.subscribe(window=3)
    calls: list[Any] = []

    def send(messages: int) -> None:
        for _ in range(messages):
            calls.append(sender.chat(str(len(calls))))

    for broker, state, answers_lost, ms, messages in faults:
        send(messages)
        for node in (sender, reader):
            node.turn()  # so that something is under way
        fail(world, broker, state, answers_lost=answers_lost)
        send(messages)
        run(world, sender, reader, ms=ms, step_ms=20)
    for broker in BROKERS:
        world.become(broker, State.UP)
    run_until(world, sender, reader, done=lambda: all(call.done for call in calls))
    run_until(world, sender, reader, done=lambda: len(reader.received) >= len(calls))
    run(world, sender, reader, ms=3_000)
    texts = [str(number) for number in range(len(calls))]
    assert world.texts == texts
    assert [call.value()["seq"] for call in calls] == list(range(1, len(calls) + 1))
    assert reader.received == texts
    assert world.cursor == len(texts), "and all of it was acknowledged"
