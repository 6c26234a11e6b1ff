"""One load from start to end: the broker, the processes, the kills, the clean end."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from multiprocessing.context import SpawnProcess
from pathlib import Path
from tempfile import TemporaryDirectory
from threading import BrokenBarrierError
from typing import Final, NamedTuple

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


def run(plan: Plan, show: Callable[[Progress], None]) -> Outcome:
    """Carry out one load. Errors: `BrokerError`, `UnreachableError`, where it could not begin.

    ``show`` is called about every 50 ms with how far it is.
    """
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kotak-load-")))
        histories = plan.histories or folder / "histories"
        histories.mkdir(parents=True, exist_ok=True)
        show(Progress("starting", 0, 0, 0.0, 0))
        if plan.broker is None:
            broker = stack.enter_context(BrokerProcess(folder / "broker", store=plan.store))
            import_accounts(plan, broker)
            address = broker.doors.zmq if plan.door == "zmq" else broker.doors.text
        else:
            broker, address = None, plan.broker
            if plan.door == "zmq":
                register_accounts(plan, address)
        load_ = stack.enter_context(_processes(plan, address, histories, broker, show))
        usage = load_.carry_out()
        show(load_.progress("judging"))
        restarts = broker.restarts if broker else []
        write(histories / "broker.jsonl", (Gap(None, *restart) for restart in restarts))
        return Outcome(load(histories), load_.summaries, usage, restarts)


@contextlib.contextmanager
def _processes(
    plan: Plan,
    address: str,
    histories: Path,
    broker: BrokerProcess | None,
    show: Callable[[Progress], None],
) -> Iterator[_Load]:
    """Start all client processes; whatever happens, none of them outlives the load."""
    senders, readers = (live_sender, subscriber) if plan.subscribers else (sender, reader)
    parts = [(senders.main, number) for number in range(plan.sender_processes)]
    parts += [(readers.main, number) for number in range(plan.readers)]
    link = Link(plan.senders, plan.readers, histories, processes=len(parts))
    processes = [
        CONTEXT.Process(target=part, args=(plan, number, address, link), daemon=True)
        for part, number in parts
    ]
    try:
        for process in processes:
            process.start()
        yield _Load(plan, link, processes, broker, show)
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
        broker: BrokerProcess | None,
        show: Callable[[Progress], None],
    ) -> None:
        self.summaries: list[Summary] = []
        self._plan = plan
        self._link = link
        self._processes = processes
        self._broker = broker
        self._show = show
        self._began = 0.0
        self._shown = 0.0

    def carry_out(self) -> Usage | None:
        """Let them begin, send, and read all. Return what the broker used for the sending."""
        if not self._begin():
            self._until("giving up", lambda: len(self.summaries) == len(self._processes))
            faults = [summary.fault for summary in self.summaries if summary.fault]
            raise UnreachableError(faults[0] if faults else "a client process could not begin")
        cpu = self._broker.cpu_seconds() if self._broker else 0.0
        self._until("sending", lambda: self._senders_done() >= self._plan.sender_processes)
        usage = None
        if self._broker:
            usage = Usage(self._broker.cpu_seconds() - cpu, self._broker.memory_mib())
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
        """Watch until ``done``: collect last words, kill when it is due, show progress."""
        while not done():
            time.sleep(_LOOK_SECONDS)
            while not self._link.summaries.empty():
                self.summaries.append(self._link.summaries.get())
            progress = self.progress(phase)
            self._kill_when_due(progress)
            if time.monotonic() - self._shown > 0.05:
                self._shown = time.monotonic()
                self._show(progress)
            self._check_alive()

    def _kill_when_due(self, progress: Progress) -> None:
        """Kill at even distances on the way, so that each life of the broker sees some load."""
        if self._broker is None or self._broker.kills >= self._plan.kills:
            return
        if progress.share >= (self._broker.kills + 1) / (self._plan.kills + 1):
            self._broker.kill()
            self._broker.start()

    def _check_alive(self) -> None:
        """Notice who died without a word. Errors: `BrokerError`."""
        for process in self._processes:
            if process.exitcode:
                raise BrokerError(f"a client process ended with code {process.exitcode}, see above")
        if self._broker is not None and not self._broker.alive:
            raise BrokerError(f"the broker ended by itself:\n{self._broker.last_words()}")

    def progress(self, phase: str) -> Progress:
        sent = sum(self._link.sent)
        if self._plan.messages is not None:
            share = sent / (self._plan.messages * self._plan.senders)
        else:
            share = (time.monotonic() - self._began) / (self._plan.seconds or 1) if sent else 0.0
        kills = self._broker.kills if self._broker else 0
        return Progress(phase, sent, sum(self._link.read), min(share, 1.0), kills)
