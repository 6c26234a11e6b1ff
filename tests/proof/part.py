"""One part of the proof as a command: ``python -m tests.proof.NAME [--SIZE N] [--seed S]``.

Every part takes its sizes as options, says what it found as rows of one table, and exits with 1
where something was broken. `tests.proof.prove` runs them all.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from typing import Any, Final, NamedTuple

from rich import box
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from clients.errors import KotakError
from tests.load.broker_process import BrokerError
from tests.proof.disk.prove import Row

_BREACHES_SHOWN_MAX: Final = 3

#: Is told the part of the work, how far it is, and how far it goes.
Show = Callable[[str, int, int], None]
#: One line of the table, before its time was taken.
Work = Callable[[], Row]


class Size(NamedTuple):
    """How much of something is done by default, and what that is."""

    default: int
    meaning: str


class Part(NamedTuple):
    """``work`` gets the sizes by name, the seed and a `Show`, and returns what makes each row."""

    name: str
    meaning: str
    sizes: Mapping[str, Size]
    work: Callable[[Mapping[str, int], int, Show], Iterable[Work]]


def row(what: str, how_much: str, found: Sequence[str], told: str = "", **figures: Any) -> Row:
    """Return a row that passed where nothing was found; ``told`` says more than that."""
    result = f"{len(found)} breaches" + (f", {told}" if told else "")
    return Row(what, how_much, not found, result, 0.0, figures, list(found))


def carry_out(part: Part, sizes: Mapping[str, int], seed: int, show: Show) -> list[Row]:
    """Do the work; a fault of the proof itself, or of what it starts, is a broken row."""
    rows = []
    for number, work in enumerate(part.work(sizes, seed, show), 1):
        began = time.monotonic()
        try:
            done = work()
        except (AssertionError, BrokerError, KotakError) as error:
            done = row(f"{part.name}, row {number}", "not finished", [str(error) or "it failed"])
        done.seconds = round(time.monotonic() - began, 1)
        rows.append(done)
    return rows


def main(part: Part, arguments: Sequence[str] | None = None) -> int:
    """Return 0 where everything held, 1 for a breach."""
    sizes, seed, as_json = _parse(part, arguments)
    logging.disable()  # a broker that finds what we did to it says so each time
    os.nice(10)  # nothing here is measured against the clock
    console = Console(stderr=as_json)
    with _progress(console) as bars:
        task = bars.add_task("starting")

        def show(what: str, done: int, total: int) -> None:
            bars.update(task, description=what, completed=done, total=total)

        rows = carry_out(part, sizes, seed, show)
    passed = all(each.passed for each in rows)
    if as_json:
        fields = {"size": {**sizes, "seed": seed}, "rows": [asdict(each) for each in rows]}
        sys.stdout.write(json.dumps({**fields, "passed": passed}) + "\n")
    else:
        print_rows(rows, console)
        console.print(Text(f"seed {seed}", "dim"))
    return 0 if passed else 1


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description:38}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    )


def _parse(part: Part, arguments: Sequence[str] | None) -> tuple[dict[str, int], int, bool]:
    parser = argparse.ArgumentParser(
        prog=f"python -m tests.proof.{part.name}", description=part.meaning
    )
    for name, size in part.sizes.items():
        text = f"{size.meaning}; 0: none ({size.default:,})"
        parser.add_argument(f"--{name}", dest=name, type=int, default=size.default, help=text)
    parser.add_argument("--seed", type=int, help="repeat a run (default: the time)")
    parser.add_argument("--json", action="store_true", help="print the figures as one JSON object")
    given = vars(parser.parse_args(arguments))
    seed, as_json = given.pop("seed"), given.pop("json")
    return given, int(time.time()) % 1_000_000 if seed is None else seed, as_json


def print_rows(rows: Sequence[Row], console: Console) -> None:
    """Print the table, and the first breaches of each row in full."""
    table = Table("what", "how much", "result", "seconds", box=box.SIMPLE)
    table.columns[-1].justify = "right"
    for each in rows:
        result = Text(each.result, "green" if each.passed else "red")
        table.add_row(each.what, each.how_much, result, f"{each.seconds:.1f}")
    console.print(table)
    for each in rows:
        for found in each.found[:_BREACHES_SHOWN_MAX]:
            console.print(Text(f"{each.what}: {found}", "red"), soft_wrap=True)
        more = len(each.found) - _BREACHES_SHOWN_MAX
        if more > 0:
            console.print(Text(f"{each.what}: {more} more", "red"))
