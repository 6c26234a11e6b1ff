"""What a login's answer tells a stranger: unknown user, wrong password and right one, side by side.

``scripts/hostile logins``. A real broker with its real hashes; the three are asked in turn, each
time in another order, so that a machine that drifts does so for all of them. Whether a user exists
must be told neither by the text nor by the median of the time.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from itertools import permutations
from pathlib import Path
from statistics import median, quantiles
from typing import Final

from rich import box
from rich.console import Console
from rich.progress import track
from rich.table import Table
from rich.text import Text

from clients import BadCredentials, Client
from clients.errors import KotakError
from clients.text_connection import TextConnection, TextDoorError
from tests.load.broker_process import BrokerError, BrokerProcess

HELP: Final = "unknown users and wrong passwords: whether text or time tells them apart"
#: The medians may differ by this part of the smaller one.
DIFFERENCE_MAX: Final = 0.05
#: Below that many a median says nothing on a machine that does other things too.
ROUNDS_MIN: Final = 20
_WIDTH: Final = 100
_USER, _PASSWORD = "shafwa", "mks"  # of --demo

UNKNOWN: Final = "unknown user"
WRONG: Final = "wrong password"
RIGHT: Final = "right password"
KINDS: Final = (UNKNOWN, WRONG, RIGHT)

#: Each kind comes equally often after each other: a login leaves a commit behind, a refusal not.
_ORDERS: Final = tuple(permutations(KINDS))

#: Logs in with a user and a password; returns what was said, empty for a login that was let in.
Login = Callable[[str, str], str]


@dataclass
class Timing:
    """How long each login of one kind took at one door, in seconds, and what was said."""

    door: str
    kind: str
    seconds: list[float] = field(default_factory=list)
    said: set[str] = field(default_factory=set)

    @property
    def median_ms(self) -> float:
        return 1_000 * median(self.seconds)

    @property
    def p95_ms(self) -> float:
        return 1_000 * quantiles(self.seconds, n=20)[-1]


@dataclass(frozen=True)
class Verdict:
    """Whether one door tells unknown users from wrong passwords; ``ratio`` of their medians."""

    door: str
    ratio: float
    same_text: bool

    @property
    def holds(self) -> bool:
        return self.same_text and max(self.ratio, 1 / self.ratio) <= 1 + DIFFERENCE_MAX


def main(argv: Sequence[str]) -> int:
    """Return 0 where nothing tells them apart, 1 where something does, 2 for a wrong command."""
    parser = argparse.ArgumentParser(prog="scripts/hostile logins", description=HELP)
    parser.add_argument("--rounds", type=int, default=200, help="logins of each kind (200)")
    try:
        rounds = parser.parse_args(argv).rounds
    except SystemExit as ended:
        return 2 if ended.code else 0
    if rounds < ROUNDS_MIN:
        sys.stderr.write(f"logins: {ROUNDS_MIN} rounds or more, or a median says nothing\n")
        return 2
    terminal = Console()
    console = terminal if terminal.is_terminal else Console(width=_WIDTH)
    try:
        timings = trial(rounds, lambda numbers: _tracked(numbers, console))
    except (BrokerError, KotakError, TextDoorError) as error:
        sys.stderr.write(f"logins: the broker could not be asked: {error}\n")
        return 1
    return report(timings, console)


def _tracked(numbers: Sequence[int], console: Console) -> Iterable[int]:
    hidden = not console.is_terminal
    return track(numbers, "logging in", console=console, transient=True, disable=hidden)


def trial(
    rounds: int, tracked: Callable[[Sequence[int]], Iterable[int]] = lambda numbers: numbers
) -> list[Timing]:
    """Time ``rounds`` logins of each kind at each door. Errors: `BrokerError` and the clients'."""
    with ExitStack() as opened:
        folder = Path(opened.enter_context(tempfile.TemporaryDirectory(prefix="kotak-logins-")))
        # Without limits: what is measured is the answer to a guess that is let through.
        options = ("--demo", "--login-failures-max", "0")
        broker = opened.enter_context(BrokerProcess(folder / "data", options=options))
        client = opened.enter_context(Client(broker.doors.zmq))
        host, _, port = broker.doors.text.rpartition(":")
        line = opened.enter_context(TextConnection(host, int(port)))
        return measure(
            {"ZeroMQ": _by_client(client), "text": _by_line(line)}, tracked(range(rounds))
        )


def measure(doors: Mapping[str, Login], rounds: Iterable[int]) -> list[Timing]:
    """Log in once in each round at each door in each way, every time in another order."""
    timings = {(door, kind): Timing(door, kind) for door in doors for kind in KINDS}
    for number in rounds:
        attempts = {
            UNKNOWN: (f"nobody{number}", _PASSWORD),
            WRONG: (_USER, f"no{number}"),
            RIGHT: (_USER, _PASSWORD),
        }
        for kind in _ORDERS[number % len(_ORDERS)]:
            for door, login in doors.items():
                timing = timings[door, kind]
                began = time.perf_counter()
                said = login(*attempts[kind])
                timing.seconds.append(time.perf_counter() - began)
                timing.said.add(said)
    return list(timings.values())


def _by_client(client: Client) -> Login:
    def login(user: str, password: str) -> str:
        try:
            client.login(user, password)
        except BadCredentials as error:
            return str(error)
        return ""

    return login


def _by_line(line: TextConnection) -> Login:
    def login(user: str, password: str) -> str:
        reply = line.login(user, password)
        return "" if reply["status"] == "OK" else str(reply["message"])

    return login


def judge(timings: Iterable[Timing]) -> list[Verdict]:
    """Compare, door by door, what a stranger may compare. Errors: `BrokerError`."""
    by_door: dict[str, dict[str, Timing]] = {}
    for timing in timings:
        by_door.setdefault(timing.door, {})[timing.kind] = timing
        if (timing.kind == RIGHT) != (timing.said == {""}):
            raise BrokerError(f"a login with {timing.kind} was answered: {sorted(timing.said)}")
    return [
        Verdict(
            door,
            of[UNKNOWN].median_ms / of[WRONG].median_ms,
            of[UNKNOWN].said == of[WRONG].said and len(of[WRONG].said) == 1,
        )
        for door, of in by_door.items()
    ]


def report(timings: Sequence[Timing], console: Console) -> int:
    """Print the table and the verdict; return the exit code."""
    try:
        verdicts = judge(timings)
    except BrokerError as error:
        console.print(Text(str(error), "red"))
        return 1
    table = Table("door", "login with", "logins", "median ms", "p95 ms", box=box.SIMPLE)
    for column in table.columns[2:]:
        column.justify = "right"
    for each in timings:
        figures = (f"{each.median_ms:.2f}", f"{each.p95_ms:.2f}")
        table.add_row(each.door, each.kind, str(len(each.seconds)), *figures)
    console.print(table)
    for verdict in verdicts:
        style = "green" if verdict.holds else "red"
        text = "the same text" if verdict.same_text else "DIFFERENT TEXTS"
        said = f"{verdict.door}: unknown user / wrong password = {verdict.ratio:.3f}, {text}"
        console.print(Text(said, style))
    if all(verdict.holds for verdict in verdicts):
        console.print("nothing tells an unknown user from a wrong password")
        return 0
    console.print(
        f"more than {DIFFERENCE_MAX:.0%} apart, or different texts: a stranger learns who has an "
        "account. Run it again on a quiet machine before you look for the cause"
    )
    return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
