"""What one seed leads to: who takes part, how busy they are, and which faults there are.

Each kind of fault is in about half of the seeds only: what one hides, another seed shows.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from random import Random
from typing import Final

SECOND: Final = 1_000_000  # all times of the simulator are microseconds
MINUTE: Final = 60 * SECOND
#: Users by number; the first ones are in every plan.
USERS: Final = ("ann", "bob", "cy", "dan", "eve")
ROOMS: Final = ("#lobby", "#staff")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """All that is drawn before a run begins. Rates are events a simulated minute."""

    seed: int
    engine: str
    minutes: float
    users: tuple[str, ...]
    #: Receivers: (user, device, how): ``push`` holds a subscription, ``poll`` asks.
    receivers: tuple[tuple[str, str, str], ...]
    rooms: tuple[str, ...]
    #: Messages of each user, and how many may be under way.
    messages: int
    window: int
    push_window: int
    #: Share of messages that go to a room, that expire, and whose answer's state is asked for.
    to_rooms: float
    expiring: float
    asking: float
    #: Do users come to rooms and leave them while the run goes on?
    wandering: bool
    latency_us: int
    #: How long a turn waits for more to arrive: what shares a batch shares its fate.
    turn_us: int
    timeout_ms: int
    session_idle_ms: int
    mailbox_messages_max: int
    retention_read_ms: int
    #: Is that so short that messages are deleted in the run?
    purging: bool
    #: Until then a message without an answer is sent again: shorter than ids are remembered.
    retry_ms_max: int
    rate_max: int
    #: Faults of the broker and of its store.
    crashes: float
    failures: float
    full: float
    restores: float
    jumps: float
    #: How far the clock goes ahead in all.
    ahead_ms_max: int
    #: Faults of the network: lost connections, holes, late frames of a dead connection, no room.
    cuts: float
    holes: float
    late_frames: bool
    stalls: float
    partitions: float
    #: Clients that die and are started again.
    deaths: float
    #: Times at which the store cannot be reached: it is one that brokers share then.
    outages: float
    #: How many brokers have it open; the users are divided among them.
    brokers: int = 1
    #: Times at which something happens on the way to a real server, or to the server.
    harms: float = 0.0
    #: Is it also killed, and started again? That takes a while.
    kills: bool = False


def plan_of(seed: int) -> Plan:
    """Draw the plan of a seed."""
    luck = Random(f"plan {seed}")
    users = USERS[: luck.choice((2, 2, 3, 3, 4, 5))]
    memory = luck.random() < 0.15
    restored = not memory and luck.random() < 0.1
    purging = luck.random() < 0.25
    rooms = ROOMS[: luck.choice((0, 1, 1, 2))]
    late_frames = luck.random() < 0.3

    def rate(often: float, *, at: float = 0.5) -> float:
        return often * luck.random() * 2 if luck.random() < at else 0.0

    return Plan(
        seed=seed,
        engine="memory" if memory else "sqlite",
        minutes=luck.choice((0.5, 1.0, 2.0, 5.0, 5.0, 60.0 if luck.random() < 0.2 else 10.0)),
        users=users,
        receivers=_receivers(luck, users),
        rooms=rooms,
        messages=luck.randint(5, 30),
        window=luck.choice((1, 1, 3, 10, 40)),
        push_window=luck.choice((1, 2, 5, 20, 100)),
        to_rooms=0.4 if rooms else 0.0,
        expiring=luck.choice((0.0, 0.0, 0.3)),
        asking=luck.choice((0.0, 0.1, 0.3)),
        # A late request to join would undo a leaving: the protocol promises no order there.
        wandering=bool(rooms) and not restored and not late_frames and luck.random() < 0.5,
        latency_us=luck.choice((200, 2_000, 50_000)),
        turn_us=luck.choice((50, 500, 5_000, 200_000)),
        timeout_ms=luck.choice((3_000, 30_000)),
        session_idle_ms=luck.choice((60_000, 600_000, 86_400_000)),
        mailbox_messages_max=luck.choice((3, 20, 1_000_000, 1_000_000)),
        retention_read_ms=90_000 if purging else 86_400_000,
        purging=purging,
        retry_ms_max=15_000 if purging else 8 * 3_600_000,
        rate_max=luck.choice((0, 0, 0, 5)),
        crashes=0.0 if memory else rate(2.0, at=0.6),
        failures=0.0 if memory else rate(0.7, at=0.4),
        full=rate(2.0, at=0.4),
        restores=rate(0.6, at=1.0) if restored else 0.0,
        # Whoever puts back a copy twice has a clock that does not go back meanwhile.
        jumps=0.0 if restored else rate(0.2, at=0.3),
        ahead_ms_max=15_000 if purging else 12 * 3_600_000,
        cuts=rate(3.0),
        holes=rate(0.5, at=0.3),
        late_frames=late_frames,
        stalls=rate(2.0, at=0.4),
        partitions=rate(0.3, at=0.3),
        deaths=rate(1.0, at=0.4),
        outages=rate(1.0, at=0.3),
    )


def over_redis(seed: int) -> Plan:
    """Draw the plan of a seed over a real server; it is not put back (see `test_redis_machine`)."""
    luck = Random(f"redis {seed}")
    plan = plan_of(seed)
    brokers = luck.choice((1, 2, 2))
    return replace(
        plan,
        engine="redis",
        minutes=min(plan.minutes, 2.0),
        crashes=plan.crashes if luck.random() < 0.7 else 0.0,
        restores=0.0,
        brokers=brokers,
        # What expires goes by the clock of whoever looks: see docs/decisions/0013.
        jumps=plan.jumps if brokers == 1 else 0.0,
        harms=luck.choice((0.0, 1.0, 5.0, 20.0)),
        kills=luck.random() < 0.1,
    )


def _receivers(luck: Random, users: tuple[str, ...]) -> tuple[tuple[str, str, str], ...]:
    found = []
    for user in users:
        found.append((user, "", luck.choice(("push", "push", "poll"))))
        if luck.random() < 0.3:  # two that share a cursor
            found.append((user, "", luck.choice(("push", "poll"))))
        if luck.random() < 0.4:
            found.append((user, "phone", luck.choice(("push", "push", "poll"))))
    return tuple(found)
