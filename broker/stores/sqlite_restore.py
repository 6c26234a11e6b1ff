"""Puts a backup in the place of a database, such that a kill leaves the one or the other.

The next start takes what was put in for an earlier state and begins a new epoch, so that clients
are told (docs/DURABILITY.md, "When history was lost"). For that the copy gets another number of its
epoch before it has its name: `sqlite_epoch.settle` finds it to be none that was here.

The log is what makes it delicate. SQLite would replay the former database's log into the new one,
and a database without its log has lost its last commits. So the log is moved into the former
database first, and the journal too; where that cannot be done (that is why somebody restores), they
are copied aside, the database gets its other name, and a start meanwhile is refused: it finds a log
and no database. The journal that is left is removed: a backup names none.
"""

from __future__ import annotations

import os
import secrets
import shutil
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Final, NamedTuple

from broker.core.ports import StoreUnusableError
from broker.stores.folder import NO_ROOM, sync_folder
from broker.stores.sqlite_backup import open_reader
from broker.stores.sqlite_checkpoint import PRIMARY_CODE
from broker.stores.sqlite_journal import JOURNAL_NAME, NO_RUN
from broker.stores.sqlite_recovery import is_damaged, recover, run_of
from broker.stores.sqlite_schema import APPLICATION_ID, MIGRATIONS
from broker.stores.sqlite_wal import damaged

#: What the copy is called behind the database's name until it is whole.
RESTORING_SUFFIX: Final = ".restoring"
#: ... and the former database, with the time behind it.
BEFORE_SUFFIX: Final = ".before-restore-"
#: As `sqlite_epoch`: epochs fit every language's exact integers.
_EPOCH_MAX: Final = 2**53

#: What a database begins with; source: https://sqlite.org/fileformat2.html#the_database_header
_MAGIC: Final = b"SQLite format 3\0"
_HEAD_BYTES: Final = 100
#: The first version that knows of epochs.
_VERSION_MIN: Final = 2

#: Is told each step that has been done, by its name.
Step = Callable[[str], None]


class Restored(NamedTuple):
    """What was put in, and where the former database is now (None: there was none)."""

    messages: int
    users: int
    sessions: int
    former: Path | None


def put_back(backup: Path, database: Path, *, stamp: str, step: Step = lambda _: None) -> Restored:
    """Check ``backup`` and put it in the place of ``database``, whose folder nobody else holds.

    ``stamp`` is the time, for the name of the former database.
    Errors: `StoreUnusableError` with the reason and what to do. Until the very last step the former
    database is what a start finds, or a start is refused and this is to be repeated.
    """
    new = database.with_name(database.name + RESTORING_SUFFIX)
    try:
        _require_ours(backup)
        _remove(new)
        _copy(backup, new)
        step("copied")
        restored = _prepare(new, backup)
        step("prepared")
        former = _exchange(new, database, stamp, step)
    except (sqlite3.Error, OSError) as error:
        raise _unusable(error, backup, database) from error
    finally:
        _remove(new)
    return restored._replace(former=former)


# --- the backup ------------------------------------------------------------------------------


def _require_ours(backup: Path) -> None:
    """Refuse what is not a database of ours, or not a whole one, before anything is copied."""
    if not backup.is_file():
        raise StoreUnusableError(
            f"there is no file {backup}: give a backup, as 'kotak admin backup' has made it"
        )
    log = backup.with_name(backup.name + "-wal")
    if log.exists() and log.stat().st_size:
        raise StoreUnusableError(
            f"{log.name} lies beside {backup}: it is a part of a database in use, not a backup. "
            "Start a broker on its folder and stop it, then there is one file"
        )
    mark, version = _marks(backup)
    if mark != APPLICATION_ID or not version:
        raise StoreUnusableError(f"{backup} is no database of Kotak's: give another file")
    if version > len(MIGRATIONS):
        raise StoreUnusableError(
            f"{backup} was written by a newer Kotak (schema {version}, this one knows "
            f"{len(MIGRATIONS)}): install that version"
        )
    if version < _VERSION_MIN:
        raise StoreUnusableError(
            f"{backup} is older than what can be restored so (schema {version}): put it as "
            "kotak.db into an empty folder of mode 0700, start a broker there, and take a new one"
        )


def _marks(backup: Path) -> tuple[int, int]:
    """Return whose the file is and its schema's version, from its first page; zeros: nobody's."""
    with backup.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if len(head) < _HEAD_BYTES or not head.startswith(_MAGIC):
        return 0, 0
    return int.from_bytes(head[68:72]), int.from_bytes(head[60:64])


def _copy(backup: Path, new: Path) -> None:
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(handle, "wb") as target, backup.open("rb") as source:
        shutil.copyfileobj(source, target, 1_048_576)


def _sync(path: Path) -> None:
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def _prepare(new: Path, backup: Path) -> Restored:
    """Look through every page of the copy, and make it begin a new epoch where it is started."""
    with closing(sqlite3.connect(new, isolation_level=None)) as database:
        verdict = _verdict(database)
        if verdict != "ok":
            raise StoreUnusableError(
                f"{backup} is damaged ({verdict.splitlines()[-1]}): give another backup. "
                "Nothing was changed"
            )
        if run_of(database) != NO_RUN:
            raise StoreUnusableError(
                f"{backup} is a part of a database in use, not a backup: what its {JOURNAL_NAME} "
                "has would be missing. Put both into a folder, start a broker on it and stop it"
            )
        database.execute("PRAGMA synchronous = FULL")
        database.execute(
            "UPDATE epoch SET number = ?, witnessed = 1", (1 + secrets.randbelow(_EPOCH_MAX - 1),)
        )
        messages, users, sessions = (
            database.execute(f"SELECT count(*) FROM {table}").fetchone()[0]  # noqa: S608 - ours
            for table in ("messages", "accounts", "sessions")
        )
    _sync(new)
    return Restored(messages, users, sessions, None)


def _verdict(database: sqlite3.Connection) -> str:
    """Look through the whole file; return "ok", or what is wrong with it."""
    try:
        database.execute("PRAGMA journal_mode = DELETE")  # one file, without a log
        (verdict,) = database.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.DatabaseError as error:
        code = getattr(error, "sqlite_errorcode", 0) & PRIMARY_CODE
        if code not in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
            raise
        verdict = str(error)
    return str(verdict)


# --- the place -------------------------------------------------------------------------------


def _exchange(new: Path, database: Path, stamp: str, step: Step) -> Path | None:
    """Put the copy in, and return where the former database is."""
    log = database.with_name(database.name + "-wal")
    former = database.with_name(database.name + BEFORE_SUFFIX + stamp)
    there = database.exists()
    whole = _log_moved(database, log)
    step("log moved")
    if whole and there:
        former.hardlink_to(database)  # a second name: there is no moment without a database
    elif not whole:
        for left, suffix in ((log, "-wal"), (database.with_name(JOURNAL_NAME), ".journal")):
            if left.exists():
                aside = former.with_name(former.name + suffix)
                _copy(left, aside)
                _sync(aside)  # before its only other copy is emptied
        sync_folder(database.parent)
        step("log copied")
        if there:
            database.rename(former)
            sync_folder(database.parent)  # before its log is emptied
        step("moved aside")
        log.write_bytes(b"")  # empty, it is no part of any database; there, it refuses a start
    step("set aside")
    # Of no account to what was there; the copy would take it for its own that has lost commits.
    database.with_name(JOURNAL_NAME).unlink(missing_ok=True)
    sync_folder(database.parent)
    new.replace(database)
    sync_folder(database.parent)
    step("put in")
    for name in (log.name, database.name + "-shm"):
        database.with_name(name).unlink(missing_ok=True)
    return former if there else None


def _log_moved(database: Path, log: Path) -> bool:
    """Move log and journal into their database; False where that cannot be done without a loss."""
    left = log.exists() and log.stat().st_size
    if not database.exists():
        return not left
    if not left and not database.with_name(JOURNAL_NAME).exists():
        return True
    with suppress(sqlite3.Error):
        with closing(open_reader(database)) as reader:
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            if (left and damaged(log)) or is_damaged(reader, database):
                return False
        with closing(sqlite3.connect(database, isolation_level=None)) as writer:
            writer.execute("PRAGMA synchronous = FULL")
            recover(writer, database)
            busy, _, _ = writer.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        return not busy
    return False


def _remove(new: Path) -> None:
    for suffix in ("", "-journal", "-wal", "-shm"):
        with suppress(OSError):
            new.with_name(new.name + suffix).unlink()


def _unusable(error: sqlite3.Error | OSError, backup: Path, database: Path) -> StoreUnusableError:
    if isinstance(error, OSError):
        full, reason = error.errno in NO_ROOM, str(error.strerror)
    else:
        full = getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL
        reason = getattr(error, "sqlite_errorname", type(error).__name__)
    if full:
        return StoreUnusableError(
            f"there is no room for {backup} beside {database}: free as much as it has, and try "
            "again. Nothing was changed"
        )
    return StoreUnusableError(
        f"{backup} cannot be put in the place of {database} ({reason}): look at the folder and "
        "its disk, then try again; the former database is still there"
    )
