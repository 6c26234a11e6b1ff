"""Every call that the proof makes on the store, in one place: when the port changes, this does."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, Final

from broker.core.model import Account
from broker.core.ports import StoreLimits
from broker.stores import sqlite
from broker.stores.folder import DATABASE_FILE
from broker.stores.sqlite import SqliteStore
from tests.proof.history import Seen, digest

_SQLITE: Final[Any] = sqlite
_BYTES_MAX: Final = 1_000_000
_DEVICE: Final = ""  # the user's own reader


def text_of(message_id: str) -> str:
    """Return the text that belongs to an id, which ends in its length: ``NAME-BYTES``."""
    length = int(message_id.rpartition("-")[2])
    return (f"{message_id} " * (length // (len(message_id) + 1) + 1))[:length]


class StoreCalls:
    """The store in a folder. Errors: those of `broker.core.ports`."""

    def __init__(self, folder: Path, *, retention_read_ms: int = 86_400_000) -> None:
        limits = StoreLimits(retention_read_ms=retention_read_ms)
        self._store = SqliteStore(folder / DATABASE_FILE, limits)

    @property
    def epoch(self) -> int:
        return self._store.epoch.number

    def batch(self) -> AbstractContextManager[None]:
        return self._store.batch()

    def append(self, to: str, sender: str, message_id: str) -> int:
        """Append the text of an id; return its sequence."""
        text = text_of(message_id)
        return self._store.append(to, sender, message_id, text, _now_ms()).seq

    def read(self, user: str, limit: int) -> tuple[Seen, ...]:
        """Return the oldest messages that wait."""
        page = self._store.read(user, _DEVICE, 0, limit, _BYTES_MAX)
        return tuple(Seen(m.seq, m.sender, m.message_id, digest(m.text)) for m in page.messages)

    def acknowledge(self, user: str, seq: int) -> None:
        self._store.acknowledge(user, _DEVICE, seq)

    def tidy(self) -> None:
        self._store.tidy(_now_ms())

    def add_users(self, users: Iterable[str], password_hash: str = "no password fits") -> None:
        """Add those that are not there yet; a batch of its own."""
        with self._store.batch():
            for user in users:
                if self._store.find(Account, user) is None:
                    self._store.put(Account(user, user, password_hash))

    def set_pragma(self, name: str, value: str | int) -> list[list[object]]:
        """Spoil, or speed up, what the store has set: the tests' own doing. Return its answer."""
        rows = self._store._database.execute(f"PRAGMA {name} = {value}")
        return [list(row) for row in rows]

    def checkpoint_at(self, pages: int) -> None:
        """Move the log into the database as soon as it has so many pages."""
        self._store._wal.pages_max = pages

    def settle_at(self, changes: int) -> None:
        """Take the journal into the database as soon as it has so many changes."""
        _SQLITE.JOURNALLED_MAX = changes  # of this process

    def damage(self) -> str:
        """Return what SQLite finds wrong with the file, ``ok`` for nothing."""
        rows = self._store._database.execute("PRAGMA integrity_check").fetchall()
        return "; ".join(str(row[0]) for row in rows)

    def close(self) -> None:
        self._store.close()


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
