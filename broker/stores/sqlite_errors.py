"""What an error of SQLite means for who uses the store."""

from __future__ import annotations

import sqlite3

from broker.core.ports import StoreFailedError, StoreFullError


def meaning(error: sqlite3.Error) -> Exception:
    """Tell a full disk, which passes, from an engine that can no longer be trusted."""
    name = getattr(error, "sqlite_errorname", None)
    if name is None:  # of the module, not of the engine: its text may quote a message
        return StoreFailedError("a value in the database cannot be decoded: it is damaged")
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StoreFullError(str(error))
    return StoreFailedError(f"{name}: {error}")
