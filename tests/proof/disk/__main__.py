"""``python -m tests.proof.disk``: prove, and print one table."""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TaskID,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table
from rich.text import Text

from tests.proof.disk.interposer import AbsentError, build
from tests.proof.disk.journal import UnmodelledError
from tests.proof.disk.prove import Proof, Show, Size, prove
from tests.proof.disk.running import scratch

_BREACHES_SHOWN_MAX: Final = 3


def _parse() -> tuple[Size, bool]:
    parser = argparse.ArgumentParser(
        prog="python -m tests.proof.disk",
        description="Cut the power of the store and let its disk fail; judge what is left.",
    )
    size = Size()
    option = parser.add_argument
    option("--cycles", type=int, default=size.cycles, help="power cuts of the store (200)")
    option("--kills", type=int, default=size.kills, help="lives of a whole broker, 4 cuts each (5)")
    option("--stride", type=int, default=size.stride, help="fail each n-th call; 0: none (1)")
    option("--spoiled", type=int, default=size.spoiled, help="runs of each weakened store (3)")
    option("--seed", type=int, default=None, help="repeat a run (default: the time)")
    option("--json", action="store_true", help="print the figures as one JSON object")
    given = parser.parse_args()
    seed = int(time.time()) % 1_000_000 if given.seed is None else given.seed
    return Size(given.cycles, given.kills, given.stride, given.spoiled, seed), given.json


def _run(size: Size, console: Console) -> Proof:
    with (
        scratch() as place,
        Progress(
            TextColumn("{task.description:38}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        ) as bars,
    ):
        library = build(place)
        task = bars.add_task("building")
        return prove(library, size, _shown(bars, task))


def _shown(bars: Progress, task: TaskID) -> Show:
    def show(what: str, done: int, total: int) -> None:
        bars.update(task, description=what, completed=done, total=total)

    return show


def _print_table(proof: Proof, console: Console) -> None:
    table = Table("what", "how much", "result", "seconds", box=box.SIMPLE)
    table.columns[-1].justify = "right"
    for row in proof.rows:
        result = Text(row.result, "green" if row.passed else "red")
        table.add_row(row.what, row.how_much, result, f"{row.seconds:.1f}")
    console.print(table)
    for row in proof.rows:
        for found in row.found[:_BREACHES_SHOWN_MAX]:
            console.print(Text(f"{row.what}: {found}", "red"), soft_wrap=True)
        more = len(row.found) - _BREACHES_SHOWN_MAX
        if more > 0:
            console.print(Text(f"{row.what}: {more} more", "red"))
    console.print(Text(f"seed {proof.size.seed}", "dim"))


def main() -> int:
    """Return 0 where everything held, 1 for a breach, 3 where it could not be run."""
    size, as_json = _parse()
    logging.disable()  # a store that finds what we did to it says so each time
    os.nice(10)  # nothing here is measured against the clock
    console = Console()
    try:
        proof = _run(size, Console(stderr=True) if as_json else console)
    except (AbsentError, UnmodelledError) as error:
        sys.stderr.write(f"disk: {error}\n")
        return 3
    if as_json:
        sys.stdout.write(json.dumps(proof.as_json()) + "\n")
    else:
        _print_table(proof, console)
    return 0 if proof.passed else 1


if __name__ == "__main__":
    sys.exit(main())
