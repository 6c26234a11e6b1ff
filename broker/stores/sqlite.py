"""The durable store: SQLite as a log.

Messages are appended in order of sequence to a table without an index; which of them wait for
whom is known in memory and read back at start. An acknowledgement moves a cursor, one small row
however many messages. One connection does all writing and all checkpoints.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from broker.core.dedup import DedupLimits
from broker.core.mailboxes import Mailbox, Mailboxes, conflict, fitting
from broker.core.model import Account, Message, Page, Receipt, SessionRecord
from broker.core.ports import StoreFailedError, StoreFullError, StoreUnusableError
from broker.stores.sqlite_retention import Retention
from broker.stores.sqlite_schema import open_database

#: Rows of one INSERT, largest first: each size is prepared once. `executemany` would step row by
#: row and give the GIL away each time.
_INSERT_ROWS: Final = (128, 16, 1)
#: Rows of one SELECT by sequence, likewise.
_SELECT_ROWS: Final = (256, 32, 4, 1)

_COLUMNS: Final = 6
# ruff: noqa: S608 - only question marks are put into the statements
_INSERTS: Final = {
    rows: "INSERT INTO messages (seq, mailbox, sender, message_id, stored_ms, text) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?)"] * rows)
    for rows in _INSERT_ROWS
}
_SELECTS: Final = {
    rows: "SELECT seq, stored_ms, sender, message_id, text FROM messages WHERE seq IN ("
    + ", ".join("?" * rows)
    + ") ORDER BY seq"
    for rows in _SELECT_ROWS
}


class SqliteStore:
    """One database file. Any thread may call, one at a time (the caller holds the baton)."""

    durability = "fsync"

    def __init__(
        self,
        path: Path,
        *,
        mailbox_messages_max: int,
        dedup: DedupLimits,
        retention_read_ms: int = 86_400_000,
        check: bool = True,
    ) -> None:
        self._database = open_database(path, check=check)
        self._dedup = dedup
        self.mailboxes = Mailboxes(messages_max=mailbox_messages_max, dedup=dedup)
        self._writing = False
        # Rows of this batch, column after column, not yet handed to SQLite.
        self._staged: list[Any] = []
        self._cursors: dict[int, int] = {}
        # By key. A removed mailbox stays: were its removal rolled back, its messages still wait.
        self._boxes: dict[int, Mailbox] = {}
        self._retention = Retention(self._run, self._boxes, read_ms=retention_read_ms)
        try:
            self._rebuild()
        except sqlite3.Error as error:
            self._database.close()
            raise StoreUnusableError(
                f"the database {path} cannot be read ({error}): restore a backup"
            ) from error

    # --- batches -----------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        try:
            try:
                yield
                self._commit()
            except BaseException:
                self._roll_back()
                raise
        except sqlite3.Error as error:  # of the commit, or of the rollback
            raise _judged(error) from error
        self.mailboxes.commit()

    def _commit(self) -> None:
        if self._staged:
            self._flush()
        if self._cursors:
            self._begin()
            self._database.executemany(
                "INSERT INTO cursors (mailbox, seq) VALUES (?, ?)"
                " ON CONFLICT (mailbox) DO UPDATE SET seq = excluded.seq",
                self._cursors.items(),
            )
            self._cursors.clear()
        if self._writing:
            self._database.execute("COMMIT")
            self._writing = False

    def _roll_back(self) -> None:
        self._staged.clear()
        self._cursors.clear()
        self._writing = False
        self.mailboxes.rollback()
        if self._database.in_transaction:  # SQLite has rolled back by itself after some errors
            self._database.execute("ROLLBACK")

    def _begin(self) -> None:
        if not self._writing:
            self._run("BEGIN IMMEDIATE")
            self._writing = True

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one statement to its end and return its rows.

        Errors: `StoreFullError`, `StoreFailedError`. SQLite may have rolled back by itself then, so
        the batch must end too: whoever went on would write outside of a transaction.
        """
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise _judged(error) from error

    def _flush(self) -> None:
        """Hand the staged rows to SQLite, in as few statements as the sizes allow."""
        self._begin()
        run, staged = self._run, self._staged
        start, rows = 0, len(staged) // _COLUMNS
        for size in _INSERT_ROWS:
            step = size * _COLUMNS
            while rows >= size:
                run(_INSERTS[size], staged[start : start + step])
                start += step
                rows -= size
        staged.clear()

    # --- messages ----------------------------------------------------------------------------

    def append(self, to: str, sender: str, message_id: str, text: str, now_ms: int) -> Receipt:
        mailboxes = self.mailboxes
        seq = mailboxes.duplicate(sender, message_id)
        if seq is not None:
            return self._again(seq, to, text)
        box, seq = mailboxes.append(to, sender, message_id, now_ms)
        self._staged += (seq, box.key, sender, message_id, now_ms, text)
        return Receipt(seq)

    def read(self, user: str, after: int, limit: int, bytes_max: int) -> Page:
        box = self.mailboxes.find(user)
        waiting = self.mailboxes.after(box, after, limit + 1)
        if not waiting:
            return Page([], False, box.cursor)
        if self._staged:
            self._flush()
        messages = fitting(self._messages(waiting[:limit]), bytes_max)
        return Page(messages, len(waiting) > len(messages), box.cursor)

    def acknowledge(self, user: str, seq: int) -> int:
        box = self.mailboxes.find(user)
        before = box.cursor
        cursor = self.mailboxes.acknowledge(box, seq)
        if cursor != before:
            self._cursors[box.key] = cursor
        return cursor

    def _messages(self, seqs: Sequence[int]) -> Iterator[Message]:
        start, rows = 0, len(seqs)
        for size in _SELECT_ROWS:
            while rows >= size:
                yield from map(Message._make, self._run(_SELECTS[size], seqs[start : start + size]))
                start += size
                rows -= size

    def _again(self, seq: int, to: str, text: str) -> Receipt:
        """Answer a repeated id, comparing it with the first copy as long as that is kept."""
        if self._staged:
            self._flush()
        first = self._run(
            "SELECT accounts.user, messages.text FROM messages"
            " JOIN accounts ON accounts.id = messages.mailbox WHERE seq = ?",
            (seq,),
        )
        if first and first != [(to, text)]:
            raise conflict()
        return Receipt(seq)

    # --- accounts ----------------------------------------------------------------------------

    def account(self, user: str) -> Account | None:
        rows = self._run("SELECT user, name, password_hash FROM accounts WHERE user = ?", (user,))
        return Account(*rows[0]) if rows else None

    def accounts(self, after: str, limit: int) -> list[Account]:
        rows = self._run(
            "SELECT user, name, password_hash FROM accounts WHERE user > ? ORDER BY user LIMIT ?",
            (after, limit),
        )
        return [Account(*row) for row in rows]

    def put_account(self, user: str, account: Account | None) -> None:
        self._begin()
        if account is None:
            self._remove_account(user)
            return
        rows = self._run(
            "INSERT INTO accounts (user, name, password_hash) VALUES (?, ?, ?)"
            " ON CONFLICT (user) DO UPDATE SET name = excluded.name,"
            " password_hash = excluded.password_hash RETURNING id",
            (user, account.name, account.password_hash),
        )
        if user not in self.mailboxes:
            self._add_mailbox(user, Mailbox(rows[0][0], 0))

    def _add_mailbox(self, user: str, box: Mailbox) -> None:
        self._boxes[box.key] = box
        self.mailboxes.add(user, box)

    def _remove_account(self, user: str) -> None:
        """Remove an account with all that was ever sent to it. Walks over the whole log."""
        if self._staged:
            self._flush()
        box = self.mailboxes.remove(user)
        if box is not None:
            self._cursors.pop(box.key, None)
            self._run("DELETE FROM messages WHERE mailbox = ?", (box.key,))
            self._run("DELETE FROM cursors WHERE mailbox = ?", (box.key,))
        self._run("DELETE FROM accounts WHERE user = ?", (user,))

    # --- sessions ----------------------------------------------------------------------------

    def session(self, digest: bytes) -> SessionRecord | None:
        rows = self._run(
            "SELECT digest, user, opened_ms, expires_ms FROM sessions WHERE digest = ?", (digest,)
        )
        return SessionRecord(*rows[0]) if rows else None

    def sessions(self, user: str | None = None) -> Iterable[SessionRecord]:
        columns = "SELECT digest, user, opened_ms, expires_ms FROM sessions"
        if user is None:
            rows = self._run(f"{columns} ORDER BY rowid")
        else:  # by the index: each login asks
            rows = self._run(f"{columns} WHERE user = ? ORDER BY rowid", (user,))
        return [SessionRecord(*row) for row in rows]

    def put_session(self, digest: bytes, record: SessionRecord | None) -> None:
        self._begin()
        if record is None:
            self._run("DELETE FROM sessions WHERE digest = ?", (digest,))
        else:
            self._run(
                "INSERT INTO sessions (digest, user, opened_ms, expires_ms) VALUES (?, ?, ?, ?)"
                " ON CONFLICT (digest) DO UPDATE SET expires_ms = excluded.expires_ms",
                (digest, record.user, record.opened_ms, record.expires_ms),
            )

    def tidy(self, now_ms: int) -> bool:
        self._begin()
        return self._retention.step(now_ms)

    # --- start and end -----------------------------------------------------------------------

    def _rebuild(self) -> None:
        """Read back the queues and the ids seen, by walks along the log in its order."""
        boxes = self._boxes
        rows = self._database.execute(
            "SELECT user, id, coalesce(seq, 0) FROM accounts LEFT JOIN cursors ON mailbox = id"
        )
        for user, key, cursor in rows:
            self._add_mailbox(user, Mailbox(key, cursor))
        for seq, key in self._database.execute("SELECT seq, mailbox FROM messages ORDER BY seq"):
            box = boxes.get(key)
            if box is not None and seq > box.cursor:
                self.mailboxes.restore(box, seq)
        self._rebuild_ids()
        self.mailboxes.commit()

    def _rebuild_ids(self) -> None:
        last = self._database.execute(
            "SELECT max(coalesce((SELECT max(seq) FROM messages), 0),"
            " coalesce((SELECT max(seq) FROM cursors), 0))"
        ).fetchone()[0]
        self.mailboxes.next_seq = last + 1
        for row in self._database.execute(
            "SELECT sender, message_id, seq, stored_ms FROM messages WHERE seq > ? ORDER BY seq",
            (last - self._dedup.ids_max,),
        ):
            self.mailboxes.remember(*row)

    def close(self) -> None:
        """Empty the WAL into the database, if the disk lets us, and close it."""
        with suppress(sqlite3.Error):  # what was committed is in the WAL, and read back from it
            self._database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        self._database.close()


def _judged(error: sqlite3.Error) -> Exception:
    """Tell a full disk, which passes, from an engine that can no longer be trusted."""
    if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
        return StoreFullError(str(error))
    return StoreFailedError(f"{getattr(error, 'sqlite_errorname', 'SQLite')}: {error}")
