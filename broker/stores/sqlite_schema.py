"""Opening the database file: whose it is, which version, how it must be set.

The rules for changing the schema stand in sqlite_schema.sql.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from contextlib import closing
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

from broker.core.ports import StoreUnusableError
from broker.stores import sqlite_checkpoint
from broker.stores.folder import NO_ROOM, fill, sync_folder
from broker.stores.sqlite_epoch import WITNESS_NAME
from broker.stores.sqlite_journal import JOURNAL_NAME
from broker.stores.sqlite_recovery import is_damaged, recover
from broker.stores.sqlite_wal import damaged

#: What a database is called, behind its name, until it is whole.
NEW_SUFFIX: Final = ".new"
#: "Kotk": marks the file as ours.
APPLICATION_ID: Final = 0x4B6F746B

#: Each step's SQL, applied in order; `user_version` counts those that were.
MIGRATIONS: Final[Sequence[str]] = tuple(
    files("broker.stores").joinpath(name).read_text("utf-8")
    for name in (
        "sqlite_schema.sql",
        "sqlite_schema_2.sql",
        "sqlite_schema_3.sql",
        "sqlite_schema_4.sql",
        "sqlite_schema_5.sql",
    )
)

#: Set on the connection and read back: a build or a file may have other defaults.
_PRAGMAS: Final = {
    "journal_mode": "wal",
    "synchronous": 2,  # FULL: the WAL is synced before a commit returns
    "wal_autocheckpoint": 0,  # ours, in sqlite_checkpoint.py: SQLite's keeps its errors to itself
    "foreign_keys": 1,
    "mmap_size": 0,  # a failing disk must raise an error, not a signal
    # KiB, taken as they are needed. A mailbox's messages lie on as many pages as there are others
    # between them: what waits, up to here, is drained without a read of the file for each message.
    "cache_size": -32_768,
    "temp_store": 2,
}
#: Where fsync alone does not reach the platter (macOS); elsewhere SQLite ignores them.
_FULL_FSYNC: Final = ("fullfsync", "checkpoint_fullfsync")
#: What SQLite needs to open a log: an index of 32 KiB, and its place in the folder.
_OPENING_BYTES: Final = 65_536


class NoRoomError(StoreUnusableError):
    """The disk is so full that the database cannot even be opened."""


def open_database(path: Path, *, check: bool = True) -> sqlite3.Connection:
    """Open or create the database; nothing is changed in a file that is not ours or damaged.

    Errors: `StoreUnusableError` with what to do, `NoRoomError`.
    """
    existed = path.exists()
    _check_files(path, existed=existed)
    try:
        if existed:
            _look(path, check=check)
        else:
            _create(path)
        database = _connect(path)
        try:
            _configure(database)
            _migrate(database)
            recover(database, path)
            _extend_wal(database, path)
        except BaseException as error:
            sqlite_checkpoint.end(database, error)
            raise
    except (sqlite3.Error, OSError) as error:
        if _is_want_of_room(error, path):
            raise NoRoomError(
                f"there is no room on the disk of {path}, not even for what SQLite needs to read "
                "it: free at least 1 MiB and start again. Nothing is lost, and nothing was changed"
            ) from error
        raise StoreUnusableError(
            f"the database {path} cannot be used ({error}). Try once more, then "
            "restore a backup, or choose another folder with --data; the file was left as it is"
        ) from error
    return database


def _is_want_of_room(error: sqlite3.Error | OSError, path: Path) -> bool:
    """Tell a full disk from one that fails: SQLite calls both an I/O error while it opens a log."""
    if isinstance(error, OSError):
        return error.errno in NO_ROOM
    code = getattr(error, "sqlite_errorcode", 0) & sqlite_checkpoint.PRIMARY_CODE
    if code not in (sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CANTOPEN):
        return code == sqlite3.SQLITE_FULL
    probe = path.with_name(path.name + NEW_SUFFIX)
    try:
        return not fill(probe, _OPENING_BYTES)
    except OSError as met:
        return met.errno in NO_ROOM
    finally:
        probe.unlink(missing_ok=True)


def _connect(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(path, isolation_level=None, check_same_thread=False)


def _look(path: Path, *, check: bool) -> None:
    """Examine a database and its log before anything is written.

    Through a connection that cannot write where there is a log: another one would move the log
    into the database as it is closed, even where the file was refused.
    """
    wal = path.with_name(path.name + "-wal")
    name = f"{path.absolute().as_uri()}?mode=ro" if wal.exists() else path.absolute().as_uri()
    with closing(sqlite3.connect(name, uri=True, isolation_level=None)) as database:
        _examine(database, path, check=check)
        # Without the witness what is lost will be announced: somebody has removed it to go on.
        if not check or not path.with_name(WITNESS_NAME).exists():
            return
        if damaged(wal):
            raise _losing(f"{wal.name}, the log of {path}, is damaged")
        if is_damaged(database, path):
            raise _losing(f"{JOURNAL_NAME}, the journal of {path}, is damaged or gone")


def _losing(what: str) -> StoreUnusableError:
    return StoreUnusableError(
        f"{what}: messages stand behind a place that cannot be read. Restore a backup; or, to go "
        f"on without them, remove {WITNESS_NAME} beside it: clients are told then that messages "
        "may be lost. It was left as it is"
    )


def _create(path: Path) -> None:
    """Make an empty database, whole on the disk before it has its name.

    Whatever ends the process or the power meanwhile, the next start finds it whole or not at all.
    """
    new = path.with_name(path.name + NEW_SUFFIX)
    new.unlink(missing_ok=True)  # of a first start that was cut short: nothing was stored in it
    new.touch(0o600)  # SQLite gives its other files the mode of the first
    with closing(_connect(new)) as database:
        # Counts only before the first table: lets the file become shorter in small steps.
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = MEMORY")  # no other file: half of it is thrown away
        _fully_sync(database)
        _migrate(database)
    new.replace(path)
    sync_folder(path.parent)


def _check_files(path: Path, *, existed: bool) -> None:
    """Never start empty where there were messages: what is missing must be put back by a person."""
    wal = path.with_name(path.name + "-wal")
    if existed and path.stat().st_size == 0:
        raise StoreUnusableError(
            f"the database {path} is empty, so it was damaged: restore a backup, or remove it "
            "to begin anew"
        )
    if not existed and wal.exists():
        raise StoreUnusableError(
            f"the database {path} is gone but {wal.name} is there: restore a backup, or remove "
            "that file to begin anew"
        )


def _examine(database: sqlite3.Connection, path: Path, *, check: bool) -> None:
    """Refuse a file of somebody else's, of a newer version, or with damage."""
    mark = _pragma(database, "application_id")
    version = _pragma(database, "user_version")
    if (mark, version) == (0, 0) and not _tables(database):
        return  # an older version's first start was cut short before anything could be stored
    if mark != APPLICATION_ID:
        raise StoreUnusableError(
            f"{path} is not a Kotak database: choose another folder with --data"
        )
    if version > len(MIGRATIONS):
        raise StoreUnusableError(
            f"{path} was written by a newer Kotak (schema {version}, this one knows "
            f"{len(MIGRATIONS)}): install that version again"
        )
    if check and _pragma(database, "quick_check") != "ok":
        raise StoreUnusableError(
            f"the database {path} is damaged: restore a backup. It was left as it is"
        )


def _configure(database: sqlite3.Connection) -> None:
    _fully_sync(database)
    for name, wanted in _PRAGMAS.items():
        database.execute(f"PRAGMA {name} = {wanted}")
        found = _pragma(database, name)
        if name != "mmap_size" and found != wanted:
            raise StoreUnusableError(
                f"SQLite would not set {name} to {wanted} (it is {found}); the promise needs it"
            )


def _fully_sync(database: sqlite3.Connection) -> None:
    for name in _FULL_FSYNC:
        database.execute(f"PRAGMA {name} = 1")


def _migrate(database: sqlite3.Connection) -> None:
    version = _pragma(database, "user_version")
    for number, step in enumerate(MIGRATIONS[version:], start=version + 1):
        database.executescript(
            f"BEGIN IMMEDIATE;\n{step}\n"
            f"PRAGMA application_id = {APPLICATION_ID};\nPRAGMA user_version = {number};\nCOMMIT;"
        )


def _tables(database: sqlite3.Connection) -> int:
    """Count what the file defines. Any table at all makes it somebody's."""
    count: int = database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0]
    return count


def _extend_wal(database: sqlite3.Connection, path: Path) -> None:
    """Give the WAL its full length before the first commit, which then only overwrites.

    A commit that makes a file longer syncs the file system's journal too: one message costs 200 us
    instead of 300 (docs/decisions/0007). SQLite goes by checksums, so zeros are no content to it,
    and it starts at the front again after each checkpoint without cutting the file.
    """
    busy, _, _ = database.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
    if busy:
        return  # somebody reads: what is in the WAL must stay
    # A full disk must not keep readers out: then the log grows as it is used.
    fill(path.with_name(path.name + "-wal"), sqlite_checkpoint.WAL_BYTES)


def _pragma(database: sqlite3.Connection, name: str) -> Any:
    """Return the value of a pragma (its first row; none at all where SQLite has no such thing)."""
    row = database.execute(f"PRAGMA {name}").fetchone()
    return row[0] if row else 0
