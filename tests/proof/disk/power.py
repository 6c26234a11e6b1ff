"""Power cuts: a life is killed, and the disk is put back as it may have been at any moment of it.

A *cycle* is one cut: a moment of the journal, what the disk then held, the store opened on it, a
verdict. One life yields several; the last is where the process was killed, and on what is left
there the next life goes on, so that recovery itself is cut too. After a few lives the folder is a
new one.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from tests.proof.disk.course import DONE, Course, Said
from tests.proof.disk.interposer import Interposer
from tests.proof.disk.journal import Entry
from tests.proof.disk.model import Disk, content_of, put_back
from tests.proof.disk.running import live, scratch
from tests.proof.disk.verdict import FALSE_ALARM, judge
from tests.proof.history import Record, Send

CUTS_PER_LIFE: Final = 8
LIVES_PER_FOLDER: Final = 4
_LINES: Final = (4, 200)


class Breach(NamedTuple):
    """A promise broken after a power cut, and how to see it again."""

    seed: int
    life: int
    entry: int
    cycle: int
    found: list[str]

    def __str__(self) -> str:
        more = len(self.found) - 3
        lines = [f"seed {self.seed}, life {self.life}, after entry {self.entry} of its journal:"]
        lines += [f"  {line}" for line in self.found[:3]]
        return "\n".join([*lines, f"  and {more} more"] if more > 0 else lines)


@dataclass
class PowerCuts:
    """What came of them. ``answered`` counts the sends that had their OK when the power failed."""

    cycles: int = 0
    lives: int = 0
    answered: int = 0
    syncs: int = 0
    #: Cuts after which the store told its clients that history was lost, and nothing was.
    false_alarms: int = 0
    breaches: list[Breach] = field(default_factory=list)


@dataclass(frozen=True)
class Cut:
    """A moment: ``entries`` had been made; one more may have been under way."""

    entries: int
    image: dict[str, bytes]
    #: The last moment of which this is the disk; None: the kill.
    at_ns: int | None


def cut_power(
    library: Path,
    *,
    cycles: int,
    seed: int,
    synchronous: str | None = None,
    spoiled: str | None = None,
    until_breach: bool = False,
    show: Callable[[int], None] = lambda _: None,
) -> PowerCuts:
    """Cut the power ``cycles`` times.

    ``synchronous`` and ``spoiled``, a bug's name, spoil the store: the counter-check.

    ``until_breach``: stop at the first. ``show`` is told each cycle's number. Errors:
    `UnmodelledError`.
    """
    result = PowerCuts()
    with scratch() as place:
        for chain in range(cycles):
            rng = random.Random(f"{seed}/{chain}")
            run = _Folder(library, place / f"chain{chain}", seed + chain, rng)
            run.spoil(synchronous, spoiled)
            for _ in range(LIVES_PER_FOLDER):
                run.live(result, cycles - result.cycles, until_breach=until_breach, show=show)
                if result.cycles >= cycles or (until_breach and result.breaches):
                    return result
                if result.breaches:
                    break  # what a broken store does next says nothing
    return result


class _Folder:
    """A data folder over its lives."""

    def __init__(
        self,
        library: Path,
        place: Path,
        seed: int,
        rng: random.Random,
    ) -> None:
        place.mkdir()
        self._scratch = place
        self._data = place / "data"
        self._data.mkdir(mode=0o700)
        self._library = library
        self._seed = seed
        self._rng = rng
        self.spoil(None, None)
        self._life = 0
        self._past: list[Record] = []

    def spoil(self, synchronous: str | None, bug: str | None) -> None:
        """Let the store keep too little in its lives from now on."""
        self._synchronous, self._bug = synchronous, bug

    def live(
        self,
        result: PowerCuts,
        cycles_left: int,
        *,
        until_breach: bool,
        show: Callable[[int], None],
    ) -> None:
        """Live once, be killed, and judge what several power cuts may have left."""
        rng, before = self._rng, content_of(self._data)
        course = self._course()
        with Interposer(self._library, self._data, self._scratch) as disk:
            lines = rng.randint(*_LINES)
            ended = live(self._data, course, disk.environment(), kill_after=lines)
            entries = disk.entries()
            result.syncs += disk.syncs
        assert ended.code in (-9, DONE), f"a life ended with {ended.code}: {ended.complaint}"
        result.lives += 1
        kept: Cut | None = None
        opened = _opened(entries, ended.said)
        # The very first opening is left out: of a folder without users nothing can be asked.
        first = rng.randint(0, opened) if self._life else opened
        cuts = min(CUTS_PER_LIFE, cycles_left)
        for cut in cuts_of(before, entries, rng, cuts, first=first):
            kept = cut
            found = judge_cut(cut, self._scratch / "cut", self._past, ended.said, result)
            show(result.cycles)
            if found:
                result.breaches.append(
                    Breach(self._seed, self._life, cut.entries, result.cycles, found)
                )
                if until_breach:
                    return
        assert kept is not None
        self._past += ended.said.until(kept.at_ns)
        put_back(self._data, kept.image)
        self._life += 1

    def _course(self) -> Course:
        rng = self._rng
        return Course(
            self._seed,
            self._life,
            operations_max=rng.choice((1, 5, 20, 60)),
            text_bytes_max=rng.choice((60, 600, 3_000)),
            synchronous=self._synchronous,
            spoiled=self._bug,
            checkpoint_pages=rng.choice((None, 8, 40, 200)),
            journalled_max=rng.choice((None, 1, 10, 100)),
            retention_read_ms=rng.choice((86_400_000, 1)),
        )


def cuts_of(
    before: dict[str, bytes], entries: list[Entry], rng: random.Random, cuts: int, *, first: int
) -> Iterator[Cut]:
    """Yield moments from entry ``first`` on, in order of time; the last is the kill itself."""
    disk = Disk(before, rng=rng)
    places = range(first, len(entries))
    moments = set(rng.sample(places, min(cuts - 1, len(places))))
    for number, entry in enumerate(entries):
        if number in moments:
            # One nanosecond less: what was answered while the next call was made counts.
            yield Cut(number, disk.cut(under_way=entry), entry.at_ns - 1)
        disk.apply(entry)
    yield Cut(len(entries), disk.cut(), None)


def judge_cut(
    cut: Cut, place: Path, past: list[Record], said: Said, result: PowerCuts
) -> list[str]:
    """Put the disk back and judge the store on it by what was known at that moment."""
    now = list(said.until(cut.at_ns))
    result.cycles += 1
    result.answered += sum(isinstance(one, Send) and one.answer is not None for one in now)
    put_back(place, cut.image)
    opened = said.opened_ns is not None and (cut.at_ns is None or cut.at_ns > said.opened_ns)
    found = judge(place, [*past, *now], repeat=now, epoch=said.epoch if opened else None)
    laws = [line for line in found if not line.startswith(FALSE_ALARM)]
    result.false_alarms += len(found) - len(laws)
    return laws


def _opened(entries: list[Entry], said: Said) -> int:
    """Return how many entries were made before the store was open for the first time."""
    at_ns = said.opened_ns
    if at_ns is None:
        return len(entries)
    return sum(entry.at_ns <= at_ns for entry in entries)
