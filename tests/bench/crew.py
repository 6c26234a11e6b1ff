"""Client processes that begin together, and what they and the broker used until the last ended."""

from __future__ import annotations

import signal
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Barrier
from threading import BrokenBarrierError
from typing import Any, Final, NamedTuple, Protocol

from tests.bench.machine import busy_seconds
from tests.load.link import CONTEXT

#: Connecting, and a password hash for each account that logs in.
SETUP_SECONDS_MAX: Final = 300.0
#: The longest phase, a fill of a million messages on a slow machine included.
WORK_SECONDS_MAX: Final = 900.0
_JOIN_SECONDS: Final = 10.0
#: How often the parent looks at its processes, and how long a full barrier takes to open.
_LOOK_SECONDS: Final = 0.002
_LEAVE_SECONDS_MAX: Final = 10.0


class CrewError(Exception):
    """A client process could not do its part; the text says why."""


class Measurable(Protocol):
    """A broker, or all that stands in for one: what it has used, and what it said last."""

    def cpu_seconds(self) -> float: ...
    def last_words(self) -> str: ...


class Report(NamedTuple):
    """What one process did: from when to when (monotonic s), its CPU time, each latency in s."""

    began: float
    ended: float
    cpu_s: float
    messages: int
    latencies: bytes


class Measured(NamedTuple):
    """One phase. ``latencies`` are in seconds, in order of size."""

    messages: int
    wall_s: float
    broker_cpu_s: float
    client_cpu_s: float
    #: Cores that were busy with something else: over 0.2 the figures are not to be trusted.
    foreign_cores: float
    latencies: Sequence[float]


class _Gate:
    """Shared by all: the start, the end, the reports."""

    def __init__(self, parts: int) -> None:
        self.start = CONTEXT.Barrier(parts + 1)
        self.end = CONTEXT.Barrier(parts + 1)
        self.reports: Any = CONTEXT.SimpleQueue()

    def abort(self) -> None:
        self.start.abort()
        self.end.abort()


class Shift:
    """One process's share of a phase: `begin` when ready, `end` when done."""

    def __init__(self, gate: _Gate) -> None:
        self._gate = gate
        self.messages = 0
        self.latencies = array("d")
        self.began = self.ended = self.cpu_s = 0.0

    def begin(self) -> float:
        """Wait for all others; return when it began."""
        self._gate.start.wait(SETUP_SECONDS_MAX)
        self.cpu_s = -time.process_time()
        self.began = time.monotonic()
        return self.began

    def end(self) -> None:
        """Wait until all others are done, so that nobody closes while somebody is measured."""
        self.ended = time.monotonic()
        self.cpu_s += time.process_time()
        self._gate.end.wait(WORK_SECONDS_MAX)

    def report(self) -> Report:
        return Report(self.began, self.ended, self.cpu_s, self.messages, self.latencies.tobytes())


#: A part is played in a process of its own: it gets a `Shift` and the arguments beside it.
Part = tuple[Callable[..., None], tuple[Any, ...]]


def _play(part: Callable[..., None], gate: _Gate, arguments: tuple[Any, ...]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its children
    shift = Shift(gate)
    try:
        part(shift, *arguments)
    except BrokenBarrierError:  # somebody else could not do its part, and says why
        return
    except Exception as error:  # noqa: BLE001 - whatever it was, the parent must hear of it
        gate.reports.put(f"{type(error).__name__}: {error}")
        gate.abort()
        return
    gate.reports.put(shift.report())


def carry_out(
    parts: Sequence[Part],
    broker: Measurable,
    *,
    begun: Callable[[], None] = lambda: None,
) -> Measured:
    """Play all parts, each in its process; ``begun`` is called when they begin.

    Errors: `CrewError`.
    """
    gate = _Gate(len(parts))
    with _processes(parts, gate) as processes:
        try:
            _join(gate.start, processes)
            broker_s, busy_s = broker.cpu_seconds(), busy_seconds()
            begun()
            _join(gate.end, processes)
            broker_s, busy_s = broker.cpu_seconds() - broker_s, busy_seconds() - busy_s
            reports = [gate.reports.get() for _ in parts]
        except BrokenBarrierError:
            raise CrewError(_why(gate, broker)) from None
    return _measured(reports, broker_s, busy_s)


def _join(barrier: Barrier, processes: Sequence[SpawnProcess]) -> None:
    """Wait until all others are there. Errors: `BrokenBarrierError`, `CrewError`."""
    while barrier.n_waiting < len(processes) and not barrier.broken:
        time.sleep(_LOOK_SECONDS)
        for process in processes:
            if process.exitcode:
                raise CrewError(f"a client process ended with code {process.exitcode}, see above")
    barrier.wait(_LEAVE_SECONDS_MAX)


def _why(gate: _Gate, broker: Measurable) -> str:
    if not gate.reports.empty():
        return str(gate.reports.get())
    return f"a client process did not answer in time; the broker says:\n{broker.last_words()}"


@contextmanager
def _processes(parts: Sequence[Part], gate: _Gate) -> Iterator[list[SpawnProcess]]:
    """Run all parts; whatever happens, none of them outlives the phase."""
    processes = [
        CONTEXT.Process(target=_play, args=(part, gate, arguments), daemon=True)
        for part, arguments in parts
    ]
    try:
        for process in processes:
            process.start()
        yield processes
        for process in processes:
            process.join(_JOIN_SECONDS)
    finally:
        for process in processes:
            if process.is_alive():
                process.terminate()
            if process.pid is not None:
                process.join()
            process.close()


def _measured(reports: Sequence[Report], broker_s: float, busy_s: float) -> Measured:
    latencies = array("d")
    for report in reports:
        latencies.frombytes(report.latencies)
    wall_s = max(r.ended for r in reports) - min(r.began for r in reports)
    client_s = sum(r.cpu_s for r in reports)
    return Measured(
        messages=sum(r.messages for r in reports),
        wall_s=wall_s,
        broker_cpu_s=broker_s,
        client_cpu_s=client_s,
        foreign_cores=max(0.0, busy_s - broker_s - client_s) / wall_s,
        latencies=sorted(latencies),
    )
