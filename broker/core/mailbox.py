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
        text = message.text
        room -= len(text) if text.isascii() else len(text.encode())  # hot path: `text_bytes`
        if room < 0 and taken:
            break
        taken.append(message)
    return taken


class Reader:
    """How far a user or a device has acknowledged, and how far it may have been given messages."""

    __slots__ = ("cursor", "delivered")

    def __init__(self, cursor: int) -> None:
        self.cursor = cursor
        self.delivered = 0


class Mailbox:
    """The mailbox of a user or of a room. ``key`` is the engine's number for it.

    ``seqs`` holds what is kept, read or not, in order (8 bytes each), ``sizes`` the bytes of its
    texts (4 each). Those before index ``head`` are acknowledged by some reader, the furthest of
    which stands at ``furthest``; in a room none is. ``given`` is the highest that was given to any
    reader since the start. ``last`` is the highest ever seen here,
    ``purged`` the highest that was deleted before all of its readers had read it. ``sent`` are the
    sequences that a user sent. ``rooms`` of a user say from which sequence on it reads.
    """

    __slots__ = (
        "devices",
        "furthest",
        "given",
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
        self.given = 0
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

    def there(self, seqs: Iterable[int]) -> list[int]:
        """Return those of the sequences that are kept."""
        return [seq for seq in seqs if _place(self.seqs, seq) is not None]

    def size(self, seq: int) -> int:
        """Return the bytes of a text, 0 where it is not kept."""
        place = _place(self.seqs, seq)
        return 0 if place is None else self.sizes[place]

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
        """Take out sequences that are kept, in order; return the bytes of those that were read."""
        places = [bisect_left(self.seqs, seq) for seq in gone]
        first, end, head = places[0], places[-1] + 1, self.head
        seqs, sizes = self.seqs[first:end], self.sizes[first:end]
        sizes_gone = [self.sizes[place] for place in places]
        were_read = bisect_left(places, head)
        read, waiting = sum(sizes_gone[:were_read]), sum(sizes_gone[were_read:])
        offsets = [place - first for place in places]
        self.seqs[first:end] = _without(seqs, offsets)
        self.sizes[first:end] = _without(sizes, offsets)
        self.head -= were_read
        self.waiting_bytes -= waiting

        def undo() -> None:
            stop = end - len(places)
            self.seqs[first:stop], self.sizes[first:stop] = seqs, sizes
            self.head = head
            self.waiting_bytes += waiting

        return read, undo

    def cut_sent(self, gone: Sequence[int]) -> Undo:
        """Forget that the user sent these, which are in order."""
        sent = self.sent
        places = [place for seq in gone if (place := _place(sent, seq)) is not None]
        first, end = (places[0], places[-1] + 1) if places else (0, 0)
        # In place: a copy of a million sequences costs twice as much, and its undoing keeps it.
        part = sent[first:end]
        sent[first:end] = _without(part, [place - first for place in places])

        def undo() -> None:
            sent[first : end - len(places)] = part

        return undo


def _place(seqs: array[int], seq: int) -> int | None:
    index = bisect_left(seqs, seq)
    return index if index < len(seqs) and seqs[index] == seq else None


def _without(values: array[int], places: Iterable[int]) -> array[int]:
    """Return a copy without the values at these places, which are in order."""
    left, start = values[:0], 0
    for place in places:
        left += values[start:place]
        start = place + 1
    left += values[start:]
    return left


def _page(
    seqs: array[int], low: int, before: int | None, after: int | None, limit: int
) -> array[int]:
    """Return the part of ``seqs`` above ``low`` that is next to ``before`` or ``after``."""
    if after is not None:
        start = bisect_right(seqs, max(low, after))
        return seqs[start : start + limit]
    end = len(seqs) if before is None else bisect_left(seqs, before)
    return seqs[max(bisect_right(seqs, low), end - limit) : end]
