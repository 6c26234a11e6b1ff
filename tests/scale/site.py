"""Brokers on one store, as a load sees them, and what is done to them on the way."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Final, NamedTuple

from tests.bench.machine import MeasuredBroker
from tests.load.accounts import import_accounts
from tests.load.broker_process import BrokerError, BrokerProcess, Restart
from tests.load.plan import Plan
from tests.load.run import Outcome, Progress, Usage, run_at
from tests.scale.cluster import NODE_TIMEOUT_MS, Cluster, Servers, Single

_SENDING: Final = "sending"


class Due(NamedTuple):
    """Something to be done, so many seconds after the sending began."""

    at_s: float
    act: Callable[[], None]


class Site:
    """Any number of brokers on one store."""

    def __init__(
        self, brokers: Sequence[MeasuredBroker], servers: Servers | None, *, lists: bool = True
    ) -> None:
        """``lists``: clients are told of all brokers; otherwise of one each."""
        self.brokers = brokers
        self.servers = servers
        self.restarts: list[Restart] = []
        #: In order of time.
        self.course: list[Due] = []
        #: Brokers that are away because the course says so.
        self.away: set[BrokerProcess] = set()
        self._lists = lists
        self._began: float | None = None

    def address(self, process: int) -> str:
        """Return the addresses of all brokers, each process beginning with another one."""
        first = process % len(self.brokers)
        doors = [broker.doors.zmq for broker in (*self.brokers[first:], *self.brokers[:first])]
        return ",".join(doors) if self._lists else doors[0]

    def look(self, progress: Progress) -> None:
        """Do what is due, and notice who ended by itself. Errors: `BrokerError`."""
        if progress.phase == _SENDING and self._began is None:
            self._began = time.monotonic()
        while self.course and self._began is not None and self._is_due(self.course[0]):
            self.course.pop(0).act()
        for broker in self.brokers:
            if not broker.alive and broker not in self.away:
                raise BrokerError(f"a broker ended by itself:\n{broker.last_words()}")

    def _is_due(self, due: Due) -> bool:
        return time.monotonic() - (self._began or 0.0) >= due.at_s

    def usage(self) -> Usage:
        return Usage(self.cpu_seconds(), sum(broker.memory_mib() for broker in self.brokers))

    def cpu_seconds(self) -> float:
        """Return what all brokers have used."""
        return sum(broker.cpu_seconds() for broker in self.brokers)

    def servers_cpu_seconds(self) -> float:
        """Return what all servers of the store have used; 0 where it is in the broker."""
        return sum(node.cpu_seconds() for node in self.servers.nodes) if self.servers else 0.0

    def last_words(self) -> str:
        return "\n".join(broker.last_words() for broker in self.brokers)


class Setting(NamedTuple):
    """What a site is made of."""

    brokers: int = 3
    #: A Cluster; otherwise one server.
    cluster: bool = True
    #: How many replicas must have confirmed a batch before it is answered.
    replicas: int = 0
    node_timeout_ms: int = NODE_TIMEOUT_MS
    lists: bool = True

    def __str__(self) -> str:
        brokers = f"{self.brokers} broker{'s' if self.brokers > 1 else ''}"
        redis = "a Redis Cluster of 3 primaries and 3 replicas" if self.cluster else "one Redis"
        confirmed = f", {self.replicas} confirming" if self.replicas else ""
        return f"{brokers} on {redis} (appendfsync always{confirmed})"

    def options(self) -> str:
        """Return what stands behind the store's URL."""
        # A server that stands still is given up before clients give up the broker.
        return f"?timeout_ms=2000{f'&replicas={self.replicas}' if self.replicas else ''}"


@contextmanager
def site_on_redis(setting: Setting, plan: Plan, show: Callable[[str], None]) -> Iterator[Site]:
    """Start servers and brokers and make the accounts. Errors: `RedisError`, `BrokerError`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kotak-scale-")))
        show("starting Redis")
        servers: Cluster | Single
        if setting.cluster:
            servers = Cluster(folder, node_timeout_ms=setting.node_timeout_ms)
        else:
            servers = Single(folder)
        stack.enter_context(servers)
        show("starting brokers")
        url = servers.url + setting.options()
        brokers = _brokers(stack, folder, setting.brokers, url)
        show("making accounts")
        import_accounts(plan, brokers[0])
        yield Site(brokers, servers, lists=setting.lists)


@contextmanager
def site_on_sqlite(plan: Plan, show: Callable[[str], None]) -> Iterator[Site]:
    """Start the one broker that keeps everything itself. Errors: `BrokerError`."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(TemporaryDirectory(prefix="kotak-scale-")))
        show("starting the broker")
        brokers = _brokers(stack, folder, 1, "sqlite:")
        import_accounts(plan, brokers[0])
        yield Site(brokers, None)


def _brokers(stack: ExitStack, folder: Path, count: int, store: str) -> list[MeasuredBroker]:
    return [
        stack.enter_context(MeasuredBroker(folder / f"broker-{number}", store=store))
        for number in range(count)
    ]


def load(site: Site, plan: Plan, show: Callable[[str], None]) -> Outcome:
    """Carry a load out on a site. Errors: `BrokerError`, `UnreachableError`."""

    def tell(progress: Progress) -> None:
        show(f"{progress.phase}: {progress.sent:,} sent, {progress.read:,} read")

    return run_at(site, plan, tell)
