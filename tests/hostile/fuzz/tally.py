"""What a run has done and found, to be added up over processes and shown as a table or as JSON."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Final

from rich.console import Console
from rich.table import Table

#: What a run may grow by, once warm.
GROWTH_BYTES_MAX: Final = 20 * 1_048_576


@dataclass(slots=True)
class Failure:
    """One kind of fault: what it is, the case that shows it ("" where none can), how often."""

    signature: str
    case: str
    seed: str
    times: int = 1
    #: Known, and kept in ``cases.OPEN``: it does not fail the run.
    known: bool = False


@dataclass(slots=True)
class Tally:
    """One kind of input, in one process or in all."""

    kind: str
    inputs: int = 0
    seconds: float = 0.0
    arcs: int = 0
    new_arcs: int = 0
    growth_bytes: int = 0
    failures: list[Failure] = field(default_factory=list)
    #: Threads, tasks or processes that are gone and should not be.
    dead: int = 0

    @property
    def holds(self) -> bool:
        return (
            not self.dead
            and self.growth_bytes < GROWTH_BYTES_MAX
            and all(failure.known for failure in self.failures)
        )

    def count(self, failure: Failure) -> None:
        """Add a fault, or one more time of one that is there."""
        for each in self.failures:
            if each.signature == failure.signature:
                each.times += failure.times
                return
        self.failures.append(failure)

    def add(self, other: Tally) -> None:
        """Add what another process has done at the same time."""
        self.inputs += other.inputs
        self.seconds = max(self.seconds, other.seconds)
        self.arcs = max(self.arcs, other.arcs)
        self.new_arcs = max(self.new_arcs, other.new_arcs)
        self.growth_bytes = max(self.growth_bytes, other.growth_bytes)
        self.dead += other.dead
        for failure in other.failures:
            self.count(failure)


def resident_bytes(pid: int | None = None) -> int:
    """Return the resident memory of a process, this one by default."""
    pages = Path(f"/proc/{pid or os.getpid()}/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


def print_table(tallies: Iterable[Tally], console: Console) -> None:
    """Show what was done, and each fault with what shows it again."""
    tallies = list(tallies)
    table = Table(box=None, pad_edge=False)
    for name in ("what", "inputs", "a second", "arcs", "new", "failures", "dead", "MB more", "s"):
        table.add_column(name, justify="left" if name == "what" else "right")
    for each in tallies:
        failures = sum(failure.times for failure in each.failures if not failure.known)
        table.add_row(
            each.kind,
            f"{each.inputs:,}",
            f"{each.inputs / max(each.seconds, 1e-9):,.0f}",
            f"{each.arcs:,}" if each.arcs else "-",
            f"{each.new_arcs:,}" if each.arcs else "-",
            f"{failures:,}",
            f"{each.dead}",
            f"{each.growth_bytes / 1_048_576:.1f}",
            f"{each.seconds:.1f}",
        )
    console.print(table)
    for each in tallies:
        for failure in each.failures:
            word = "known, not mended" if failure.known else "FAILED"
            again = f"python -m tests.hostile.fuzz --replay {failure.case}"
            console.print(
                f"{word}: {failure.signature}, {failure.times} times, seed {failure.seed}\n"
                f"  {again if failure.case else 'the same seed brings it again'}",
                markup=False,
                highlight=False,
                soft_wrap=True,
            )


def as_json(tallies: Iterable[Tally], *, seed: int) -> str:
    """Write the same for machines."""
    rows = [{**asdict(each), "holds": each.holds} for each in tallies]
    return json.dumps({"seed": seed, "holds": all(row["holds"] for row in rows), "rows": rows})
