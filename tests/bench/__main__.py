"""``scripts/bench``: measure, print, compare, draw."""

from __future__ import annotations

import signal
import sys
from collections import defaultdict

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tests.bench.check import check
from tests.bench.crew import CrewError
from tests.bench.figures import Figures, Result, medians, ratios, to_line
from tests.bench.judgement import BaselineError
from tests.bench.machine import commit
from tests.bench.options import Options, parse
from tests.bench.plots import draw
from tests.bench.profiling import Profiler, ProfilerError
from tests.bench.scenarios import SCENARIOS, Bench
from tests.bench.show import error_console, ratio_table, table
from tests.load.broker_process import BrokerError
from tests.load.doors import UnreachableError

_EXIT_FAILED, _EXIT_INTERRUPTED = 1, 130
#: Of a check, for which 1 says that the broker has become slower.
_EXIT_UNCHECKED = 3

_FAILURES = (
    CrewError, BrokerError, UnreachableError, ProfilerError, BaselineError, RuntimeError,
)  # fmt: skip


def main() -> int:
    """Return 0, 1 where a point could not be measured, 130 after Ctrl-C; a check: see `check`."""
    options = parse()
    if options is None:
        return 0
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave no broker behind
    notes = error_console()
    try:
        if options.check:
            return _check(options, notes)
        results = options.measured if options.measured is not None else _measure(options, notes)
    except _FAILURES as error:
        notes.print(f"bench: {error}", style="red", markup=False, soft_wrap=True)
        return _EXIT_UNCHECKED if options.check else _EXIT_FAILED
    except KeyboardInterrupt:
        notes.print("bench: interrupted")
        return _EXIT_INTERRUPTED
    _report(options, results, notes)
    return 0


def _check(options: Options, notes: Console) -> int:
    with notes.status("starting") as status:
        bench = Bench(
            seconds=options.seconds, store=options.store, folder=options.folder, show=status.update
        )
        return check(bench, notes, rounds=options.repeat, write=options.write, tables=options.table)


def _measure(options: Options, notes: Console) -> list[Result]:
    """Measure all points, round by round: what disturbs one round does not disturb a point."""
    code = commit()  # before anybody changes it
    taken: defaultdict[str, list[Figures]] = defaultdict(list)
    with Progress(
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn(),
        console=notes, transient=True, disable=not notes.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting", total=len(options.points) * options.repeat)
        bench = Bench(
            seconds=options.seconds,
            store=options.store,
            folder=options.folder,
            profiler=Profiler(options.profile) if options.profile else None,
            show=lambda phase: bar.update(task, description=phase),
        )
        for _ in range(options.repeat):
            for point in options.points:
                taken[point.name].append(SCENARIOS[point.scenario](bench, point))
                bar.advance(task)
    for path in bench.profiler.written.values() if bench.profiler else ():
        notes.print(f"profiled {path}", soft_wrap=True, highlight=False)
    return [
        Result(
            point=point.name, series=point.series, at=point.at, repeats=options.repeat,
            commit=code, figures=medians(taken[point.name]),
        )
        for point in options.points
    ]  # fmt: skip


def _report(options: Options, results: list[Result], notes: Console) -> None:
    if not options.table or not sys.stdout.isatty():
        for result in results:
            print(to_line(result))  # noqa: T201 - the result of the command
    if options.table:
        console = Console() if sys.stdout.isatty() else notes
        console.print(table(results))
        if options.before is not None:
            console.print(ratio_table(ratios(results, options.before)))
    if options.draw is not None:
        for path in draw(results, options.draw):
            notes.print(f"drew {path}", soft_wrap=True, highlight=False)


if __name__ == "__main__":
    sys.exit(main())
