"""``scripts/loadtest room``: a send to a room with many members, beside few, and beside a mailbox.

A message is stored once for the room, whoever is in it: its cost should not know their number.
Nobody reads meanwhile. The targets are measured in turns, since the machine has its moods.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import Final

from clients import AsyncClient
from clients.errors import KotakError
from tests.bench import parts, trial
from tests.bench.crew import CrewError, Measured, Part, carry_out
from tests.bench.figures import percentile_us
from tests.bench.machine import MeasuredBroker
from tests.bench.parts import Limit, Role
from tests.bench.stalled import OneBox
from tests.bench.trial import Findings
from tests.load.accounts import import_accounts
from tests.load.plan import PASSWORD, Plan

#: By name: who is sent to.
DIRECT: Final = "direct"
FEW: Final = "#few"
MANY: Final = "#many"
#: A send to the large room may cost so many times what one to the room of two does.
COST_RATIO_MAX: Final = 1.25
#: The members of the small room, and the senders to both.
_SENDERS: Final = 2
_WINDOW: Final = 100
#: The broker takes 64 slow requests at a time.
_LOGINS_AT_ONCE: Final = 48


@dataclass(frozen=True, kw_only=True)
class Options:
    """``members`` of the large room; ``seconds`` for each measurement."""

    members: int = 10_000
    seconds: float = 2.0
    turns: int = 3
    store: str = "sqlite:"


@dataclass(frozen=True)
class Cost:
    """What a send to one target costs; ``p50_us`` and ``p99_us`` are of one after the other."""

    members: int
    broker_us: float
    sends_per_s: float
    p50_us: float
    p99_us: float


@dataclass(frozen=True)
class Measurement:
    """The costs by target, and what the members themselves cost the broker in memory."""

    costs: dict[str, Cost]
    joining_mib: float


class Stage:
    """One broker whose accounts have joined both rooms."""

    def __init__(self, options: Options, broker: MeasuredBroker) -> None:
        self._options = options
        self._broker = broker
        #: Both senders are members; the mailboxes' owners are the others.
        self._plan = Plan(senders=_SENDERS, mailboxes=max(1, options.members - _SENDERS))
        import_accounts(self._plan, broker)

    @property
    def targets(self) -> dict[str, tuple[str, int]]:
        """By name: the target and how many members it has."""
        return {
            DIRECT: (self._plan.mailbox(0), 1),
            FEW: (FEW, _SENDERS),
            MANY: (MANY, self._options.members),
        }

    async def join_all(self) -> None:
        """Make both rooms, and have everybody join. Errors: `KotakError`."""
        members = self._plan.accounts()[: self._options.members]
        async with AsyncClient(self._broker.doors.zmq, timeout_ms=parts.TIMEOUT_MS) as client:
            owner, second, *others = await _logged_in(client, members)
            for room in (FEW, MANY):
                await client.request("room_create", {"room": room, "open": True}, token=owner)
                await client.request("room_join", {"room": room}, token=second)
            for some in _slices(others, _LOGINS_AT_ONCE):
                await asyncio.gather(
                    *(client.request("room_join", {"room": MANY}, token=one) for one in some)
                )

    def send(self, target: str, window: int) -> Measured:
        """Send to one target for the time of a measurement; a window of 1 is one sender."""
        plan = OneBox(senders=_SENDERS, mailboxes=1, window=window, box=target)
        limit = Limit(seconds=self._options.seconds)
        crew: list[Part] = [
            (parts.send, (Role(self._broker.doors.zmq, plan, number), limit))
            for number in range(_SENDERS if window > 1 else 1)
        ]
        return carry_out(crew, self._broker)


async def _logged_in(client: AsyncClient, users: Sequence[str]) -> list[str]:
    """Return a token for each user."""
    tokens: list[str] = []
    for some in _slices(users, _LOGINS_AT_ONCE):
        logins = [{"user": user, "password": PASSWORD} for user in some]
        results = await asyncio.gather(
            *(client.request("login", login, token=None) for login in logins)
        )
        tokens += [result["token"] for result in results]
    return tokens


def _slices(items: Sequence[str], size: int) -> Iterator[Sequence[str]]:
    for start in range(0, len(items), size):
        yield items[start : start + size]


def measure(options: Options, step: Callable[[str], None]) -> Measurement:
    """Measure all targets on one broker. Errors: `BrokerError`, `CrewError`."""
    step("starting")
    with (
        TemporaryDirectory(prefix="kotak-room-") as folder,
        MeasuredBroker(
            Path(folder) / "data", store=options.store, program="tests.bench.quick_logins"
        ) as broker,
    ):
        stage = Stage(options, broker)
        before_mib = broker.memory_mib()
        step(f"{options.members:,} join")
        try:
            asyncio.run(stage.join_all())
        except KotakError as error:
            raise CrewError(f"the rooms could not be made: {error}") from None
        joining_mib = broker.memory_mib() - before_mib
        taken: dict[str, list[tuple[Measured, Measured]]] = {}
        for _ in range(options.turns):
            for name, (target, _members) in stage.targets.items():
                step(f"sending: {name}")
                many, one = stage.send(target, _WINDOW), stage.send(target, 1)
                taken.setdefault(name, []).append((many, one))
        costs = {name: _cost(members, taken[name]) for name, (_, members) in stage.targets.items()}
        return Measurement(costs, joining_mib)


def _cost(members: int, turns: Iterable[tuple[Measured, Measured]]) -> Cost:
    """Return the medians of the turns: many under way at once, and one after the other."""
    many = [each for each, _ in turns]
    one = [each for _, each in turns]
    return Cost(
        members=members,
        broker_us=median(each.broker_cpu_s * 1e6 / max(1, each.messages) for each in many),
        sends_per_s=median(each.messages / each.wall_s for each in many),
        p50_us=median(percentile_us(each.latencies, 50) for each in one),
        p99_us=median(percentile_us(each.latencies, 99) for each in one),
    )


def findings(options: Options, measured: Measurement) -> Findings:
    """Judge the large room by the room of two."""
    costs = measured.costs
    direct, few, many = costs[DIRECT], costs[FEW], costs[MANY]
    ratio = many.broker_us / few.broker_us
    wrong = f"a send to {many.members:,} members costs {ratio:.2f} times what one to two does"
    return Findings(
        title=f"A room with {options.members:,} members, who take {measured.joining_mib:,.1f} MiB "
        f"of the broker's memory; {options.store}",
        headings=("sent to", "members", "broker CPU", "to direct", "sends/s", "p50", "p99"),
        rows=[
            [
                name,
                f"{cost.members:,}",
                f"{cost.broker_us:,.1f} µs",
                f"{cost.broker_us / direct.broker_us:.2f}",
                f"{cost.sends_per_s:,.0f}",
                f"{cost.p50_us / 1e3:,.2f} ms",
                f"{cost.p99_us / 1e3:,.2f} ms",
            ]
            for name, cost in costs.items()
        ],
        holds=f"A send to {many.members:,} members costs {ratio:.2f} times what one to two does.",
        figures={
            "joining_mib": measured.joining_mib,
            "ratio": ratio,
            **{name: asdict(cost) for name, cost in costs.items()},
        },
        complaints=[f"{wrong}, and not {COST_RATIO_MAX} at most"] if ratio > COST_RATIO_MAX else [],
    )


def main(words: Sequence[str]) -> int:
    """Carry out ``scripts/loadtest room WORDS``."""
    default = Options()
    parser = argparse.ArgumentParser(
        prog="scripts/loadtest room",
        description="Measure what a send to a room costs, by the number of its members.",
        epilog=trial.EPILOG,
    )
    add = parser.add_argument
    add("--members", type=trial.whole(3, 100_000), default=default.members, metavar="N",
        help="members of the large room (10,000)")  # fmt: skip
    add("--seconds", type=trial.whole(1, 600), default=default.seconds, metavar="S",
        help="for each measurement (2)")  # fmt: skip
    add("--turns", type=trial.whole(1, 100), default=default.turns, metavar="N",
        help="measurements of each target (3)")  # fmt: skip
    add("--store", choices=("sqlite:", "memory:"), default="sqlite:", help="the broker's engine")
    add("--json", action="store_true", help="print the result as one JSON object")
    given = parser.parse_args(words)
    options = Options(
        members=given.members, seconds=given.seconds, turns=given.turns, store=given.store
    )
    return trial.carry_out(
        "room",
        lambda step: findings(options, measure(options, step)),
        steps=2 + 3 * options.turns,
        as_json=given.json,
    )
