"""The store in memory: for embedding, for tests, and for what may be forgotten."""

from __future__ import annotations

import secrets
from array import array
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, cast

from broker.core.alone import Alone
from broker.core.mailbox import Mailbox, fitting
from broker.core.mailboxes import Mailboxes, conflict
from broker.core.model import (
    Account,
    Block,
    Depth,
    Epoch,
    History,
    LoginKey,
    Lost,
    Membership,
    Message,
    Page,
    Receipt,
    Room,
    SessionRecord,
)
from broker.core.one_by_one import OneByOne
from broker.core.ports import DEFAULT_LIMITS, Key, R, Record, StoreLimits
from broker.core.retention import STEP_ROWS, Retention, Row
from broker.wire.commands import SENT, ChatArgs
from broker.wire.errors import WireError
from broker.wire.limits import ROOM_MARK


class MemoryStore(OneByOne, Alone):
    """Everything in dictionaries. A batch that fails is undone step by step.

    ``first_seq``: give a higher one to each store that clients may take for the one before.
    """

    durability = "memory"
    undoes = True

    def __init__(self, limits: StoreLimits = DEFAULT_LIMITS, *, first_seq: int = 1) -> None:
        self.epoch = Epoch(1 + secrets.randbelow(2**53 - 1), Lost(1, first_seq - 1))
        self.mailboxes = Mailboxes(limits, next_seq=first_seq)
        self.mailboxes.restored_to = 0
        self._retention = Retention(limits, self.mailboxes)
        self._messages: dict[int, Message] = {}
        self._log = array("q")  # their sequences, in order
        self._position = 0
        self._records: dict[type, dict[Key, Any]] = {
            kind: {} for kind in (Account, SessionRecord, Room, Membership, LoginKey, Block)
        }
        self._undo: list[Callable[[], object]] = []

    @contextmanager
    def batch(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            while self._undo:
                self._undo.pop()()
            self.mailboxes.rollback()
            raise
        else:
            self.mailboxes.commit()
        finally:
            self._undo.clear()

    # --- messages ----------------------------------------------------------------------------

    def append_all(
        self, sender: str, letters: Sequence[ChatArgs], now_ms: int
    ) -> list[Receipt | WireError]:
        outcomes: list[Receipt | WireError] = []
        placed = self.mailboxes.append_all(sender, letters, now_ms)
        for (to, text, message_id, ttl_ms), place in zip(letters, placed, strict=True):
            if isinstance(place, WireError):
                outcomes.append(place)
                continue
            box, seq = place
            if box is None:
                outcomes.append(self._again(seq, to, text))
                continue
            self._messages[seq] = Message(seq, now_ms, sender, message_id, text, to)
            self._log.append(seq)
            self._undo += [self._log.pop, partial(self._messages.pop, seq)]
            if ttl_ms is not None:
                self.mailboxes.expire_at(box, seq, now_ms + ttl_ms)
            outcomes.append(Receipt(seq))
        return outcomes

    def _again(self, seq: int, to: str, text: str) -> Receipt | WireError:
        """Answer a repeated id, comparing it with the first copy as long as that is kept."""
        first = self._messages.get(seq)
        same = first is None or (first.to, first.text) == (to, text)
        return Receipt(seq) if same else conflict()

    def read(self, user: str, device: str, after: int, limit: int, bytes_max: int) -> Page:
        mailboxes = self.mailboxes
        box = mailboxes.find(user)
        reader = mailboxes.reader(box, device)
        waiting = box.waiting(reader, after, limit + 1)
        messages = fitting((self._messages[seq] for seq in waiting[:limit]), bytes_max)
        delivered = reader.delivered
        if messages:
            mailboxes.give(box, reader, messages[-1].seq)
        more = len(waiting) > len(messages)
        return Page(messages, more, reader.cursor, delivered, mailboxes.last, box.lost(reader))

    def acknowledge(self, user: str, device: str, seq: int) -> int:
        box = self.mailboxes.find(user)
        return self.mailboxes.acknowledge(box, device, seq).reader.cursor

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
        seqs = self.mailboxes.history(self.mailboxes.find(user), of, before, after, limit + 1)
        if after is not None:
            found = fitting((self._messages[seq] for seq in seqs[:limit]), bytes_max)
        else:
            newest_first = reversed(seqs[-limit:])
            found = fitting((self._messages[seq] for seq in newest_first), bytes_max)[::-1]
        state = self.mailboxes.state
        states = [state(each.seq, each.to) for each in found] if of == SENT else None
        return History(found, states, len(seqs) > len(found))

    def depth(self, user: str | None = None) -> Depth:
        return self.mailboxes.depth(user)

    def expire(self, now_ms: int) -> list[Message]:
        return [self._messages[seq]._replace(text="") for seq in self.mailboxes.expire(now_ms)]

    # --- the directory -----------------------------------------------------------------------

    def find(self, kind: type[R], key: Key) -> R | None:
        record = self._records[kind].get(key)
        return cast("R | None", None if record is None else self._counted(record))

    def _counted(self, record: Record) -> Record:
        if isinstance(record, Room):
            return replace(record, members=len(self.mailboxes.find(record.room).members))
        return record

    def find_all(self, kind: type[R], *, of: str = "", after: str = "", limit: int = 0) -> list[R]:
        found: list[Any] = list(self._records[kind].values())
        if of:
            owner = "room" if of.startswith(ROOM_MARK) else "user"
            found = [each for each in found if getattr(each, owner) == of]
        if kind is not SessionRecord:  # which are in order of opening
            found.sort(key=_key)
        found = [each for each in found if not after or each.user > after]
        return [cast("R", self._counted(each)) for each in found[: limit or None]]

    def put(self, record: Record) -> None:
        mailboxes = self.mailboxes
        if isinstance(record, Account) and record.user not in mailboxes:
            mailboxes.add(Mailbox(record.user, 0))
        elif isinstance(record, Room):
            if record.room not in mailboxes:
                mailboxes.add(Mailbox(record.room, 0))
            mailboxes.alter(mailboxes.find(record.room), history=record.history)
        elif isinstance(record, Membership):
            mailboxes.seat(record)
        self._put(type(record), _key(record), record)

    def remove(self, kind: type[R], key: Key) -> None:
        self._put(kind, key, None)
        if kind is Membership and isinstance(key, tuple):
            self.mailboxes.unseat(*key)
        elif kind in (Account, Room):
            self._remove_mailbox(str(key))

    def _remove_mailbox(self, name: str) -> None:
        box = self.mailboxes.remove(name)
        if box is None:
            return
        memberships: list[Membership] = list(self._records[Membership].values())
        for each in memberships:
            if name in (each.room, each.user):
                self._put(Membership, _key(each), None)
        self._delete([self._row(seq) for seq in self._log if self._messages[seq].to == name])

    def _put(self, kind: type[Record], key: Key, record: Record | None) -> None:
        table = self._records[kind]
        before = table.get(key)
        if record is not None:
            table[key] = record
            undo = (
                partial(table.pop, key) if before is None else partial(table.update, {key: before})
            )
            self._undo.append(undo)
        elif before is not None:
            whole = dict(table)  # with its order: one put back alone would become the last
            del table[key]
            self._undo += [partial(table.update, whole), table.clear]  # undone from the end

    # --- keeping house -----------------------------------------------------------------------

    def tidy(self, now_ms: int) -> bool:
        start = bisect_right(self._log, self._position)
        seqs = self._log[start : start + STEP_ROWS]
        verdict = self._retention.judge([self._row(seq) for seq in seqs], now_ms)
        for row in verdict.expire:
            assert row.box is not None
            self.mailboxes.expire_at(row.box, row.seq, now_ms)
        self._delete(verdict.delete)
        walked = verdict.looked_at == STEP_ROWS
        self._position = seqs[-1] if walked else 0
        return walked

    def _row(self, seq: int) -> Row:
        message = self._messages[seq]
        return Row(seq, self.mailboxes.get(message.to), message.at_ms, message.sender)

    def _delete(self, rows: Sequence[Row]) -> None:
        if not rows:
            return
        self.mailboxes.purge((row.seq, row.box, row.sender) for row in rows)
        gone = {row.seq: self._messages.pop(row.seq) for row in rows}
        log = self._log
        self._log = array("q", (seq for seq in log if seq not in gone))
        self._undo += [partial(self._messages.update, gone), partial(setattr, self, "_log", log)]

    def close(self) -> None:
        pass


def _key(record: Record) -> Key:
    if isinstance(record, Membership):
        return record.room, record.user
    if isinstance(record, SessionRecord):
        return record.digest
    if isinstance(record, LoginKey):
        return record.key
    if isinstance(record, Block):
        return record.user, record.sender
    return record.room if isinstance(record, Room) else record.user
