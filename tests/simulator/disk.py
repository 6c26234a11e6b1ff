"""The disk under a simulated broker: opened, crashed, opened again, now and then put back.

The default engine is the real one, on a file system in memory and without syncs: what a process
that dies has committed is then exactly what is there. (Power cuts, which tell a sync from none,
are not its business.) The engine in memory has no crash: it shows that a batch is undone.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Protocol
from unittest.mock import patch

from broker.core.ports import StoreLimits
from broker.core.subscriptions import Subscription
from broker.stores import memory, sqlite_ballast, sqlite_epoch, sqlite_schema
from broker.stores.memory import MemoryStore
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_epoch import WITNESS_NAME, Witness

Engine = SqliteStore | MemoryStore
_DATABASE = "kotak.db"
#: Every run begins in it, so that runs are alike.
_FIRST_EPOCH = 1


class Disk(Protocol):
    """Where a broker's lives follow one another."""

    def open(self) -> Engine: ...
    def crash(self) -> None:
        """Let go of the engine as a dying process does: nothing is written any more."""

    def back_up(self) -> None:
        """Keep a copy of what is committed now. Only while no engine is open."""

    def put_back(self) -> None:
        """Put the copy in place of what is there. Only while no engine is open."""


class MemoryDisk:
    """Nothing to crash."""

    def __init__(self, limits: StoreLimits) -> None:
        self._engine = MemoryStore(limits)

    def open(self) -> Engine:
        return self._engine

    def crash(self) -> None:
        raise AssertionError("the engine in memory does not survive a crash")

    def back_up(self) -> None:
        raise AssertionError("nothing to back up")

    def put_back(self) -> None:
        raise AssertionError("nothing to put back")


class SqliteDisk:
    """A folder with the broker's database, begun as a copy of an empty one."""

    def __init__(self, folder: Path, template: Path, limits: StoreLimits) -> None:
        self._path = folder / _DATABASE
        self._limits = limits
        self._backup = folder / "backup.db"
        self._engine: SqliteStore | None = None
        for old in folder.iterdir():
            old.unlink()
        shutil.copy(template / _DATABASE, self._path)
        shutil.copy(template / WITNESS_NAME, folder)

    def open(self) -> Engine:
        self._engine = engine = SqliteStore(self._path, self._limits, check=False)
        engine._database.execute("PRAGMA synchronous = OFF")
        return engine

    def crash(self) -> None:
        assert self._engine is not None
        database, self._engine = self._engine._database, None
        with suppress(sqlite3.Error):
            database.rollback()
        database.close()

    def back_up(self) -> None:
        shutil.copy(self._path, self._backup)

    def put_back(self) -> None:
        if self._backup.exists():
            shutil.copy(self._backup, self._path)
            # As docs/DURABILITY.md asks of whoever does this.
            self._path.with_name(WITNESS_NAME).unlink()


class Disks:
    """Makes the disks of many runs in one folder, which it removes at the end."""

    def __init__(self, folder: Path) -> None:
        self._template = folder / "template"
        self._folder = folder / "run"
        self._folder.mkdir()
        self._template.mkdir()
        path = self._template / _DATABASE
        SqliteStore(path).close()
        with closing(sqlite3.connect(path)) as database, database:
            database.execute("UPDATE epoch SET number = ?", (_FIRST_EPOCH,))
        Witness(path.with_name(WITNESS_NAME)).write(_FIRST_EPOCH, 0)

    def disk(self, engine: str, limits: StoreLimits) -> Disk:
        """Return an empty disk; the one before is gone."""
        if engine == "memory":
            return MemoryDisk(limits)
        return SqliteDisk(self._folder, self._template, limits)


@contextmanager
def disks() -> Iterator[Disks]:
    """Make a place for disks, in memory where the system has one."""
    shm = Path("/dev/shm")
    with (
        TemporaryDirectory(prefix="kotak-simulator-", dir=shm if shm.is_dir() else None) as folder,
        # The WAL's full length saves syncs (docs/decisions/0007); there are none here.
        patch.object(sqlite_schema, "_extend_wal", lambda *_: None),
        patch.object(sqlite_ballast, "BALLAST_BYTES", 1),
    ):
        yield Disks(Path(folder))


class _Chance:
    """Stands for `secrets` and for `time` in the engines."""

    def __init__(
        self, luck: Random, clock_ms: Callable[[], int], since_us: Callable[[], int]
    ) -> None:
        self.randbelow = luck.randrange
        self.time_ns = lambda: clock_ms() * 1_000_000
        self.monotonic = lambda: since_us() / 1e6


@contextmanager
def repeatable(
    luck: Random, clock_ms: Callable[[], int], since_us: Callable[[], int]
) -> Iterator[None]:
    """Take chance out of the broker: its engines have this luck and these clocks.

    ``clock_ms``: of the machine; ``since_us``: since the run began. And sets are in one order.
    """
    chance = _Chance(luck, clock_ms, since_us)
    with (
        patch.object(memory, "secrets", chance),
        patch.object(sqlite_epoch, "secrets", chance),
        patch.object(sqlite_epoch, "time", chance),
        patch.object(sqlite_ballast, "time", chance),
        # By default a hash is an address, and by it goes the order in which a set is walked.
        patch.object(Subscription, "__hash__", lambda self: self.number),
    ):
        yield
