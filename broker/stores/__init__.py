"""Engines behind the store port, by URL."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from broker.core.ports import Store, StoreLimits, StoreUnusableError
from broker.stores.folder import DataFolder
from broker.stores.memory import MemoryStore
from broker.stores.sqlite import SqliteStore

if TYPE_CHECKING:
    from broker.stores.redis import RedisStore

#: Engines of one broker, with all mailboxes in its memory.
LocalStore = MemoryStore | SqliteStore


def open_store(url: str, folder: DataFolder, limits: StoreLimits) -> Store:
    """Open the engine of a URL. Errors: `StoreUnusableError`.

    ``sqlite:`` (in the data folder), ``memory:``, or ``redis://`` and its like.
    """
    if url == "memory:":
        # Above all that the one before can have given out, so that no client mistakes the two.
        return MemoryStore(limits, first_seq=time.time_ns() >> 10)
    if url == "sqlite:":
        return SqliteStore(folder.database, limits)
    if url.startswith("redis"):
        return _redis_store()(url, limits)
    raise StoreUnusableError(f"there is no store {url!r}: use sqlite:, memory: or redis://HOST")


def place_of(url: str) -> str:
    """Tell people where a store's URL leads to; never a password.

    Errors: `StoreUnusableError`: an option that is none, a library that is not installed.
    """
    if not url.startswith("redis"):
        return "memory" if url == "memory:" else "the data folder"
    _redis_store()
    from broker.stores.redis.url import parse_url

    return f"Redis at {parse_url(url).where}"


def _redis_store() -> type[RedisStore]:
    # Late, since the library is an extra: who keeps messages in SQLite does not need it.
    try:
        from broker.stores.redis import RedisStore
    except ImportError as error:
        if (error.name or "").partition(".")[0] != "redis":
            raise
        raise StoreUnusableError(
            "a store in Redis needs the library redis: pip install 'kotak[redis]'"
        ) from error
    return RedisStore
