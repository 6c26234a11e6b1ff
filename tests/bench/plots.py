"""Figures of what grows, as SVG files: the rate as bars, the broker's CPU a message beside them.

Drawn by hand, since two rows of bars need no library: the same results give the same bytes, and
the colours follow the reader's light or dark page.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from html import escape
from math import ceil, log10
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.figures import FOREIGN_CORES_MAX, Result
from tests.bench.points import DRAWN

_WIDTH: Final = 720
_HEIGHT: Final = 336
#: Of one panel: its width, the top and the bottom of its bars.
_PANEL: Final = 320
_TOP: Final = 84
_BOTTOM: Final = 254
#: A bar's share of its place.
_BAR: Final = 0.56
_STYLE: Final = """\
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-size: 17px; font-weight: 600 }
.quiet { fill: #6e7781; font-size: 12px }
.value { font-size: 12px; text-anchor: middle }
.at { text-anchor: middle }
.rate { fill: #2f81c7 } .cost { fill: #d9822b }
line { stroke: #d0d7de }
@media (prefers-color-scheme: dark) {
  text { fill: #e6edf3 } .quiet { fill: #8d96a0 } line { stroke: #3d444d }
}"""


def short(value: float) -> str:
    """Write a rate as a person says it: 950, 12.3k, 123k."""
    if value < 1_000:
        return f"{value:.0f}"
    return f"{value / 1_000:.3g}k"


class Panel(NamedTuple):
    """One row of bars: its left edge, its heading, the figure, its colour's class, how it reads."""

    left: int
    heading: str
    figure: str
    colour: str
    show: Callable[[float], str]


_PANELS: Final = (
    Panel(20, "messages a second", "sends_per_s", "rate", short),
    Panel(380, "broker CPU, µs a message", "broker_us", "cost", lambda v: f"{v:.3g}"),
)


def draw(results: Sequence[Result], folder: Path) -> list[Path]:
    """Write one file for each series that was measured at two places or more; return them."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for series in DRAWN:
        found = [result for result in results if result.series == series]
        if len(found) > 1:
            paths.append(folder / f"{series}.svg")
            paths[-1].write_text(svg(series, found))
    return paths


def svg(series: str, results: Sequence[Result]) -> str:
    """Return one figure."""
    title, below = DRAWN[series]
    return "\n".join([
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" role="img">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
        f'<text class="title" x="20" y="30">{escape(title)}</text>',
        f'<text class="quiet" x="20" y="{_HEIGHT - 14}">{escape(_caption(results))}</text>',
        *(line for panel in _PANELS for line in _panel(panel, below, results)),
        "</svg>\n",
    ])  # fmt: skip


def _caption(results: Sequence[Result]) -> str:
    of = f"medians of {results[0].repeats}" if results[0].repeats > 1 else "one measurement"
    foreign = max(result.figures.get("foreign_cores", 0.0) for result in results)
    disturbed = f"; DISTURBED: up to {foreign:.1f} cores were busy with something else"
    return (
        f"2 senders, 100 unanswered each, fsync; {of} each; {results[0].commit}"
        f"{disturbed if foreign > FOREIGN_CORES_MAX else ''}"
    )


def _panel(panel: Panel, below: str, results: Sequence[Result]) -> Iterator[str]:
    left, right = panel.left, panel.left + _PANEL
    values = [result.figures.get(panel.figure, 0.0) for result in results]
    place, highest = _PANEL / len(values), nice_above(max(values))
    yield f'<text class="quiet" x="{left}" y="58">{escape(panel.heading)}</text>'
    for result, value, i in zip(results, values, range(len(values)), strict=True):
        height = (_BOTTOM - _TOP) * value / highest
        top, middle = _BOTTOM - height, left + place * (i + 0.5)
        yield (
            f'<rect class="{panel.colour}" x="{middle - place * _BAR / 2:.1f}" y="{top:.1f}" '
            f'width="{place * _BAR:.1f}" height="{height:.1f}" rx="2"/>'
        )
        shown = escape(panel.show(value))
        yield f'<text class="value" x="{middle:.1f}" y="{top - 5:.1f}">{shown}</text>'
        at = escape(label(result.at))
        yield f'<text class="at" x="{middle:.1f}" y="{_BOTTOM + 18}">{at}</text>'
    yield f'<line x1="{left}" y1="{_BOTTOM}" x2="{right}" y2="{_BOTTOM}"/>'
    middle = left + _PANEL / 2
    yield f'<text class="quiet at" x="{middle}" y="{_BOTTOM + 36}">{escape(below)}</text>'


def nice_above(value: float) -> float:
    """Return 1, 2, 2.5 or 5 times a power of ten, at or above the value; 1 for nothing."""
    if value <= 0:
        return 1.0
    power = 10.0 ** ceil(log10(value) - 1)
    return min(step * power for step in (1, 2, 2.5, 5, 10) if step * power >= value * (1 - 1e-9))


def label(at: str) -> str:
    """Put commas into a plain number, and leave anything else."""
    return f"{int(at):,}" if at.isdecimal() else at
