"""Lives of a store, one after the other on the same folder, each killed and judged."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Final

from tests.proof.disk.course import DONE, Course
from tests.proof.disk.model import content_of, put_back
from tests.proof.disk.running import Ended, live, scratch
from tests.proof.disk.verdict import judge
from tests.proof.history import Record, Send
from tests.proof.kills.points import STORE, Point

#: After so many lives the folder is a new one: what is judged grows with each.
LIVES_PER_FOLDER: Final = 6
#: At which time of coming to a point the process ends.
_NUMBERS: Final[dict[Point, tuple[int, int]]] = {
    Point.COMMITTED: (2, 60),
    Point.ACKNOWLEDGED: (2, 25),
    Point.STATEMENT: (1, 300),
    Point.PURGE: (1, 12),
    Point.CHECKPOINT: (1, 8),
}
_LINES: Final = (2, 200)
#: A life that never came to its point ends in good order; that is a cycle too, but not a kill.
_BATCHES_MAX: Final = 400


@dataclass
class Kills:
    """What came of them. ``killed`` counts the lives that ended so, by point."""

    cycles: int = 0
    killed: Counter[str] = field(default_factory=Counter)
    answered: int = 0
    #: Kills that left a batch of which nobody can know whether it is stored.
    silent: int = 0
    breaches: list[str] = field(default_factory=list)


def kill_stores(cycles: int, seed: int, show: Callable[[int], None] = lambda _: None) -> Kills:
    """Kill so many lives, at each of the points in turn. ``show`` is told each cycle's number."""
    result = Kills()
    with scratch() as place:
        folder = _Folder(place / "0", seed)
        for cycle in range(cycles):
            if cycle and cycle % LIVES_PER_FOLDER == 0:
                folder = _Folder(place / str(cycle), seed + cycle)
            folder.live(STORE[cycle % len(STORE)], result)
            show(cycle + 1)
    return result


class _Folder:
    """A data folder over its lives."""

    def __init__(self, place: Path, seed: int) -> None:
        self._data, self._copy = place / "data", place / "copy"
        self._data.mkdir(mode=0o700, parents=True)
        self._seed = seed
        self._rng = random.Random(seed)
        self._life = 0
        self._past: list[Record] = []

    def live(self, point: Point, result: Kills) -> None:
        """Live until the kill, and judge a copy of what is left; the next life goes on from it."""
        rng = self._rng
        number = rng.randint(*_NUMBERS.get(point, (0, 0)))
        ended = live(
            self._data,
            self._course(point),
            {},
            kill_after=rng.randint(*_LINES) if point is Point.ANY_TIME else 0,
            program=("tests.proof.kills.life", point.value, str(number)),
        )
        found = self._judge(ended)
        result.cycles += 1
        result.killed[point.value] += ended.code == -SIGKILL
        result.silent += bool(ended.said.batches) and ended.said.batches[-1].answer is None
        result.breaches += [
            f"seed {self._seed}, life {self._life}, {point.value} ({number}): {each}"
            for each in found
        ]
        self._past += ended.said.until(None)
        result.answered += _answered(ended)
        self._life += 1

    def _judge(self, ended: Ended) -> list[str]:
        if ended.code not in (-SIGKILL, DONE):
            return [f"it ended with {ended.code}: {ended.complaint}"]
        now = list(ended.said.until(None))
        put_back(self._copy, content_of(self._data))
        return judge(self._copy, [*self._past, *now], repeat=now, epoch=ended.said.epoch)

    def _course(self, point: Point) -> Course:
        rng = self._rng
        purges = point is Point.PURGE or rng.random() < 0.5
        return Course(
            self._seed,
            self._life,
            batches=_BATCHES_MAX if point is not Point.ANY_TIME else 0,
            operations_max=rng.choice((1, 5, 20)),
            text_bytes_max=rng.choice((60, 600, 3_000)),
            journalled_max=rng.choice((None, 1, 10, 100)),
            checkpoint_pages=None if point is Point.CHECKPOINT else rng.choice((None, 8, 200)),
            retention_read_ms=1 if purges else 86_400_000,
        )


def _answered(ended: Ended) -> int:
    operations = ended.said.until(None)
    return sum(isinstance(one, Send) and one.answer is not None for one in operations)
