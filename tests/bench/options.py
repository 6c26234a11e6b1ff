"""The command line of ``scripts/bench``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.bench.figures import Result, load
from tests.bench.points import POINTS, Point, chosen


@dataclass(frozen=True, kw_only=True)
class Options:
    """What was asked for. ``measured``: results of an earlier run, in place of measuring."""

    points: Sequence[Point]
    seconds: float
    repeat: int
    store: str
    folder: Path | None
    profile: Path | None
    draw: Path | None
    measured: list[Result] | None
    before: list[Result] | None
    table: bool


def parse(words: Sequence[str] | None = None) -> Options | None:
    """Return the options; None where ``--list`` was all. Exits with code 2 on a mistake."""
    parser = _parser()
    given = parser.parse_args(words)
    if given.list:
        for point in POINTS:
            print(f"{point.name:20} {point.series}")  # noqa: T201 - what was asked for
        return None
    try:
        points = chosen(given.points)
    except ValueError as error:
        parser.error(str(error))
    return Options(
        points=points,
        seconds=given.seconds,
        repeat=given.repeat,
        store=given.store,
        folder=given.folder,
        profile=given.profile,
        draw=given.draw,
        measured=given.read,
        before=given.compare,
        table=not given.json,
    )


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/bench",
        description="Measure the broker by the mailbox workload, with real client processes. "
        "Results are JSON lines on stdout where that is no terminal, and a table.",
        epilog="Only ratios of one run on a quiet machine mean anything. docs/bench/README.md "
        "says how to read the figures.",
    )
    add = parser.add_argument
    add("--points", nargs="+", default=[], metavar="POINT",
        help="only these: names, series, or patterns such as 'body-*' (all)")  # fmt: skip
    add("--list", action="store_true", help="list the points and their series")
    add("--seconds", type=_number(0.1, 60.0), default=5.0, metavar="S",
        help="how long a point sends (5)")  # fmt: skip
    add("--repeat", type=lambda word: int(_number(1, 100)(word)), default=1, metavar="N",
        help="measure all N times, round by round, and take medians (1)")  # fmt: skip
    add("--store", choices=("sqlite:", "memory:"), default="sqlite:", help="the broker's engine")
    add("--data", dest="folder", type=_folder, metavar="FOLDER",
        help="where the brokers keep their files: the disk that is measured")  # fmt: skip
    add("--profile", type=_folder, metavar="FOLDER",
        help="write flame graphs there (needs py-spy)")  # fmt: skip
    add("--draw", type=_folder, metavar="FOLDER", help="draw what grows as SVG files there")
    add("--read", type=_results, metavar="FILE",
        help="do not measure: take the JSON lines of an earlier run")  # fmt: skip
    add("--compare", type=_results, metavar="FILE",
        help="print the ratios to the JSON lines of an earlier run")  # fmt: skip
    add("--json", action="store_true", help="JSON lines only, no tables")
    return parser


def _number(low: float, high: float) -> Callable[[str], float]:
    def read(word: str) -> float:
        if not low <= (number := float(word)) <= high:
            raise argparse.ArgumentTypeError(f"{word} must lie between {low:g} and {high:g}")
        return number

    return read


def _folder(word: str) -> Path:
    """Make it now: that it cannot be written to shall not be learnt after an hour's measuring."""
    folder = Path(word)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise argparse.ArgumentTypeError(f"cannot use {word}: {error.strerror}") from None
    if not os.access(folder, os.W_OK | os.X_OK):
        raise argparse.ArgumentTypeError(f"cannot write to {word}: choose a folder of your own")
    return folder


def _results(word: str) -> list[Result]:
    try:
        return load(Path(word))
    except (OSError, ValueError) as error:
        raise argparse.ArgumentTypeError(f"cannot read {word}: {error}") from None
