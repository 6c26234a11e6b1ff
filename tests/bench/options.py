"""The command line of ``scripts/bench``."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.bench import check
from tests.bench.figures import Result, load
from tests.bench.points import POINTS, Point, chosen

_SECONDS: Final = 5.0


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
    check: bool = False
    write: bool = False


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
    if given.check:
        _only_a_check(parser, given)
    elif given.write:
        parser.error("--write belongs to --check: it sets the baseline")
    return Options(
        points=points,
        seconds=given.seconds or (check.SECONDS if given.check else _SECONDS),
        repeat=given.repeat or (check.ROUNDS if given.check else 1),
        store=given.store,
        folder=given.folder,
        profile=given.profile,
        draw=given.draw,
        measured=given.read,
        before=given.compare,
        table=not given.json,
        check=given.check,
        write=given.write,
    )


def _only_a_check(parser: argparse.ArgumentParser, given: argparse.Namespace) -> None:
    for name in ("points", "profile", "draw", "read", "compare"):
        if getattr(given, name):
            parser.error(f"--check measures one point its own way: leave --{name} out")
    if given.store != "sqlite:":
        parser.error("--check is about durable sends: leave --store out")


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
    add("--seconds", type=_number(0.1, 60.0), metavar="S",
        help=f"how long a point sends ({_SECONDS:g}; with --check {check.SECONDS:g})")  # fmt: skip
    add("--repeat", type=lambda word: int(_number(1, 100)(word)), metavar="N",
        help="measure all N times, round by round, and take medians "
        f"(1; with --check {check.ROUNDS})")  # fmt: skip
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
    add("--check", action="store_true",
        help="has the broker become slower, relative to a bare echo? exit code 1 if by over "
        "a third, 3 where it could not be measured")  # fmt: skip
    add("--write", action="store_true", help="with --check: make this the baseline")
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
