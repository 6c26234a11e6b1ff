"""The side that is moved away from: a data folder's database, read and never written.

All is read in one read transaction, in the order of the tables, so that a place in it is a number
of rows: a run that was cut short goes on behind as many.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple, Self

from broker.core.model import (
    Account,
    Block,
    Epoch,
    LoginKey,
    Lost,
    Membership,
    Message,
    Room,
    SessionRecord,
)
from broker.core.ports import StoreUnusableError
from broker.stores.sqlite_backup import open_reader
from broker.stores.sqlite_epoch import WITNESS_NAME, Witness
from broker.stores.sqlite_journal import JOURNAL_NAME
from broker.stores.sqlite_overlay import overlay
from broker.stores.sqlite_recovery import is_damaged, outstanding
from broker.stores.sqlite_schema import APPLICATION_ID, MIGRATIONS
from broker.stores.sqlite_wal import damaged

#: Rows of one page, and the text in them; one row may cross it.
PAGE_ROWS: Final = 1_000
PAGE_BYTES: Final = 1_048_576
#: Scores of a sorted set are exact up to here.
SEQ_EXACT_MAX: Final = 2**53
#: Rows that are fetched from SQLite at once.
_FETCHED: Final = 64

#: What is moved, in this order: a mailbox before its seats, both before the messages.
PHASES: Final[Mapping[str, str]] = {
    "users": "SELECT id, user, name, password_hash, role FROM accounts ORDER BY id",
    "rooms": "SELECT id, room, owner, open, history FROM rooms ORDER BY id",
    "members": "SELECT m.room, m.user, m.joined, m.since FROM members AS m"
    " JOIN accounts USING (user) JOIN rooms USING (room) ORDER BY m.room, m.user",
    "keys": "SELECT key, k.user FROM keys AS k JOIN accounts USING (user) ORDER BY key",
    "blocks": "SELECT b.user, sender FROM blocks AS b JOIN accounts USING (user)"
    " ORDER BY b.user, sender",
    "sessions": "SELECT digest, s.user, opened_ms, expires_ms, device, key FROM sessions AS s"
    " JOIN accounts USING (user) ORDER BY s.rowid",
    "messages": "SELECT seq, stored_ms, sender, message_id, text, mailbox, expires_ms, expired_ms"
    " FROM messages LEFT JOIN expiries USING (seq) ORDER BY seq",
}
#: All tables but that of the messages.
_SMALL: Final = (
    "epoch", "accounts", "rooms", "members", "keys", "blocks", "sessions", "readers", "purged",
    "expiries",
)  # fmt: skip

#: Keys and names of all mailboxes.
_MAILBOXES: Final = "SELECT id, user FROM accounts UNION ALL SELECT -id, room FROM rooms"

# ruff: noqa: S608 - names of tables and numbers are put into the statements, never values


class Owner(NamedTuple):
    """A user with the cursors of its readers, or a room; ``purged`` as in `Mailbox`."""

    record: Account | Room
    cursors: Mapping[str, int]
    purged: int


class Seat(NamedTuple):
    """A user's place in a room, who reads above ``since``."""

    membership: Membership
    since: int

    def standing(self, last: int) -> str:
        """Return what scripts/seat.lua keeps of it, where all up to ``last`` has been pulled."""
        return f"1 {self.since} {last} {last}" if self.membership.joined else "0 0 0 0"


class Stored(NamedTuple):
    """A message, with what is known of it beside.

    ``expired_ms``: it expired unread then. ``remembered``: its id is known to be used. ``sent``:
    the user of its sender's name has sent it. ``readers``: members of its room who read it.
    """

    message: Message
    expires_ms: int | None
    expired_ms: int | None
    remembered: bool
    sent: bool
    readers: Sequence[str]


Part = Owner | Seat | LoginKey | Block | SessionRecord | Stored


class Page(NamedTuple):
    """Some neighbouring rows; ``rows`` counts also those that lead to no part."""

    rows: int
    parts: list[Part]


class Source:
    """The database of a stopped broker; its folder must be held. A context manager.

    ``ids_max``: of so many messages, the last ones, the ids are known. Errors of opening:
    `StoreUnusableError`, which says what to do.
    """

    def __init__(self, database: Path, *, ids_max: int) -> None:
        if not database.exists():
            raise StoreUnusableError(
                f"there is no database {database}: give a broker's data folder"
            )
        try:
            self._database = open_reader(database)
            try:
                self._open(database, ids_max)
            except BaseException:
                self._database.close()
                raise
        except (sqlite3.Error, OSError) as error:
            raise StoreUnusableError(
                f"the database {database} cannot be read ({error}): restore a backup"
            ) from error

    def _open(self, database: Path, ids_max: int) -> None:
        self._make: dict[str, Callable[..., Part | None]] = {
            "users": self._user,
            "rooms": self._room,
            "members": _seat,
            "keys": LoginKey,
            "blocks": Block,
            "sessions": SessionRecord,
            "messages": self._stored,
        }
        self._database.execute("BEGIN")
        _examine(self._database, database)
        journalled = outstanding(self._database, database)
        if journalled:  # of a broker that was killed
            overlay(self._database, journalled)
        self.epoch = _epoch(self._database, database)
        #: The highest sequence that can have been given out.
        self.last = self._highest()
        if self.last > SEQ_EXACT_MAX:
            raise StoreUnusableError(
                f"{database} has sequences above {SEQ_EXACT_MAX}: Redis cannot keep them in order"
            )
        self.identity = self._identity()
        self._names = dict(
            self._all("SELECT id, user FROM accounts UNION SELECT -id, room FROM rooms")
        )
        self._since = dict(self._all("SELECT user, since FROM accounts"))
        self._members: defaultdict[str, list[tuple[str, int]]] = defaultdict(list)
        for room, user, joined, since in self._all(PHASES["members"]):
            if joined:
                self._members[room].append((user, since))
        (self._first_id,) = self._one(
            "SELECT coalesce(min(seq), 0) FROM"
            " (SELECT seq FROM messages ORDER BY seq DESC LIMIT ?)",
            ids_max,
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._database.close()

    # --- looking -----------------------------------------------------------------------------

    def rows(self) -> dict[str, int]:
        """Return how many rows each phase has."""
        return {
            phase: self._one(f"SELECT count(*) FROM ({statement})")[0]
            for phase, statement in PHASES.items()
            if phase != "messages"
        } | {"messages": self._one("SELECT count(*) FROM messages")[0]}

    def left_behind(self) -> int:
        """Count messages of mailboxes that are gone, which nobody can read any more."""
        (count,) = self._one(
            f"SELECT count(*) FROM messages WHERE mailbox NOT IN (SELECT id FROM ({_MAILBOXES}))"
        )
        return int(count)

    def parts(self, phase: str) -> Iterator[Part]:
        """Return everything of one phase. Errors: `StoreUnusableError`."""
        for page in self.pages(phase):
            yield from page.parts

    def pages(self, phase: str, done: int = 0) -> Iterator[Page]:
        """Return one phase in pages, behind the first ``done`` rows. Errors: as `parts`."""
        make: Callable[..., Part | None] = self._make[phase]
        rows, size, parts = 0, 0, []
        for row in self._all(f"{PHASES[phase]} LIMIT -1 OFFSET {done}"):
            rows += 1
            size += len(row[4]) if phase == "messages" else 0
            part = make(*row)
            if part is not None:
                parts.append(part)
            if rows == PAGE_ROWS or size >= PAGE_BYTES:
                yield Page(rows, parts)
                rows, size, parts = 0, 0, []
        if rows:
            yield Page(rows, parts)

    # --- rows, by phase ----------------------------------------------------------------------

    def _user(self, key: int, user: str, name: str, password_hash: str, role: str) -> Owner:
        cursors = dict(self._all("SELECT device, seq FROM readers WHERE mailbox = ?", key))
        return Owner(Account(user, name, password_hash, role), cursors, self._purged(key))

    def _room(self, key: int, room: str, owner: str, opened: int, history: int) -> Owner:
        record = Room(room, owner, open=bool(opened), history=bool(history))
        return Owner(record, {}, self._purged(-key))

    def _purged(self, key: int) -> int:
        found = self._all("SELECT seq FROM purged WHERE mailbox = ?", key)
        return next((seq for (seq,) in found), 0)

    def _stored(self, *row: Any) -> Stored | None:
        seq, at_ms, sender, message_id, text, key, expires_ms, expired_ms = row
        to = self._names.get(key)
        if to is None:
            return None
        since = self._since.get(sender)
        own = seq > (since or 0)  # else of somebody who had the sender's name before
        return Stored(
            Message(seq, at_ms, sender, message_id, text, to),
            expires_ms,
            expired_ms,
            remembered=own and seq >= self._first_id,
            sent=own and since is not None,
            readers=[user for user, low in self._members.get(to, ()) if seq > low],
        )

    # --- SQLite ------------------------------------------------------------------------------

    def _all(self, statement: str, *values: object) -> Iterator[Any]:
        """Run a statement and return its rows as they come. Errors: `StoreUnusableError`."""
        try:
            cursor = self._database.execute(statement, values)
            while rows := cursor.fetchmany(_FETCHED):
                yield from rows
        except sqlite3.Error as error:
            raise StoreUnusableError(
                f"the database cannot be read any further ({type(error).__name__}):"
                " restore a backup, and begin anew"
            ) from error

    def _one(self, statement: str, *values: object) -> Any:
        return next(self._all(statement, *values))

    def _highest(self) -> int:
        (highest,) = self._one(
            "SELECT max(last_lost, high, coalesce((SELECT max(seq) FROM messages), 0),"
            " coalesce((SELECT max(seq) FROM readers), 0),"
            " coalesce((SELECT max(seq) FROM purged), 0),"
            " coalesce((SELECT max(since) FROM members), 0),"
            " coalesce((SELECT max(since) FROM accounts), 0)) FROM epoch"
        )
        return int(highest)

    def _identity(self) -> str:
        """Return a digest of all but the messages, and of which messages there are.

        A message never changes and its sequence is not given out twice, so that any step which a
        broker takes in between gives another one.
        """
        digest = hashlib.sha256()
        statements = [f"SELECT * FROM {table} ORDER BY 1, 2" for table in _SMALL]
        statements.append("SELECT count(*), min(seq), max(seq), total(seq) FROM messages")
        for statement in statements:
            for row in self._all(statement):
                digest.update(repr(row).encode())
        return digest.hexdigest()


def _seat(room: str, user: str, joined: int, since: int) -> Seat:
    return Seat(Membership(room, user, bool(joined)), since)


def _examine(database: sqlite3.Connection, path: Path) -> None:
    """Refuse what is not ours, of another version, or damaged."""
    (mark,) = database.execute("PRAGMA application_id").fetchone()
    (version,) = database.execute("PRAGMA user_version").fetchone()
    if mark != APPLICATION_ID:
        raise StoreUnusableError(f"{path} is no database of Kotak's: give a broker's data folder")
    if version != len(MIGRATIONS):
        raise StoreUnusableError(
            f"{path} was written by another version (schema {version}, this one reads"
            f" {len(MIGRATIONS)}): start a broker of this version on it, stop it, and try again"
        )
    (verdict,) = database.execute("PRAGMA quick_check(1)").fetchone()
    if verdict != "ok" or damaged(path.with_name(path.name + "-wal")):
        raise StoreUnusableError(f"the database {path} is damaged: restore a backup first")
    if is_damaged(database, path):
        raise StoreUnusableError(f"{JOURNAL_NAME} of {path} is damaged or gone: restore a backup")


def _epoch(database: sqlite3.Connection, path: Path) -> Epoch:
    """Return the epoch, where no new one is about to begin."""
    number, first_lost, last_lost, high, witnessed = database.execute(
        "SELECT number, first_lost, last_lost, high, witnessed FROM epoch"
    ).fetchone()
    seen = Witness(path.with_name(WITNESS_NAME)).read()
    if seen is None:
        put_back = bool(witnessed)
    else:
        (last,) = database.execute(
            "SELECT max(?, ?, coalesce((SELECT max(seq) FROM messages), 0),"
            " coalesce((SELECT max(seq) FROM readers), 0))",
            (last_lost, high),
        ).fetchone()
        put_back = seen.epoch != number or seen.last > last
    if put_back:
        raise StoreUnusableError(
            f"{path} is not the latest that was in its folder: a broker that starts on it begins a"
            " new epoch, so that clients are told of what may be lost. Start one on it, stop it,"
            " and try again"
        )
    return Epoch(number, Lost(first_lost, last_lost))
