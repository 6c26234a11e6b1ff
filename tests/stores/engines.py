"""The engines that the contract is run over. A new one joins by one class and one row of `ENGINES`.

An engine whose server is absent skips on a developer's machine and fails where CI=true: there its
absence would be a test that silently stopped testing.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import pytest

from broker.core.dedup import DedupLimits
from broker.core.ports import Store
from broker.stores.memory import MemoryStore
from broker.stores.sqlite import SqliteStore

MAILBOX_MESSAGES_MAX = 5
DEDUP = DedupLimits()


class Engine(Protocol):
    """Opens stores over one and the same place."""

    #: Does what was committed outlive the store object?
    durable: bool

    def open(
        self, *, messages_max: int = MAILBOX_MESSAGES_MAX, dedup: DedupLimits = DEDUP
    ) -> Store: ...

    def reopen(self, store: Store) -> Store: ...

    def close(self) -> None: ...


class MemoryEngine:
    """Nothing to reopen: the same object again."""

    durable = False

    def __init__(self, folder: Path) -> None:
        pass

    def open(
        self, *, messages_max: int = MAILBOX_MESSAGES_MAX, dedup: DedupLimits = DEDUP
    ) -> Store:
        return MemoryStore(mailbox_messages_max=messages_max, dedup=dedup)

    def reopen(self, store: Store) -> Store:
        return store

    def close(self) -> None:
        pass


class SqliteEngine:
    """One file; `reopen` says whether a second object over it tells the same."""

    durable = True
    reopens = False

    def __init__(self, folder: Path) -> None:
        self._path = folder / "kotak.db"
        self._opened: list[Store] = []
        self._limits = (MAILBOX_MESSAGES_MAX, DEDUP)

    def open(
        self, *, messages_max: int = MAILBOX_MESSAGES_MAX, dedup: DedupLimits = DEDUP
    ) -> Store:
        self._limits = (messages_max, dedup)
        store = SqliteStore(self._path, mailbox_messages_max=messages_max, dedup=dedup)
        self._opened.append(store)
        return store

    def reopen(self, store: Store) -> Store:
        if not self.reopens:
            return store
        store.close()
        self._opened.remove(store)
        messages_max, dedup = self._limits
        return self.open(messages_max=messages_max, dedup=dedup)

    def close(self) -> None:
        while self._opened:
            self._opened.pop().close()


class ReopenedSqliteEngine(SqliteEngine):
    """The same contract, with a restart wherever a test allows one."""

    reopens = True


ENGINES: dict[str, Callable[[Path], Engine]] = {
    "memory": MemoryEngine,
    "sqlite": SqliteEngine,
    "sqlite reopened": ReopenedSqliteEngine,
}


def absent(why: str) -> None:
    """Give up on an engine that is not there: a skip here, a failure in CI."""
    if os.environ.get("CI") == "true":
        pytest.fail(why)
    pytest.skip(why)
