"""The parts of the proof: each a command that prints JSON, with sizes that go by the budget."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

#: What the middle one of each size is for.
MINUTES_DEFAULT: Final = 15.0


@dataclass(frozen=True)
class Amount:
    """How much of one thing: at the least, in `MINUTES_DEFAULT` minutes, and in a night.

    ``falling``: less is more, as where each n-th place is tried.
    """

    least: int
    usual: int
    nightly: int
    falling: bool = False

    def at(self, minutes: float) -> int:
        """Return it for a budget; what a night has is never passed."""
        share = minutes / MINUTES_DEFAULT
        if self.falling:
            return max(self.nightly, min(self.least, round(self.usual / share)))
        return min(self.nightly, max(self.least, round(self.usual * share)))


@dataclass(frozen=True)
class Command:
    """One part: the module that is run, how its sizes are called, and how long it takes.

    ``seconds`` is of a quiet machine with two cores, at the usual sizes. ``seed``: the option that
    takes one; empty where there is none.
    """

    name: str
    module: str
    seconds: float
    amounts: Mapping[str, Amount]
    seed: str = "--seed"
    fixed: Mapping[str, str] = field(default_factory=dict)

    def words(self, minutes: float, seed: int, *, nightly: bool) -> list[str]:
        """Return the command line behind the interpreter."""
        words = ["-m", self.module, "--json"]
        for option, amount in self.amounts.items():
            words += [f"--{option}", str(amount.nightly if nightly else amount.at(minutes))]
        for option, value in self.fixed.items():
            words += [f"--{option}", value]
        return [*words, self.seed, str(seed)] if self.seed else words

    def expected_s(self, minutes: float, *, nightly: bool) -> float:
        """Return about how long it will take: for the bar, and for when it hangs."""
        if nightly:
            pairs = [(a.usual, a.nightly) for a in self.amounts.values() if not a.falling]
            return self.seconds * max((b / a for a, b in pairs), default=1)
        return max(5.0, self.seconds * minutes / MINUTES_DEFAULT)


PARTS: Final = (
    Command(
        "simulator",
        "tests.simulator",
        300,
        {"seeds": Amount(50, 5_000, 50_000), "minutes": Amount(1, 7, 60)},
        seed="--first",
    ),
    Command(
        "disk",
        "tests.proof.disk",
        150,
        {
            "cycles": Amount(16, 200, 2_000),
            "kills": Amount(1, 5, 50),
            "stride": Amount(24, 4, 1, falling=True),
            "spoiled": Amount(1, 3, 5),
        },
    ),
    Command(
        "kills",
        "tests.proof.kills",
        220,
        {
            "cycles": Amount(12, 300, 3_000),
            "brokers": Amount(3, 40, 400),
            "stride": Amount(6, 1, 1, falling=True),
        },
    ),
    Command(
        "rot",
        "tests.proof.rot",
        30,
        {
            "database": Amount(20, 100, 1_000),
            "log": Amount(20, 80, 1_000),
            "witness": Amount(10, 20, 200),
        },
    ),
    Command(
        "network",
        "tests.proof.network",
        40,
        {"rounds": Amount(1, 1, 3), "fault-ms": Amount(300, 700, 3_000)},
    ),
    Command(
        "process",
        "tests.proof.process",
        200,
        {
            "switching": Amount(2, 10, 60),
            "spoiled": Amount(1, 3, 10),
            "stops": Amount(3, 20, 200),
            "waiting": Amount(50_000, 1_000_000, 1_000_000),
            "soak": Amount(40_000, 1_000_000, 5_000_000),
        },
    ),
    # Last: a bug that is hard to catch takes its time whatever the budget is.
    Command(
        "seeded",
        "tests.proof.seeded",
        210,
        {"seconds": Amount(8, 20, 60)},
        seed="",
    ),
)
