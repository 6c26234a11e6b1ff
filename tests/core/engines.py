"""The engines that the model test runs over: each fails on demand, and is started anew."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from itertools import count
from pathlib import Path

from broker.core.ports import StoreLimits
from broker.stores.redis import RedisStore
from broker.stores.redis.keys import Keys
from broker.stores.sqlite import SqliteStore
from tests.core.fakes import FaultyStore
from tests.core.sequences import Rising, Same, Sequences
from tests.stores import redis_server
from tests.stores.engines import absent

USERS = ("ann", "ben", "cat")
ROOMS = ("#a", "#b", "#c")
LIMITS = StoreLimits(mailbox_messages_max=12)


class FaultySqlite(SqliteStore):
    """The durable store, whose commits fail on demand."""

    commit_faults: list[Exception | None]

    @contextmanager
    def batch(self) -> Iterator[None]:
        with super().batch():
            yield
            fault = self.commit_faults.pop(0) if self.commit_faults else None
            if fault is not None:
                raise fault


class FaultyRedis(RedisStore):
    """The shared store, whose batches are refused on demand, before anything of them is done.

    Of one that breaks off nobody knows how much was done: see `tests.simulator`.
    """

    commit_faults: list[Exception | None]

    @contextmanager
    def batch(self) -> Iterator[None]:
        fault = self.commit_faults.pop(0) if self.commit_faults else None
        if fault is not None:
            raise fault
        with super().batch():
            yield


Faulty = FaultyStore | FaultySqlite | FaultyRedis


class Memory:
    """Where the engine keeps what it has: nowhere. It lives on when the broker is started anew."""

    durable = False
    one_log = True

    def __init__(self) -> None:
        self.sequences: Sequences = Same()
        self._store = FaultyStore(LIMITS)

    def open(self) -> Faulty:
        return self._store

    def restart(self, store: Faulty) -> Faulty:
        return store

    def learn(self, told: Iterable[int] = ()) -> None:
        """Look which sequences there are, beside those that were told."""

    def close(self) -> None:
        pass


class Sqlite(Memory):
    """In a file, which is all that is left when the broker is started anew."""

    durable = True

    def __init__(self) -> None:
        super().__init__()
        base = "/dev/shm" if Path("/dev/shm").is_dir() else None
        self._folder = Path(tempfile.mkdtemp(dir=base))

    def open(self) -> Faulty:
        store = FaultySqlite(self._folder / "kotak.db", LIMITS, check=False)
        store.commit_faults = []
        return store

    def restart(self, store: Faulty) -> Faulty:
        store.close()
        return self.open()

    def close(self) -> None:
        shutil.rmtree(self._folder)


_PREFIXES = count(1)


@cache
def server() -> redis_server.Server:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")
    return redis_server.Server("--appendonly", "no")


class Redis(Memory):
    """On a server, which knows what was delivered: a new broker goes on where the last one was."""

    one_log = False

    def __init__(self) -> None:
        super().__init__()
        prefix = f"model{next(_PREFIXES)}"
        self.sequences = Rising()
        self._url = f"{server().url}?allow_memory=yes&prefix={prefix}"
        self._keys = Keys(prefix)
        self._client = server().client()

    def open(self) -> Faulty:
        store = FaultyRedis(self._url, LIMITS)
        store.commit_faults = []
        return store

    def restart(self, store: Faulty) -> Faulty:
        store.close()
        # As if half a minute had passed: by then nobody may be making a room any more.
        self._client.delete(*(self._keys.of(room, "claim") for room in ROOMS))
        return self.open()

    def learn(self, told: Iterable[int] = ()) -> None:
        with self._client.pipeline(transaction=False) as pipeline:
            for name in (*USERS, *ROOMS):
                pipeline.zrange(self._keys.of(name, "box"), 0, -1, withscores=True)
            boxes = pipeline.execute()
        self.sequences.learn([*told, *(int(score) for box in boxes for _, score in box)])

    def close(self) -> None:
        self._client.close()


PLACES: dict[str, type[Memory]] = {"memory": Memory, "sqlite": Sqlite, "redis": Redis}


def stop_server() -> None:
    """End the server, if one was started."""
    if server.cache_info().currsize:
        server().stop()
        server.cache_clear()
