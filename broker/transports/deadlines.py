"""Deadlines of one length, for a crowd: when thousands are over at once, a few come at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable
from itertools import islice
from typing import Final, Generic, TypeVar

T = TypeVar("T", bound=Hashable)

#: What is over and dealt with before the loop turns to others: 1 ms of hanging up.
AT_ONCE_MAX: Final = 8


class Deadlines(Generic[T]):
    """Calls ``act`` with each item that was armed ``delay_s`` ago and not disarmed since.

    A timer of asyncio for each would fire them all in one turn of the loop: half a second for
    5 000 connections, in which nobody else is served. Belongs to the running loop.
    """

    def __init__(self, delay_s: float, act: Callable[[T], None]) -> None:
        self._delay_s = delay_s
        self._act = act
        #: Items in the order of their ends, since all have the same time.
        self._ends: dict[T, float] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._ends)

    def arm(self, item: T) -> None:
        """Begin the item's time, unless it runs already."""
        if item not in self._ends:
            loop = asyncio.get_running_loop()
            self._ends[item] = end = loop.time() + self._delay_s
            if self._timer is None:
                self._timer = loop.call_at(end, self._look)

    def disarm(self, item: T) -> None:
        self._ends.pop(item, None)

    def _look(self) -> None:
        """Deal with some of what is over, and come again for the rest."""
        loop = asyncio.get_running_loop()
        now = loop.time()
        try:
            for item, end in list(islice(self._ends.items(), AT_ONCE_MAX)):
                if end <= now and item in self._ends:  # the one before may have disarmed it
                    del self._ends[item]
                    self._act(item)
        finally:
            first = next(iter(self._ends.values()), None)
            self._timer = None if first is None else loop.call_at(first, self._look)
