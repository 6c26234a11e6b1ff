"""All disk proofs in one go: what is run, how much of it, and what came of it."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

from tests.proof.disk.faults import FAULTS, Fault, sweep
from tests.proof.disk.full import fill_disk
from tests.proof.disk.power import PowerCuts, cut_power
from tests.proof.disk.whole import CUTS_PER_KILL, cut_power_of_broker

#: Of tests.proof.seeded: what must be on the disk before an answer, or before it is overwritten.
JOURNAL_BUGS: Final = ("journal-not-synced", "record-behind-the-answer", "run-named-too-early")
#: A spoiled store that gets past so many power cuts was not caught.
_CATCH_CYCLES_MAX: Final = 60

Show = Callable[[str, int, int], None]


@dataclass(frozen=True)
class Size:
    """How much: ``cycles`` of the store, ``kills`` of a whole broker, each ``stride``-th fault.

    0 leaves a part out; ``spoiled`` is how often each weakened store must be caught.
    """

    cycles: int = 200
    kills: int = 5
    stride: int = 1
    spoiled: int = 3
    seed: int = 1


@dataclass
class Row:
    """One line of the table; ``passed`` as well as ``found``, for a counter-check must find."""

    what: str
    how_much: str
    passed: bool
    result: str
    seconds: float
    figures: dict[str, Any] = field(default_factory=dict)
    found: list[str] = field(default_factory=list)


@dataclass
class Proof:
    """The whole table."""

    size: Size
    rows: list[Row] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return all(row.passed for row in self.rows)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed}


def prove(library: Path, size: Size, show: Show = lambda *_: None) -> Proof:
    """Run everything; ``show`` is told the part, how far it is, and how far it goes.

    Errors: `UnmodelledError`, when the store does something to its disk that nobody foresaw.
    """
    parts: list[Callable[[], Row]] = []
    if size.spoiled:
        parts += [partial(_spoiled, library, size, show, weak) for weak in ("NORMAL", "OFF")]
        parts += [partial(_planted, library, size, show, bug) for bug in JOURNAL_BUGS]
    if size.cycles:
        parts.append(partial(_store, library, size, show))
    if size.kills:
        parts.append(partial(_broker, library, size, show))
    if size.stride:
        parts.append(partial(_full, library, show))
        parts += [partial(_fault, library, size, show, fault) for fault in FAULTS]
    return Proof(size, [_timed(part) for part in parts])


def _timed(run: Callable[[], Row]) -> Row:
    began = time.monotonic()
    row = run()
    row.seconds = round(time.monotonic() - began, 1)
    return row


def _spoiled(library: Path, size: Size, show: Show, synchronous: str) -> Row:
    """The check of the checker: a store that syncs too little must be caught."""
    return _caught(f"power cut, synchronous={synchronous}", library, size, show, weak=synchronous)


def _planted(library: Path, size: Size, show: Show, bug: str) -> Row:
    """The same of a journal that keeps too little."""
    return _caught(f"power cut, {bug}", library, size, show, bug=bug)


def _caught(
    what: str,
    library: Path,
    size: Size,
    show: Show,
    *,
    weak: str | None = None,
    bug: str | None = None,
) -> Row:
    needed: list[int | None] = []
    for number in range(size.spoiled):
        show(what, number, size.spoiled)
        caught = cut_power(
            library,
            cycles=_CATCH_CYCLES_MAX,
            seed=size.seed + 1_000 * number,
            synchronous=weak,
            spoiled=bug,
            until_breach=True,
        )
        needed.append(caught.cycles if caught.breaches else None)
    passed = all(needed)
    told = ", ".join("never" if one is None else str(one) for one in needed)
    result = f"{'caught' if passed else 'NOT CAUGHT'}, in cycle {told}"
    figures = {"caught_in_cycle": needed}
    return Row(what, f"{size.spoiled} runs", passed, result, 0.0, figures)


def _store(library: Path, size: Size, show: Show) -> Row:
    what = "power cut, the store"
    told = partial(_tell, show, what, size.cycles)
    return _cuts(what, cut_power(library, cycles=size.cycles, seed=size.seed, show=told))


def _broker(library: Path, size: Size, show: Show) -> Row:
    what, total = "power cut, a whole broker", size.kills * CUTS_PER_KILL
    told = partial(_tell, show, what, total)
    return _cuts(what, cut_power_of_broker(library, kills=size.kills, seed=size.seed, show=told))


def _tell(show: Show, what: str, total: int, done: int) -> None:
    show(what, done, total)


def _cuts(what: str, cuts: PowerCuts) -> Row:
    how_much = f"{cuts.cycles} cycles of {cuts.lives} lives"
    figures = asdict(cuts)
    del figures["breaches"]
    found = [str(breach) for breach in cuts.breaches]
    result = f"{len(found)} breaches, {cuts.answered:,} sends answered"
    if cuts.false_alarms:
        found.append(f"{cuts.false_alarms} times a new epoch, as if history had been lost")
        result += f", {cuts.false_alarms} false alarms"
    return Row(what, how_much, not found, result, 0.0, figures, found)


def _full(library: Path, show: Show) -> Row:
    what = "a full disk, and room again"
    show(what, 0, 1)
    full = fill_disk(library)
    found = full.breaches()
    result = f"{len(found)} breaches, {full.acknowledged} of {full.waiting} acknowledged"
    how_much = f"{full.sent:,} sends"
    return Row(what, how_much, not found, result, 0.0, asdict(full), found)


def _fault(library: Path, size: Size, show: Show, fault: Fault) -> Row:
    done = sweep(library, [fault], seed=size.seed, stride=size.stride, show=show)
    how_much = f"{done.lives} of {done.calls} calls"
    figures = asdict(done)
    del figures["breaches"]
    found = [str(breach) for breach in done.breaches]
    ends = ", ".join(f"{number}x exit {code}" for code, number in sorted(done.ends.items()))
    return Row(
        fault.name, how_much, not found, f"{len(found)} breaches, {ends}", 0.0, figures, found
    )
