"""Whom the full table sets beside Kotak, at which points, and what was aimed at: as data.

A rival is a peer of the driver in one mode with one client. Its usual Python library is measured
where that can keep many messages under way; where it cannot, or costs more than its server, a
minimal socket client takes its place, which shows the server's own limit.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

from tests.bench.contest import Contender, Where
from tests.bench.machine import ROOT

ONE: Final = Where(1, 1)
EIGHT: Final = Where(8, 1)
MANY: Final = Where(2, 100)
CROWD: Final = Where(1_000, 1)


class Rival(NamedTuple):
    """``title`` is for readers; ``peer``, ``mode`` and ``client`` are the driver's words."""

    title: str
    peer: str
    mode: str
    client: str
    points: Sequence[Where]
    #: The adapter's client that is set against it.
    our_client: str = "lib"
    #: Where the driver does not bring the peer.
    module: Path | None = None

    @property
    def key(self) -> str:
        return f"{self.peer}-{self.mode}-{self.client}"

    @property
    def contender(self) -> Contender:
        who = ("--module", str(self.module)) if self.module else ("--peer", self.peer)
        return Contender(self.peer, (*who, "--mode", self.mode, "--client", self.client))


RIVALS: Final[Sequence[Rival]] = (
    Rival("Redis, appendfsync always", "redis", "always", "lib", (ONE, EIGHT, MANY)),
    Rival("Redis, appendfsync always, raw client", "redis", "always", "raw", (MANY,)),
    Rival("PostgreSQL, a commit a message", "postgres", "each", "lib", (ONE, EIGHT, MANY)),
    Rival("PostgreSQL, 100 messages a commit", "postgres", "txn", "lib", (MANY,)),
    Rival("beanstalkd -f0", "beanstalkd", "f0", "lib", (ONE, EIGHT)),
    Rival("beanstalkd -f0, raw client", "beanstalkd", "f0", "raw", (MANY,)),
    Rival("RabbitMQ, classic queues", "rabbitmq", "classic", "lib", (ONE, EIGHT)),
    Rival("RabbitMQ, classic queues, raw client", "rabbitmq", "classic", "raw", (MANY,)),
    Rival("RabbitMQ, quorum queues", "rabbitmq", "quorum", "lib", (ONE, EIGHT)),
    Rival("RabbitMQ, quorum queues, raw client", "rabbitmq", "quorum", "raw", (MANY,)),
    Rival("NATS JetStream, sync always", "nats", "always", "lib", (ONE, EIGHT)),
    Rival("NATS JetStream, sync always, raw client", "nats", "always", "raw", (MANY,)),
    Rival("Prosody (no fsync), raw client", "prosody", "default", "raw", (ONE, EIGHT, MANY)),
    Rival(
        "ZeroMQ and a sync, nothing else", "bare", "sync", "lib", (ONE, EIGHT),
        module=ROOT / "scripts" / "peer_bare.py",
    ),
    Rival(
        "thread a connection, in memory, against the text door",
        "plain", "default", "lib", (EIGHT, CROWD), our_client="text",
    ),
)  # fmt: skip


class Goal(NamedTuple):
    """What a figure was to reach, and what would be better still; more or less than that."""

    target: float | None
    stretch: float | None
    more: bool
    unit: str = ""

    def told(self, goal: float | None) -> str:
        if goal is None:
            return ""
        return f"{'at least' if self.more else 'at most'} {goal:g}{self.unit}"

    def judged(self, value: float) -> str:
        """Return which of both a value reaches, in a word."""
        if self.stretch is not None and self._reaches(value, self.stretch):
            return "stretch"
        if self.target is None:
            return "short"
        return "met" if self._reaches(value, self.target) else "short"

    def _reaches(self, value: float, goal: float) -> bool:
        return value >= goal if self.more else value <= goal


class Target(NamedTuple):
    """A goal beside a rival. ``of_both``: Kotak's figure over the rival's, else Kotak's own."""

    what: str
    rival: str
    where: Where
    figure: str
    of_both: bool
    goal: Goal


class OwnTarget(NamedTuple):
    """A goal that needs no rival: a figure of ``scripts/bench``, maybe over that of a point."""

    what: str
    point: str
    figure: str
    over: str | None
    goal: Goal


_REDIS: Final = "redis-always-lib"
TARGETS: Final[Sequence[Target]] = (
    Target("durable sends a second at 2x100, beside Redis `always` with redis-py",
           _REDIS, MANY, "sent_per_s", True, Goal(1.0, None, more=True)),
    Target("the same beside Redis `always` with a raw client",
           "redis-always-raw", MANY, "sent_per_s", True, Goal(None, 1.0, more=True)),
    Target("broker CPU a durable send at 2x100, ZeroMQ's thread included",
           _REDIS, MANY, "server_cpu_per_M", False, Goal(6.0, 4.0, more=False, unit=" µs")),
    Target("durable sends a second at 8x1, beside Redis `always`",
           _REDIS, EIGHT, "sent_per_s", True, Goal(0.9, 1.0, more=True)),
    Target("p50 of a durable send at 1x1, beside Redis `always`",
           _REDIS, ONE, "p50_us", True, Goal(1.3, 1.1, more=False)),
    Target("drain with acknowledgement, beside Redis XRANGE and XDEL",
           _REDIS, MANY, "drained_per_s", True, Goal(1.0, 2.0, more=True)),
    Target("client CPU a pipelined send",
           _REDIS, MANY, "client_cpu_per_M", False, Goal(5.0, 3.0, more=False, unit=" µs")),
    Target("text door, 8 connections, beside a thread a connection that stores nothing",
           "plain-default-lib", EIGHT, "sent_per_s", True, Goal(0.3, 0.5, more=True)),
    Target("text door, 1,000 connections, beside the same",
           "plain-default-lib", CROWD, "sent_per_s", True, Goal(1.0, None, more=True)),
)  # fmt: skip

OWN_TARGETS: Final[Sequence[OwnTarget]] = (
    OwnTarget("sends a second with 10^6 waiting and 100,000 mailboxes, to an empty broker's",
              "full", "sends_per_s", "send-2x100", Goal(0.9, 1.0, more=True)),
    OwnTarget("memory a waiting message, beyond the first 10^5",
              "start", "bytes_per_waiting", None, Goal(64, 16, more=False, unit=" B")),
    OwnTarget("start with 10^6 waiting, to the first OK",
              "start", "start_full_s", None, Goal(3.0, 1.0, more=False, unit=" s")),
)  # fmt: skip
