"""The files in the data folder are their owner's alone: a look at the start.

The folder itself keeps others out (mode 0700, `broker.stores.folder`); a file that is open to them
is one that was copied there, and would be copied so again, into places that are not.
"""

from __future__ import annotations

from contextlib import suppress
from typing import Final

from broker.exits import Exit, ExitError
from broker.stores.folder import ADMIN_FILE, AUDIT_FILE, DATABASE_FILE, LOCK_FILE, DataFolder
from broker.stores.sqlite_ballast import BALLAST_NAME
from broker.stores.sqlite_epoch import WITNESS_NAME
from broker.stores.sqlite_journal import JOURNAL_NAME
from broker.stores.sqlite_schema import NEW_SUFFIX
from broker.transports.private_file import exposure

_FILES: Final = (
    DATABASE_FILE,
    f"{DATABASE_FILE}{NEW_SUFFIX}",
    f"{DATABASE_FILE}-wal",
    f"{DATABASE_FILE}-shm",
    WITNESS_NAME,
    BALLAST_NAME,
    JOURNAL_NAME,
    ADMIN_FILE,
    AUDIT_FILE,
    LOCK_FILE,
)


def require_private(folder: DataFolder) -> None:
    """Refuse a folder with a file of ours that others may read or change. Errors: `ExitError`."""
    for name in _FILES:
        path = folder.path / name
        with suppress(FileNotFoundError):
            if (fault := exposure(path, path.stat())) is not None:
                raise ExitError(Exit.DATA_FOLDER, fault)
