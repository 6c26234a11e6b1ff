"""The loop over the parsers: a corpus that grows by what is new, and mutations of it, untraced."""

from __future__ import annotations

import time
from collections.abc import Callable
from itertools import accumulate
from random import Random
from typing import Final

from tests.hostile.fuzz import cases
from tests.hostile.fuzz.arcs import Arcs
from tests.hostile.fuzz.mutate import mutate
from tests.hostile.fuzz.parsers import TARGETS, Target
from tests.hostile.fuzz.tally import Failure, Tally, resident_bytes

#: Inputs of one target in a row, and how many of these are traced.
BLOCK: Final = 200
TRACED: Final = 2
#: The first blocks are traced whole: that is when most of what is new is found.
EXPLORED_SHARE: Final = 0.01
#: Inputs that a target's corpus may hold in memory; the oldest that were not kept go first.
CORPUS_MAX: Final = 600
#: One in so many inputs comes from the grammar as it is.
_FRESH: Final = 0.15
#: Long inputs cost more than they find: one in so many of the picks may be one.
_LONG_BYTES: Final = 600
_LONG: Final = 0.02


class Corpus:
    """The inputs of one target that are worth changing."""

    def __init__(self, target: Target, rng: Random) -> None:
        self.target = target
        self._chance = rng.random
        self._fresh = target.fresh(rng)
        self._short: list[bytes] = []
        self._long: list[bytes] = []
        for each in (
            *cases.read_all(cases.CORPUS, target.name),
            *(self._fresh() for _ in range(30)),
        ):
            self.add(each)

    def add(self, content: bytes) -> None:
        """Take an input in, in place of another where there are too many."""
        pool = self._short if len(content) <= _LONG_BYTES else self._long
        if len(pool) < CORPUS_MAX:
            pool.append(content)
        else:
            pool[int(self._chance() * len(pool))] = content

    def next(self) -> bytes:
        """Make the next input."""
        if self._chance() < _FRESH:
            return self._fresh()
        return mutate(self._pick(), self._pick(), self._chance)

    def _pick(self) -> bytes:
        pool = self._short
        if (self._chance() < _LONG and self._long) or not pool:
            pool = self._long
        return pool[int(self._chance() * len(pool))]


class Parsing:
    """One process's share. ``grow`` writes what reaches new code into the corpus on disk."""

    def __init__(
        self, seed: str, *, grow: bool = False, targets: tuple[Target, ...] = TARGETS
    ) -> None:
        self._seed = seed
        self._rng = Random(seed)
        self._grow = grow
        self._arcs = Arcs()
        self._corpora = [Corpus(target, self._rng) for target in targets]
        self._weights = list(accumulate(target.share for target in targets))
        self.tally = Tally("parsers")

    def run(self, count: int, *, seconds_max: float, told: Callable[[int], None]) -> Tally:
        """Feed ``count`` inputs; ``told`` hears after each block how many have been."""
        tally, began = self.tally, time.monotonic()
        for corpus in self._corpora:
            self._known(corpus)
        known_arcs = len(self._arcs)
        explored = max(2 * BLOCK * len(self._corpora), int(count * EXPLORED_SHARE))
        warm_at, warm = max(explored, count // 10), 0
        while tally.inputs < count and time.monotonic() - began < seconds_max:
            (corpus,) = self._rng.choices(self._corpora, cum_weights=self._weights)
            size = min(BLOCK, count - tally.inputs)
            self._block(corpus, size, traced=size if tally.inputs < explored else TRACED)
            tally.inputs += size
            if not warm and tally.inputs >= warm_at:
                warm = resident_bytes()
            told(tally.inputs)
        tally.seconds = time.monotonic() - began
        tally.arcs, tally.new_arcs = len(self._arcs), len(self._arcs) - known_arcs
        tally.growth_bytes = max(0, resident_bytes() - warm) if warm else 0
        return tally

    def _known(self, corpus: Corpus) -> None:
        """Trace what is kept on disk, so that only what goes beyond it counts as new."""
        for each in cases.read_all(cases.CORPUS, corpus.target.name):
            with self._arcs.watch():
                self._check(corpus.target, each)

    def _block(self, corpus: Corpus, size: int, *, traced: int) -> None:
        target, make = corpus.target, corpus.next
        check = target.check
        for _ in range(traced):
            self._trace(corpus, make())
        for _ in range(size - traced):
            content = make()
            try:
                check(content)
            except Exception as error:  # noqa: BLE001 - whatever it is, it has been found
                self._failed(target, content, error)

    def _trace(self, corpus: Corpus, content: bytes) -> None:
        with self._arcs.watch() as new:
            self._check(corpus.target, content)
        if new():
            corpus.add(content)
            if self._grow and len(content) <= cases.KEPT_BYTES_MAX:
                cases.keep(cases.CORPUS, corpus.target.name, content)

    def _check(self, target: Target, content: bytes) -> None:
        try:
            target.check(content)
        except Exception as error:  # noqa: BLE001 - as above
            self._failed(target, content, error)

    def _failed(self, target: Target, content: bytes, error: Exception) -> None:
        name = cases.signature(target.name, error)
        known = name in cases.OPEN
        new = all(each.signature != name for each in self.tally.failures)
        case = cases.OPEN.get(name, "")
        if new and not known:
            path = cases.keep(cases.FOUND, target.name, shortest(target, content, name))
            case = f"{target.name}/{path.name}"
        self.tally.count(Failure(name, case, f"{self._seed} +{self.tally.inputs}", known=known))


def shortest(target: Target, content: bytes, name: str, *, tries: int = 2_000) -> bytes:
    """Return a part of an input that still ends in the fault of this signature."""

    def fails(part: bytes) -> bool:
        try:
            target.check(part)
        except Exception as error:  # noqa: BLE001 - as above
            return cases.signature(target.name, error) == name
        return False

    return cases.shrink(content, fails, tries=tries)
