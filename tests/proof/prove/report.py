"""The table: on a terminal, as JSON, and in a document."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.surroundings import surroundings
from tests.proof.prove.reading import Line

BEGIN: Final = "<!-- proof: written by scripts/prove, do not edit -->"
END: Final = "<!-- proof: end -->"
_BREACHES_SHOWN_MAX: Final = 3


class NoPlaceError(Exception):
    """The document has no place for the table; the text says what it must look like."""


@dataclass
class Report:
    """All lines of one run; ``day`` as 2026-01-31, ``how`` the command that repeats it."""

    day: str
    how: str
    seed: int
    seconds: float = 0.0
    lines: list[Line] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        return bool(self.lines) and all(line.passed for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        return {**asdict(self), "passed": self.passed, "machine": surroundings()}


def print_report(report: Report, console: Console) -> None:
    """Print the table, and the first breaches of each line in full."""
    table = Table("part", "what", "how much", "result", "s", box=box.SIMPLE)
    table.columns[-1].justify = "right"
    for line in report.lines:
        result = Text(line.result, "green" if line.passed else "red")
        table.add_row(line.part, line.what, line.how_much, result, f"{line.seconds:.0f}")
    console.print(table)
    for line in report.lines:
        for found in line.found[:_BREACHES_SHOWN_MAX]:
            console.print(Text(f"{line.what}: {found}", "red"), soft_wrap=True)
        more = len(line.found) - _BREACHES_SHOWN_MAX
        if more > 0:
            console.print(Text(f"{line.what}: at least {more} more", "red"))
    broken = sum(not line.passed for line in report.lines)
    words = "everything held" if report.passed else f"{broken} of {len(report.lines)} lines broken"
    console.print(Text(words, "green" if report.passed else "red"))
    console.print(Text(f"{report.seconds:.0f} s, again: {report.how}", "dim"), soft_wrap=True)


def write_json(report: Report, path: Path) -> None:
    path.write_text(json.dumps(report.as_json(), indent=1) + "\n", encoding="utf-8")


def write_into(report: Report, path: Path) -> None:
    """Put the table between the marks of a document. Errors: `NoPlaceError`."""
    text = path.read_text(encoding="utf-8")
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        raise NoPlaceError(f"{path} has no place for the table: put in the lines {BEGIN} and {END}")
    table = "\n".join([BEGIN, *_markdown(report), END])
    path.write_text(before + table + after, encoding="utf-8")


def _markdown(report: Report) -> Sequence[str]:
    machine = surroundings()
    names = ("processor", "memory", "system", "Python", "SQLite", "pyzmq")
    told = ", ".join(f"{name} {machine[name]}" if name in ("Python", "SQLite", "pyzmq")
                     else machine[name] for name in names)  # fmt: skip
    rows = [
        f"| {line.what} | {line.how_much} | {'' if line.passed else '**broken**: '}{line.result} |"
        for line in report.lines
    ]
    return [
        "",
        f"{report.day}, {report.seconds / 60:.0f} minutes on {told}. Again: `{report.how}`",
        "",
        "| what | how much | result |",
        "| --- | --- | --- |",
        *rows,
        "",
    ]
