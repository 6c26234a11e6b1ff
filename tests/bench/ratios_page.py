"""The ratios as Markdown, written into a document between two marks, so that nobody copies them.

A `Contested` is one rival at one point; a file holds one a line, below a line that says where.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.bench.contest import Comparison
from tests.bench.figures import FOREIGN_CORES_MAX, Result
from tests.bench.rivals import OWN_TARGETS, RIVALS, TARGETS, Goal

BEGIN: Final = "<!-- ratios: written by scripts/versus, do not edit -->"
END: Final = "<!-- ratios: end -->"
_NOT_MEASURED: Final = "not measured"


class PageError(Exception):
    """A file is not what it should be; the text says what to do."""


@dataclass(frozen=True, kw_only=True)
class Contested:
    """One rival at one point: the figures, or why there are none."""

    rival: str
    point: str
    made: str
    commit: str
    alternations: int = 0
    seconds: float = 0.0
    version: str = ""
    figures: Mapping[str, Comparison] = field(default_factory=dict)
    failed: str | None = None

    @property
    def foreign_cores(self) -> float:
        found = self.figures.get("other_cores")
        return max(found.ours, found.theirs) if found else 0.0


@dataclass(frozen=True, kw_only=True)
class Ratios:
    """All that was contested, and on what machine."""

    surroundings: Mapping[str, str]
    contested: Sequence[Contested]

    def find(self, rival: str, point: str) -> Contested | None:
        return next((c for c in self.contested if (c.rival, c.point) == (rival, point)), None)

    def with_one(self, one: Contested, surroundings: Mapping[str, str]) -> Ratios:
        """Return the same with one more, which takes the place of an earlier one."""
        others = [c for c in self.contested if (c.rival, c.point) != (one.rival, one.point)]
        return Ratios(surroundings=surroundings, contested=[*others, one])


NONE: Final = Ratios(surroundings={}, contested=[])


def save(ratios: Ratios, path: Path) -> None:
    """Write JSON lines."""
    lines = [json.dumps({"surroundings": ratios.surroundings})]
    for each in ratios.contested:
        figures = {name: found._asdict() for name, found in each.figures.items()}
        lines.append(json.dumps({**asdict(each), "figures": figures}))
    path.write_text("\n".join(lines) + "\n")


def load(path: Path) -> Ratios:
    """Read what `save` wrote. Errors: `PageError`."""
    try:
        first, *others = [json.loads(line) for line in path.read_text().splitlines()]
        return Ratios(
            surroundings=first["surroundings"], contested=[_contested(other) for other in others]
        )
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise PageError(f"{path} cannot be read as results of scripts/versus: {error}") from error


def _contested(line: dict[str, Any]) -> Contested:
    figures = {name: Comparison(**found) for name, found in line.pop("figures").items()}
    return Contested(**line, figures=figures)


def write_into(document: Path, text: str) -> None:
    """Put the text between the marks of a document. Errors: `PageError`."""
    try:
        before, begin, rest = document.read_text().partition(BEGIN)
    except OSError as error:
        raise PageError(f"{document} cannot be read: {error.strerror}") from error
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise PageError(f"{document} needs a line {BEGIN!r} and, below it, a line {END!r}")
    document.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")


def markdown(ratios: Ratios, own: Sequence[Result]) -> str:
    """Return the tables. ``own``: results of ``scripts/bench``, for what needs no rival."""
    if not ratios.contested:
        return "*Not measured yet: the command above writes the tables here.*"
    return "\n".join([
        *_where(ratios),
        "", "### What was aimed at", "",
        "| what | Kotak | beside | ratio (range) | target | stretch | |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        *_targets(ratios), *_own_targets(own),
        "", "### All rivals", "",
        "Ratios of the rate, the p50, the server's CPU a message and the drain's rate; flushes of",
        "the disk for 1,000 messages, Kotak's and the rival's.", "",
        "| beside | point | sends/s: Kotak, rival | ratio (range) | p50 | CPU | drain | flushes |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
        *_rivals(ratios),
        *_remarks(ratios),
    ])  # fmt: skip


def _where(ratios: Ratios) -> Iterator[str]:
    commits = sorted({each.commit for each in ratios.contested})
    days = sorted({each.made for each in ratios.contested})
    how = sorted({f"{c.alternations} of {c.seconds:g} s" for c in ratios.contested if c.figures})
    yield f"Measured {' and '.join(days)} at commit {', '.join(commits)}."
    yield f"Alternations: {', '.join(how) or 'none'}. Machine and versions:"
    yield "; ".join(f"{name} {value}" for name, value in ratios.surroundings.items()) + "."
    versions = {each.rival.partition("-")[0]: each.version for each in ratios.contested}
    told = [
        version if rival in version.lower() else f"{rival} {version}"  # some name themselves
        for rival, version in versions.items()
        if version
    ]
    if told:
        yield f"Rivals: {'; '.join(told)}."


def _targets(ratios: Ratios) -> Iterator[str]:
    for target in TARGETS:
        each = ratios.find(target.rival, str(target.where))
        found = each.figures.get(target.figure) if each else None
        if found is None:
            yield _row(target.what, "", "", _NOT_MEASURED, *_goals(target.goal), "")
            continue
        value = found.ratio if target.of_both else found.ours
        yield _row(
            target.what, number(found.ours), number(found.theirs), ratio(found),
            *_goals(target.goal), target.goal.judged(value) if value is not None else "",
        )  # fmt: skip


def _own_targets(own: Sequence[Result]) -> Iterator[str]:
    """Yield what needs no rival; where one point is taken over another, that is the ratio."""
    figures = {result.point: result.figures for result in own}
    for target in OWN_TARGETS:
        value = figures.get(target.point, {}).get(target.figure)
        over = figures.get(target.over, {}).get(target.figure) if target.over else None
        if value is None or (target.over and not over):
            yield _row(target.what, "", "", _NOT_MEASURED, *_goals(target.goal), "")
            continue
        judged = value / over if over else value
        yield _row(
            target.what, number(value), number(over) if over else "",
            f"{judged:.2f}" if over else "", *_goals(target.goal), target.goal.judged(judged),
        )  # fmt: skip


def _goals(goal: Goal) -> tuple[str, str]:
    return goal.told(goal.target), goal.told(goal.stretch)


def _rivals(ratios: Ratios) -> Iterator[str]:
    for rival in RIVALS:
        for where in rival.points:
            each = ratios.find(rival.key, str(where))
            if each is None or not each.figures:
                yield _row(rival.title, str(where), _NOT_MEASURED, "", "", "", "", "")
                continue
            rate = each.figures["sent_per_s"]
            yield _row(
                rival.title,
                f"{where}{' †' if each.foreign_cores > FOREIGN_CORES_MAX else ''}",
                both(rate),
                *(
                    ratio(each.figures.get(figure))
                    for figure in ("sent_per_s", "p50_us", "server_cpu_per_M", "drained_per_s")
                ),
                both(each.figures.get("flushes_per_k")),
            )


def _remarks(ratios: Ratios) -> Iterator[str]:
    if any(each.foreign_cores > FOREIGN_CORES_MAX for each in ratios.contested):
        yield ""
        yield f"† DISTURBED: more than {FOREIGN_CORES_MAX} cores were busy with something else."
    for each in ratios.contested:
        if each.failed:
            yield ""
            yield f"{each.rival} at {each.point} could not be measured: {each.failed}"


def ratio(found: Comparison | None) -> str:
    """Write a ratio with its range, as ``1.23 (1.10-1.40)``; nothing where there is none."""
    if found is None or found.ratio is None:
        return ""
    return f"**{found.ratio:.2f}** ({found.lowest:.2f}-{found.highest:.2f})"


def both(found: Comparison | None) -> str:
    """Write both medians, Kotak's first."""
    return f"{number(found.ours)}, {number(found.theirs)}" if found else ""


def number(value: float) -> str:
    """Write three digits of a small number, and all of a large one."""
    return f"{value:,.0f}" if value >= 1_000 else f"{value:.3g}"


def _row(*cells: str) -> str:
    return f"| {' | '.join(cells)} |"
