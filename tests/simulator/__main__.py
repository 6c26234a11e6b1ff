"""``python -m tests.simulator``: many seeds, or one of them in full."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.simulator.report import Summary, as_json, explain, print_table
from tests.simulator.run import run
from tests.simulator.shares import place, results


def main() -> int:
    """Return 0 where every law held, 1 where one was broken."""
    arguments = _parse()
    if arguments.seed is not None:
        return _one(arguments.seed, redis=arguments.redis, verbose=arguments.verbose)
    console = Console(stderr=arguments.json)
    seeds = range(arguments.first, arguments.first + arguments.seeds)
    try:
        summary = _many(
            seeds,
            console,
            seconds_max=arguments.minutes * 60,
            processes=arguments.processes,
            redis=arguments.redis,
        )
    except KeyboardInterrupt:
        return 130
    if arguments.json:
        sys.stdout.write(as_json(summary) + "\n")
    else:
        print_table(summary, console)
    return int(bool(summary.broken))


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m tests.simulator",
        description="Run the broker's core with many clients on simulated time, under faults.",
    )
    parser.add_argument("--seeds", type=int, default=200, help="how many (default: 200)")
    parser.add_argument("--first", type=int, default=0, metavar="SEED", help="the first of them")
    parser.add_argument(
        "--minutes", type=float, default=60, help="begin no further seed after so long"
    )
    cores = os.cpu_count() or 1
    parser.add_argument(
        "--processes", type=int, default=cores, metavar="N", help="(default: a core each)"
    )
    parser.add_argument("--seed", type=int, help="run this one only")
    parser.add_argument(
        "--redis", action="store_true", help="over a real redis-server, behind a faulty wire"
    )
    parser.add_argument("--verbose", action="store_true", help="with --seed: print all its events")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    return parser.parse_args()


def _one(seed: int, *, redis: bool, verbose: bool) -> int:
    trace = (lambda line: sys.stdout.write(line + "\n")) if verbose else None
    with place(redis=redis) as there:
        result = run(seed, there, trace)  # type: ignore[arg-type]  # what write returns is nothing
    if result.breaches:
        sys.stdout.write(explain(result) + "\n")
    else:
        sys.stdout.write(f"seed {seed}: every law holds ({result.hash})\n")
    return int(bool(result.breaches))


def _many(
    seeds: Sequence[int], console: Console, *, seconds_max: float, processes: int, redis: bool
) -> Summary:
    summary = Summary()
    began = time.monotonic()
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        TextColumn("{task.fields[hours]:,.0f} h simulated"),
    )
    shown = Progress(*columns, console=console, transient=True, disable=not console.is_terminal)
    with shown:
        bar = shown.add_task("seeds", total=len(seeds), hours=0)
        for result in results(seeds, processes, began + seconds_max, redis=redis):
            summary.add(result)
            shown.update(bar, advance=1, hours=summary.simulated_hours)
    summary.seconds = time.monotonic() - began
    return summary


if __name__ == "__main__":
    sys.exit(main())
