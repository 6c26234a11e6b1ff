"""The data folder: private to its owner, and held by one broker at a time."""

from __future__ import annotations

import errno
import fcntl
import os
import stat
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from broker.core.ports import StoreUnusableError

LOCK_FILE: Final = "broker.lock"
DATABASE_FILE: Final = "kotak.db"
#: Where the running broker says how to administer it.
ADMIN_FILE: Final = "admin.json"
AUDIT_FILE: Final = "audit.log"

#: What a file system without room says.
NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT})
#: Zeros of one write.
_FILL_BYTES: Final = 1_048_576


class FolderHeldError(StoreUnusableError):
    """Another broker holds the folder."""


class DataFolder:
    """A data folder, made where it is missing and locked while this object is open.

    Errors: `StoreUnusableError` (not writable, open to others), `FolderHeldError`.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_private(path)
            self._lock = os.open(path / LOCK_FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise StoreUnusableError(
                f"the data folder {path} cannot be used: {error.strerror}. "
                "Choose another with --data, or make this one writable"
            ) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(self._lock)
            raise FolderHeldError(
                f"another broker is running on {path}. Stop it first, or choose another folder "
                "with --data"
            ) from error

    @property
    def database(self) -> Path:
        return self.path / DATABASE_FILE

    @property
    def admin_file(self) -> Path:
        return self.path / ADMIN_FILE

    @property
    def audit_file(self) -> Path:
        return self.path / AUDIT_FILE

    def close(self) -> None:
        """Let another broker in. The lock file stays: removing it would be a race."""
        os.close(self._lock)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


def sync_folder(path: Path) -> None:
    """Make the names in a folder last: syncing a file keeps its content, not its name."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def fill(path: Path, size_bytes: int) -> bool:
    """Write zeros into a file from its beginning, and sync it: so much room is taken then.

    Where there is not so much, empty the file and return False. Errors: `OSError`, otherwise.
    """
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        left = size_bytes
        while left:
            left -= os.write(handle, bytes(min(left, _FILL_BYTES)))
        os.fsync(handle)
    except OSError as error:
        if error.errno not in NO_ROOM:
            raise
        os.ftruncate(handle, 0)
        return False
    finally:
        os.close(handle)
    return True


def was_used(path: Path) -> bool:
    """Tell whether a broker has ever held this folder; False where it cannot be looked into."""
    try:
        return any((path / name).exists() for name in (LOCK_FILE, DATABASE_FILE))
    except OSError:
        return False


def _check_private(path: Path) -> None:
    """Refuse a folder that others may read: messages and password hashes lie in it."""
    info = path.stat()
    if info.st_uid == os.geteuid() and stat.S_IMODE(info.st_mode) & 0o077:
        raise StoreUnusableError(
            f"the data folder {path} is open to other users: run chmod 700 on it, "
            "or choose another with --data"
        )
