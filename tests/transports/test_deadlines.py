"""Deadlines of one length: each comes once and in order, and many at once leave room for others."""

from __future__ import annotations

import asyncio
import functools
from collections import Counter
from collections.abc import Callable, Coroutine

from broker.transports.deadlines import AT_ONCE_MAX, Deadlines

WAIT_S = 30
#: Longer than any test.
NEVER_S = 3_600


def in_a_loop(test: Callable[[], Coroutine[None, None, None]]) -> Callable[[], None]:
    @functools.wraps(test)
    def run() -> None:
        asyncio.run(test())

    return run


class Turns:
    """Counts the turns of the loop, and notes in which one each item came."""

    def __init__(self) -> None:
        self.came: list[tuple[int, int]] = []
        self._number = 0
        self._tick()

    def _tick(self) -> None:
        self._number += 1
        self._next = asyncio.get_running_loop().call_soon(self._tick)

    def act(self, item: int) -> None:
        self.came.append((item, self._number))

    async def wait_for(self, count: int) -> list[int]:
        """Return what has come as soon as there are so many."""
        await until(lambda: len(self.came) >= count)
        self._next.cancel()
        return [item for item, _ in self.came]


async def until(reached: Callable[[], bool]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not reached():  # noqa: ASYNC110 - turn by turn is what is looked at
            await asyncio.sleep(0)


@in_a_loop
async def test_thousands_that_are_over_at_once_come_in_order_and_a_few_a_turn() -> None:
    turns = Turns()
    deadlines = Deadlines(0.0, turns.act)
    for item in range(1_000):
        deadlines.arm(item)
    assert await turns.wait_for(1_000) == list(range(1_000))
    assert max(Counter(turn for _, turn in turns.came).values()) <= AT_ONCE_MAX
    assert len(deadlines) == 0


@in_a_loop
async def test_what_was_disarmed_does_not_come() -> None:
    turns = Turns()
    deadlines = Deadlines(0.01, turns.act)
    for item in range(40):
        deadlines.arm(item)
    for item in range(0, 40, 2):
        deadlines.disarm(item)
        deadlines.disarm(item)  # also where it is not armed
    assert await turns.wait_for(20) == list(range(1, 40, 2))


@in_a_loop
async def test_arming_again_does_not_prolong() -> None:
    turns = Turns()
    deadlines = Deadlines(0.0, turns.act)
    deadlines.arm(1)
    deadlines.arm(2)
    deadlines.arm(1)  # else it would come after the other one
    assert await turns.wait_for(2) == [1, 2]


@in_a_loop
async def test_it_may_be_armed_anew_once_it_came_or_was_disarmed() -> None:
    turns = Turns()
    deadlines = Deadlines(0.0, turns.act)
    deadlines.arm(1)
    deadlines.disarm(1)
    deadlines.arm(1)
    await turns.wait_for(1)
    again = Turns()
    deadlines.arm(1)
    assert (await turns.wait_for(2), again.came) == ([1, 1], [])
    again._next.cancel()


@in_a_loop
async def test_before_its_time_nothing_comes() -> None:
    turns = Turns()
    deadlines = Deadlines(NEVER_S, turns.act)
    deadlines.arm(1)
    deadlines.disarm(1)
    deadlines.arm(2)
    for _ in range(100):
        await asyncio.sleep(0)
    assert await turns.wait_for(0) == []
    assert len(deadlines) == 1


@in_a_loop
async def test_an_item_that_fails_does_not_keep_the_others_from_coming() -> None:
    came: list[int] = []
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    def act(item: int) -> None:
        came.append(item)
        if item == 3:
            raise RuntimeError

    deadlines = Deadlines(0.0, act)
    for item in range(2 * AT_ONCE_MAX):
        deadlines.arm(item)
    await until(lambda: len(deadlines) == 0)
    assert came == list(range(2 * AT_ONCE_MAX))
    assert len(faults) == 1


@in_a_loop
async def test_one_that_disarms_the_next_spares_it() -> None:
    came: list[int] = []

    def act(item: int) -> None:
        came.append(item)
        deadlines.disarm(item + 1)

    deadlines = Deadlines(0.0, act)
    for item in range(6):
        deadlines.arm(item)
    await until(lambda: len(deadlines) == 0)
    assert came == [0, 2, 4]
