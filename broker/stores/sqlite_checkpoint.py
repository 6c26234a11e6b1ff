"""Moving the write-ahead log into the database, and leaving both alone after the disk has failed.

SQLite would move it by itself, in a hook after the commit that drops every error: a sync that
failed there would be heard by nobody (docs/decisions/0010).
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable, Sequence
from ctypes import py_object, pythonapi
from mmap import PROT_READ, mmap
from pathlib import Path
from typing import Any, Final
from weakref import finalize

from broker.core.ports import StoreUnusableError

Run = Callable[[str, Sequence[Any]], list[Any]]

#: Pages in the log before they are moved (4 KiB each): rarer is cheaper, at up to 16 MiB.
CHECKPOINT_PAGES: Final = 4_000
#: What those pages take in the file: each has a header of 24 bytes, the whole one of 32.
WAL_BYTES: Final = 32 + CHECKPOINT_PAGES * (4_096 + 24)

# Of the log's index, which SQLite keeps in the -shm file, in words of four bytes: its version, the
# number of pages in the log, and how many of them are in the database too. Source: "The WAL-Index
# File Format", https://sqlite.org/walformat.html
_VERSION, _FRAMES, _MOVED = 0, 4, 24
_INDEX_VERSION: Final = 3_007_000
_INDEX_BYTES: Final = 136
#: What is left of an extended error code without its details.
PRIMARY_CODE: Final = 0xFF


class Wal:
    """The log of an open database. ``run`` runs one statement to its end.

    Errors: `StoreUnusableError`, `OSError`.
    """

    def __init__(self, path: Path, run: Run) -> None:
        self.pages_max = CHECKPOINT_PAGES
        self._run = run
        handle = os.open(path.with_name(path.name + "-shm"), os.O_RDONLY | os.O_CLOEXEC)
        # Not before the database is closed: closing *any* handle of a file lets go of all locks
        # that the process has on it, SQLite's own among them.
        self._let_go = finalize(self, os.close, handle)
        self._let_go.atexit = False
        self._map = mmap(handle, _INDEX_BYTES, prot=PROT_READ)
        self._index = memoryview(self._map).cast("I")
        if self._index[_VERSION] != _INDEX_VERSION:
            raise StoreUnusableError(
                f"SQLite {sqlite3.sqlite_version} keeps its log in a way that is not known here: "
                "use the one that this version of Kotak was tested with"
            )

    @property
    def due(self) -> bool:
        """Tell whether the log has so many pages that they should be moved."""
        # Hot path: a look into memory, a fraction of a microsecond after each commit.
        frames = self._index[_FRAMES]
        return frames >= self.pages_max and frames > self._index[_MOVED]

    def checkpoint(self) -> None:
        """Move what no reader needs in the log. Errors: those of ``run``."""
        self._run("PRAGMA wal_checkpoint(PASSIVE)", ())

    def close(self) -> None:
        """Let go of the index; the database was closed before."""
        self._index.release()
        self._map.close()
        self._let_go()


def abandon(database: sqlite3.Connection) -> None:
    """Leave a database as it is after its disk has failed: nothing is moved, nothing is synced.

    Closing it would do both, and a second sync may report success for pages that the kernel
    dropped when the first one failed.
    """
    if sys.version_info >= (3, 12):  # pragma: no cover - the setting is newer than Python 3.11
        database.setconfig(sqlite3.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE)
        database.close()
    else:
        # A reference that nobody gives back: it stays open until the process is gone.
        pythonapi.Py_IncRef(py_object(database))


def end(database: sqlite3.Connection, error: BaseException) -> None:
    """Close a database that could not be opened, or abandon it where the disk was the reason."""
    code = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
    if code == sqlite3.SQLITE_IOERR or isinstance(error, OSError):
        abandon(database)
    else:
        database.close()
