"""Room kept in reserve on the disk, so that a full one stops only what makes the store larger.

Acknowledging overwrites: it needs no room but in the log, and the log begins again at its front
only when its pages have found a place in the database. One length of the log is what that can
take, and one of the journal. So much lies beside the database as a file of zeros, and is given up
when the disk is full; from then on, until it can be laid down again, the store is *sparing*: it
takes no new messages, accounts, rooms or sessions, and reading and acknowledging go on
(docs/decisions/0010).
"""

from __future__ import annotations

import logging
import os
import time
from pathlib import Path
from typing import Final

from broker.core.ports import StoreFullError
from broker.stores.folder import fill
from broker.stores.sqlite_checkpoint import WAL_BYTES
from broker.stores.sqlite_journal import JOURNAL_BYTES

log = logging.getLogger("kotak.store")

#: The file's name beside the database.
BALLAST_NAME: Final = "kotak.ballast"
#: One length of the log and of the journal, and a little for what acknowledging adds: cursors of
#: new devices.
BALLAST_BYTES: Final = WAL_BYTES + JOURNAL_BYTES + 1_048_576
#: What must be free beyond it before it is laid down: else the next message would take it again.
_SPARE_BYTES: Final = 4 * 1_048_576
#: Seconds between two attempts to lay it down again; each looks only, until there is room.
RETRY_S: Final = 0.5


class SparingError(StoreFullError):
    """Refused while the store is sparing; nothing was tried."""

    def __init__(self) -> None:
        super().__init__("the disk is full: what is left is for reading and acknowledging")


class Ballast:
    """The file beside a database. Errors: `OSError`, when the disk fails otherwise than by want."""

    def __init__(self, database: Path) -> None:
        self._path = database.with_name(BALLAST_NAME)
        self._retry_at = 0.0
        #: Whether the reserve is in use, or there never was room for one.
        self.sparing = False

    def lay(self) -> None:
        """Lay the reserve down unless it is there; where there is no room, begin to spare."""
        if not self.sparing and not self._laid():
            self._begin("there is too little room on the disk")

    def give_up(self) -> bool:
        """Give the room back to the file system, and begin to spare; tell whether there was any."""
        there = self._path.exists()
        self._path.unlink(missing_ok=True)
        if not self.sparing:
            self._begin("the disk is full")
        return there

    def regain(self) -> None:
        """End the sparing when there is room again; looks every `RETRY_S` at most."""
        now = time.monotonic()
        if now < self._retry_at:
            return
        self._retry_at = now + RETRY_S
        if self._laid():
            self.sparing = False
            log.info("there is room on the disk again: messages are accepted")

    def _begin(self, why: str) -> None:
        self.sparing = True
        self._retry_at = time.monotonic() + RETRY_S
        log.error(
            "%s: nothing new is accepted, reading and acknowledging go on. Once %d MiB are free, "
            "all goes on by itself",
            why,
            (BALLAST_BYTES + _SPARE_BYTES) // 1_048_576 + 1,
        )

    def _laid(self) -> bool:
        try:
            if self._path.stat().st_size == BALLAST_BYTES:
                return True
        except FileNotFoundError:
            pass
        disk = os.statvfs(self._path.parent)
        if disk.f_bavail * disk.f_frsize < BALLAST_BYTES + _SPARE_BYTES:
            return False
        if fill(self._path, BALLAST_BYTES):
            return True
        self._path.unlink()
        return False
