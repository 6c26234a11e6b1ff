"""A real Redis server under a simulated broker, in place of its disk.

The server carries out the broker's own scripts. Two things are taken out of them, so that a run can
be repeated: sequences count from 1 where they would be the server's time, and the thread that hears
of other brokers is a look, now and then, at what it would have compared.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from random import Random
from typing import Any, Final
from unittest.mock import patch

from broker.core.model import News
from broker.core.ports import StoreLimits
from broker.stores.redis import RedisStore, link, news, nodes, records, store, telling, witness
from broker.stores.redis.keys import Keys
from broker.stores.redis.news import COMPARE_S, Ears, Listener
from broker.stores.redis.url import RedisUrl
from tests.simulator.faults import Faults, SharedFaultyStore
from tests.simulator.plan import Plan, over_redis
from tests.simulator.wire import Wire, node_on
from tests.stores.redis_server import Server

#: Counts the sequences of a run.
_CLOCK: Final = "clock"
#: Of the looks that come before a comparison is due: as when a hint has arrived.
_HINTS: Final = 0.15


class Hears(Listener):
    """Hears of other brokers by looking, in the thread of its caller."""

    luck: Random

    def __init__(self, url: RedisUrl, keys: Keys) -> None:
        super().__init__(url, keys)
        self._ears: Ears | None = None
        self._node = nodes.Node
        self._next_at = 0.0

    def news(self) -> Sequence[News]:
        try:
            with patch.object(nodes, "Node", self._node):
                self._look()
        except news._FAILURES:
            self._hang_up()
        return super().news()

    def close(self) -> None:
        self._hang_up()
        super().close()

    def _begin(self) -> None:
        """Begin no thread."""

    def _ring(self) -> None:
        """Ring for nobody."""

    def _look(self) -> None:
        ears, now = self._ears, vars(news)["time"].monotonic()
        if ears is None:
            ears = self._ears = Ears(
                self._url, self._keys, self._bell, self._say, self._tried.append
            )
            ears._link = link.Link(self._url)
        if ears.wanted != self._wanted or ears._opening:
            ears._fresh = set(self._wanted - ears.wanted)
            ears._last = {name: seq for name, seq in ears._last.items() if name in self._wanted}
            ears.wanted = self._wanted
            ears._look_at_fresh()
        if now >= self._next_at or self.luck.random() < _HINTS:
            ears._compare_mailboxes(ears.wanted)
            ears._compare_changes()
            self._compared_at = now
            self._next_at = max(self._next_at, now + COMPARE_S)

    def _hang_up(self) -> None:
        if self._ears is not None:
            self._ears.close()
            self._ears = None


class RedisDisk:
    """One run's data on a server, which is emptied for it."""

    def __init__(self, server: Server, limits: StoreLimits, seed: int, number: int = 0) -> None:
        luck = Random(f"wire {seed} {number}")
        self._server = server
        self._seed = seed
        self._others: list[RedisDisk] = []
        self._url = f"{server.url}?allow_memory=yes"
        self._limits = limits
        self._client = server.client()
        self.wire = Wire(luck, restart=self._restart)
        self._node = node_on(self.wire)
        self._hears = type("Hears", (Hears,), {"luck": luck})
        self._engine: RedisStore | None = None
        self._looks: RedisStore | None = None

    def beside(self) -> RedisDisk:
        """Return the same data as another broker comes to it, on a way of its own."""
        other = RedisDisk(self._server, self._limits, self._seed, len(self._others) + 1)
        self._others.append(other)
        return other

    def open(self) -> RedisStore:
        self.wire.calm()
        with patch.object(nodes, "Node", self._node), patch.object(store, "Listener", self._hears):
            self._engine = RedisStore(self._url, self._limits)
        return self._engine

    def crash(self) -> None:
        """End the connections, with nothing more said; what is in the server's buffer is there."""
        if self._engine is not None:
            self._engine._link.close()
            self._engine._listener.close()
            self._engine = None

    def guard(self, engine: Any, faults: Faults) -> SharedFaultyStore:
        def unsure() -> None:
            faults.unsure = self.last(engine)

        self.wire.unsure = unsure
        return SharedFaultyStore(engine, faults, lambda: self.last(engine))

    def last(self, engine: Any) -> int:
        del engine
        count: Any = self._client.get(_CLOCK)
        return int(count or 0)

    def waits(self, engine: Any, user: str, device: str) -> bool:
        del engine
        if self._looks is None:
            self._looks = RedisStore(self._url, self._limits)
        with self._looks.batch():
            return self._looks.read(user, device, 0, 0, 1).more

    def back_up(self) -> None:
        raise AssertionError("nothing to back up")

    def put_back(self) -> None:
        raise AssertionError("nothing to put back")

    def close(self) -> None:
        for other in self._others:
            other.close()
        self.crash()
        if self._looks is not None:
            self._looks.close()
        self._client.close()

    def _restart(self) -> None:
        self._server.kill()
        self._server.start()


class RedisPlace:
    """Makes the disks of many runs on one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._disk: RedisDisk | None = None

    def plan(self, seed: int) -> Plan:
        return over_redis(seed)

    def disk(self, plan: Plan, limits: StoreLimits) -> RedisDisk:
        """Return an empty one; the one before is gone."""
        self.close()
        with self._server.client() as client:
            client.flushall()
        self._disk = RedisDisk(self._server, limits, plan.seed)
        return self._disk

    @contextmanager
    def repeatable(self, chance: object) -> Iterator[None]:
        """Take chance and time out of the engine as well."""
        with (
            patch.object(nodes, "time", chance),
            patch.object(news, "time", chance),
            patch.object(records, "time", chance),
            patch.object(store, "time", chance),
            patch.object(witness, "time", chance),
            patch.object(store, "secrets", chance),
            patch.object(telling, "secrets", chance),
        ):
            yield

    def close(self) -> None:
        if self._disk is not None:
            self._disk.close()
            self._disk = None


@contextmanager
def rewritten(texts: Mapping[str, tuple[str, str]]) -> Iterator[None]:
    """Have scripts say something else; ``texts``: by name, what goes and what takes its place."""
    changed = {}
    for name, (old, new) in texts.items():
        text = link._SCRIPTS[name].decode()
        assert old in text, f"{name} does not say so: {old}"
        changed[name] = text.replace(old, new).encode()
    digests = {name: hashlib.sha1(text).hexdigest() for name, text in changed.items()}
    with patch.dict(link._SCRIPTS, changed), patch.dict(link._DIGESTS, digests):
        yield


@contextmanager
def redis_place() -> Iterator[RedisPlace]:
    """Start a server, which keeps what it has written when it is killed."""
    server = Server("--appendonly", "yes", "--appendfsync", "no")
    counted = ("redis.call('TIME')", f"{{0, redis.call('INCR', '{_CLOCK}')}}")
    try:
        with rewritten({"append": counted, "born": counted}):
            place = RedisPlace(server)
            yield place
            place.close()
    finally:
        server.stop()
