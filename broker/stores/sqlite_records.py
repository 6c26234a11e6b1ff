"""The directory in SQLite: accounts, sessions, rooms and so on, each kind in its table."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final, NamedTuple, cast

from broker.core.model import Account, Block, LoginKey, Membership, Room, SessionRecord
from broker.core.ports import Key, R, Record
from broker.wire.limits import ROOM_MARK

Run = Callable[[str, Sequence[Any]], list[Any]]

# ruff: noqa: S608 - names of tables and columns are put into the statements, never values


class _Table(NamedTuple):
    """``key`` and ``columns`` as in the record; ``order`` of a whole listing."""

    name: str
    key: tuple[str, ...]
    columns: tuple[str, ...]
    order: str

    @property
    def select(self) -> str:
        return f"SELECT {', '.join(self.columns)} FROM {self.name}"

    @property
    def where_key(self) -> str:
        return " AND ".join(f"{column} = ?" for column in self.key)

    @property
    def upsert(self) -> str:
        marks = ", ".join("?" * len(self.columns))
        # A key stands for itself where there is nothing else to change.
        changed = [c for c in self.columns if c not in self.key] or self.key
        changes = ", ".join(f"{c} = excluded.{c}" for c in changed)
        return (
            f"INSERT INTO {self.name} ({', '.join(self.columns)}) VALUES ({marks})"
            f" ON CONFLICT ({', '.join(self.key)}) DO UPDATE SET {changes}"
        )


_TABLES: Final[Mapping[type, _Table]] = {
    Account: _Table("accounts", ("user",), ("user", "name", "password_hash", "role"), "user"),
    SessionRecord: _Table(
        "sessions",
        ("digest",),
        ("digest", "user", "opened_ms", "expires_ms", "device", "key"),
        "rowid",
    ),
    Room: _Table("rooms", ("room",), ("room", "owner", "open", "history"), "room"),
    Membership: _Table("members", ("room", "user"), ("room", "user", "joined"), "room, user"),
    LoginKey: _Table("keys", ("key",), ("key", "user"), "user, key"),
    Block: _Table("blocks", ("user", "sender"), ("user", "sender"), "user, sender"),
}


#: SQLite has no booleans.
_FLAGS: Final = frozenset({"open", "history", "joined"})


class Records:
    """``run`` runs one statement to its end and returns its rows."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def find(self, kind: type[R], key: Key) -> R | None:
        table = _TABLES[kind]
        rows = self._run(f"{table.select} WHERE {table.where_key}", _values(key))
        return _record(kind, rows[0]) if rows else None

    def find_all(self, kind: type[R], *, of: str, after: str, limit: int) -> list[R]:
        table = _TABLES[kind]
        owner = "room" if of.startswith(ROOM_MARK) else "user"
        conditions = [f"{owner} = ?"] * bool(of) + ["user > ?"] * bool(after)
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        rows = self._run(
            f"{table.select} {where} ORDER BY {table.order} LIMIT ?",
            [*filter(None, (of, after)), limit or -1],
        )
        return [_record(kind, row) for row in rows]

    def put(self, record: Record) -> None:
        table = _TABLES[type(record)]
        self._run(table.upsert, [getattr(record, column) for column in table.columns])

    def remove(self, kind: type[R], key: Key) -> None:
        table = _TABLES[kind]
        self._run(f"DELETE FROM {table.name} WHERE {table.where_key}", _values(key))


def _values(key: Key) -> Sequence[Any]:
    return key if isinstance(key, tuple) else (key,)


def _record(kind: type[R], row: Sequence[Any]) -> R:
    columns = zip(_TABLES[kind].columns, row, strict=True)
    make = cast("Callable[..., R]", kind)
    return make(*(bool(value) if column in _FLAGS else value for column, value in columns))
