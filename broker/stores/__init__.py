"""Engines behind the store port, by URL."""

from __future__ import annotations

import time

from broker.core.ports import StoreLimits, StoreUnusableError
from broker.stores.folder import DataFolder
from broker.stores.memory import MemoryStore
from broker.stores.sqlite import SqliteStore

#: Every engine so far; each satisfies `broker.core.ports.Store`.
AnyStore = MemoryStore | SqliteStore


def open_store(url: str, folder: DataFolder, limits: StoreLimits) -> AnyStore:
    """Open ``sqlite:`` (in the data folder) or ``memory:``. Errors: `StoreUnusableError`."""
    if url == "memory:":
        # Above all that the one before can have given out, so that no client mistakes the two.
        return MemoryStore(limits, first_seq=time.time_ns() >> 10)
    if url == "sqlite:":
        return SqliteStore(folder.database, limits)
    raise StoreUnusableError(f"there is no store {url!r}: use sqlite: or memory:")
