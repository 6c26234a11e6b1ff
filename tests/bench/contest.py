"""Two brokers in turns, A B A B, so that both meet one machine; and their ratios, pair by pair.

A driver runs one point of one broker and prints one JSON line. Only ratios are of interest.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from tests.bench.machine import busy_seconds

#: The driver's figures, and what to call them. Each is a median over the alternations.
FIGURES: Final[Mapping[str, str]] = {
    "sent_per_s": "sends/s",
    "p50_us": "p50 µs",
    "p99_us": "p99 µs",
    "server_cpu_per_M": "server µs",  # seconds a million are microseconds each
    "client_cpu_per_M": "client µs",
    "drained_per_s": "drained/s",
    "drain_server_cpu_per_M": "drain server µs",
    "drain_client_cpu_per_M": "drain client µs",
    "rss_mb": "RSS MB",
    "flushes_per_k": "flushes/1k",
    "other_cores": "foreign cores",
}
#: Messages of the short run that says how many fill the time, and what share of it it must fill.
_TRIAL_SHARE: Final = 0.1
_TRIAL_MESSAGES: Final = 500
_RUN_SECONDS_MAX: Final = 600.0
#: A peer's server gets 15 s to end.
_STOP_SECONDS_MAX: Final = 30.0
#: How long a run waits for others to leave the machine alone, and how long a look at that takes.
QUIET_SECONDS_MAX: Final = 60.0
_LOOK_SECONDS: Final = 0.5
#: Pairs taken again for each that is wanted.
_AGAIN: Final = 2

Line = dict[str, Any]


class VersusError(Exception):
    """A run failed; the text is the driver's."""


class Where(NamedTuple):
    """One point of the workload."""

    senders: int
    window: int

    def __str__(self) -> str:
        return f"{self.senders}x{self.window}"


@dataclass(frozen=True)
class Contender:
    """Who is measured, as words for the driver."""

    name: str
    words: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """How a contest is run."""

    driver: Path
    alternations: int
    seconds: float
    drain_max: int
    foreign_max: float
    say: Callable[[str], None]
    #: Messages that a sender sends in the wanted time, by point and contender: asked once.
    amounts: dict[tuple[Where, Contender], int] = field(default_factory=dict)

    def run(self, where: Where, ours: Contender, theirs: Contender) -> Iterator[tuple[Line, Line]]:
        """Yield pairs of lines; a pair that others disturbed is taken again, within limits.

        Errors: `VersusError`.
        """
        for each in (ours, theirs):
            if (where, each) not in self.amounts:
                self.amounts[where, each] = self._amount(where, each)
        again = self.alternations * _AGAIN
        done = 0
        while done < self.alternations:
            self.say(f"{where}: {done + 1} of {self.alternations}")
            pair = (
                self._point(where, ours, self.amounts[where, ours]),
                self._point(where, theirs, self.amounts[where, theirs]),
            )
            if pair[0].get("lost"):
                raise VersusError(f"{ours.name} lost {pair[0]['lost']:,} messages it had answered")
            foreign = max(line["other_cores"] for line in pair)
            if foreign > self.foreign_max and again:
                again -= 1
                self.say(f"{where}: {foreign:.2f} cores were busy with something else: once more")
                continue
            done += 1
            yield pair

    def _amount(self, where: Where, who: Contender) -> int:
        """Return how many messages a sender sends in the wanted time, by a short run."""
        self.say(f"{where}: how fast is {who.name}?")
        trial = max(_TRIAL_MESSAGES // where.senders, where.window * 20)
        while True:
            line = self._point(where, who, trial)
            wanted = int(line["sent_per_s"] * self.seconds / where.senders)
            if line["send_s"] >= self.seconds * _TRIAL_SHARE:
                return max(wanted, where.window)
            trial = max(trial * 2, int(wanted * 2 * _TRIAL_SHARE))

    def _point(self, where: Where, who: Contender, messages: int) -> Line:
        wait_until_quiet(self.foreign_max)
        command = [
            *(sys.executable, str(self.driver), *who.words),
            *("--producers", str(where.senders), "--window", str(where.window)),
            *("--messages", str(messages), "--drain-cap", str(self.drain_max)),
        ]
        said, complaints = _run(command)
        try:
            line: Line = json.loads(said.splitlines()[-1])
        except (IndexError, ValueError):
            raise VersusError(f"{who.name}: {complaints.strip()[-500:]}") from None
        if "error" in line:
            raise VersusError(f"{who.name}: {line['error']}\n{line.get('log', '')[-500:]}")
        return line


def _run(command: Sequence[str]) -> tuple[str, str]:
    """Run the driver. However this ends, it gets the time to stop its server and its clients."""
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            return process.communicate(timeout=_RUN_SECONDS_MAX)
        except BaseException:
            process.send_signal(signal.SIGINT)
            with suppress(subprocess.TimeoutExpired):
                process.communicate(timeout=_STOP_SECONDS_MAX)
            process.kill()
            raise


def wait_until_quiet(cores_max: float, *, seconds_max: float = QUIET_SECONDS_MAX) -> None:
    """Wait until others leave the machine alone, but not for ever."""
    until = time.monotonic() + seconds_max
    while time.monotonic() < until:
        busy, began = busy_seconds(), time.monotonic()
        time.sleep(_LOOK_SECONDS)
        if (busy_seconds() - busy) / (time.monotonic() - began) <= cores_max:
            return


class Comparison(NamedTuple):
    """One figure: both medians, and ours to theirs as the median of the pairs and their range."""

    ours: float
    theirs: float
    ratio: float | None
    lowest: float | None
    highest: float | None


def compare(pairs: Sequence[tuple[Line, Line]]) -> dict[str, Comparison]:
    """Judge figure by figure; a ratio is taken pair by pair, since the machine drifts."""
    return {
        figure: _compared([(ours[figure], theirs[figure]) for ours, theirs in pairs])
        for figure in FIGURES
        if all(figure in line for pair in pairs for line in pair)
    }


def _compared(values: Sequence[tuple[float, float]]) -> Comparison:
    ratios = sorted(ours / theirs for ours, theirs in values if theirs > 0)
    return Comparison(
        ours=median(ours for ours, _ in values),
        theirs=median(theirs for _, theirs in values),
        ratio=median(ratios) if ratios else None,
        lowest=ratios[0] if ratios else None,
        highest=ratios[-1] if ratios else None,
    )
