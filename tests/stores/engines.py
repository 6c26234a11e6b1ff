"""The engines that the contract is run over. A new one joins by one class and one row of `ENGINES`.

An engine whose server is absent skips on a developer's machine and fails where CI=true: there its
absence would be a test that silently stopped testing.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from itertools import count
from pathlib import Path
from typing import Protocol
from unittest.mock import patch

import pytest

from broker.core.ports import Store, StoreLimits
from broker.stores import sqlite
from broker.stores.memory import MemoryStore
from broker.stores.redis import RedisStore
from broker.stores.sqlite import SqliteStore
from tests.stores import redis_server
from tests.stores.sqlite_steps import as_killed

MAILBOX_MESSAGES_MAX = 5
LIMITS = StoreLimits(mailbox_messages_max=MAILBOX_MESSAGES_MAX)


class Engine(Protocol):
    """Opens stores over one and the same place."""

    #: Does what was committed outlive the store object?
    durable: bool
    #: Is a store that was reopened another object?
    reopens: bool
    #: Are ids remembered by recipient, and go with its mailbox? Then one sender's id is another
    #: message's at another recipient. Else they are remembered by sender, over all mailboxes.
    ids_per_mailbox: bool
    #: Does what was given to a reader outlive the store object?
    remembers_given: bool
    #: Is all walked along as one log when it is tidied, or one mailbox beside the other?
    one_log: bool

    def open(self, limits: StoreLimits = LIMITS) -> Store: ...

    def reopen(self, store: Store) -> Store: ...

    def close(self) -> None: ...


class MemoryEngine:
    """Nothing to reopen: the same object again."""

    durable = False
    reopens = False
    ids_per_mailbox = False
    remembers_given = False
    one_log = True

    def __init__(self, folder: Path) -> None:
        pass

    def open(self, limits: StoreLimits = LIMITS) -> Store:
        return MemoryStore(limits)

    def reopen(self, store: Store) -> Store:
        return store

    def close(self) -> None:
        pass


class _Outside:
    """Kept outside of this process; `reopens` says whether a second store tells the same."""

    reopens = False

    def __init__(self) -> None:
        self._opened: list[Store] = []
        self._limits = LIMITS

    def _made(self, limits: StoreLimits) -> Store:
        raise NotImplementedError

    def open(self, limits: StoreLimits = LIMITS) -> Store:
        self._limits = limits
        store = self._made(limits)
        self._opened.append(store)
        return store

    def reopen(self, store: Store) -> Store:
        if not self.reopens:
            return store
        store.close()
        self._opened.remove(store)
        return self.open(self._limits)

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()


class SqliteEngine(_Outside):
    """One file."""

    durable = True
    ids_per_mailbox = False
    remembers_given = False
    one_log = True

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self._path = folder / "kotak.db"

    def _made(self, limits: StoreLimits) -> Store:
        return SqliteStore(self._path, limits)


class ReopenedSqliteEngine(SqliteEngine):
    """The same contract, with a restart wherever a test allows one."""

    reopens = True


class KilledSqliteEngine(SqliteEngine):
    """The same contract, with a kill wherever a test allows a restart.

    And with a journal that is taken in often, so that a kill comes before it and behind it.
    """

    reopens = True

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self._few = patch.object(sqlite, "JOURNALLED_MAX", 3)
        self._few.start()

    def reopen(self, store: Store) -> Store:
        left = as_killed(self._path, self._path.parent / "again")
        self._path = left
        return super().reopen(store)

    def close(self) -> None:
        super().close()
        self._few.stop()


_NUMBERS = count(1)


class RedisEngine(_Outside):
    """One server for all tests; each has a prefix of its own."""

    durable = True
    ids_per_mailbox = True
    remembers_given = True
    one_log = False

    def __init__(self, folder: Path) -> None:
        if not redis_server.installed():
            absent("redis-server is not installed: apt-get install redis-server")
        super().__init__()
        self._url = f"{self._server_url()}?prefix=test{next(_NUMBERS)}"

    def _server_url(self) -> str:
        return redis_server.shared_server().url

    def _made(self, limits: StoreLimits) -> Store:
        return RedisStore(self._url, limits)


class ReopenedRedisEngine(RedisEngine):
    """Another broker wherever a test allows a restart."""

    reopens = True


class RedisClusterEngine(RedisEngine):
    """Three primaries: what is not in one slot is on different servers."""

    def _server_url(self) -> str:
        return redis_server.shared_cluster().url


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "memory": MemoryEngine,
    "sqlite": SqliteEngine,
    "sqlite reopened": ReopenedSqliteEngine,
    "sqlite killed": KilledSqliteEngine,
    "redis": RedisEngine,
    "redis reopened": ReopenedRedisEngine,
    "redis cluster": RedisClusterEngine,
}


def marks_of(name: str) -> Collection[pytest.MarkDecorator]:
    """Return how an engine's runs are marked: a slice of a cluster's is in test_redis_cluster."""
    return [pytest.mark.slow] if name == "redis cluster" else []


def absent(why: str) -> None:
    """Give up on an engine that is not there: a skip here, a failure in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)
