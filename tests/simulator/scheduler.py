"""Simulated time: what happens when, in one order, and the log of all that happened."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from heapq import heappop, heappush
from itertools import count
from typing import Final

Action = Callable[[], None]
#: Events of one run, three times as many as the longest of thousands has: who asks again without
#: a pause would go on for ever.
EVENTS_MAX: Final = 500_000


class Scheduler:
    """A queue of actions by time. ``now`` is in microseconds since the run began."""

    def __init__(self, trace: Callable[[str], None] | None = None) -> None:
        self.now = 0
        self.events = 0
        self._queue: list[tuple[int, int, Action]] = []
        self._numbers = count()
        self._digest = hashlib.blake2b(digest_size=16)
        self._trace = trace

    def at(self, when: int, action: Action) -> None:
        """Do something at a time, or now where that is past; of equals the first comes first."""
        heappush(self._queue, (max(when, self.now), next(self._numbers), action))

    def after(self, delay: float, action: Action) -> None:
        """Do something ``delay`` microseconds from now."""
        self.at(self.now + int(delay), action)

    @property
    def exhausted(self) -> bool:
        """Tell whether more happens than can be right."""
        return self.events >= EVENTS_MAX

    def run(self, until: int) -> None:
        """Go on until a time."""
        queue = self._queue
        while queue and queue[0][0] <= until and self.events < EVENTS_MAX:
            # Each action has a moment of its own, so that the order of any two is known.
            when, _, action = heappop(queue)
            self.now = max(self.now + 1, when)
            self.events += 1
            action()
        self.now = max(self.now, until)

    def log(self, line: str) -> None:
        """Note that something happened: part of the run's hash."""
        self._digest.update(f"{self.now} {line}\n".encode())
        if self._trace is not None:
            self._trace(f"{self.now / 1e6:12.6f}  {line}")

    @property
    def hash(self) -> str:
        """What two runs of one seed have in common."""
        return self._digest.hexdigest()
