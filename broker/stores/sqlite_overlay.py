"""Lets a connection that only reads see what the journal holds as if the database had it."""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from typing import Any, Final

from broker.stores.sqlite_changes import Changes

#: Of each table the columns, and those that the newer row of two has in common with the older.
_TABLES: Final = {
    "messages": ("seq, stored_ms, sender, message_id, text, mailbox", "seq"),
    "expiries": ("seq, expires_ms, expired_ms", "seq"),
    "readers": ("mailbox, device, seq", "mailbox, device"),
}

# ruff: noqa: S608 - only names of tables and columns are put into the statements


def overlay(reader: sqlite3.Connection, changes: Changes) -> None:
    """Put views in front of the tables, for this connection alone. Errors: `sqlite3.Error`."""

    def run(statement: str, values: Sequence[Any] = ()) -> list[Any]:
        return reader.execute(statement, values).fetchall()

    run("PRAGMA query_only = 0")  # of the database; what is temporary is kept in memory
    for table, (columns, key) in _TABLES.items():
        run(f"CREATE TEMP TABLE {table} ({columns}, PRIMARY KEY ({key}))")
    changes.insert(run)
    changes.move(run)
    for table, (columns, key) in _TABLES.items():
        newer = f"journalled_{table}"
        run(f"ALTER TABLE temp.{table} RENAME TO {newer}")
        run(
            f"CREATE TEMP VIEW {table} AS SELECT {columns} FROM main.{table}"
            f" WHERE ({key}) NOT IN (SELECT {key} FROM {newer})"
            f" UNION ALL SELECT {columns} FROM {newer}"
        )
    run("PRAGMA query_only = 1")
