"""``kotak admin restore``: into the folder of a stopped broker, which is held meanwhile."""

from __future__ import annotations

from pathlib import Path

from broker.config import Config
from broker.core.ports import StoreUnusableError
from broker.exits import Exit, ExitError
from broker.server.access import require_ours
from broker.server.operations import time_stamp
from broker.stores.folder import DataFolder, FolderHeldError
from broker.stores.sqlite_restore import Restored, put_back


def restore(config: Config, backup: Path) -> Restored:
    """Put ``backup`` in the place of the database, in a folder that is ours, new or empty.

    Errors: `ExitError`.
    """
    if config.store == "memory:":
        raise ExitError(
            Exit.USAGE, "a broker with --store memory: starts empty: there is nothing to restore to"
        )
    if config.store != "sqlite:":
        raise ExitError(
            Exit.USAGE, "a broker with --store redis:// keeps nothing here: put it back in Redis"
        )
    if not backup.is_file():  # before a folder is made for it
        raise ExitError(Exit.USAGE, f"there is no file {backup}: give that of a backup")
    require_ours(config.data, create=True)
    try:
        with DataFolder(config.data) as folder:
            return put_back(backup, folder.database, stamp=time_stamp())
    except FolderHeldError:
        raise ExitError(
            Exit.DATA_FOLDER,
            f"a broker is running on {config.data}: stop it first, then restore, then start it",
        ) from None
    except StoreUnusableError as error:
        raise ExitError(Exit.DATA_FOLDER, str(error)) from error
