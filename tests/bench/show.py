"""What a person sees of a run: a table of figures, and one of ratios to an earlier run."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Sequence

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.figures import COLUMNS, FOREIGN_CORES_MAX, RATES, Figures, Result

_FILE_COLUMNS = 120
#: Ratios this near to 1 are the machine's mood.
_NOISE = 0.05


def error_console() -> Console:
    """Return the console on standard error; into a file it writes whole tables."""
    tty = sys.stderr.isatty()
    return Console(stderr=True, width=None if tty else _FILE_COLUMNS)


def table(results: Sequence[Result]) -> Table:
    """Return all figures, those that no point has left out."""
    columns = [column for column in COLUMNS if any(column[0] in r.figures for r in results)]
    shown = _table("point", [heading for _, heading, _ in columns])
    for result in results:
        cells = [_figure(result.figures, name, digits) for name, _, digits in columns]
        shown.add_row(result.point, *cells)
    return shown


def ratio_table(ratios: Iterable[tuple[str, Figures]]) -> Table:
    """Return now divided by then: green where that is better, red where it is worse."""
    rows = list(ratios)
    columns = [column for column in COLUMNS if any(column[0] in figures for _, figures in rows)]
    shown = _table("now / then", [heading for _, heading, _ in columns])
    for point, figures in rows:
        shown.add_row(point, *(_ratio(figures, name) for name, _, _ in columns))
    return shown


def _table(first: str, headings: Sequence[str]) -> Table:
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column(first, style="bold", no_wrap=True)
    for heading in headings:
        shown.add_column(heading, justify="right")
    return shown


def _figure(figures: Figures, name: str, digits: int) -> Text:
    if name not in figures:
        return Text("")
    spoiled = name == "foreign_cores" and figures[name] > FOREIGN_CORES_MAX
    return Text(f"{figures[name]:,.{digits}f}", "red" if spoiled else "")


def _ratio(figures: Figures, name: str) -> Text:
    if name not in figures:
        return Text("")
    ratio = figures[name]
    gain = ratio - 1 if name in RATES else 1 - ratio
    style = "" if abs(gain) < _NOISE else "green" if gain > 0 else "red"
    return Text(f"{ratio:.2f}", style)
