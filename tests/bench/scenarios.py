"""How each kind of point is measured: a broker of its own, its accounts, phases, figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

from clients.client import Client
from tests.bench import parts, push
from tests.bench.crew import CrewError, Measured, Part, carry_out
from tests.bench.figures import Figures, percentile_us, rounded
from tests.bench.machine import MeasuredBroker
from tests.bench.parts import Limit, Role
from tests.bench.points import Point
from tests.bench.profiling import Profiler
from tests.bench.text_crowd import talk
from tests.load.accounts import import_accounts
from tests.load.plan import PASSWORD, Plan

#: Readers of a drain, holders of idle connections, processes with a crowd of text connections.
_PROCESSES: Final = 2
#: Messages beyond which the memory of each further one is taken: buffers and caches are full then.
_WARM_MESSAGES: Final = 100_000


@dataclass(frozen=True, kw_only=True)
class Bench:
    """How a run measures. ``folder``: where the brokers keep their data (None: the system's)."""

    seconds: float = 5.0
    store: str = "sqlite:"
    folder: Path | None = None
    profiler: Profiler | None = None
    show: Callable[[str], None] = lambda _: None


class Stage:
    """One broker with the accounts of a point, and the phases that are played on it."""

    def __init__(self, bench: Bench, point: Point, broker: MeasuredBroker) -> None:
        self.broker = broker
        self._bench = bench
        self._point = point
        self.plan = Plan(
            senders=max(point.senders, _PROCESSES),
            readers=_PROCESSES,
            window=point.window,
            mailboxes=point.mailboxes,
            size_bytes=point.size_bytes,
        )
        self.show("accounts")
        import_accounts(self.plan, broker)
        self._require_durable()

    def _require_durable(self) -> None:
        """Ask the broker what an OK is worth. Errors: `CrewError`: less than what is measured."""
        with Client(self.broker.doors.zmq) as client:
            found = client.hello().durability
        if self._bench.store == "sqlite:" and found != "fsync":
            raise CrewError(f"an OK of this broker is worth {found!r} only: nothing to measure")

    def show(self, phase: str) -> None:
        self._bench.show(f"{self._point.name}: {phase}")

    def send(self) -> Measured:
        """Send for the run's time, with the silent connections of the point beside."""
        point, address = self._point, self.broker.doors.zmq
        crew: list[Part] = [
            (parts.send, (Role(address, self.plan, number), Limit(seconds=self._bench.seconds)))
            for number in range(point.senders)
        ]
        if point.idle:
            crew += [(parts.be_there, (address, point.idle // _PROCESSES))] * _PROCESSES
        return self.measured("sending", crew)

    def fill(self, messages: int) -> Measured:
        """Put so many messages into the mailboxes, as fast as it goes."""
        plan = Plan(
            senders=_PROCESSES, window=1_000, mailboxes=self.plan.mailboxes,
            size_bytes=self.plan.size_bytes,
        )  # fmt: skip
        self.show(f"filling with {messages:,}")
        each = messages // _PROCESSES
        return carry_out(
            [
                (parts.send, (Role(self.broker.doors.zmq, plan, number), Limit(messages=each)))
                for number in range(_PROCESSES)
            ],
            self.broker,
        )

    def measured(self, phase: str, crew: list[Part]) -> Measured:
        """Play the phase that the point is about; it is the one that is profiled."""
        self.show(phase)
        profiler = self._bench.profiler
        if profiler is None:
            return carry_out(crew, self.broker)
        with profiler.recording(self._point.name, self.broker.pid, self._bench.seconds) as begin:
            return carry_out(crew, self.broker, begun=begin)


@contextmanager
def _stage(bench: Bench, point: Point) -> Iterator[Stage]:
    options = ["--workers", str(point.workers), "--mailbox-messages-max", "100000000"]
    bench.show(f"{point.name}: starting")
    with TemporaryDirectory(prefix="kotak-bench-", dir=bench.folder) as folder:
        data = Path(folder) / "data"
        with MeasuredBroker(data, store=bench.store, options=options) as broker:
            yield Stage(bench, point, broker)


def figures(measured: Measured, broker: MeasuredBroker, verb: str = "sends") -> Figures:
    """Return what every phase is judged by; ``verb`` names its rate."""
    latencies, messages = measured.latencies, max(measured.messages, 1)
    return rounded({
        f"{verb}_per_s": measured.messages / measured.wall_s,
        "p50_us": percentile_us(latencies, 50),
        "p99_us": percentile_us(latencies, 99),
        "broker_us": measured.broker_cpu_s * 1e6 / messages,
        "client_us": measured.client_cpu_s * 1e6 / messages,
        "memory_mib": broker.memory_mib(),
        "messages": measured.messages,
        "foreign_cores": measured.foreign_cores,
    })  # fmt: skip


def measure_send(bench: Bench, point: Point) -> Figures:
    """Send at a point, on top of what waits there already."""
    with _stage(bench, point) as stage:
        if point.waiting:
            stage.fill(point.waiting)
        return figures(stage.send(), stage.broker)


def measure_drain(bench: Bench, point: Point) -> Figures:
    """Read and acknowledge all that was sent before; the latency is that of a page."""
    with _stage(bench, point) as stage:
        stage.fill(point.waiting)
        address, plan = stage.broker.doors.zmq, stage.plan
        crew: list[Part] = [
            (parts.drain, (Role(address, plan, number), point.page)) for number in range(_PROCESSES)
        ]
        measured = stage.measured("draining", crew)
        if measured.messages != point.waiting:
            raise RuntimeError(f"read {measured.messages:,} of {point.waiting:,} messages")
        return figures(measured, stage.broker, "drained")


def measure_push(bench: Bench, point: Point) -> Figures:
    """Send to mailboxes whose messages are pushed; the latency is from sender to receiver.

    A message is sent and received, so its CPU is that of both. A paced point has no rate.
    """
    with _stage(bench, point) as stage:
        address, plan = stage.broker.doors.zmq, stage.plan
        paced = point.paced_messages
        limit = Limit(messages=paced) if paced else Limit(seconds=bench.seconds)
        crew: list[Part] = [
            (push.receive, (Role(address, plan, number), point.senders))
            for number in range(point.mailboxes)
        ]
        crew += [
            (push.send, (Role(address, plan, number), limit, point.pause_ms))
            for number in range(point.senders)
        ]
        found = figures(stage.measured("pushing", crew), stage.broker, "pushed")
        if paced:
            del found["pushed_per_s"]
        return found


def measure_text(bench: Bench, point: Point) -> Figures:
    """Send through the text door, one line under way on each connection."""
    with _stage(bench, point) as stage:
        address, each = stage.broker.doors.text, point.connections // _PROCESSES
        crew: list[Part] = [
            (talk, (Role(address, stage.plan, number), each, bench.seconds))
            for number in range(_PROCESSES)
        ]
        return figures(stage.measured("sending lines", crew), stage.broker)


def measure_start(bench: Bench, point: Point) -> Figures:
    """Start a broker on nothing and on all that waits, to the first message that is answered OK.

    Also says what a waiting message takes of the broker's memory, beyond the first 100,000.
    """
    with _stage(bench, point) as stage:
        broker = stage.broker
        with Client(broker.doors.zmq, timeout_ms=parts.TIMEOUT_MS) as client:
            token = client.login(stage.plan.sender(0), PASSWORD).token
        empty_s = _restart(stage, token)
        stage.fill(_WARM_MESSAGES)
        warm_mib = broker.memory_mib()
        stage.fill(point.waiting - _WARM_MESSAGES)
        full_mib = broker.memory_mib()
        full_s = _restart(stage, token)
        each = (full_mib - warm_mib) * 1_048_576 / (point.waiting - _WARM_MESSAGES)
        return rounded({
            "start_empty_s": empty_s,
            "start_full_s": full_s,
            "bytes_per_waiting": each,
            "memory_mib": full_mib,
            "memory_restarted_mib": broker.memory_mib(),
        })  # fmt: skip


def _restart(stage: Stage, token: str) -> float:
    """Stop the broker and start it again; return the seconds to the first OK."""
    stage.show("starting again")
    stage.broker.stop()
    began = time.monotonic()
    stage.broker.start()
    address = stage.broker.doors.zmq
    with Client(address, token=token, timeout_ms=parts.TIMEOUT_MS) as client:
        client.send(stage.plan.mailbox(0), "first")
    return time.monotonic() - began


SCENARIOS: Final[Mapping[str, Callable[[Bench, Point], Figures]]] = {
    "send": measure_send,
    "drain": measure_drain,
    "push": measure_push,
    "text": measure_text,
    "start": measure_start,
}
