"""The queues in memory: which sequences wait for whom. Engines of one process share it.

Messages themselves are the engine's; this index decides what an append, a read and an
acknowledgement mean, and can take back a batch that the engine could not commit.
"""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections.abc import Iterable

from broker.core.dedup import DedupLimits, DedupWindow
from broker.core.model import Message
from broker.wire.errors import Code, WireError

#: Acknowledged sequences are cut off the front of a queue in steps of at least this many.
_COMPACT_MIN = 256


def conflict() -> WireError:
    """Make the refusal of an id that was used for another message."""
    return WireError(
        Code.CONFLICT, "this message id was used with another text or recipient: make a new id"
    )


def fitting(messages: Iterable[Message], bytes_max: int) -> list[Message]:
    """Take messages while their texts fit into ``bytes_max`` bytes, at least one."""
    taken: list[Message] = []
    room = bytes_max
    for message in messages:
        text = message.text
        room -= len(text) if text.isascii() else len(text.encode())
        if room < 0 and taken:
            break
        taken.append(message)
    return taken


class Mailbox:
    """One queue. ``key`` is the engine's number for it.

    ``pending`` holds sequences in order, 8 bytes each; those before index ``head`` are
    acknowledged. ``last`` is the highest sequence ever seen here.
    """

    __slots__ = ("cursor", "head", "key", "last", "pending")

    def __init__(self, key: int, cursor: int) -> None:
        self.key = key
        self.cursor = cursor
        self.last = cursor
        self.head = 0
        self.pending = array("q")


class Mailboxes:
    """All queues, the next sequence, and the ids seen; undone by `rollback`, kept by `commit`."""

    def __init__(self, *, messages_max: int, dedup: DedupLimits) -> None:
        self.next_seq = 1
        self._messages_max = messages_max
        self._boxes: dict[str, Mailbox] = {}
        self._dedup = DedupWindow(dedup)
        # Of this batch: what `rollback` must take back.
        self._appended: list[tuple[Mailbox, str, str]] = []
        self._acknowledged: list[tuple[Mailbox, int, int]] = []
        self._replaced: list[tuple[str, Mailbox | None]] = []

    def __len__(self) -> int:
        return len(self._boxes)

    def __contains__(self, user: str) -> bool:
        return user in self._boxes

    def waiting(self) -> int:
        """Count the messages that are not acknowledged. Walks over all mailboxes."""
        return sum(len(box.pending) - box.head for box in list(self._boxes.values()))

    def find(self, user: str) -> Mailbox:
        """Return a mailbox. Errors: ``no_such_user``."""
        box = self._boxes.get(user)
        if box is None:
            raise WireError(Code.NO_SUCH_USER, "there is no user of that name: check the spelling")
        return box

    def duplicate(self, sender: str, message_id: str) -> int | None:
        """Return the sequence that this id was stored under, if it is remembered."""
        return self._dedup.find(sender, message_id)

    def append(self, to: str, sender: str, message_id: str, now_ms: int) -> tuple[Mailbox, int]:
        """Give out the next sequence to a message. Errors: ``no_such_user``, ``mailbox_full``."""
        box = self._boxes.get(to) or self.find(to)
        if len(box.pending) - box.head >= self._messages_max:
            raise WireError(
                Code.MAILBOX_FULL, "the recipient has too many unread messages: try again later"
            )
        seq = self.next_seq
        self.next_seq = seq + 1
        box.pending.append(seq)
        box.last = seq
        self._dedup.add(sender, message_id, seq, now_ms)
        self._appended.append((box, sender, message_id))
        return box, seq

    def after(self, box: Mailbox, seq: int, limit: int) -> array[int]:
        """Return up to ``limit`` waiting sequences above ``seq``, in order."""
        first = box.head
        if seq > box.cursor:
            first = bisect_right(box.pending, seq, first)
        return box.pending[first : first + limit]

    def acknowledge(self, box: Mailbox, seq: int) -> int:
        """Move the cursor to ``seq``, within the mailbox and only forward; return it."""
        seq = min(seq, box.last)
        if seq > box.cursor:
            self._acknowledged.append((box, box.head, box.cursor))
            box.head = bisect_right(box.pending, seq, box.head)
            box.cursor = seq
        return box.cursor

    def add(self, user: str, box: Mailbox) -> None:
        """Take in the mailbox of a new account."""
        self._replaced.append((user, self._boxes.get(user)))
        self._boxes[user] = box

    def remove(self, user: str) -> Mailbox | None:
        """Drop a mailbox with all that waits in it."""
        box = self._boxes.pop(user, None)
        if box is not None:
            self._replaced.append((user, box))
        return box

    def restore(self, box: Mailbox, seq: int) -> None:
        """Put back a stored sequence while the engine is being opened, in order of sequence."""
        box.pending.append(seq)
        box.last = seq

    def remember(self, sender: str, message_id: str, seq: int, at_ms: int) -> None:
        """Put back a stored id while the engine is being opened, in order of sequence."""
        self._dedup.add(sender, message_id, seq, at_ms)

    def commit(self) -> None:
        """Keep the batch."""
        for box, _, _ in self._acknowledged:
            if box.head >= _COMPACT_MIN and box.head * 2 >= len(box.pending):
                del box.pending[: box.head]
                box.head = 0
        self._forget()

    def rollback(self) -> None:
        """Take back the batch, newest step first."""
        for box, head, cursor in reversed(self._acknowledged):
            box.head, box.cursor = head, cursor
        for box, sender, message_id in reversed(self._appended):
            box.pending.pop()
            box.last = box.pending[-1] if box.pending else box.cursor
            self._dedup.discard(sender, message_id)
        self.next_seq -= len(self._appended)
        for user, previous in reversed(self._replaced):
            if previous is None:
                self._boxes.pop(user, None)
            else:
                self._boxes[user] = previous
        self._forget()

    def _forget(self) -> None:
        self._appended.clear()
        self._acknowledged.clear()
        self._replaced.clear()
