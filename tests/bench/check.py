"""``scripts/bench --check``: has the broker become slower? Asked of ratios, never of a clock.

The broker at the point `send-2x100` and a bare echo (`tests.bench.echo`) take turns on one machine,
so that both meet its mood; `tests.bench.judgement` compares their ratio with an earlier one.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench.crew import Part, carry_out
from tests.bench.echo import PROGRAM, Shouting, shout
from tests.bench.figures import FOREIGN_CORES_MAX, Figures
from tests.bench.judgement import (
    BASELINE,
    POINT,
    Baseline,
    Finding,
    Judgement,
    Ratio,
    finding,
    judge,
    load_baseline,
)
from tests.bench.machine import MeasuredBroker, commit
from tests.bench.points import POINTS, Point
from tests.bench.scenarios import Bench, figures, measure_send
from tests.bench.surroundings import surroundings

ROUNDS: Final = 3
SECONDS: Final = 2.0
_HOLDS, _SLOWER = 0, 1


def check(
    bench: Bench,
    notes: Console,
    *,
    rounds: int = ROUNDS,
    write: bool = False,
    tables: bool = True,
    file: Path = BASELINE,
) -> int:
    """Measure, report, judge; return 0, or 1 after a loss. ``write``: set the baseline instead.

    Errors: `CrewError`, `BrokerError`, `BaselineError`.
    """
    before = None if write else load_baseline(file)
    found = finding(list(measure(bench, rounds)))
    if write:
        before = made_of(found, bench)
        file.write_text(json.dumps(asdict(before), indent=2) + "\n")
        notes.print(f"wrote {file}", soft_wrap=True, highlight=False)
    judgement = judge(found.middle, before)
    if not tables or not sys.stdout.isatty():
        print(line(found, before, judgement))  # noqa: T201 - the result of the command
    if tables:
        _show(found, before, judgement, Console() if sys.stdout.isatty() else notes)
    return _SLOWER if judgement.slower else _HOLDS


def _show(found: Finding, before: Baseline | None, judgement: Judgement, console: Console) -> None:
    console.print(table(found, before))
    console.print(Text(judgement.sentence, "red" if judgement.slower else ""), soft_wrap=True)
    if found.foreign_cores > FOREIGN_CORES_MAX:
        busy = f"Up to {found.foreign_cores:.1f} cores were busy with something else meanwhile."
        console.print(Text(busy, "yellow"), soft_wrap=True)


def made_of(found: Finding, bench: Bench) -> Baseline:
    """Return a baseline of today that says how it was made."""
    here = surroundings()
    return Baseline(
        cpu=round(found.middle.cpu, 3),
        rate=round(found.middle.rate, 3),
        made=datetime.now(tz=UTC).date().isoformat(),
        how=f"scripts/bench --check --write: medians of {len(found.rounds)} rounds of "
        f"{bench.seconds:g} s, {bench.store} at commit {commit()}; {here['processor']}, "
        f"Python {here['Python']}, pyzmq {here['pyzmq']}; others used {found.foreign_cores:.2f} "
        "cores at most",
    )


def measure_echo(bench: Bench, point: Point) -> Figures:
    """Measure the echo as the broker is measured at the same point."""
    with (
        TemporaryDirectory(prefix="kotak-bench-", dir=bench.folder) as folder,
        MeasuredBroker(Path(folder) / "none", program=PROGRAM) as echo,
    ):
        shouting = Shouting(bench.seconds, point.window, point.size_bytes)
        crew: list[Part] = [(shout, (echo.doors.zmq, shouting))] * point.senders
        return figures(carry_out(crew, echo), echo)


def measure(bench: Bench, rounds: int) -> Iterator[tuple[Figures, Figures]]:
    """Yield (broker, echo), round by round, in turns."""
    (point,) = (point for point in POINTS if point.name == POINT)
    for i in range(rounds):
        bench.show(f"round {i + 1} of {rounds}: echo")
        echo = measure_echo(bench, point)
        yield measure_send(bench, point), echo


def table(found: Finding, baseline: Baseline | None) -> Table:
    """Return the ratios, round by round, above those they are compared with."""
    shown = Table(box=box.SIMPLE_HEAD)
    shown.add_column("broker / echo", style="bold")
    for heading in ("processor a message", "rate"):
        shown.add_column(heading, justify="right")
    rows = [(f"round {i + 1}", ratio) for i, ratio in enumerate(found.rounds)]
    rows.append(("median", found.middle))
    if baseline is not None:
        rows.append((f"baseline, {baseline.made}", Ratio(baseline.cpu, baseline.rate)))
    for name, ratio in rows:
        shown.add_row(name, f"{ratio.cpu:.2f}", f"{ratio.rate:.2f}")
    return shown


def line(found: Finding, baseline: Baseline | None, judgement: Judgement) -> str:
    """Return the same as one JSON line."""
    return json.dumps({
        "point": "check",
        "cpu_ratio": round(found.middle.cpu, 3),
        "rate_ratio": round(found.middle.rate, 3),
        "rounds": [{"cpu": round(r.cpu, 3), "rate": round(r.rate, 3)} for r in found.rounds],
        "foreign_cores": found.foreign_cores,
        "baseline": asdict(baseline) if baseline else None,
        "growth": judgement.growth and round(judgement.growth, 3),
        "slower": judgement.slower,
    })  # fmt: skip
