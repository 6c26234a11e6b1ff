"""What an administrator may have the running broker do: read its files anew, take a backup.

`broker.core.ports.Operations`, for the core's handlers, which call it as slow work without the
baton. Source: docs/PROTOCOL.md, "Administration".
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from broker.core.model import BackupTaken
from broker.stores.sqlite_backup import BACKUPS_FOLDER, SUFFIX, back_up
from broker.wire.errors import Code, WireError

log = logging.getLogger("kotak.server")

#: When to ask again while a backup is being taken, in milliseconds.
_RETRY_MS: Final = 1_000


class Reloaded(NamedTuple):
    """What came of reading files anew: the settings' names, and what stays as it was, and why."""

    names: list[str]
    kept: list[str]


class RunningOperations:
    """Of one run. ``database`` is the store's URL where messages are kept elsewhere.

    ``reload`` tells what was read anew, and what stays as it was. ``stopping`` tells that the
    broker is: a backup under way is given up then, since stopping takes a few seconds at most.
    """

    def __init__(
        self,
        database: Path | str,
        *,
        reload: Callable[[], Reloaded],
        stopping: Callable[[], bool],
    ) -> None:
        self._database = database
        self._reload = reload
        self._stopping = stopping
        self._backing_up = threading.Lock()
        self.started_at_ms = time.time_ns() // 1_000_000

    def reload(self) -> list[str]:
        """Read certificate and enrolled keys anew, as SIGHUP does; return the settings' names.

        Errors: `WireError` ``bad_request``, where a file cannot be used: the former stands.
        """
        reloaded, kept = self._reload()
        if kept:
            raise WireError(
                Code.BAD_REQUEST,
                f"what was there stays in use ({'; '.join(kept)}): mend the file on the broker's "
                "machine, and reload again",
            )
        return reloaded

    def backup(self, name: str | None) -> BackupTaken:
        """Copy what is committed by now into the data folder, by the time where it has no name.

        Errors: `WireError`: ``bad_request`` (nothing is on disk), ``busy`` (one is being taken),
        and those of `back_up`.
        """
        if not isinstance(self._database, Path):
            raise WireError(
                Code.BAD_REQUEST,
                "this broker keeps its messages in memory (--store memory:): there is nothing on "
                "disk to back up"
                if self._database == "memory:"
                else "this broker keeps its messages in Redis: take a backup there",
            )
        if not self._backing_up.acquire(blocking=False):
            raise WireError(Code.BUSY, "a backup is being taken: wait for its end", _RETRY_MS)
        try:
            return self._take(self._database, name)
        finally:
            self._backing_up.release()

    def _take(self, database: Path, name: str | None) -> BackupTaken:
        began = time.monotonic()
        taken = back_up(database, name or _by_time(database.parent), stopping=self._stopping)
        took_ms = int((time.monotonic() - began) * 1_000)
        log.info("a backup was taken: %s, %d bytes, %d ms", taken.path.name, taken.bytes, took_ms)
        return BackupTaken(str(taken.path), taken.bytes, taken.messages, taken.epoch, took_ms)


class StoppedOperations(RunningOperations):
    """Of a broker that does not run: a backup is taken all the same, for the rest there is none."""

    def __init__(self, database: Path | str) -> None:
        super().__init__(database, reload=_refuse, stopping=lambda: False)


def _refuse() -> Reloaded:
    raise WireError(Code.UNAVAILABLE, "no broker runs there: what it reads, it reads at its start")


def time_stamp() -> str:
    """Return the time for a file's name, in UTC: sorted by name is sorted by time."""
    return time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())


def _by_time(folder: Path) -> str:
    name, number = stamp, _ = time_stamp(), 1
    while (folder / BACKUPS_FOLDER / f"{name}{SUFFIX}").exists():
        number += 1
        name = f"{stamp}-{number}"
    return name
