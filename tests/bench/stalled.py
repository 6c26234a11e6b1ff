"""``scripts/loadtest stalled``: what a subscriber that no longer reads costs, and costs others.

100,000 messages come to a subscriber whose socket stays open and is never read. Then two others
send one message after the other, now and then to it too, and are timed: without a subscriber,
beside one that is silent, and beside one that goes on sending pings; in turns, since the machine
has its moods. Before that as many messages go to a mailbox that nobody reads: buffers and caches
shall be full.
"""

from __future__ import annotations

import argparse
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final

import zmq

from broker.wire.envelope import decode_reply, encode_request, encoder
from broker.wire.limits import INBOX_MESSAGES_MAX, WINDOW_MAX
from clients.client import Client
from tests.bench import parts, trial
from tests.bench.crew import CrewError, Part, carry_out
from tests.bench.figures import percentile_us
from tests.bench.machine import MeasuredBroker
from tests.bench.parts import Limit, Role
from tests.bench.trial import Findings
from tests.load.accounts import import_accounts
from tests.load.plan import PASSWORD, Plan

#: Who is there to receive: nobody, one that never reads, one that never reads and sends pings.
NOBODY: Final = "nobody"
SILENT: Final = "silent"
PINGING: Final = "pinging"
CASES: Final = (NOBODY, SILENT, PINGING)
#: Before the cases: two fills and the others' sending.
_PHASES_BEFORE: Final = 3
#: More memory than this, from the beginning to the end of a phase, is too much.
GROWTH_MIB_MAX: Final = 20.0
#: The others' p99 beside the one without a subscriber; it is a shared machine's, hence the room.
P99_RATIO_MAX: Final = 3.0
#: Pings a second of the one that sends them: two hundred thousand times what a client sends.
_PINGS_PER_S: Final = 100
_OTHERS: Final = 2
_BOXES: Final = 20


@dataclass(frozen=True, kw_only=True)
class Options:
    """``waiting`` messages for the subscriber; each of the others sends ``messages`` a phase."""

    waiting: int = 100_000
    messages: int = 2_000
    size_bytes: int = 1_000
    store: str = "sqlite:"
    #: The cases are measured so many times.
    turns: int = 3


@dataclass(frozen=True)
class Phase:
    """What one phase did to the broker's memory, and to the others that sent meanwhile."""

    before_mib: float
    after_mib: float
    p50_us: float
    p99_us: float
    broker_us: float

    @property
    def growth_mib(self) -> float:
        return self.after_mib - self.before_mib


@dataclass(frozen=True)
class Stalled:
    """One connection that subscribes, takes the answer, and never reads again."""

    address: str
    token: str
    pinging: bool
    _over: threading.Event = field(default_factory=threading.Event)

    @contextmanager
    def standing(self) -> Iterator[None]:
        """Subscribe, and be there until the end. Errors: `CrewError`."""
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.setsockopt(zmq.RCVHWM, 1)  # what is not read shall wait at the broker
            socket.setsockopt(zmq.RCVBUF, 4_096)
            socket.setsockopt(zmq.SNDHWM, 1)
            socket.connect(self.address)
            socket.send(self._frame(1, "subscribe", {"window": WINDOW_MAX}))
            if not socket.poll(parts.TIMEOUT_MS):
                raise CrewError("the broker did not answer a subscriber")
            if (error := decode_reply(socket.recv()).error) is not None:
                raise CrewError(f"the broker refused a subscriber: {error}")
            pings = threading.Thread(target=self._ping, args=(socket,))
            pings.start()
            try:
                yield
            finally:
                self._over.set()
                pings.join()

    def _ping(self, socket: zmq.Socket[bytes]) -> None:
        """Send pings, where that is asked for; the only user of the socket meanwhile."""
        number = 2
        while not self._over.wait(1 / _PINGS_PER_S):
            if self.pinging and socket.poll(0, zmq.POLLOUT):
                socket.send(self._frame(number, "ping", {}))
                number += 1

    def _frame(self, number: int, command: str, args: dict[str, int]) -> bytes:
        return encode_request(encoder(), number, command, self.token, args)


class Stage:
    """One broker with its accounts: the others', one that nobody reads, and the subscriber's."""

    def __init__(self, options: Options, broker: MeasuredBroker) -> None:
        plan = Plan(senders=_OTHERS, mailboxes=_BOXES + 1, window=1, size_bytes=options.size_bytes)
        #: The last mailbox of the plan is the subscriber's, so that it gets its share too.
        self.victim = plan.mailbox(_BOXES)
        self._options = options
        self._broker = broker
        self._plan = plan
        import_accounts(replace(plan, mailboxes=_BOXES + 2), broker)
        with Client(broker.doors.zmq, timeout_ms=parts.TIMEOUT_MS) as client:
            self._token = client.login(self.victim, PASSWORD).token

    def fill(self, case: str, box: str) -> Phase:
        """Have the messages come to one mailbox, as fast as that goes."""
        plan = OneBox(senders=_OTHERS, window=1_000, size_bytes=self._options.size_bytes, box=box)
        return self._play(case, plan, self._options.waiting // _OTHERS)

    def send(self, case: str) -> Phase:
        """Let the others send, one message after the other."""
        return self._play(case, self._plan, self._options.messages)

    def _play(self, case: str, plan: Plan, messages: int) -> Phase:
        broker = self._broker
        crew: list[Part] = [
            (parts.send, (Role(broker.doors.zmq, plan, number), Limit(messages=messages)))
            for number in range(_OTHERS)
        ]
        with self._receiver(case):
            before_mib = broker.memory_mib()
            sent = carry_out(crew, broker)
            after_mib = broker.memory_mib()
        return Phase(
            before_mib=before_mib,
            after_mib=after_mib,
            p50_us=percentile_us(sent.latencies, 50),
            p99_us=percentile_us(sent.latencies, 99),
            broker_us=sent.broker_cpu_s * 1e6 / max(sent.messages, 1),
        )

    @contextmanager
    def _receiver(self, case: str) -> Iterator[None]:
        if case == NOBODY:
            yield
            return
        with Stalled(self._broker.doors.zmq, self._token, pinging=case == PINGING).standing():
            yield

    def check_waiting(self) -> None:
        """Make sure that the messages wait where they should. Errors: `CrewError`."""
        address = self._broker.doors.zmq
        seen, last, wanted = 0, 0, self._options.waiting // _OTHERS * _OTHERS
        with Client(address, token=self._token, timeout_ms=parts.TIMEOUT_MS) as client:
            while page := client.inbox(limit=INBOX_MESSAGES_MAX, after=last).messages:
                seen, last = seen + len(page), page[-1].seq
        if seen < wanted:
            raise CrewError(f"{seen:,} messages wait, and not {wanted:,}")


@dataclass(frozen=True)
class Measurement:
    """The filling, and the turns of each case."""

    filling: Phase
    turns: dict[str, list[Phase]]


def measure(options: Options, step: Callable[[str], None]) -> Measurement:
    """Measure all cases on one broker. Errors: `BrokerError`, `CrewError`."""
    step("starting")
    with (
        TemporaryDirectory(prefix="kotak-stalled-") as folder,
        MeasuredBroker(Path(folder) / "data", store=options.store) as broker,
    ):
        stage = Stage(options, broker)
        step("warming up")
        stage.fill(NOBODY, Plan().mailbox(_BOXES + 1))
        stage.send(NOBODY)
        step(f"{options.waiting:,} messages come")
        filling = stage.fill(SILENT, stage.victim)
        turns: dict[str, list[Phase]] = {case: [] for case in CASES}
        for _ in range(options.turns):
            for case in CASES:
                step(f"others send; {case}")
                turns[case].append(stage.send(case))
        stage.check_waiting()
    return Measurement(filling, turns)


@dataclass(frozen=True, kw_only=True)
class OneBox(Plan):
    """A plan in which everybody sends to one mailbox, or room."""

    box: str

    def recipient(self, sender: int, i: int) -> str:
        return self.box


def findings(options: Options, measured: Measurement) -> Findings:
    """Judge each phase's growth by itself, the others' p99 beside that without a subscriber."""
    cases = {name: _of_turns(phases) for name, phases in measured.turns.items()}
    phases = {"filling": measured.filling, **cases}
    p99_us = cases[NOBODY].p99_us
    complaints = [
        f"{name}: the broker grew by {phase.growth_mib:,.1f} MiB, and not by "
        f"{GROWTH_MIB_MAX:.0f} at most"
        for name, phase in phases.items()
        if phase.growth_mib > GROWTH_MIB_MAX
    ] + [
        f"{name}: the others' p99 is {phase.p99_us / p99_us:.1f} times what it is without a "
        f"subscriber, and not {P99_RATIO_MAX:.0f} times at most"
        for name, phase in cases.items()
        if phase.p99_us > p99_us * P99_RATIO_MAX
    ]
    return Findings(
        title=f"A subscriber that stops reading, {options.waiting:,} messages of "
        f"{options.size_bytes:,} bytes waiting for it, {options.store}",
        headings=(
            "subscriber", "MiB before", "after", "growth", "others' p50", "p99", "p99 ratio",
            "broker CPU",
        ),
        rows=[
            ["silent, as they come", *_memory(measured.filling), "", "", "", ""],
            *([name, *_memory(phase), *_times(phase, p99_us)] for name, phase in cases.items()),
        ],
        holds=f"It costs less than {GROWTH_MIB_MAX:.0f} MiB, and the others nothing to speak of.",
        figures={
            name: {**asdict(phase), "growth_mib": phase.growth_mib}
            for name, phase in phases.items()
        },
        complaints=complaints,
    )  # fmt: skip


def _of_turns(phases: Sequence[Phase]) -> Phase:
    """Return the memory of the turn in which it grew most, and the best of the times.

    What delays the others would do so in each turn; what the machine does besides, not in all.
    """
    grown = max(phases, key=lambda phase: phase.growth_mib)
    return replace(
        grown,
        p50_us=min(phase.p50_us for phase in phases),
        p99_us=min(phase.p99_us for phase in phases),
        broker_us=min(phase.broker_us for phase in phases),
    )


def _memory(phase: Phase) -> list[str]:
    return [f"{phase.before_mib:,.1f}", f"{phase.after_mib:,.1f}", f"{phase.growth_mib:+,.1f}"]


def _times(phase: Phase, p99_us: float) -> list[str]:
    return [
        f"{phase.p50_us / 1e3:,.2f} ms",
        f"{phase.p99_us / 1e3:,.2f} ms",
        f"{phase.p99_us / p99_us:.2f}",
        f"{phase.broker_us:,.0f} µs",
    ]


def main(words: Sequence[str]) -> int:
    """Carry out ``scripts/loadtest stalled WORDS``."""
    default = Options()
    parser = argparse.ArgumentParser(
        prog="scripts/loadtest stalled",
        description="Measure what a subscriber that stops reading costs the broker and others.",
        epilog=trial.EPILOG,
    )
    add = parser.add_argument
    add("--waiting", type=trial.whole(2, 1_000_000), default=default.waiting, metavar="N",
        help="messages that come to wait for it (100,000)")  # fmt: skip
    add("--messages", type=trial.whole(10, 100_000), default=default.messages, metavar="N",
        help="messages of each of the two others, one after the other (2,000)")  # fmt: skip
    add("--size", type=trial.whole(20, 60_000), default=default.size_bytes, metavar="BYTES",
        help="size of a text (1,000)")  # fmt: skip
    add("--turns", type=trial.whole(1, 100), default=default.turns, metavar="N",
        help="measurements of each case (3)")  # fmt: skip
    add("--store", choices=("sqlite:", "memory:"), default="sqlite:", help="the broker's engine")
    add("--json", action="store_true", help="print the result as one JSON object")
    given = parser.parse_args(words)
    options = Options(
        waiting=given.waiting,
        messages=given.messages,
        size_bytes=given.size,
        store=given.store,
        turns=given.turns,
    )
    return trial.carry_out(
        "stalled",
        lambda step: findings(options, measure(options, step)),
        steps=_PHASES_BEFORE + options.turns * len(CASES),
        as_json=given.json,
    )
