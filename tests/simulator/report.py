"""What many runs came to: one table, or JSON."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.simulator.run import Result

#: Seeds with a breach that are told in full.
SHOWN_MAX = 5


@dataclass(slots=True)
class Summary:
    """The sum of many runs. Times in seconds, ``simulated_hours`` in hours."""

    seeds: int = 0
    seconds: float = 0.0
    simulated_us: int = 0
    sends: int = 0
    reads: int = 0
    lives: int = 0
    events: int = 0
    faults: Counter[str] = field(default_factory=Counter)
    broken: list[Result] = field(default_factory=list)

    def add(self, result: Result) -> None:
        self.seeds += 1
        self.simulated_us += result.simulated_us
        self.sends += result.sends
        self.reads += result.reads
        self.lives += result.lives
        self.events += result.events
        self.faults += result.faults
        if result.breaches:
            self.broken.append(result)

    @property
    def simulated_hours(self) -> float:
        return self.simulated_us / 3.6e9

    @property
    def seeds_per_second(self) -> float:
        return self.seeds / self.seconds if self.seconds else 0.0


def explain(result: Result) -> str:
    """Tell what a seed broke, and how to see it again."""
    first = "\n  ".join(map(str, result.breaches[:2]))
    over = " --redis" if result.plan.engine == "redis" else ""
    again = f"python -m tests.simulator{over} --seed {result.plan.seed} --verbose"
    return f"seed {result.plan.seed} ({result.plan.engine}):\n  {first}\n  again: {again}"


def as_json(summary: Summary) -> str:
    """Return one JSON object."""
    return json.dumps(
        {
            "seeds": summary.seeds,
            "seconds": round(summary.seconds, 1),
            "seeds_per_second": round(summary.seeds_per_second, 2),
            "simulated_hours": round(summary.simulated_hours, 1),
            "sends": summary.sends,
            "reads": summary.reads,
            "broker_lives": summary.lives,
            "events": summary.events,
            "faults": dict(sorted(summary.faults.items())),
            "clean": not summary.broken,
            "broken": {
                str(result.plan.seed): [str(breach) for breach in result.breaches]
                for result in summary.broken
            },
        }
    )


def print_table(summary: Summary, console: Console) -> None:
    """Print the figures, then each seed that broke something."""
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    for row in _rows(summary):
        table.add_row(*row)
    console.print(table)
    for result in summary.broken[:SHOWN_MAX]:
        console.print(Text(explain(result), "red"), soft_wrap=True)
    if len(summary.broken) > SHOWN_MAX:
        seeds = ", ".join(str(result.plan.seed) for result in summary.broken[SHOWN_MAX:])
        console.print(Text(f"and seeds {seeds}", "red"), soft_wrap=True)
    if not summary.broken:
        console.print(Text("  every law holds", "green"))


def _rows(summary: Summary) -> Iterable[tuple[str, str, str]]:
    faults = ", ".join(f"{count:,} {kind}" for kind, count in sorted(summary.faults.items()))
    yield "seeds", f"{summary.seeds:,}", f"{summary.seeds_per_second:.1f}/s"
    yield "simulated", f"{summary.simulated_hours:,.0f} h", f"in {summary.seconds:,.0f} s"
    yield "sends", f"{summary.sends:,}", f"{summary.reads:,} messages read"
    yield "broker", f"{summary.lives:,}", "lives"
    yield "faults", f"{sum(summary.faults.values()):,}", faults
    yield "broken", f"{len(summary.broken):,}", "seeds"
