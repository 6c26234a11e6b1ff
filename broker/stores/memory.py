"""The store in memory: for embedding, for tests, and for what may be forgotten."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import TypeVar

from broker.core.dedup import DedupLimits
from broker.core.mailboxes import Mailbox, Mailboxes, conflict, fitting
from broker.core.model import Account, Message, Page, Receipt, SessionRecord

_Key = TypeVar("_Key")
_Value = TypeVar("_Value")


class MemoryStore:
    """Everything in dictionaries. A batch that fails is undone step by step."""

    durability = "memory"

    def __init__(self, *, mailbox_messages_max: int, dedup: DedupLimits) -> None:
        self.mailboxes = Mailboxes(messages_max=mailbox_messages_max, dedup=dedup)
        self._messages: dict[int, tuple[str, Message]] = {}
        self._accounts: dict[str, Account] = {}
        self._sessions: dict[bytes, SessionRecord] = {}
        self._undo: list[Callable[[], object]] = []
        self._acknowledged: list[int] = []

    @contextmanager
    def batch(self) -> Iterator[None]:
        try:
            yield
        except BaseException:
            for step in reversed(self._undo):
                step()
            self.mailboxes.rollback()
            raise
        else:
            self.mailboxes.commit()
            for seq in self._acknowledged:
                self._messages.pop(seq, None)
        finally:
            self._undo.clear()
            self._acknowledged.clear()

    def append(self, to: str, sender: str, message_id: str, text: str, now_ms: int) -> Receipt:
        seq = self.mailboxes.duplicate(sender, message_id)
        if seq is not None:
            return self._again(seq, to, text)
        _, seq = self.mailboxes.append(to, sender, message_id, now_ms)
        self._messages[seq] = (to, Message(seq, now_ms, sender, message_id, text))
        self._undo.append(lambda: self._messages.pop(seq))
        return Receipt(seq)

    def read(self, user: str, after: int, limit: int, bytes_max: int) -> Page:
        box = self.mailboxes.find(user)
        waiting = self.mailboxes.after(box, after, limit + 1)
        messages = fitting((self._messages[seq][1] for seq in waiting[:limit]), bytes_max)
        return Page(messages, len(waiting) > len(messages), box.cursor)

    def acknowledge(self, user: str, seq: int) -> int:
        box = self.mailboxes.find(user)
        head = box.head
        cursor = self.mailboxes.acknowledge(box, seq)
        self._acknowledged += box.pending[head : box.head]
        return cursor

    def account(self, user: str) -> Account | None:
        return self._accounts.get(user)

    def accounts(self, after: str, limit: int) -> list[Account]:
        users = (user for user in sorted(self._accounts) if user > after)
        return [self._accounts[user] for user in islice(users, limit)]

    def put_account(self, user: str, account: Account | None) -> None:
        self._put(self._accounts, user, account)
        if account is None:
            box = self.mailboxes.remove(user)
            if box is not None:
                self._acknowledged += box.pending[box.head :]
        elif user not in self.mailboxes:
            self.mailboxes.add(user, Mailbox(0, 0))

    def session(self, digest: bytes) -> SessionRecord | None:
        return self._sessions.get(digest)

    def sessions(self, user: str | None = None) -> Iterable[SessionRecord]:
        return [each for each in self._sessions.values() if user is None or each.user == user]

    def put_session(self, digest: bytes, record: SessionRecord | None) -> None:
        self._put(self._sessions, digest, record)

    def tidy(self, now_ms: int) -> bool:  # noqa: ARG002 - the port's; here an ack forgets at once
        return False

    def close(self) -> None:
        pass

    def _again(self, seq: int, to: str, text: str) -> Receipt:
        """Answer a repeated id; a copy that is acknowledged and gone cannot be compared."""
        stored = self._messages.get(seq)
        if stored is not None and (stored[0], stored[1].text) != (to, text):
            raise conflict()
        return Receipt(seq)

    def _put(self, table: dict[_Key, _Value], key: _Key, value: _Value | None) -> None:
        before = table.get(key)
        if value is None:
            if before is not None:
                whole = dict(table)  # with its order: one put back alone would become the last
                del table[key]
                self._undo += [partial(table.update, whole), table.clear]  # undone from the end
            return
        table[key] = value
        if before is None:
            self._undo.append(lambda: table.pop(key))
        else:
            self._undo.append(lambda: table.__setitem__(key, before))
