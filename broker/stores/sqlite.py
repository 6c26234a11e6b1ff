"""The durable store: SQLite as a log.

Messages are appended in order of sequence to a table without an index; which of them wait for
whom is known in memory and read back at start. An acknowledgement moves a cursor, one small row
however many messages. Both wait in a journal, a file beside it, for the next transaction. One
connection does all writing and all checkpoints.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from broker.core.alone import Alone
from broker.core.mailbox import Mailbox, fitting
from broker.core.mailboxes import Mailboxes, conflict
from broker.core.model import (
    Account,
    Depth,
    Epoch,
    History,
    Membership,
    Message,
    Page,
    Receipt,
    Room,
)
from broker.core.one_by_one import OneByOne
from broker.core.ports import (
    DEFAULT_LIMITS,
    Key,
    R,
    Record,
    StoreFailedError,
    StoreFullError,
    StoreLimits,
    StoreUnusableError,
)
from broker.core.retention import STEP_ROWS, Retention, Row
from broker.stores.sqlite_ballast import Ballast, SparingError
from broker.stores.sqlite_changes import Changes
from broker.stores.sqlite_checkpoint import Wal, abandon, end
from broker.stores.sqlite_epoch import WITNESS_NAME, Witness, settle
from broker.stores.sqlite_errors import meaning
from broker.stores.sqlite_journal import NO_RUN, Journal, new_run
from broker.stores.sqlite_log import MessageLog
from broker.stores.sqlite_rebuild import Rebuild
from broker.stores.sqlite_records import Records
from broker.stores.sqlite_recovery import begin
from broker.stores.sqlite_schema import NoRoomError, open_database
from broker.wire.commands import SENT, ChatArgs
from broker.wire.errors import WireError

#: Messages and cursors in the journal before the database takes them in, some four milliseconds of
#: work: more would be cheaper, and felt.
JOURNALLED_MAX: Final = 2_000


class SqliteStore(OneByOne, Alone):
    """One database file. Any thread may call, one at a time (the caller holds the baton)."""

    durability = "fsync"
    undoes = True

    def __init__(
        self, path: Path, limits: StoreLimits = DEFAULT_LIMITS, *, check: bool = True
    ) -> None:
        self._ballast = Ballast(path)
        self._database = self._open(path, check=check)
        self._limits = limits
        self.mailboxes = Mailboxes(limits)
        self._writing = False
        self._changes = 0  # in the database, before the transaction under way
        self._failed = False  # then nothing is written any more
        # What this batch changes, not yet handed to SQLite; and what earlier ones did, which stands
        # in the journal, and in the database with the next commit there.
        self._staged = Changes()
        self._journalled = Changes()
        self._journal: Journal | None = None  # while there is no room for one
        # By key. A removed mailbox stays: were its removal rolled back, its messages still wait.
        self._boxes: dict[int, Mailbox] = {}
        self._names: dict[int, str] = {}
        self._log = MessageLog(self._run, self._names, self._unwritten)
        self._records = Records(self._run)
        self._retention = Retention(limits, self.mailboxes)
        self._position = 0  # of the walk that tidies
        self._committed = 0  # the highest sequence that is
        self._witness = Witness(path.with_name(WITNESS_NAME))
        try:
            self._ballast.lay()
            self._wal = Wal(path, self._run)
            self.epoch: Epoch = self._rebuild()
            self._journal = begin(self._database, path)
        except (sqlite3.Error, OSError) as error:
            end(self._database, error)
            raise StoreUnusableError(
                f"the database {path} cannot be read ({error}): restore a backup"
            ) from error

    # --- batches -----------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        if self._failed:
            raise StoreFailedError("the engine failed before: reopen it")
        if self._ballast.sparing:
            self._on_disk(self._ballast.regain)
        try:
            yield
            self._commit()
        except StoreFullError as error:
            self._roll_back()
            if not isinstance(error, SparingError):
                self._spare()
            raise
        except BaseException:
            self._roll_back()
            raise
        self.mailboxes.commit()
        self._committed = self.mailboxes.last
        if len(self._journalled) >= JOURNALLED_MAX or (self._journal and self._journal.due):
            self._settle()
        if self._wal.due:
            self._checkpoint()

    def _settle(self) -> None:
        """Take into the database what stands in the journal. Errors: `StoreFailedError`.

        A full disk is none: the batches stand in the journal.
        """
        try:
            self._begin()
            self._commit_database()
        except StoreFullError:
            self._roll_back()
            self._spare()

    def _checkpoint(self) -> None:
        """Move the log into the database. Errors: `StoreFailedError`.

        A full disk is none: the batch stands in the log.
        """
        try:
            self._wal.checkpoint()
        except StoreFullError:
            self._spare()

    def _spare(self) -> None:
        """Give the log what was kept in reserve, so that it begins at its front again."""
        self._on_disk(self._ballast.give_up)
        with suppress(StoreFullError):  # somebody else has taken the room
            self._wal.checkpoint()

    def _on_disk(self, step: Callable[[], object]) -> None:
        """Do something on the disk, whose errors are those of the engine."""
        try:
            step()
        except OSError as error:
            self._failed = True
            raise StoreFailedError(f"{error.strerror} beside the database") from error

    def _commit(self) -> None:
        if not self._writing and (not self._staged or self._kept_by_journal()):
            return
        self._flush()
        self._staged.move(self._run)
        self._commit_database()

    def _kept_by_journal(self) -> bool:
        """Put the batch into the journal; False where it has to go into the database."""
        if self._journal is None or self._ballast.sparing:
            return False
        try:
            kept = self._journal.append(self._staged.pack())
        except OSError as error:
            self._failed = True
            raise StoreFailedError(f"{error.strerror} in the journal") from error
        if kept:
            self._journalled.take(self._staged)
        return kept

    def _commit_database(self, run: int | None = None) -> None:
        """End the transaction under way, after which the journal begins again at its front."""
        journal = self._journal
        if journal is not None and (run is not None or self._has_changed):
            run = new_run() if run is None else run
            self._run(
                "UPDATE journal SET former = iif(?, run, former), run = ?", (journal.used, run)
            )
        self._run("COMMIT")
        self._writing = False
        self._staged.clear()
        self._journalled.clear()
        if journal is not None and run is not None:
            journal.restart(run)

    @property
    def _has_changed(self) -> bool:
        """Tell whether the transaction under way changes anything.

        Then it names another run: were it lost, the records behind it would tell.
        """
        return self._database.total_changes != self._changes

    def _unwritten(self) -> Sequence[Changes]:
        """Return what is not in the database, or the transaction under way, yet: newest first."""
        return (self._staged,) if self._writing else (self._staged, self._journalled)

    def _roll_back(self) -> None:
        self._staged.clear()
        self._writing = False
        self.mailboxes.rollback()
        if self._database.in_transaction:  # SQLite has rolled back by itself after some errors
            self._run("ROLLBACK")

    def _begin(self) -> None:
        if not self._writing:
            self._run("BEGIN IMMEDIATE")
            self._writing = True
            self._changes = self._database.total_changes
            self._journalled.insert(self._run)
            self._journalled.move(self._run)

    def _run(self, statement: str, values: Sequence[Any] = ()) -> list[Any]:
        """Run one statement to its end and return its rows.

        Errors: `StoreFullError`, `StoreFailedError`. SQLite may have rolled back by itself then, so
        the batch must end too: whoever went on would write outside of a transaction.
        """
        try:
            return self._database.execute(statement, values).fetchall()
        except sqlite3.Error as error:
            raise self._judged(error) from error

    def _judged(self, error: sqlite3.Error) -> Exception:
        judged = meaning(error)
        self._failed = self._failed or isinstance(judged, StoreFailedError)
        return judged

    def _flush(self) -> None:
        """Hand the staged messages to SQLite. Errors: `StoreFullError`, while there is no room."""
        self._begin()
        if self._staged.rows:
            if self._ballast.sparing:
                raise SparingError
            self._staged.insert(self._run)
            self._staged.forget_rows()

    # --- messages ----------------------------------------------------------------------------

    def append_all(
        self, sender: str, letters: Sequence[ChatArgs], now_ms: int
    ) -> list[Receipt | WireError]:
        outcomes: list[Receipt | WireError] = []
        staged = self._staged.rows
        placed = self.mailboxes.append_all(sender, letters, now_ms)
        for (to, text, message_id, ttl_ms), place in zip(letters, placed, strict=True):
            if isinstance(place, WireError):
                outcomes.append(place)
                continue
            box, seq = place
            if box is None:
                outcomes.append(self._again(seq, to, text))
                continue
            staged += (seq, now_ms, sender, message_id, text, box.key)
            if ttl_ms is not None:
                self.mailboxes.expire_at(box, seq, now_ms + ttl_ms)
                self._staged.expiring += (seq, now_ms + ttl_ms)
            outcomes.append(Receipt(seq))
        return outcomes

    def _again(self, seq: int, to: str, text: str) -> Receipt | WireError:
        """Answer a repeated id, comparing it with the first copy as long as that is kept."""
        first = self._log.first(seq)
        box = self._box(first[0]) if first else None
        same = first is None or box is None or (box.name, first[1]) == (to, text)
        return Receipt(seq) if same else conflict()

    def read(self, user: str, device: str, after: int, limit: int, bytes_max: int) -> Page:
        mailboxes = self.mailboxes
        box = mailboxes.find(user)
        reader = mailboxes.reader(box, device)
        waiting = box.waiting(reader, after, limit + 1)
        messages = fitting(self._log.messages(waiting[:limit]), bytes_max)
        delivered = max(reader.delivered, mailboxes.restored_to)
        if messages:
            mailboxes.give(box, reader, messages[-1].seq)
        more = len(waiting) > len(messages)
        return Page(messages, more, reader.cursor, delivered, mailboxes.last, box.lost(reader))

    def acknowledge(self, user: str, device: str, seq: int) -> int:
        box = self.mailboxes.find(user)
        reader, changed, replaced = self.mailboxes.acknowledge(box, device, seq)
        if replaced is not None:
            self._begin()
            self._staged.cursors.pop((box.key, replaced), None)
            self._run("DELETE FROM readers WHERE mailbox = ? AND device = ?", (box.key, replaced))
        if changed:
            self._staged.cursors[box.key, device] = reader.cursor
        return reader.cursor

    def history(
        self,
        user: str,
        of: str,
        *,
        before: int | None,
        after: int | None,
        limit: int,
        bytes_max: int,
    ) -> History:
        box = self.mailboxes.find(user)
        seqs = self.mailboxes.history(box, of, before, after, limit + 1)
        if after is not None:
            found = fitting(self._log.messages(seqs[:limit]), bytes_max)
        else:
            found = fitting(self._log.newest_first(seqs[-limit:]), bytes_max)[::-1]
        state = self.mailboxes.state
        states = [state(each.seq, each.to) for each in found] if of == SENT else None
        return History(found, states, len(seqs) > len(found))

    def depth(self, user: str | None = None) -> Depth:
        return self.mailboxes.depth(user)

    def expire(self, now_ms: int) -> list[Message]:
        unread = self.mailboxes.expire(now_ms)
        if not unread:
            return []
        self._flush()
        for seq in unread:
            self._run(
                "INSERT INTO expiries (seq, expires_ms, expired_ms) VALUES (?1, ?2, ?2)"
                " ON CONFLICT (seq) DO UPDATE SET expired_ms = excluded.expired_ms",
                (seq, now_ms),
            )
        return list(self._log.without_texts(unread))

    # --- the directory -----------------------------------------------------------------------

    def find(self, kind: type[R], key: Key) -> R | None:
        record = self._records.find(kind, key)
        return record and self._counted(record)

    def _counted(self, record: R) -> R:
        if isinstance(record, Room):
            return replace(record, members=len(self.mailboxes.find(record.room).members))
        return record

    def find_all(self, kind: type[R], *, of: str = "", after: str = "", limit: int = 0) -> list[R]:
        found = self._records.find_all(kind, of=of, after=after, limit=limit)
        return [self._counted(each) for each in found]

    def put(self, record: Record) -> None:
        if self._ballast.sparing:
            raise SparingError
        joins = isinstance(record, Membership) and self.mailboxes.seat(record)
        self._begin()
        self._records.put(record)
        if isinstance(record, Account) and record.user not in self.mailboxes:
            since = self.mailboxes.last
            self._run("UPDATE accounts SET since = ? WHERE user = ?", (since, record.user))
            ((key,),) = self._run("SELECT id FROM accounts WHERE user = ?", (record.user,))
            self._add(Mailbox(record.user, key))
        elif isinstance(record, Room):
            if record.room not in self.mailboxes:
                ((key,),) = self._run("SELECT -id FROM rooms WHERE room = ?", (record.room,))
                self._add(Mailbox(record.room, key))
            self.mailboxes.alter(self.mailboxes.find(record.room), history=record.history)
        elif isinstance(record, Membership) and joins:
            self._run(
                "UPDATE members SET since = ? WHERE room = ? AND user = ?",
                (self.mailboxes.last, record.room, record.user),
            )

    def remove(self, kind: type[R], key: Key) -> None:
        self._begin()
        self._records.remove(kind, key)
        if kind in (Account, Room):
            self._remove_mailbox(str(key))
        elif kind is Membership and isinstance(key, tuple):
            self.mailboxes.unseat(*key)

    def _box(self, key: int) -> Mailbox | None:
        """Return the mailbox of a key, unless it was removed."""
        box = self._boxes.get(key)
        return box if box is not None and self.mailboxes.get(box.name) is box else None

    def _add(self, box: Mailbox) -> None:
        self._boxes[box.key] = box
        self._names[box.key] = box.name
        self.mailboxes.add(box)

    def _remove_mailbox(self, name: str) -> None:
        """Remove a mailbox with its place in rooms, and what was sent to it.

        A room's log, which may be long, is left to the walk: nobody can read it any more.
        """
        self._flush()
        box = self.mailboxes.remove(name)
        if box is None:
            return
        cursors = self._staged.cursors
        for reader in [reader for reader in cursors if reader[0] == box.key]:
            del cursors[reader]
        seqs = sorted({*box.seqs, *self._expired_of(box)})
        # All at once: each step would copy what their senders have sent.
        sent = [(each.seq, each.sender) for each in self._log.without_texts(seqs)]
        if box.room:
            self.mailboxes.forget_sent(sent)
        else:
            self._delete([Row(seq, None, 0, sender) for seq, sender in sent])
        self._run("DELETE FROM readers WHERE mailbox = ?", (box.key,))
        self._run("DELETE FROM purged WHERE mailbox = ?", (box.key,))
        self._run("DELETE FROM members WHERE room = ?", (name,))
        self._run("DELETE FROM members WHERE user = ?", (name,))

    def _expired_of(self, box: Mailbox) -> list[int]:
        rows = self._run(
            "SELECT seq FROM expiries JOIN messages USING (seq) WHERE mailbox = ?", (box.key,)
        )
        return [seq for (seq,) in rows]

    # --- keeping house -----------------------------------------------------------------------

    def tidy(self, now_ms: int) -> bool:
        self._flush()
        found = self._log.after(self._position, STEP_ROWS)
        rows = [
            Row(seq, self._box(key), stored_ms, sender) for seq, key, stored_ms, sender in found
        ]
        verdict = self._retention.judge(rows, now_ms)
        for row in verdict.expire:
            assert row.box is not None
            self.mailboxes.expire_at(row.box, row.seq, now_ms)
        self._delete(verdict.delete)
        walked = verdict.looked_at == STEP_ROWS
        self._position = rows[-1].seq if walked else 0
        if not walked:
            self._witness.write(self.epoch.number, self._committed)
        return self._log.give_back() or walked

    def _delete(self, rows: Sequence[Row]) -> None:
        """Delete messages, and what is known of them."""
        if not rows:
            return
        self._log.delete([row.seq for row in rows])
        if rows[-1].seq == self.mailboxes.last:  # which no row will bear witness to
            self._run("UPDATE epoch SET high = ?", (rows[-1].seq,))
        for box in self.mailboxes.purge((row.seq, row.box, row.sender) for row in rows):
            self._run(
                "INSERT INTO purged (mailbox, seq) VALUES (?, ?)"
                " ON CONFLICT (mailbox) DO UPDATE SET seq = excluded.seq",
                (box.key, box.purged),
            )

    # --- start and end -----------------------------------------------------------------------

    def _open(self, path: Path, *, check: bool) -> sqlite3.Connection:
        """Open the file, on a full disk with the room that was kept in reserve."""
        try:
            return open_database(path, check=check)
        except NoRoomError:
            if not self._ballast.give_up():
                raise
            return open_database(path, check=check)

    def _rebuild(self) -> Epoch:
        rebuild = Rebuild(self._database, self.mailboxes, self._add)
        epoch, last = settle(self._database, self._witness, rebuild.mailboxes())
        self.mailboxes.restored(last + 1)
        self._committed = last
        rebuild.ids(self._limits.dedup.ids_max)
        return epoch

    def close(self) -> None:
        """Empty journal and WAL into the database and close it; leave all where the disk failed."""
        settled = False
        with suppress(StoreFullError, StoreFailedError):  # what was committed is in one of them
            if not self._failed:
                self._begin()
                self._commit_database(NO_RUN)
                settled = True
                self._run("PRAGMA wal_checkpoint(TRUNCATE)")
        if self._failed:
            abandon(self._database)
            return
        self._database.close()
        self._wal.close()
        if self._journal is not None:
            self._journal.remove() if settled else self._journal.close()
        self._witness.write(self.epoch.number, self._committed)
