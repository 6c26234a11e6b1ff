"""One mailbox in memory: which sequences are kept, how long they are, who has read how far.

Sequences are given out by `broker.core.mailboxes.Mailboxes` and grow over all mailboxes, so that a
reader's own messages and those of its rooms have one order, and one cursor is enough for them all.
"""

from __future__ import annotations

from array import array
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from broker.core.model import Lost, Message
from broker.wire.limits import ROOM_MARK

Undo = Callable[[], object]
#: Of a mailbox without any: shared, and never changed.
_NO_ROOMS: Final[dict[Mailbox, int]] = {}
_NO_DEVICES: Final[dict[str, Reader]] = {}


def text_bytes(text: str) -> int:
    """Return the length of a text as UTF-8."""
    return len(text) if text.isascii() else len(text.encode())


def fitting(messages: Iterable[Message], bytes_max: int) -> list[Message]:
    """Take messages while their texts fit into ``bytes_max`` bytes, at least one."""
    taken: list[Message] = []
    room = bytes_max
    for message in messages:
        room -= text_bytes(message.text)
        if room < 0 and taken:
            break
        taken.append(message)
    return taken


class Reader:
    """How far a user or a device has acknowledged, and how far it was given messages."""

    __slots__ = ("cursor", "delivered")

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.delivered = 0


class Mailbox:
    """The mailbox of a user or of a room. ``key`` is the engine's number for it.

    ``seqs`` holds what is kept, read or not, in order (8 bytes each), ``sizes`` the bytes of its
    texts (4 each). Those before index ``head`` are acknowledged by some reader, the furthest of
    which stands at ``furthest``; in a room none is. ``last`` is the highest ever seen here,
    ``purged`` the highest that was deleted before all of its readers had read it. ``sent`` are the
    sequences that a user sent. ``rooms`` of a user say from which sequence on it reads.
    """

    __slots__ = (
        "devices",
        "furthest",
        "head",
        "history",
        "key",
        "last",
        "members",
        "name",
        "purged",
        "reader",
        "room",
        "rooms",
        "sent",
        "seqs",
        "sizes",
        "waiting_bytes",
    )

    def __init__(self, name: str, key: int, *, history: bool = False) -> None:
        self.name = name
        self.key = key
        self.room = name.startswith(ROOM_MARK)
        self.history = history
        self.members: set[Mailbox] | frozenset[Mailbox] = frozenset()
        self.rooms = _NO_ROOMS
        self.reader = Reader(0)
        self.devices = _NO_DEVICES
        self.furthest = 0
        self.head = 0
        self.last = 0
        self.purged = 0
        self.waiting_bytes = 0
        self.seqs = array("q")
        self.sizes = array("I")
        self.sent = array("q")

    def readers(self) -> list[Reader]:
        """Return the user's reader and those of the devices."""
        return [self.reader, *self.devices.values()]

    def reached(self) -> int:
        """Return the highest sequence that a reader may acknowledge."""
        return max(self.last, *(room.last for room in self.rooms)) if self.rooms else self.last

    def delivered(self) -> int:
        """Return how far messages were given to any reader."""
        return max(reader.delivered for reader in self.readers())

    # --- pages -------------------------------------------------------------------------------

    def waiting(self, reader: Reader, after: int, limit: int) -> Sequence[int]:
        """Return up to ``limit`` sequences that the reader has not acknowledged, in order."""
        low = max(after, reader.cursor)
        # Hot path: who reads without devices and rooms begins at the head.
        start = self.head if low == self.furthest else bisect_right(self.seqs, low)
        own = self.seqs[start : start + limit]
        if not self.rooms:
            return own
        found = list(own)
        for room, since in self.rooms.items():
            found += room.above(max(low, since), limit)
        return sorted(found)[:limit]

    def kept(
        self, before: int | None, after: int | None, limit: int, *, low: int = 0
    ) -> Sequence[int]:
        """Return up to ``limit`` sequences that are kept, next to ``before`` or ``after``."""
        found = _page(self.seqs, low, before, after, limit)
        if not self.rooms:
            return found
        for room, since in self.rooms.items():
            found += _page(room.seqs, since, before, after, limit)
        ordered = sorted(found)
        return ordered[:limit] if after is not None else ordered[-limit:]

    def sent_page(self, before: int | None, after: int | None, limit: int) -> Sequence[int]:
        """Return up to ``limit`` of the sequences sent, as `kept`."""
        return _page(self.sent, 0, before, after, limit)

    def lost(self, reader: Reader) -> Lost | None:
        """Return what was deleted before the reader had read it."""
        low = reader.cursor
        gone = [room.purged for room, since in self.rooms.items() if max(low, since) < room.purged]
        if low < self.purged:
            gone.append(self.purged)
        return Lost(low + 1, max(gone)) if gone else None

    def above(self, low: int, limit: int) -> array[int]:
        """Return up to ``limit`` sequences above ``low``."""
        start = bisect_right(self.seqs, low)
        return self.seqs[start : start + limit]

    # --- changes, each with the step that takes it back ---------------------------------------

    def acknowledge(self, reader: Reader, seq: int) -> tuple[int, Undo]:
        """Move a reader forward; return the bytes that count as read from now on."""
        cursor, furthest, head = reader.cursor, self.furthest, self.head
        read = 0
        reader.cursor = seq
        if seq > furthest:
            self.furthest = seq
            self.head = bisect_right(self.seqs, seq, head)
            read = sum(self.sizes[head : self.head])
            self.waiting_bytes -= read

        def undo() -> None:
            reader.cursor, self.furthest, self.head = cursor, furthest, head
            self.waiting_bytes += read

        return read, undo

    def cut(self, gone: Sequence[int]) -> tuple[int, Undo]:
        """Take out sequences, in order; return the bytes of those that had been read."""
        low, high = bisect_left(self.seqs, gone[0]), bisect_right(self.seqs, gone[-1])
        seqs, sizes, head = self.seqs[low:high], self.sizes[low:high], self.head
        leaving = set(gone)
        stay = [(seq, size) for seq, size in zip(seqs, sizes, strict=True) if seq not in leaving]
        kept_seqs = array("q", (seq for seq, _ in stay))
        self.seqs[low:high] = kept_seqs
        self.sizes[low:high] = array("I", (size for _, size in stay))
        front = max(0, min(head, high) - low)  # of the slice, what some reader had acknowledged
        read = sum(size for seq, size in zip(seqs[:front], sizes, strict=False) if seq in leaving)
        waiting = sum(sizes) - sum(size for _, size in stay) - read
        self.head -= sum(seq in leaving for seq in seqs[:front])
        self.waiting_bytes -= waiting

        def undo() -> None:
            end = low + len(kept_seqs)
            self.seqs[low:end], self.sizes[low:end] = seqs, sizes
            self.head = head
            self.waiting_bytes += waiting

        return read, undo

    def cut_sent(self, gone: Sequence[int]) -> Undo:
        """Forget that the user sent these."""
        low, high = bisect_left(self.sent, gone[0]), bisect_right(self.sent, gone[-1])
        sent = self.sent[low:high]
        leaving = set(gone)
        stay = array("q", (seq for seq in sent if seq not in leaving))
        self.sent[low:high] = stay

        def undo() -> None:
            self.sent[low : low + len(stay)] = sent

        return undo


def _page(
    seqs: array[int], low: int, before: int | None, after: int | None, limit: int
) -> array[int]:
    """Return the part of ``seqs`` above ``low`` that is next to ``before`` or ``after``."""
    if after is not None:
        start = bisect_right(seqs, max(low, after))
        return seqs[start : start + limit]
    end = len(seqs) if before is None else bisect_left(seqs, before)
    return seqs[max(bisect_right(seqs, low), end - limit) : end]
