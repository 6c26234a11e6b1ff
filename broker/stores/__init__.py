"""Engines behind the store port, by URL."""

from __future__ import annotations

from broker.core.dedup import DedupLimits
from broker.core.ports import StoreUnusableError
from broker.stores.folder import DataFolder
from broker.stores.memory import MemoryStore
from broker.stores.sqlite import SqliteStore

#: Every engine so far; each satisfies `broker.core.ports.Store`.
AnyStore = MemoryStore | SqliteStore


def open_store(
    url: str,
    folder: DataFolder,
    *,
    mailbox_messages_max: int,
    dedup: DedupLimits,
    retention_read_ms: int,
) -> AnyStore:
    """Open ``sqlite:`` (in the data folder) or ``memory:``. Errors: `StoreUnusableError`."""
    if url == "memory:":
        return MemoryStore(mailbox_messages_max=mailbox_messages_max, dedup=dedup)
    if url == "sqlite:":
        return SqliteStore(
            folder.database,
            mailbox_messages_max=mailbox_messages_max,
            dedup=dedup,
            retention_read_ms=retention_read_ms,
        )
    raise StoreUnusableError(f"there is no store {url!r}: use sqlite: or memory:")
