"""Hostile input: every reader of bytes and both doors' dispatchers, by grammar, mutation, coverage.

What must hold of any input: a value, or our own error; never another exception, the code
``internal``, a request without its answer, or memory that stays. See `parsers`, `desk`, `door` and
`sockets` for what is checked, `cases` for what is kept.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from tests.hostile.fuzz import atheris_loop, cases
from tests.hostile.fuzz.crew import REPLAYS, Order, run_all
from tests.hostile.fuzz.tally import Tally, as_json, print_table

HELP: Final = "feed parsers, dispatchers and sockets what no client would send"

#: A fiftieth of what is shown before a release: a minute on two cores.
PARSER: Final = 200_000
DISPATCHER: Final = 20_000
SOCKETS: Final = 2_000
#: Of what the dispatchers get, the text door's share; one line costs as much as ten requests.
_DOOR_SHARE: Final = 0.1
#: With --minutes alone: the share of the time that each kind gets.
_TIMES: Final = {"parsers": 0.4, "service": 0.3, "text door": 0.1, "sockets": 0.2}
_NO_END: Final = 10**12


def main(argv: Sequence[str]) -> int:
    """Return 0 where everything held, 1 where something did not, 2 for a wrong command line."""
    try:
        options = _parse(argv)
    except SystemExit as ended:
        return int(ended.code or 0)
    if options.replay:
        return _replay(options.replay)
    if options.atheris:
        return atheris_loop.run(options.atheris, options.parser, options.seed)
    console = Console()
    tallies = list(_run(options, console))
    print_table(tallies, console)
    if options.json:
        options.json.write_text(as_json(tallies, seed=options.seed) + "\n")
    if all(tally.holds for tally in tallies):
        return 0
    console.print(
        "What can be fed again is kept in tests/hostile/fuzz/found: mend it, and commit the case."
    )
    return 1


def _parse(argv: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/hostile fuzz",
        description="Feed hostile input to parsers, to dispatchers, and to a broker over sockets.",
        epilog="The whole proof: --parser 10000000 --dispatcher 1000000 --sockets 100000",
    )
    number = _number
    parser.add_argument("--parser", type=number, metavar="N", help=f"inputs (default: {PARSER:,})")
    parser.add_argument("--dispatcher", type=number, metavar="N", help=f"(default: {DISPATCHER:,})")
    parser.add_argument("--sockets", type=number, metavar="N", help=f"(default: {SOCKETS:,})")
    parser.add_argument("--seed", type=int, default=1, help="repeats a run (default: 1)")
    parser.add_argument(
        "--minutes", type=float, metavar="M", help="end after so long; alone: no other end"
    )
    parser.add_argument("--processes", type=int, default=2, metavar="N", help="(default: 2)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the results there")
    parser.add_argument("--grow", action="store_true", help="add what is new to corpus/")
    parser.add_argument(
        "--replay", metavar="CASE", help="feed one kept case again: request/0123..."
    )
    parser.add_argument(
        "--atheris", metavar="TARGET", help="let atheris (pip install atheris) fuzz one parser"
    )
    options = parser.parse_args(argv)
    if options.processes < 1 or (options.minutes or 1) <= 0:
        parser.error("--processes and --minutes are above 0")
    if options.atheris and options.atheris not in atheris_loop.NAMES:
        parser.error(f"--atheris takes one of: {', '.join(atheris_loop.NAMES)}")
    given = (options.parser, options.dispatcher, options.sockets)
    if all(each is None for each in given):
        endless = options.minutes is not None
        given = (_NO_END,) * 3 if endless else (PARSER, DISPATCHER, SOCKETS)
    options.parser, options.dispatcher, options.sockets = (each or 0 for each in given)
    return options


def _number(written: str) -> int:
    number = int(float(written)) if "e" in written else int(written.replace(",", ""))
    if number < 0:
        raise ValueError
    return number


def _run(options: argparse.Namespace, console: Console) -> Iterator[Tally]:
    """Run one kind after the other, each on all processes, and show how far it is."""
    door = int(options.dispatcher * _DOOR_SHARE)
    counts = {
        "parsers": options.parser,
        "service": options.dispatcher - door,
        "text door": door,
        "sockets": options.sockets,
    }
    counts = {kind: inputs for kind, inputs in counts.items() if inputs}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    progress = Progress(
        *columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal
    )
    left_s, parts = (options.minutes or _NO_END) * 60, sum(_TIMES[kind] for kind in counts)
    with progress:
        for kind, inputs in counts.items():
            began, seconds = time.monotonic(), left_s * _TIMES[kind] / parts
            # One broker serves all: more than one siege would only wait for the other.
            processes = 1 if kind == "sockets" else options.processes
            orders = [
                Order(kind, f"{options.seed}/{number}", share, seconds, options.grow)
                for number, share in enumerate(_shares(inputs, processes))
            ]
            bar = progress.add_task(kind, total=None if inputs >= _NO_END // 2 else inputs)
            yield run_all(orders, lambda done, bar=bar: progress.update(bar, completed=done))  # type: ignore[misc]  # bound now
            left_s, parts = left_s - (time.monotonic() - began), parts - _TIMES[kind]


def _shares(inputs: int, processes: int) -> list[int]:
    each, more = divmod(inputs, processes)
    return [each + (number < more) for number in range(processes)]


def _replay(case: str) -> int:
    """Feed one case again and show what it leads to."""
    path = cases.FOUND / case
    if path.parent.name not in REPLAYS or not path.is_file():
        sys.stderr.write(f"fuzz: there is no case {case!r} in {cases.FOUND}\n")
        return 2
    try:
        REPLAYS[path.parent.name](path.read_bytes())
    except Exception as error:  # noqa: BLE001 - it is what is to be seen
        name = cases.signature(path.parent.name, error)
        sys.stdout.write(f"it fails: {name}: {str(error)[:500]}\n")
        return 1
    sys.stdout.write("it holds\n")
    return 0
