"""The journal: what batches have changed that the database has not taken in yet.

A file of fixed length beside the database. A batch is one record, written behind the last one and
synced: one short write to blocks that the file has already, where a commit of the database writes
whole pages. The next commit of the database takes in all that stands in the journal and names a new
*run* in the same transaction, and the journal begins again at its front. So the records of the run
that the database names are those that it does not have. Others are of no account, unless a run
that it does not know stands at the front: those were written behind a commit that it has lost.
Source: docs/decisions/0017.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import sys
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final
from weakref import finalize

from broker.stores.folder import NO_ROOM, fill, sync_folder

#: The journal's name beside the database.
JOURNAL_NAME: Final = "kotak.journal"
#: A batch above it goes to the database at once: what is large should not be written twice.
RECORD_BYTES_MAX: Final = 262_144
#: So full, it is to be taken in, where long texts fill it before there are many of them.
DUE_BYTES: Final = 2_097_152
#: Always room for one record more.
JOURNAL_BYTES: Final = DUE_BYTES + RECORD_BYTES_MAX
#: Records begin at multiples of it, so that a write which the power cuts short harms no other one.
SECTOR_BYTES: Final = 512
#: What the database names while there is no journal.
NO_RUN: Final = 0

# The run, the number of the record within it from 0 on, the bytes of the body, and the CRC-32 of
# those and of the body; little-endian, behind it the body.
_HEAD: Final = struct.Struct("<QIII")
_CHECKED: Final = struct.Struct("<QII")


class DamagedError(Exception):
    """Records stand behind a place that cannot be read, or the file is gone or cut short."""


class Journal:
    """The file, open for writing. Errors: `OSError`; after a failed sync it is not to be used."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        self._let_go = finalize(self, os.close, self._handle)
        self._let_go.atexit = False
        #: Which records count; the database must name it before the first one is written.
        self.run = new_run()
        self._number = 0
        self._place = 0

    @property
    def used(self) -> bool:
        """Tell whether this run has a record."""
        return self._number > 0

    @property
    def due(self) -> bool:
        """Tell whether it is so full that it should be taken in."""
        return self._place >= DUE_BYTES

    def append(self, body: bytes) -> bool:
        """Put a record on the disk; False where it is too large, or there is no room for it.

        Room is there, but a file system that never overwrites wants it once more.
        """
        size = _HEAD.size + len(body)
        if size > RECORD_BYTES_MAX or self._place + size > JOURNAL_BYTES:
            return False
        checked = _CHECKED.pack(self.run, self._number, len(body))
        head = _HEAD.pack(self.run, self._number, len(body), zlib.crc32(body, zlib.crc32(checked)))
        try:
            _write(self._handle, head + body, self._place)
        except OSError as error:
            if error.errno in NO_ROOM:
                return False  # a part of it is a record that was never finished
            raise
        _sync(self._handle)
        self._number += 1
        self._place += _sectors(size)
        return True

    def restart(self, run: int) -> None:
        """Begin at the front: the database has all of it, and names ``run`` now."""
        self.run, self._number, self._place = run, 0, 0

    def close(self) -> None:
        """Let go of the file."""
        self._let_go()

    def remove(self) -> None:
        """Remove the file, after the database was told that there is none.

        Where that cannot be, it stays, and is of no account.
        """
        self.close()
        with suppress(OSError):
            self._path.unlink(missing_ok=True)


def lay(path: Path) -> bool:
    """Make the file in its full length; False where there is no room for it. Errors: `OSError`."""
    if path.exists() and path.stat().st_size == JOURNAL_BYTES:
        return True
    if not fill(path, JOURNAL_BYTES):
        path.unlink()
        return False
    sync_folder(path.parent)
    return True


def new_run() -> int:
    """Return a number that no other run has."""
    return secrets.randbelow(2**62) + 1


def records(path: Path, run: int) -> Iterator[bytes]:
    """Return what stands in the journal of a run, record after record.

    Errors: `OSError`, and behind the last one that can be read `DamagedError`: a record is on the
    disk before the next is written, so none stands behind one that a power cut left unfinished.
    """
    if run == NO_RUN:
        return
    if not path.exists():
        raise DamagedError
    content = path.read_bytes()
    place = number = 0
    while (body := _record(content, place, run, number)) is not None:
        yield body
        number += 1
        place += _sectors(_HEAD.size + len(body))
    for behind in range(place + SECTOR_BYTES, len(content), SECTOR_BYTES):
        if _record(content, behind, run, None) is not None:
            raise DamagedError
    if len(content) < JOURNAL_BYTES:  # it had its length, synced, before its run was named
        raise DamagedError


def front(path: Path) -> int:
    """Return the run of the record at the front, `NO_RUN` where none can be read there.

    Errors: `OSError`.
    """
    if not path.exists():
        return NO_RUN
    with path.open("rb") as file:
        content = file.read(RECORD_BYTES_MAX)
    run = int.from_bytes(content[:8], "little")
    return NO_RUN if _record(content, 0, run, 0) is None else run


def _record(content: bytes, place: int, run: int, number: int | None) -> bytes | None:
    """Return the body of the record at a place, if it is a whole one of that run and number."""
    if place + _HEAD.size > len(content):
        return None
    its_run, its_number, size, checksum = _HEAD.unpack_from(content, place)
    if its_run != run or (number is not None and its_number != number) or size > RECORD_BYTES_MAX:
        return None
    body = content[place + _HEAD.size : place + _HEAD.size + size]
    checked = zlib.crc32(_CHECKED.pack(its_run, its_number, size))
    return body if len(body) == size and zlib.crc32(body, checked) == checksum else None


def _sectors(size_bytes: int) -> int:
    """Return the bytes of the sectors that a record takes."""
    return -(-size_bytes // SECTOR_BYTES) * SECTOR_BYTES


def _write(handle: int, record: bytes, place: int) -> None:
    written = 0
    while written < len(record):
        written += os.pwrite(handle, record[written:], place + written)


def _sync(handle: int) -> None:
    if sys.platform == "darwin":  # pragma: no cover - fsync alone does not reach the platter there
        fcntl.fcntl(handle, fcntl.F_FULLFSYNC)
    else:
        os.fdatasync(handle)
