"""One load from start to end: the broker, the processes, the kills, the clean end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BrokenBarrierError
from typing import Final, NamedTuple, Protocol

from tests.load import live_sender, reader, sender, subscriber
from tests.load.accounts import import_accounts, register_accounts
from tests.load.broker_process import BrokerError, BrokerProcess, Restart
from tests.load.doors import UnreachableError
from tests.load.link import CONTEXT, Link, Summary
from tests.load.plan import Plan
from tests.proof.history import Gap, History, load, write

#: How often the load looks at its processes; a kill waits for its moment at most so long.
_LOOK_SECONDS: Final = 0.005
#: How long processes get to end by themselves once they have said their last words.
_JOIN_SECONDS: Final = 10.0


class Progress(NamedTuple):
    """How far a load is. ``share`` (0 to 1) is of the sending."""

    phase: str
    sent: int
    read: int
    share: float
    kills: int


class Usage(NamedTuple):
    """What the broker used while messages were sent; None for a broker that is not ours."""

    cpu_seconds: float
    memory_mib: float


class Outcome(NamedTuple):
    """All that a load left behind."""

    history: History
    summaries: list[Summary]
    usage: Usage | None
    restarts: list[Restart]


class Site(Protocol):
    """Where a load goes: the brokers, and what is done to them meanwhile."""

    #: Of the brokers that were killed; see `tests.load.live`.
    restarts: list[Restart]

    def address(self, process: int) -> str:
        """Return what client process number ``process`` is told to connect to."""

    def look(self, progress: Progress) -> None:
        """Do what is due, some hundred times a second. Errors: `BrokerError`: it cannot go on."""

    def usage(self) -> Usage | None:
        """Return what the brokers have used so far."""


class _OneBroker:
    """A broker of the load's own, killed at even distances; or somebody else's."""

    def __init__(self, plan: Plan, broker: BrokerProcess | None, address: str) -> None:
        self.restarts = broker.restarts if broker else []
        self._plan = plan
        self._broker = broker
        self._address = address

    def address(self, process: int) -> str:
        return self._address

    def look(self, progress: Progress) -> None:
        """Kill when it is due: each life of the broker sees some load."""
        broker = self._broker
        if broker is None:
            return
        if broker.kills < self._plan.kills:
            due = (broker.kills + 1) / (self._plan.kills + 1)
            if progress.share >= due:
                broker.kill()
                broker.start()
        if not broker.alive:
            raise BrokerError(f"the broker ended by itself:\n{broker.last_words()}")

    def usage(self) -> Usage | None:
        if self._broker is None:
            return None
        return Usage(self._broker.cpu_seconds(), self._broker.memory_mib())


def run(plan: Plan, show: Callable[[Progress], None]) -> Outcome:
    """Carry out one load. Errors: `BrokerError`, `UnreachableError`, where it could not begin.

    ``show`` is called about every 50 ms with how far it is.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kotak-load-")))
        show(Progress("starting", 0, 0, 0.0, 0))
        if plan.broker is None:
            broker = stack.enter_context(BrokerProcess(folder / "broker", store=plan.store))
            import_accounts(plan, broker)
            address = broker.doors.zmq if plan.door == "zmq" else broker.doors.text
        else:
            broker, address = None, plan.broker
            if plan.door == "zmq":
                register_accounts(plan, address)
        return run_at(_OneBroker(plan, broker, address), plan, show)


def run_at(site: Site, plan: Plan, show: Callable[[Progress], None]) -> Outcome:
    """Carry out one load where its accounts are. Errors: as `run`."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kotak-load-")))
        histories = plan.histories or folder / "histories"
        histories.mkdir(parents=True, exist_ok=True)
        load_ = stack.enter_context(_processes(plan, site, histories, show))
        usage = load_.carry_out()
        show(load_.progress("judging"))
        write(histories / "broker.jsonl", (Gap(None, *restart) for restart in site.restarts))
        return Outcome(load(histories), load_.summaries, usage, site.restarts)


@contextlib.contextmanager
def _processes(
    plan: Plan,
    site: Site,
    histories: Path,
    show: Callable[[Progress], None],
) -> Iterator[_Load]:
    """Start all client processes; whatever happens, none of them outlives the load."""
    senders = live_sender if plan.crowded else sender
    readers = subscriber if plan.subscribers else reader
    parts = [(senders.main, number) for number in range(plan.sender_processes)]
    parts += [(readers.main, number) for number in range(plan.readers)]
    link = Link(plan.senders, plan.readers, histories, processes=len(parts))
    processes = [
        CONTEXT.Process(target=part, args=(plan, number, site.address(at), link), daemon=True)
        for at, (part, number) in enumerate(parts)
    ]
    try:
        for process in processes:
            process.start()
        yield _Load(plan, link, processes, site, show)
        for process in processes:
            process.join(_JOIN_SECONDS)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            if process.pid is not None:
                process.join()
            process.close()


class _Load:
    """The parent's part, while the processes run."""

    def __init__(
        self,
        plan: Plan,
        link: Link,
        processes: list[SpawnProcess],
        site: Site,
        show: Callable[[Progress], None],
    ) -> None:
        self.summaries: list[Summary] = []
        self._plan = plan
        self._link = link
        self._processes = processes
        self._site = site
        self._show = show
        self._began = 0.0
        self._shown = 0.0

    def carry_out(self) -> Usage | None:
        """Let them begin, send, and read all. Return what the broker used for the sending."""
        if not self._begin():
            self._until("giving up", lambda: len(self.summaries) == len(self._processes))
            faults = [summary.fault for summary in self.summaries if summary.fault]
            raise UnreachableError(faults[0] if faults else "a client process could not begin")
        before = self._site.usage()
        self._until("sending", lambda: self._senders_done() >= self._plan.sender_processes)
        usage = self._site.usage()
        if usage and before:
            usage = usage._replace(cpu_seconds=usage.cpu_seconds - before.cpu_seconds)
        self._link.all_sent.set()
        self._until("draining", lambda: len(self.summaries) == len(self._processes))
        return usage

    def _begin(self) -> bool:
        """Return whether everybody could log in; who could not says so in its summary."""
        self._show(self.progress("logging in"))
        try:
            self._link.start_together()
        except BrokenBarrierError:
            return False
        self._began = time.monotonic()
        return True

    def _senders_done(self) -> int:
        return sum(summary.role.startswith("load-sender") for summary in self.summaries)

    def _until(self, phase: str, done: Callable[[], bool]) -> None:
        """Watch until ``done``: collect last words, do what is due, show progress."""
        while not done():
            time.sleep(_LOOK_SECONDS)
            while not self._link.summaries.empty():
                self.summaries.append(self._link.summaries.get())
            progress = self.progress(phase)
            self._site.look(progress)
            if time.monotonic() - self._shown > 0.05:
                self._shown = time.monotonic()
                self._show(progress)
            self._check_alive()

    def _check_alive(self) -> None:
        """Notice who died without a word. Errors: `BrokerError`."""
        for process in self._processes:
            if process.exitcode:
                raise BrokerError(f"a client process ended with code {process.exitcode}, see above")

    def progress(self, phase: str) -> Progress:
        sent = sum(self._link.sent)
        if self._plan.messages is not None:
            share = sent / (self._plan.messages * self._plan.senders)
        else:
            share = (time.monotonic() - self._began) / (self._plan.seconds or 1) if sent else 0.0
        kills = len(self._site.restarts)
        return Progress(phase, sent, sum(self._link.read), min(share, 1.0), kills)
