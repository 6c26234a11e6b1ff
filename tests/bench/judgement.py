"""Whether the broker has become slower, judged by ratios; no process, no clock.

A ratio is the broker's figure over that of a bare echo (`tests.bench.echo`) on the same machine in
the same minute. What a message costs the processor is judged; the ratio of the rates is told
beside it, since clients and disk have a part in that.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

from tests.bench.figures import Figures

BASELINE: Final = Path(__file__).with_name("check_baseline.json")
#: Where the broker is measured: many messages under way, the most of its own work.
POINT: Final = "send-2x100"
#: A ratio that has grown by more than this is a loss, and not the machine's mood.
GROWTH_MAX: Final = 4 / 3


class BaselineError(Exception):
    """The file of the baseline holds something else; the text says what to do."""


class Ratio(NamedTuple):
    """The broker over the echo: processor time a message (less is better), and the rate."""

    cpu: float
    rate: float


@dataclass(frozen=True, kw_only=True)
class Baseline:
    """Earlier ratios, the day on which they were taken (ISO 8601), and how."""

    cpu: float
    rate: float
    made: str
    how: str


class Judgement(NamedTuple):
    """``growth``: the ratio to the baseline's, None where nothing can be judged."""

    sentence: str
    growth: float | None = None

    @property
    def slower(self) -> bool:
        return self.growth is not None and self.growth > GROWTH_MAX


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What the rounds found: the medians, each round, how many cores others used at most."""

    middle: Ratio
    rounds: Sequence[Ratio]
    foreign_cores: float


def ratio_of(broker: Figures, echo: Figures) -> Ratio:
    """Return one round's ratios; ``cpu`` is 0 where the system does not tell processor time."""
    return Ratio(
        cpu=broker["broker_us"] / echo["broker_us"] if echo["broker_us"] else 0.0,
        rate=broker["sends_per_s"] / echo["sends_per_s"] if echo["sends_per_s"] else 0.0,
    )


def finding(rounds: Sequence[tuple[Figures, Figures]]) -> Finding:
    """Take the medians of rounds of (broker, echo)."""
    ratios = [ratio_of(broker, echo) for broker, echo in rounds]
    return Finding(
        middle=Ratio(median(r.cpu for r in ratios), median(r.rate for r in ratios)),
        rounds=ratios,
        foreign_cores=max(each["foreign_cores"] for pair in rounds for each in pair),
    )


def judge(found: Ratio, baseline: Baseline | None) -> Judgement:
    """Compare with the baseline: only a loss of more than a third counts."""
    if not found.cpu:
        return Judgement("Not judged: this system does not tell a process's time (no /proc).")
    if baseline is None:
        return Judgement("Not judged: there is no baseline; --check --write makes one.")
    growth = found.cpu / baseline.cpu
    told = f"{growth:.2f} times what it was on {baseline.made}"
    if growth > GROWTH_MAX:
        return Judgement(
            f"Slower: a message's processor time is {told}, and a third more is the limit. "
            f"scripts/bench --points {POINT} --profile FOLDER shows where it goes. If it is worth "
            "its price, --check --write makes this the baseline.",
            growth,
        )
    return Judgement(f"A message's processor time is {told}; a third more is the limit.", growth)


def load_baseline(path: Path = BASELINE) -> Baseline | None:
    """Return the baseline; None where there is none. Errors: `BaselineError`."""
    try:
        return Baseline(**json.loads(path.read_text()))
    except FileNotFoundError:
        return None
    except (TypeError, ValueError) as error:
        raise BaselineError(
            f"{path} holds no baseline ({error}): --check --write makes one"
        ) from error
