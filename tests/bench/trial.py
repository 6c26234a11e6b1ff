"""A trial: measurements side by side and a judgement, as one command of ``scripts/loadtest``.

While it runs a bar says where it is; then comes a table with a sentence for each complaint, or one
JSON object, and the exit code.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from tests.bench.crew import CrewError
from tests.bench.show import error_console
from tests.load.broker_process import BrokerError
from tests.load.doors import UnreachableError

_HOLDS, _BROKEN, _FAILED, _INTERRUPTED = 0, 1, 3, 130
EPILOG: Final = "Exit code 0: what is promised holds. 1: it does not. 3: it could not be measured."


@dataclass(frozen=True, kw_only=True)
class Findings:
    """What a trial found. ``figures`` are for programs, the table for people."""

    title: str
    headings: Sequence[str]
    rows: Sequence[Sequence[str]]
    #: What holds, in one sentence, where nothing is wrong.
    holds: str
    figures: dict[str, Any]
    complaints: list[str] = field(default_factory=list)


#: Gets a function that is told each step as it begins.
Trial = Callable[[Callable[[str], None]], Findings]


def carry_out(name: str, trial: Trial, *, steps: int, as_json: bool) -> int:
    """Run a trial of so many steps, print what it found, return the exit code."""
    notes = error_console()
    try:
        findings = _with_bar(trial, steps, notes)
    except (BrokerError, CrewError, UnreachableError) as error:
        notes.print(f"{name}: {error}", style="red", markup=False, soft_wrap=True)
        return _FAILED
    except KeyboardInterrupt:
        notes.print(f"{name}: interrupted")
        return _INTERRUPTED
    if as_json:
        shown = {**findings.figures, "complaints": findings.complaints}
        print(json.dumps(shown))  # noqa: T201 - the result of the command
    else:
        console = Console() if sys.stdout.isatty() else Console(width=notes.width)
        print_findings(findings, console)
    return _BROKEN if findings.complaints else _HOLDS


def _with_bar(trial: Trial, steps: int, notes: Console) -> Findings:
    with Progress(
        TextColumn("{task.description:32}"), BarColumn(), TimeElapsedColumn(),
        console=notes, transient=True, disable=not notes.is_terminal,
    ) as bar:  # fmt: skip
        task = bar.add_task("starting", total=steps)
        begun = 0

        def step(phase: str) -> None:
            nonlocal begun
            bar.update(task, description=phase, completed=begun)
            begun += 1

        return trial(step)


def print_findings(findings: Findings, console: Console) -> None:
    """Print the table and the judgement below it."""
    console.print(Text(findings.title), soft_wrap=True)
    table = Table(box=box.SIMPLE_HEAD)
    for i, heading in enumerate(findings.headings):
        table.add_column(heading, justify="right" if i else "left", style="" if i else "bold")
    for row in findings.rows:
        table.add_row(*row)
    console.print(table)
    if not findings.complaints:
        console.print(Text(f"  {findings.holds}", "green"), soft_wrap=True)
    for complaint in findings.complaints:
        console.print(Text(f"  {complaint}", "red"), soft_wrap=True)


def whole(low: int, high: int) -> Callable[[str], int]:
    """Return a reader of whole numbers in a range, for `argparse`."""

    def read(word: str) -> int:
        if not low <= (number := int(word)) <= high:
            raise argparse.ArgumentTypeError(f"{number:,} must lie between {low:,} and {high:,}")
        return number

    return read
