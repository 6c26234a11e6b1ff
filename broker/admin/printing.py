"""What commands print: tables for a person, JSON or tab-separated lines for a program."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from threading import Timer
from typing import Any, Final, NamedTuple

#: A bar or a spinner for a short wait is a flicker.
PROGRESS_AFTER_S: Final = 2.0
_UNITS: Final = ("bytes", "kB", "MB", "GB", "TB")


def plain(text: str) -> str:
    """Show what would move the cursor or hide as an escape: names are what others chose."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def note(sentence: str) -> None:
    """Say something beside the result."""
    print(f"kotak: {sentence}", file=sys.stderr)


def ask(question: str) -> str:
    """Return what a person answers, with the end of the line; empty at the end of the input."""
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline()


# --- values ------------------------------------------------------------------------------------


def raw(value: object) -> str:
    """Show a value as a program reads it: numbers as they are, times in ms since the epoch."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    return plain(str(value))


def local_time(at_ms: int) -> str:
    """Return a time (ms since the epoch) to the minute, in the reader's time zone."""
    try:
        return f"{datetime.fromtimestamp(at_ms / 1_000).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):  # a broker with a broken clock
        return "unknown"


def size(count: int) -> str:
    """Return a number of bytes in the unit that a person would take."""
    value = float(count)
    for unit in _UNITS[:-1]:
        if value < 1_000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1_000
    return f"{value:.1f} {_UNITS[-1]}"


def counted(count: int, noun: str) -> str:
    """Return ``1 message``, ``2 messages``."""
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"


# --- lists ---------------------------------------------------------------------------------------


class Column(NamedTuple):
    """One column: its heading, the field it shows, and how it shows it to a person."""

    heading: str
    field: str
    show: Callable[[Any], str] = raw
    right: bool = False


def print_list(
    items: Iterable[Mapping[str, Any]],
    columns: Sequence[Column],
    *,
    as_json: bool,
    empty: str,
) -> None:
    """Print a table, one JSON array, or, where stdout is no terminal, a line of tabs for each.

    ``empty`` is told to a person where there is nothing.
    """
    if as_json:
        print(json.dumps(list(items)))
    elif sys.stdout.isatty():
        rows = [[each.show(item.get(each.field, "")) for each in columns] for item in items]
        _print_table(rows, columns, empty)
    else:
        for item in items:
            print("\t".join(raw(item.get(each.field, "")) for each in columns))


def print_fields(item: Mapping[str, Any], rows: Sequence[Column], *, as_json: bool) -> None:
    """Print one thing: a line for each field, or one JSON object."""
    if as_json:
        print(json.dumps(item))
        return
    there = [each for each in rows if each.field in item]
    if not sys.stdout.isatty():
        for each in there:
            print(f"{each.field}\t{raw(item[each.field])}")
        return
    width = max(len(each.heading) for each in there)
    for each in there:
        print(f"{each.heading:{width}}  {each.show(item[each.field])}")


def _print_table(rows: Sequence[Sequence[str]], columns: Sequence[Column], empty: str) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for column in columns:
        table.add_column(
            column.heading, overflow="fold", justify="right" if column.right else "left"
        )
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console().print(table if rows else empty, markup=False, highlight=False)


# --- waiting -------------------------------------------------------------------------------------


@contextmanager
def late_bar() -> Iterator[Callable[[str, int, int], None]]:
    """Yield what to tell of progress: at what, of how many, how many are done.

    A bar appears on a terminal once it takes long, and begins anew with each thing worked at.
    """
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task("", total=None)
    began = time.monotonic()
    before = ""

    def tell(what: str, total: int, done: int) -> None:
        nonlocal before
        if what != before:
            before = what
            bar.reset(task, description=what, total=total)
        bar.update(task, completed=done)
        if not bar.live.is_started and time.monotonic() - began > PROGRESS_AFTER_S:
            bar.start()

    try:
        yield tell
    finally:
        bar.stop()


@contextmanager
def at_work(what: str, *, after_s: float | None = None) -> Iterator[Callable[[str], None]]:
    """Show on a terminal that something is at work, once that takes long.

    Yields what to call where there is another word for ``what``.
    """
    from rich.console import Console
    from rich.text import Text

    console = Console(stderr=True)
    status = console.status(Text(what))
    timer = Timer(PROGRESS_AFTER_S if after_s is None else after_s, status.start)
    timer.daemon = True
    if console.is_terminal:
        timer.start()
    try:
        yield lambda words: status.update(Text(words))
    finally:
        timer.cancel()
        if timer.is_alive():
            timer.join()  # it may be starting at this very moment
        status.stop()
