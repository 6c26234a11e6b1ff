"""Figures as values: percentiles, medians of repeats, JSON lines, ratios to an earlier run."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from typing import Final

#: By name, which ends in the unit.
Figures = dict[str, float]

#: The columns of the table, in order: figure, heading, and its digits behind the point.
COLUMNS: Final = (
    ("sends_per_s", "sends/s", 0),
    ("drained_per_s", "drained/s", 0),
    ("pushed_per_s", "pushed/s", 0),
    ("p50_us", "p50 µs", 0),
    ("p99_us", "p99 µs", 0),
    ("broker_us", "broker µs", 2),
    ("client_us", "client µs", 2),
    ("memory_mib", "MiB", 0),
    ("start_empty_s", "start s", 2),
    ("start_full_s", "full s", 2),
    ("bytes_per_waiting", "B each", 0),
    ("foreign_cores", "foreign", 2),
)
#: Of these, more is better.
RATES: Final = frozenset({"sends_per_s", "drained_per_s", "pushed_per_s"})
#: More foreign CPU than this, in cores, spoils a measurement.
FOREIGN_CORES_MAX: Final = 0.2
#: Not compared: they describe the run, not the broker.
CIRCUMSTANCES: Final = frozenset({"messages", "foreign_cores"})


@dataclass(frozen=True, kw_only=True)
class Result:
    """A point's figures: medians of ``repeats`` measurements of ``commit``."""

    point: str
    series: str
    at: str
    figures: Figures
    repeats: int
    commit: str


def percentile_us(ordered_s: Sequence[float], percent: int) -> float:
    """Return a percentile in µs (nearest rank); 0 where there is nothing."""
    if not ordered_s:
        return 0.0
    return ordered_s[max(0, -(-len(ordered_s) * percent // 100) - 1)] * 1e6


def rounded(figures: Mapping[str, float]) -> Figures:
    """Keep what is meant: four digits, or whole numbers from a thousand on."""
    return {name: round(v) if abs(v) >= 1e3 else float(f"{v:.4g}") for name, v in figures.items()}


def medians(repeats: Sequence[Figures]) -> Figures:
    """Return the median of each figure."""
    return rounded({name: median(each[name] for each in repeats) for name in repeats[0]})


def to_line(result: Result) -> str:
    """Return one JSON line, the figures beside the point's name."""
    fields = asdict(result)
    figures = fields.pop("figures")
    return json.dumps({**fields, **figures})


def from_line(line: str) -> Result:
    """Read what `to_line` wrote. Errors: `ValueError` for anything else."""
    try:
        fields = json.loads(line)
        own = {name: fields.pop(name) for name in ("point", "series", "at", "repeats", "commit")}
        return Result(**own, figures={name: float(value) for name, value in fields.items()})
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a line of scripts/bench: {line[:60]!r}") from error


def load(path: Path) -> list[Result]:
    """Read a file of JSON lines. Errors: `OSError`, `ValueError`."""
    return [from_line(line) for line in path.read_text().splitlines() if line.strip()]


def ratios(now: Iterable[Result], before: Iterable[Result]) -> Iterator[tuple[str, Figures]]:
    """Yield, for each point of both runs, each figure's ratio to what it was."""
    earlier = {result.point: result.figures for result in before}
    for result in now:
        then = earlier.get(result.point, {})
        ratio = {
            name: value / then[name]
            for name, value in result.figures.items()
            if name not in CIRCUMSTANCES and then.get(name)
        }
        if ratio:
            yield result.point, ratio
