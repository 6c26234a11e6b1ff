"""``scripts/versus``: Kotak and another broker in turns, A B A B, so that both meet one machine.

A folder that the user names brings the workload and the peers: its ``peers.py`` runs one point of
one peer and prints one JSON line; ours is `scripts/peer_kotak.py`. Only ratios are of interest.
``--all`` takes every rival of `tests.bench.rivals` and writes the tables of docs/BENCHMARKS.md.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench import figures, ratios_page
from tests.bench.contest import (
    FIGURES,
    Comparison,
    Contender,
    Contest,
    Line,
    VersusError,
    Where,
    compare,
)
from tests.bench.machine import ROOT, commit
from tests.bench.ratios_page import Contested, PageError, Ratios
from tests.bench.rivals import MANY, RIVALS, Rival
from tests.bench.show import error_console
from tests.bench.surroundings import surroundings

OURS: Final = ROOT / "scripts" / "peer_kotak.py"
RESULTS: Final = ROOT / "docs" / "bench" / "versus.jsonl"
OWN_RESULTS: Final = ROOT / "docs" / "bench" / "results.jsonl"
PAGE: Final = ROOT / "docs" / "BENCHMARKS.md"
_FAILED, _INTERRUPTED = 1, 130
_REASON_CHARS_MAX: Final = 160


def table(where: Where, ours: str, theirs: str, figures: Mapping[str, Comparison]) -> Table:
    shown = Table(title=f"{where}", box=box.SIMPLE_HEAD, title_justify="left")
    shown.add_column("median", style="bold")
    for heading in (ours, theirs, "ratio", "range"):
        shown.add_column(heading, justify="right")
    for figure, found in figures.items():
        ratio = "" if found.ratio is None else f"{found.ratio:.2f}"
        span = "" if found.lowest is None else f"{found.lowest:.2f} - {found.highest:.2f}"
        shown.add_row(FIGURES[figure], f"{found.ours:,.4g}" if found.ours < 1e4 else
                      f"{found.ours:,.0f}", f"{found.theirs:,.4g}" if found.theirs < 1e4 else
                      f"{found.theirs:,.0f}", ratio, span)  # fmt: skip
    return shown


def parser() -> argparse.ArgumentParser:
    """Return the command line."""
    parser = argparse.ArgumentParser(
        prog="scripts/versus",
        description="Measure Kotak and another broker in turns, and print the ratios. The peer's "
        "server and its Python library must be installed (the library into .venv).",
        epilog="docs/BENCHMARKS.md says what to install, and how to read the figures.",
    )
    add = parser.add_argument
    add("--peers", type=_driver, metavar="FOLDER", help="holds peers.py, the driver")
    add("--all", action="store_true", help="all rivals at all their points, and write the tables")
    add("--only", nargs="+", default=[], metavar="RIVAL",
        help="with --all: only these, such as 'redis-*'; others keep their results")  # fmt: skip
    add("--list", action="store_true", help="list the rivals and their points")
    add("--tables", action="store_true", help="write the tables again, from earlier results")
    add("--results", type=Path, default=RESULTS, metavar="FILE", help=f"({RESULTS.name})")
    add("--page", type=Path, default=PAGE, metavar="FILE", help=f"the document ({PAGE.name})")
    add("--peer", default="redis", help="who (redis)")
    add("--mode", help="the peer's mode, such as always (its first)")
    add("--client", default="lib", help="the peer's client (lib)")
    add("--our-client", default="lib", choices=("lib", "lib1000", "text"),
        help="lib drains pages of 100, as the peers do; lib1000 pages of 1000")  # fmt: skip
    add("--our-mode", default="sqlite", choices=("sqlite", "memory"))
    add("--point", action="append", type=_where, metavar="P,W",
        help="senders, messages of each under way; may be repeated (2,100)")  # fmt: skip
    add("--alternations", type=int, default=5, metavar="N", help="pairs of runs (5)")
    add("--seconds", type=float, default=5.0, metavar="S", help="how long a run sends (5)")
    add("--drain", type=int, default=300_000, metavar="N", help="messages drained (300,000)")
    add("--foreign-max", type=float, default=0.2, metavar="CORES",
        help="take a pair again when more was busy with something else (0.2)")  # fmt: skip
    return parser


def _driver(word: str) -> Path:
    driver = Path(word) / "peers.py"
    if not driver.is_file():
        raise argparse.ArgumentTypeError(f"{word} holds no peers.py")
    return driver


def _where(word: str) -> Where:
    senders, comma, window = word.partition(",")
    if not comma or int(senders) < 1 or int(window) < 1:
        raise argparse.ArgumentTypeError("give P,W: senders, and messages of each under way")
    return Where(int(senders), int(window))


def main(words: Sequence[str] | None = None) -> int:
    """Return 0, 1 where a run failed, 130 after Ctrl-C. Runs and results are JSON lines."""
    options = parser()
    given = options.parse_args(words)
    if given.list:
        for rival in RIVALS:
            points = " ".join(map(str, rival.points))
            print(f"{rival.key:24} {points:16} {rival.title}")  # noqa: T201 - what was asked for
        return 0
    if not given.peers and not given.tables:
        options.error("--peers FOLDER: who runs the rivals?")
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave no server behind
    notes = error_console()
    try:
        if given.tables:
            write_tables(ratios_page.load(given.results), given.page)
            return 0
        return _all(given, notes) if given.all else _one(given, notes)
    except KeyboardInterrupt:
        notes.print("versus: interrupted")
        return _INTERRUPTED
    except (VersusError, PageError, subprocess.TimeoutExpired) as error:
        notes.print(f"versus: {error}", style="red", markup=False, soft_wrap=True)
        return _FAILED


def _contest(given: argparse.Namespace, notes: Console) -> Contest:
    return Contest(
        driver=given.peers,
        alternations=given.alternations,
        seconds=given.seconds,
        drain_max=given.drain,
        foreign_max=given.foreign_max,
        say=lambda sentence: notes.print(sentence, style="dim", highlight=False),
    )


def _ours(mode: str, client: str) -> Contender:
    return Contender("kotak", ("--module", str(OURS), "--mode", mode, "--client", client))


def _one(given: argparse.Namespace, notes: Console) -> int:
    ours = _ours(given.our_mode, given.our_client)
    mode = ("--mode", given.mode) if given.mode else ()
    theirs = Contender(given.peer, ("--peer", given.peer, *mode, "--client", given.client))
    contest = _contest(given, notes)
    for where in given.point or [MANY]:
        found = compare(_pairs(contest, where, ours, theirs))
        result = {name: each._asdict() for name, each in found.items()}
        print(json.dumps({"point": str(where), "ours": ours.name, "theirs": theirs.name, **result}))  # noqa: T201 - the result
        notes.print(table(where, ours.name, theirs.name, found))
    return 0


def _pairs(
    contest: Contest, where: Where, ours: Contender, theirs: Contender
) -> list[tuple[Line, Line]]:
    pairs = []
    for pair in contest.run(where, ours, theirs):
        pairs.append(pair)
        for line in pair:
            print(json.dumps(line), flush=True)  # noqa: T201 - the result
    return pairs


def _all(given: argparse.Namespace, notes: Console) -> int:
    """Contest all rivals; after each point the file and the document are whole.

    A rival that cannot be run is told in its place, and ends nothing.
    """
    here, contest = surroundings(), _contest(given, notes)
    so_far = ratios_page.load(given.results) if given.only else ratios_page.NONE
    write_tables(so_far, given.page)  # a document that cannot be written to shall be learnt of now
    failures = 0
    for rival, where in chosen(given.only):
        notes.print(f"{rival.title} at {where}", style="bold", highlight=False)
        found = _contested(contest, rival, where, notes)
        failures += found.failed is not None
        so_far = so_far.with_one(found, here)
        ratios_page.save(so_far, given.results)
        write_tables(so_far, given.page)
    return _FAILED if failures else 0


def chosen(patterns: Sequence[str]) -> Iterator[tuple[Rival, Where]]:
    """Yield whom the patterns of the shell name, at each of their points. Errors: `VersusError`."""
    for pattern in patterns:
        if not any(fnmatchcase(rival.key, pattern) for rival in RIVALS):
            raise VersusError(f"no rival fits {pattern!r}: --list names them all")
    for rival in RIVALS:
        if not patterns or any(fnmatchcase(rival.key, pattern) for pattern in patterns):
            for where in rival.points:
                yield rival, where


def _contested(contest: Contest, rival: Rival, where: Where, notes: Console) -> Contested:
    ours, theirs = _ours("sqlite", rival.our_client), rival.contender
    today = datetime.now(tz=UTC).date().isoformat()
    empty = Contested(rival=rival.key, point=str(where), made=today, commit=commit())
    try:
        pairs = _pairs(contest, where, ours, theirs)
    except (VersusError, subprocess.TimeoutExpired) as error:
        notes.print(f"versus: {error}", style="red", markup=False, soft_wrap=True)
        reason = str(error).split("\n", 1)[0][:_REASON_CHARS_MAX]
        return replace(empty, failed=reason)
    found = compare(pairs)
    notes.print(table(where, ours.name, theirs.name, found))
    return replace(
        empty, figures=found, version=str(pairs[-1][1].get("version", "")),
        alternations=contest.alternations, seconds=contest.seconds,
    )  # fmt: skip


def write_tables(ratios: Ratios, page: Path) -> None:
    """Write the tables into the document. Errors: `PageError`."""
    own = figures.load(OWN_RESULTS) if OWN_RESULTS.exists() else []
    ratios_page.write_into(page, ratios_page.markdown(ratios, own))


if __name__ == "__main__":
    sys.exit(main())
