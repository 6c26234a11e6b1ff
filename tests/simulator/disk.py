"""The disk under a simulated broker: opened, crashed, opened again, now and then put back.

The default engine is the real one, on a file system in memory and without syncs: what a process
that dies has committed is then exactly what is there. (Power cuts, which tell a sync from none,
are not its business.) The engine in memory has no crash: it shows that a batch is undone.
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import (
    AbstractContextManager,
    closing,
    contextmanager,
    nullcontext,
    suppress,
)
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Protocol
from unittest.mock import patch

from broker.core.ports import StoreLimits
from broker.core.subscriptions import Subscription
from broker.stores import (
    memory,
    sqlite,
    sqlite_ballast,
    sqlite_epoch,
    sqlite_schema,
)
from broker.stores.memory import MemoryStore
from broker.stores.redis import RedisStore
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_epoch import WITNESS_NAME, Witness
from broker.stores.sqlite_journal import JOURNAL_NAME
from tests.simulator.faults import Faults, FaultyStore
from tests.simulator.plan import Plan, plan_of

Engine = SqliteStore | MemoryStore | RedisStore
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

    def guard(self, engine: Any, faults: Faults) -> FaultyStore:
        """Let an engine fail where it is told to."""

    def last(self, engine: Any) -> int:
        """Return the highest sequence there is."""

    def beside(self) -> Disk:
        """Return the same data for another broker."""

    def waits(self, engine: Any, user: str, device: str) -> bool:
        """Tell whether a reader has something to read."""


class _Local:
    """All mailboxes are in the broker's memory."""

    def guard(self, engine: Any, faults: Faults) -> FaultyStore:
        return FaultyStore(engine, faults)

    def last(self, engine: Any) -> int:
        last: int = engine.mailboxes.last
        return last

    def beside(self) -> Disk:
        raise AssertionError("a broker is alone with it")

    def waits(self, engine: Any, user: str, device: str) -> bool:
        boxes = engine.mailboxes
        box = boxes.find(user)
        return len(box.waiting(boxes.reader(box, device), 0, 1)) > 0


class MemoryDisk(_Local):
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


class SqliteDisk(_Local):
    """A folder with the broker's database, begun as a copy of an empty one."""

    def __init__(self, folder: Path, template: Path, limits: StoreLimits) -> None:
        self._path = folder / _DATABASE
        self._limits = limits
        self._backup = folder / "backup"
        self._engine: SqliteStore | None = None
        shutil.rmtree(folder)
        folder.mkdir()
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
        shutil.rmtree(self._backup, ignore_errors=True)
        self._backup.mkdir()
        for name in (_DATABASE, JOURNAL_NAME):
            if self._path.with_name(name).exists():
                shutil.copy(self._path.with_name(name), self._backup)

    def put_back(self) -> None:
        if self._backup.exists():
            self._path.with_name(JOURNAL_NAME).unlink(missing_ok=True)
            shutil.copytree(self._backup, self._path.parent, dirs_exist_ok=True)
            # As docs/DURABILITY.md asks of whoever does this.
            self._path.with_name(WITNESS_NAME).unlink()


class Place(Protocol):
    """Makes the disks of many runs."""

    def plan(self, seed: int) -> Plan:
        """Draw the plan of a seed."""

    def disk(self, plan: Plan, limits: StoreLimits) -> Disk:
        """Return an empty disk; the one before is gone."""

    def repeatable(self, chance: object) -> AbstractContextManager[None]:
        """Take chance and time out of what is special to its engines."""


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

    def plan(self, seed: int) -> Plan:
        return plan_of(seed)

    def disk(self, plan: Plan, limits: StoreLimits) -> Disk:
        if plan.engine == "memory":
            return MemoryDisk(limits)
        return SqliteDisk(self._folder, self._template, limits)

    def repeatable(self, chance: object) -> AbstractContextManager[None]:
        return nullcontext()


@contextmanager
def disks() -> Iterator[Disks]:
    """Make a place for disks, in memory where the system has one."""
    shm = Path("/dev/shm")
    with (
        TemporaryDirectory(prefix="kotak-simulator-", dir=shm if shm.is_dir() else None) as folder,
        # The WAL's full length saves syncs (docs/decisions/0007); there are none here.
        patch.object(sqlite_schema, "_extend_wal", lambda *_: None),
        patch.object(sqlite_ballast, "BALLAST_BYTES", 1),
        # So few that every run comes there.
        patch.object(sqlite, "JOURNALLED_MAX", 5),
    ):
        yield Disks(Path(folder))


class _Chance:
    """Stands for `secrets` and for `time` in the engines."""

    def __init__(
        self, luck: Random, clock_ms: Callable[[], int], since_us: Callable[[], int]
    ) -> None:
        self.randbelow = luck.randrange
        self.token_hex = lambda count: luck.randbytes(count).hex()
        self.time_ns = lambda: clock_ms() * 1_000_000
        self.monotonic = lambda: since_us() / 1e6


@contextmanager
def repeatable(
    place: Place, luck: Random, clock_ms: Callable[[], int], since_us: Callable[[], int]
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
        place.repeatable(chance),
    ):
        yield
