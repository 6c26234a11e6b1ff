"""``scripts/versus``: Kotak and another broker in turns, A B A B, so that both meet one machine.

A folder that the user names brings the workload and the peers: its ``peers.py`` runs one point of
one peer and prints one JSON line; ours is `scripts/peer_kotak.py`. Only ratios are of interest.
"""

from __future__ import annotations

import argparse
import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any, Final, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table

from tests.bench.machine import ROOT, busy_seconds
from tests.bench.show import error_console

OURS: Final = ROOT / "scripts" / "peer_kotak.py"
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
#: Messages a sender of the short run that says how many fill the time.
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
    words: Sequence[str]


@dataclass(frozen=True, kw_only=True)
class Contest:
    """How a contest is run."""

    driver: Path
    alternations: int
    seconds: float
    drain_max: int
    foreign_max: float
    say: Callable[[str], None]

    def run(self, where: Where, ours: Contender, theirs: Contender) -> Iterator[tuple[Line, Line]]:
        """Yield pairs of lines; a pair that others disturbed is taken again, within limits.

        Errors: `VersusError`.
        """
        amounts = {each.name: self._amount(where, each) for each in (ours, theirs)}
        again = self.alternations * _AGAIN
        done = 0
        while done < self.alternations:
            self.say(f"{where}: {done + 1} of {self.alternations}")
            pair = (
                self._point(where, ours, amounts[ours.name]),
                self._point(where, theirs, amounts[theirs.name]),
            )
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
        trial = max(_TRIAL_MESSAGES, where.window * 20)
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


def _parse(words: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="scripts/versus",
        description="Measure Kotak and another broker in turns, and print the ratios. The peer's "
        "server and its Python library must be installed (the library into .venv).",
    )
    add = parser.add_argument
    add("--peers", type=Path, required=True, metavar="FOLDER", help="holds peers.py, the driver")
    add("--peer", default="redis", help="who (redis)")
    add("--mode", help="the peer's mode, such as always (its first)")
    add("--client", default="lib", help="the peer's client (lib)")
    add("--our-client", default="lib", choices=("lib", "lib1000"),
        help="lib drains pages of 100, as the peers do; lib1000 pages of 1000")  # fmt: skip
    add("--our-mode", default="sqlite", choices=("sqlite", "memory"))
    add("--point", action="append", type=_where, metavar="P,W",
        help="senders, messages of each under way; may be repeated (2,100)")  # fmt: skip
    add("--alternations", type=int, default=5, metavar="N", help="pairs of runs (5)")
    add("--seconds", type=float, default=5.0, metavar="S", help="how long a run sends (5)")
    add("--drain", type=int, default=300_000, metavar="N", help="messages drained (300,000)")
    add("--foreign-max", type=float, default=0.2, metavar="CORES",
        help="take a pair again when more was busy with something else (0.2)")  # fmt: skip
    given = parser.parse_args(words)
    if not (given.peers / "peers.py").is_file():
        parser.error(f"{given.peers} holds no peers.py")
    return given


def _where(word: str) -> Where:
    senders, comma, window = word.partition(",")
    if not comma or int(senders) < 1 or int(window) < 1:
        raise argparse.ArgumentTypeError("give P,W: senders, and messages of each under way")
    return Where(int(senders), int(window))


def main(words: Sequence[str] | None = None) -> int:
    """Return 0, 1 where a run failed, 130 after Ctrl-C. Runs and results are JSON lines."""
    given = _parse(words)
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # leave no server behind
    notes = error_console()
    contest = Contest(
        driver=given.peers / "peers.py",
        alternations=given.alternations,
        seconds=given.seconds,
        drain_max=given.drain,
        foreign_max=given.foreign_max,
        say=lambda sentence: notes.print(sentence, style="dim", highlight=False),
    )
    ours = Contender("kotak", [
        "--module", str(OURS), "--mode", given.our_mode, "--client", given.our_client,
    ])  # fmt: skip
    mode = ["--mode", given.mode] if given.mode else []
    theirs = Contender(given.peer, ["--peer", given.peer, *mode, "--client", given.client])
    try:
        for where in given.point or [Where(2, 100)]:
            _contend(contest, where, (ours, theirs), notes)
    except KeyboardInterrupt:
        notes.print("versus: interrupted")
        return 130
    except (VersusError, subprocess.TimeoutExpired) as error:
        notes.print(f"versus: {error}", style="red", markup=False, soft_wrap=True)
        return 1
    return 0


def _contend(
    contest: Contest, where: Where, contenders: tuple[Contender, Contender], notes: Console
) -> None:
    ours, theirs = contenders
    pairs = []
    for pair in contest.run(where, ours, theirs):
        pairs.append(pair)
        for line in pair:
            print(json.dumps(line), flush=True)  # noqa: T201 - the result
    figures = compare(pairs)
    result = {name: found._asdict() for name, found in figures.items()}
    print(json.dumps({"point": str(where), "ours": ours.name, "theirs": theirs.name, **result}))  # noqa: T201 - as above
    notes.print(table(where, ours.name, theirs.name, figures))


if __name__ == "__main__":
    sys.exit(main())
