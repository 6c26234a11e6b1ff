"""What the parts print, read into rows of one table."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

_BREACH_CHARS_MAX: Final = 2_000
_BREACHES_MAX: Final = 20


class UnreadableError(Exception):
    """A part printed what nobody expected, or nothing."""


@dataclass(frozen=True)
class Line:
    """One line of the table: the part, what was done, how much, what came of it, and its seed."""

    part: str
    what: str
    how_much: str
    passed: bool
    result: str
    seconds: float
    seed: int | None = None
    found: list[str] = field(default_factory=list)
    figures: Mapping[str, Any] = field(default_factory=dict)
    #: The command that does the same again.
    again: str = ""


def read(part: str, printed: str) -> list[Line]:
    """Read what a part printed: rows, or the figures of the simulator, or of the seeded bugs.

    Errors: `UnreadableError`.
    """
    try:
        fields = json.loads(printed.strip().splitlines()[-1])
        if isinstance(fields, list):
            return list(_caught(part, fields))
        if "rows" in fields:
            return list(_rows(part, fields))
        return [_simulated(part, fields)]
    except (ValueError, LookupError, TypeError) as error:
        raise UnreadableError(f"{part} printed no figures: {error!r}") from error


def _rows(part: str, fields: Mapping[str, Any]) -> Iterator[Line]:
    seed = fields["size"]["seed"]
    for row in fields["rows"]:
        yield Line(
            part,
            row["what"],
            row["how_much"],
            row["passed"],
            row["result"],
            row["seconds"],
            seed,
            [found[:_BREACH_CHARS_MAX] for found in row["found"][:_BREACHES_MAX]],
            row["figures"],
        )


def _simulated(part: str, fields: Mapping[str, Any]) -> Line:
    broken = fields["broken"]
    found = [f"seed {seed}: {'; '.join(map(str, told))}" for seed, told in broken.items()]
    figures = {name: value for name, value in fields.items() if name != "broken"}
    return Line(
        part,
        "simulated brokers, clients and faults",
        f"{fields['seeds']:,} seeds, {fields['simulated_hours']:,} h",
        fields["clean"],
        f"{len(broken)} seeds broken, {fields['sends']:,} sends, {fields['broker_lives']:,} lives",
        fields["seconds"],
        None,
        [each[:_BREACH_CHARS_MAX] for each in found[:_BREACHES_MAX]],
        figures,
    )


def _caught(part: str, bugs: list[Mapping[str, Any]]) -> Iterator[Line]:
    missed = [bug["bug"] for bug in bugs if not bug["law"]]
    longest = max(bug["seconds"] for bug in bugs)
    yield Line(
        part,
        "bugs planted to be caught",
        f"{len(bugs)} bugs",
        not missed,
        f"{len(bugs) - len(missed)} caught, each within {longest:.0f} s",
        round(sum(bug["seconds"] for bug in bugs), 1),
        None,
        [f"NOT CAUGHT: {bug}" for bug in missed],
        {"seconds": {bug["bug"]: bug["seconds"] for bug in bugs}},
    )
