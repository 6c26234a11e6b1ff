"""Moving a store from SQLite to Redis: all of it, once, however often it is cut short.

The source is read in one snapshot (`broker.stores.migration_source`), written page by page such
that every page may be written twice (`broker.stores.migration_target`), and then compared as a
whole (`broker.stores.migration_check`). Sequences, cursors and the epoch stay what they are, so
that clients keep their positions and no loss is told of.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

from broker.stores.migration_check import Verdict, compare
from broker.stores.migration_source import PHASES, Source
from broker.stores.migration_target import Target
from broker.stores.redis.link import Link

#: The phase behind all of `PHASES`.
COMPARING = "comparing"

#: Told what is being done, of how many rows, and how many of them are done.
Watch = Callable[[str, int, int], None]


class Moved(NamedTuple):
    """What came of a run; ``before_ms``: all was moved then, and nothing was done now.

    ``resumed``: an earlier run had begun. Times are in milliseconds since the epoch.
    """

    verdict: Verdict | None
    resumed: bool = False
    before_ms: int | None = None


def move(source: Source, target: Target, *, watch: Watch) -> Moved:
    """Move everything, and compare. What is there already is not moved again.

    Errors: `StoreUnusableError` (the source), `TargetTakenError`, as `Link.ask` (the target).
    """
    phases = list(PHASES)
    record, resumed = target.claim(source.identity, phases[0])
    if record.ended_ms is not None:
        return Moved(None, before_ms=record.ended_ms)
    if record.phase != COMPARING:
        totals, done = source.rows(), record.done
        for phase in phases[phases.index(record.phase) :]:
            _move_phase(source, target, phase, done, partial(watch, phase, totals[phase]))
            done = 0
        target.settle(source.epoch)
        target.note(COMPARING, 0)
    verdict = _compare(source, target.link, target.prefix, watch)
    if verdict.same:
        target.finish()
    return Moved(verdict, resumed)


def _move_phase(
    source: Source, target: Target, phase: str, done: int, watch: Callable[[int], None]
) -> None:
    watch(done)
    target.note(phase, done)
    for page in source.pages(phase, done):
        target.take(page.parts, source.last)
        done += page.rows
        target.note(phase, done)
        watch(done)


def _compare(source: Source, link: Link, prefix: str, watch: Watch) -> Verdict:
    rows = source.rows()
    total = sum(rows.values()) + rows["messages"]
    done = 0

    def looked_at(more: int) -> None:
        nonlocal done
        done += more
        watch(COMPARING, total, min(done, total))

    return compare(source, link, prefix, looked_at)
