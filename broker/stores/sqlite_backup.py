"""Copies a database in use: all that was committed when the copy began, and nothing of a later one.

The copy is read through a connection of its own that cannot write, so it can neither move the log
nor empty it as it is closed (one connection writes and moves the log, see docs/DURABILITY.md). It
stays in one read transaction from the first page to the last: the writer goes on beside it, and
its log grows meanwhile, since nothing may be overwritten that is still being read. What only the
journal had by then is put into the copy.
"""

from __future__ import annotations

import os
import re
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from broker.stores.folder import NO_ROOM, sync_folder
from broker.stores.sqlite_changes import Changes
from broker.stores.sqlite_checkpoint import WAL_BYTES
from broker.stores.sqlite_journal import JOURNAL_NAME, DamagedError
from broker.stores.sqlite_recovery import outstanding, run_of, take_in
from broker.wire.errors import Code, WireError
from broker.wire.limits import BACKUP_NAME_CHARS_MAX

#: The folder of the backups, in the data folder.
BACKUPS_FOLDER: Final = "backups"
#: What a backup is called behind its name, and until it is whole.
SUFFIX: Final = ".db"
_PARTIAL_SUFFIX: Final = ".partial"
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
#: Pages of one step (1 MiB): between two it is looked whether to go on.
_STEP_PAGES: Final = 256
#: Steps after which the disk is asked to keep what was written: one long sync at the end would be
#: felt by the broker's own.
_STEPS_PER_SYNC: Final = 8
#: Looks at the journal. A busy broker disturbs some: it begins again at its front, or writes.
_LOOKS_MAX: Final = 100
#: What must be free beyond the copy itself: one more length of the log, which grows meanwhile.
_SPARE_BYTES: Final = WAL_BYTES


class Copied(NamedTuple):
    """A backup that stands: its file, its size, the messages in it, and their epoch."""

    path: Path
    bytes: int
    messages: int
    epoch: int


def back_up(database: Path, name: str, *, stopping: Callable[[], bool]) -> Copied:
    """Copy ``database`` to ``backups/NAME.db`` beside it, while it is written to.

    One at a time. Whatever ends it leaves no file behind but a partial one, which the next removes.
    ``stopping`` is asked after each MiB; where it says so, the copy is given up.

    Errors: `WireError`: ``bad_request`` (the name), ``conflict`` (it is taken), ``storage_full``,
    ``unavailable`` (it was given up), ``internal`` (the disk, or a copy that does not hold).
    """
    folder = database.parent / BACKUPS_FOLDER
    target = folder / f"{_checked(name)}{SUFFIX}"
    try:
        _prepare(folder, target)
        partial = folder / f"{name}{_PARTIAL_SUFFIX}"
        try:
            messages, epoch = _copy(database, partial, stopping)
            size_bytes = partial.stat().st_size
            partial.rename(target)
            sync_folder(folder)
        finally:
            _remove(partial)
    except (sqlite3.Error, OSError) as error:
        raise _refusal(error) from error
    return Copied(target, size_bytes, messages, epoch)


def _checked(name: str) -> str:
    # Asked here too: it becomes a path, whoever gave it.
    if len(name) > BACKUP_NAME_CHARS_MAX or _NAME.fullmatch(name) is None:
        raise WireError(
            Code.BAD_REQUEST,
            f"a backup's name has 1 to {BACKUP_NAME_CHARS_MAX} letters, digits, '.', '_' and '-', "
            "a letter or digit first",
        )
    return name


def _prepare(folder: Path, target: Path) -> None:
    if not folder.exists():
        folder.mkdir(mode=0o700)
        sync_folder(folder.parent)
    if target.exists():
        raise WireError(
            Code.CONFLICT,
            f"there is a backup {target.name} already, and none is overwritten: "
            "choose another name, or move it away",
        )
    for left in folder.glob(f"*{_PARTIAL_SUFFIX}*"):  # of a broker that was killed meanwhile
        left.unlink()


def _copy(database: Path, partial: Path, stopping: Callable[[], bool]) -> tuple[int, int]:
    """Fill the file, check it, and have it kept by the disk; return messages and epoch."""
    handle = os.open(partial, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with closing(open_reader(database)) as source, closing(_open(partial)) as copy:
            journalled = _begin(source, database)  # from here on nothing changes
            _require_room(handle, _size_bytes(source))
            _fill(source, copy, handle, stopping)
        with closing(_open(partial)) as copy:
            found = _settle(copy, journalled)
        os.fsync(handle)
    finally:
        # Not before SQLite has done with the file: this would let go of its locks.
        os.close(handle)
    return found


def open_reader(database: Path) -> sqlite3.Connection:
    """Open a database for reading and nothing else: not even its log is moved, now or at the end.

    Errors: `sqlite3.Error`.
    """
    name = f"{database.absolute().as_uri()}?mode=ro"
    reader = sqlite3.connect(name, uri=True, isolation_level=None, check_same_thread=False)
    for pragma in ("query_only = 1", "wal_autocheckpoint = 0", "mmap_size = 0", "temp_store = 2"):
        reader.execute(f"PRAGMA {pragma}")
    return reader


def _begin(source: sqlite3.Connection, database: Path) -> Changes:
    """Begin to read, and return what only the journal has of what was committed by then.

    The journal is written beside it. But what it holds of a run stays until the database has it and
    names another one: if it still names the same one behind the look, nothing was missed.
    """
    for _ in range(_LOOKS_MAX):
        source.execute("BEGIN")
        with suppress(DamagedError):  # looked at while two records were written
            journalled = outstanding(source, database)
            with closing(open_reader(database)) as now:
                if run_of(now) == run_of(source):
                    return journalled
        source.execute("ROLLBACK")
    raise WireError(
        Code.INTERNAL,
        f"{JOURNAL_NAME} cannot be read: nothing was left. Try again; should it last, look at the "
        "kernel's log (dmesg)",
    )


def _open(partial: Path) -> sqlite3.Connection:
    copy = sqlite3.connect(partial, isolation_level=None)
    copy.execute("PRAGMA synchronous = OFF")  # synced as a whole, before it has its name
    return copy


def _fill(
    source: sqlite3.Connection,
    copy: sqlite3.Connection,
    handle: int,
    stopping: Callable[[], bool],
) -> None:
    steps = 0

    def look(_status: int, left: int, _total: int) -> None:
        nonlocal steps
        steps += 1
        if stopping():
            raise WireError(
                Code.UNAVAILABLE, "the broker is stopping: the backup was given up, nothing is left"
            )
        if steps % _STEPS_PER_SYNC == 0:
            os.fdatasync(handle)
            # Before the disk is full: that would be felt by those who send.
            _require_room(handle, left * _page_bytes(source))

    source.backup(copy, pages=_STEP_PAGES, progress=look, sleep=0)


def _settle(copy: sqlite3.Connection, journalled: Changes) -> tuple[int, int]:
    """Make it one file without a log, and see whether it holds; return messages and epoch."""
    copy.execute("PRAGMA journal_mode = DELETE")
    take_in(copy, journalled)
    (verdict,) = copy.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok":
        raise WireError(
            Code.INTERNAL,
            "the copy does not hold together, so the database or the disk is damaged: nothing was "
            "left, keep the backups that there are, and look at the kernel's log (dmesg)",
        )
    (messages,) = copy.execute("SELECT count(*) FROM messages").fetchone()
    (epoch,) = copy.execute("SELECT number FROM epoch").fetchone()
    return messages, epoch


def _page_bytes(database: sqlite3.Connection) -> int:
    size: int = database.execute("PRAGMA page_size").fetchone()[0]
    return size


def _size_bytes(database: sqlite3.Connection) -> int:
    pages: int = database.execute("PRAGMA page_count").fetchone()[0]
    return pages * _page_bytes(database)


def _require_room(handle: int, needed_bytes: int) -> None:
    disk = os.fstatvfs(handle)
    free = disk.f_bavail * disk.f_frsize
    if free < needed_bytes + _SPARE_BYTES:
        raise _full(
            f"{(needed_bytes + _SPARE_BYTES) // 1_048_576 + 1} MiB are needed, "
            f"{free // 1_048_576} are free"
        )


def _full(why: str) -> WireError:
    return WireError(
        Code.STORAGE_FULL,
        f"there is no room for a backup beside the database ({why}): nothing was left. "
        "Move older ones away, and try again",
    )


def _refusal(error: sqlite3.Error | OSError) -> WireError:
    if isinstance(error, OSError):
        full, name = error.errno in NO_ROOM, str(error.strerror)
    else:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        name = getattr(error, "sqlite_errorname", type(error).__name__)
    if full:
        return _full("the disk filled up meanwhile")
    return WireError(
        Code.INTERNAL, f"the backup failed ({name}): nothing was left. Look at the disk, try again"
    )


def _remove(partial: Path) -> None:
    """Remove what is left of a copy, with whatever SQLite has put beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        with suppress(OSError):
            partial.with_name(partial.name + suffix).unlink()
