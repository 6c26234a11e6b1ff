"""``scripts/prove``: run the parts one after the other, and tell what came of them."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from tests.proof.prove.parts import MINUTES_DEFAULT, PARTS, Command
from tests.proof.prove.report import (
    NoPlaceError,
    Report,
    print_report,
    write_into,
    write_json,
)
from tests.proof.prove.running import run_part

#: Of its size, what is left of a part at the least, however late it is.
_SHARE_MIN: Final = 0.2


class Wish(NamedTuple):
    """What was asked for."""

    parts: Sequence[Command]
    minutes: float
    nightly: bool
    seed: int
    json: Path | None
    write: Path | None

    @property
    def again(self) -> str:
        """Return the command that does the same again."""
        much = "--nightly" if self.nightly else f"--minutes {self.minutes:g}"
        only = "" if len(self.parts) == len(PARTS) else "".join(
            f" --only {part.name}" for part in self.parts
        )  # fmt: skip
        return f"scripts/prove {much} --seed {self.seed}{only}"


def _parse(arguments: Sequence[str] | None) -> Wish:
    parser = argparse.ArgumentParser(
        prog="scripts/prove",
        description="Put the broker's promises to the proof: kills, power cuts, failing disks, "
        "rot, networks, threads, long lives, a simulator, and bugs planted to be caught.",
        epilog="Exit code 0: everything held. 1: something broke, or could not be run.",
    )
    add = parser.add_argument
    names = [part.name for part in PARTS]
    add("--minutes", type=float, default=MINUTES_DEFAULT, metavar="N",
        help=f"the budget; sizes go by it ({MINUTES_DEFAULT:g})")  # fmt: skip
    add("--nightly", action="store_true", help="the full sizes, however long they take")
    add("--only", action="append", choices=names, metavar="NAME",
        help=f"this part only; may be given again ({', '.join(names)})")  # fmt: skip
    add("--seed", type=int, help="repeat a run (default: the time)")
    add("--json", type=Path, metavar="FILE", help="write everything there")
    add("--write", type=Path, metavar="FILE", help="put the table into this document")
    given = parser.parse_args(arguments)
    if not 0 < given.minutes <= 1_440:
        parser.error("--minutes must be above 0 and at most a day")
    parts = [part for part in PARTS if not given.only or part.name in given.only]
    seed = int(time.time()) % 1_000_000 if given.seed is None else given.seed
    return Wish(parts, given.minutes, given.nightly, seed, given.json, given.write)


def _run(wish: Wish, console: Console) -> Report:
    report = Report(time.strftime("%Y-%m-%d"), wish.again, wish.seed)
    began = time.monotonic()
    # The parts that were asked for share the budget as all of them would.
    times = [part.expected_s(wish.minutes, nightly=wish.nightly) for part in wish.parts]
    with Progress(
        TextColumn("{task.description:12}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        console=console,
        transient=True,
        disable=not console.is_terminal,
    ) as bars:
        task = bars.add_task("", total=sum(times))
        done = 0.0
        for part, expected in zip(wish.parts, times, strict=True):
            bars.update(task, description=part.name)

            def tick(seconds: float, done: float = done, most: float = expected) -> None:
                bars.update(task, completed=done + min(seconds, most))

            minutes = _minutes_for(wish, sum(times) - done, done, time.monotonic() - began)
            words = part.words(minutes, wish.seed, nightly=wish.nightly)
            report.lines += run_part(part.name, words, expected, tick)
            done += expected
    report.seconds = round(time.monotonic() - began, 1)
    return report


def _minutes_for(wish: Wish, left_s: float, done_s: float, took_s: float) -> float:
    """Return the budget whose sizes the next part gets, so that the whole keeps to its own.

    On a machine that is slower than expected, or has others to serve, the rest is made smaller.
    """
    slower = max(1.0, took_s / done_s) if done_s else 1.0
    budget_s = sum(part.expected_s(wish.minutes, nightly=False) for part in wish.parts)
    share = max(0.0, budget_s - took_s) / (left_s * slower)
    return wish.minutes * max(_SHARE_MIN, min(1.0, share))


def main(arguments: Sequence[str] | None = None) -> int:
    """Return 0 where everything held, 1 where something did not."""
    # Ended by a service manager or by Ctrl-C: either way nothing is left running.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    wish = _parse(arguments)
    os.nice(10)  # nothing here is measured against the clock
    console = Console()
    try:
        report = _run(wish, console)
    except KeyboardInterrupt:
        print("prove: interrupted", file=sys.stderr)  # noqa: T201 - the command's own words
        return 130
    print_report(report, console)
    try:
        if wish.json:
            write_json(report, wish.json)
        if wish.write:
            write_into(report, wish.write)
    except (NoPlaceError, OSError) as error:
        print(f"prove: {error}", file=sys.stderr)  # noqa: T201 - as above
        return 1
    return int(not report.passed)


if __name__ == "__main__":
    sys.exit(main())
