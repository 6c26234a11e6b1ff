"""A crowd of slow, idle and silent peers around one real broker: does an honest client notice?

First the honest client is measured alone, then with the crowd: slow text connections of one byte a
second that come again when they are cut off, ZeroMQ peers that ask for nothing, and raw sockets
that never greet. Everybody is a process of its own on this machine.
"""

from __future__ import annotations

import argparse
import multiprocessing
import operator
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from rich.console import Console
from rich.progress import track

from tests.e2e.program import Serving
from tests.hostile.attackers import Account, idle_peers, silent_sockets, slow_lines
from tests.hostile.honest import Seen, write_and_read

HELP = "slow, idle and silent peers by the thousand beside an honest client"

#: The goal: the 99th percentile with the crowd is below twice that without, or below this.
FACTOR_MAX: Final = 2.0
FLOOR_S: Final = 0.005
#: Open files beside the connections, in the broker and in a process of the crowd.
_FILES_SPARE: Final = 300
#: So long may a crowd take to come in, and a process to end.
_PATIENCE_S: Final = 90.0
_KIB: Final = 1_024
#: A change of memory in a second that is none.
_SETTLED_MIB: Final = 0.2


class Wish(NamedTuple):
    """How large, and how long."""

    seconds: float
    text: int
    zmq: int
    raw: int

    @property
    def connections(self) -> int:
        return self.text + self.zmq + self.raw


class Phase(NamedTuple):
    """What one stretch of time showed."""

    seen: Seen
    seconds: float
    broker_cpu_s: float


class Outcome(NamedTuple):
    """What the trial found. Memory is in bytes a connection."""

    alone: Phase
    crowded: Phase
    memory: dict[str, float]
    accounts: list[Account]
    connected: int


class CrowdError(Exception):
    """The trial could not be carried out; the text says why and what to do."""


# --- processes -----------------------------------------------------------------------------------


class Crew:
    """Processes that are told to end by one word, and answer with what they did."""

    def __init__(self) -> None:
        self._stack = ExitStack()
        self._spawn = multiprocessing.get_context("spawn")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def start(self, live: Callable[..., None], *args: object) -> Connection:
        ours, theirs = self._spawn.Pipe()
        process = self._spawn.Process(target=live, args=(theirs, *args), daemon=True)
        process.start()
        theirs.close()
        self._stack.callback(_end, process, ours)
        return ours


def _end(process: Any, orders: Connection) -> None:
    orders.close()
    process.join(1)
    process.kill()
    process.join()


def _answer(orders: Connection, word: str = "end") -> Any:
    """Give an order and return the answer. Errors: `CrowdError`."""
    try:
        orders.send(word)
        if orders.poll(_PATIENCE_S):
            return orders.recv()
    except (OSError, EOFError):
        pass
    raise CrowdError("a process of the trial has ended, or does not answer: what it said is above")


# --- the trial -----------------------------------------------------------------------------------


def run(wish: Wish, console: Console | None = None) -> Outcome:
    """Carry the trial out on a broker of its own. Errors: `CrowdError`."""
    _allow_files(wish)
    console = console or Console(quiet=True)
    with _broker(wish) as broker, Crew() as crew:
        person = crew.start(write_and_read, broker.zmq, broker.text_address)
        _answer(person, "begin")
        _answer(person, "warm")
        before = _measure(person, broker, wish.seconds / 3, console, "alone")
        empty = _open_files(broker)
        memory: dict[str, float] = {}
        crowd: list[Connection] = []
        for kind, live, address, count in _crowd(wish, broker):
            had = _settled_mib(broker)
            target = _open_files(broker) + count
            crowd.append(crew.start(live, address, count))
            _wait_for(broker, partial(operator.le, target - count // 50))
            memory[kind] = (_settled_mib(broker) - had) * _KIB * _KIB / count
        crowded = _measure(person, broker, wish.seconds, console, "with the crowd")
        connected = _open_files(broker) - empty
        accounts = [_answer(orders) for orders in crowd]
        _wait_for(broker, lambda files: files < empty + 10)
        after = _measure(person, broker, wish.seconds / 3, console, "alone again")
        _answer(person)
    return Outcome(_together(before, after), crowded, memory, accounts, connected)


def _crowd(wish: Wish, broker: Serving) -> Iterator[tuple[str, Callable[..., None], object, int]]:
    """Name each kind, its life, the door it comes to, and how many."""
    host, _, port = broker.zmq.removeprefix("tcp://").rpartition(":")
    kinds: tuple[tuple[str, Callable[..., None], object, int], ...] = (
        ("idle zmq", idle_peers, broker.zmq, wish.zmq),
        ("raw silent", silent_sockets, (host, int(port)), wish.raw),
        ("slow text", slow_lines, broker.text_address, wish.text),
    )
    return (kind for kind in kinds if kind[-1])


def _together(first: Phase, second: Phase) -> Phase:
    """Return two stretches as one: a machine that others use is not the same all the time."""
    one, other = first.seen, second.seen
    seen = Seen(one.zmq_s + other.zmq_s, one.text_s + other.text_s, one.faults + other.faults)
    return Phase(seen, first.seconds + second.seconds, first.broker_cpu_s + second.broker_cpu_s)


def _allow_files(wish: Wish) -> None:
    needed = max(wish.connections, 2 * wish.zmq) + _FILES_SPARE
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < needed:
        raise CrowdError(
            f"{needed} files must be open at once, {hard} may be: raise 'ulimit -Hn', or ask for "
            "fewer with --text, --zmq and --raw"
        )
    if soft != resource.RLIM_INFINITY and soft < needed:
        resource.setrlimit(resource.RLIMIT_NOFILE, (needed, hard))


@contextmanager
def _broker(wish: Wish) -> Iterator[Serving]:
    most = str(wish.text + 10)
    with (
        tempfile.TemporaryDirectory(prefix="kotak-crowd-") as folder,
        Serving(Path(folder) / "data", "--demo", "--text-connections-max", most) as broker,
    ):
        yield broker


def _measure(
    person: Connection, broker: Serving, seconds: float, console: Console, name: str
) -> Phase:
    _answer(person, name)
    before, began = _cpu_s(broker), time.monotonic()
    steps = track(range(int(seconds * 10)), name, console=console, disable=not console.is_terminal)
    for step in steps:
        time.sleep(max(0.0, began + step / 10 - time.monotonic()))
    seen: Seen = _answer(person, name)
    return Phase(seen, time.monotonic() - began, _cpu_s(broker) - before)


def _wait_for(broker: Serving, enough: Callable[[int], bool]) -> None:
    """Wait until so many files are open: those of the crowd are connections."""
    deadline = time.monotonic() + _PATIENCE_S
    while not enough(files := _open_files(broker)):
        if time.monotonic() > deadline:
            raise CrowdError(f"the crowd does not come in, or does not leave: {files} are open")
        time.sleep(0.05)


def _settled_mib(broker: Serving) -> float:
    """Return the broker's memory once a second has changed it by next to nothing."""
    deadline, last = time.monotonic() + _PATIENCE_S, 0.0
    while abs((now := broker.memory_mib()) - last) > _SETTLED_MIB and time.monotonic() < deadline:
        last = now
        time.sleep(1)
    return now


def _open_files(broker: Serving) -> int:
    return len(list(Path(f"/proc/{broker.process.pid}/fd").iterdir()))


def _cpu_s(broker: Serving) -> float:
    """Return the processor time of all threads of the broker, as proc(5) tells it."""
    stat = Path(f"/proc/{broker.process.pid}/stat").read_text()
    fields = stat.rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


# --- the table -----------------------------------------------------------------------------------


def percentile(values: Sequence[float], percent: float) -> float:
    """Return the value that so many percent lie at or below; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def breaches(outcome: Outcome) -> list[str]:
    """Return what did not hold, in sentences."""
    found = []
    for door in ("zmq", "text"):
        alone, crowded = (
            percentile(getattr(phase.seen, f"{door}_s"), 99)
            for phase in (outcome.alone, outcome.crowded)
        )
        if crowded >= max(FACTOR_MAX * alone, FLOOR_S):
            found.append(
                f"the p99 of the {door} door is {crowded * 1_000:.1f} ms with the crowd, "
                f"{alone * 1_000:.1f} ms without"
            )
    return found + faults(outcome)


def faults(outcome: Outcome) -> list[str]:
    """Return what the honest client was refused, or missed."""
    return outcome.alone.seen.faults + outcome.crowded.seen.faults


def table(outcome: Outcome) -> Iterator[str]:
    """Write the result in lines."""
    yield f"{'honest client':24}{'messages':>10}{'p50 ms':>10}{'p99 ms':>10}{'max ms':>10}"
    for door in ("zmq", "text"):
        for name, phase in (("alone", outcome.alone), ("with the crowd", outcome.crowded)):
            took: list[float] = getattr(phase.seen, f"{door}_s")
            figures = (percentile(took, 50), percentile(took, 99), max(took, default=0.0))
            times = "".join(f"{value * 1_000:10.2f}" for value in figures)
            yield f"{f'{door}, {name}':24}{len(took):10}{times}"
    yield ""
    yield f"{'crowd':24}{'count':>10}{'bytes each':>12}{'cut off':>10}{'their CPU s':>12}"
    for account in outcome.accounts:
        each = outcome.memory[account.kind]
        yield (
            f"{account.kind:24}{account.peers:10}{each:12.0f}{account.cut_off:10}"
            f"{account.cpu_s:12.1f}"
        )
    yield ""
    for name, phase in (("alone", outcome.alone), ("with the crowd", outcome.crowded)):
        share = phase.broker_cpu_s / phase.seconds * 100
        yield f"broker's CPU, {name}: {share:.0f} % of a core over {phase.seconds:.0f} s"
    yield f"connections at the end: {outcome.connected}"
    yield f"errors of the honest client: {len(faults(outcome))}"


def _parse(words: Sequence[str]) -> Wish:
    parser = argparse.ArgumentParser(
        prog="scripts/hostile crowd",
        description=(__doc__ or "").replace("\n", " "),
        epilog="Exit code 0: no errors, and the honest client's p99 stayed below twice that "
        "without the crowd, or below 5 ms. 1: it did not.",
    )
    add = parser.add_argument
    add("--seconds", type=float, default=60, metavar="N", help="with the crowd (60)")
    add("--text", type=int, default=10_000, metavar="N", help="slow text connections (10000)")
    add("--zmq", type=int, default=4_000, metavar="N", help="idle ZeroMQ peers (4000)")
    add("--raw", type=int, default=100, metavar="N", help="raw silent sockets (100)")
    given = parser.parse_args(words)
    wish = Wish(given.seconds, given.text, given.zmq, given.raw)
    if not 1 <= wish.seconds <= 3_600 or min(wish[1:]) < 0 or wish.connections > 60_000:
        parser.error("1 to 3600 seconds, and 0 to 60000 connections")
    return wish


def main(argv: Sequence[str]) -> int:
    """Return 0 where the honest client noticed nothing, else 1; 2 for a wrong command line."""
    try:
        wish = _parse(argv)
    except SystemExit as stop:
        return int(stop.code or 0)
    console = Console()
    try:
        outcome = run(wish, console)
    except CrowdError as error:
        sys.stderr.write(f"crowd: {error}\n")
        return 1
    for line in table(outcome):
        console.print(line, highlight=False, markup=False, soft_wrap=True)
    found = breaches(outcome)
    for sentence in found[:10]:
        sys.stderr.write(f"crowd: {sentence}\n")
    return int(bool(found))
