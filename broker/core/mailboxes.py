"""All mailboxes in memory. Engines of one process share it.

Messages themselves are the engine's; this index decides what an append, a read and an
acknowledgement mean, and can take back a batch that the engine could not commit.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final

from broker.core.dedup import DedupWindow
from broker.core.mailbox import Mailbox, Reader, Undo
from broker.core.model import State
from broker.core.ports import StoreLimits
from broker.wire.commands import INBOX, SENT
from broker.wire.errors import Code, WireError
from broker.wire.limits import DEVICES_PER_USER_MAX, ROOM_MARK

#: Messages taken out at once because their time is over: a millisecond or two.
EXPIRED_PER_STEP_MAX: Final = 500
#: When a full mailbox may have room again: its reader has to read first.
_FULL_RETRY_MS: Final = 5_000


def conflict() -> WireError:
    """Make the refusal of an id that was used for another message."""
    return WireError(
        Code.CONFLICT, "this message id was used with another text or recipient: make a new id"
    )


class Mailboxes:
    """All mailboxes, the next sequence, and the ids seen; `rollback` undoes a batch of steps."""

    def __init__(self, limits: StoreLimits, *, next_seq: int = 1) -> None:
        self.next_seq = next_seq
        #: What was stored up to here may have been delivered before this process began.
        self.restored_to = next_seq - 1
        #: Text of messages that are acknowledged and still kept, in bytes.
        self.read_bytes = 0
        #: When each expired unread, in milliseconds, by sequence, as long as it is kept.
        self.expired: dict[int, int] = {}
        self._messages_max = limits.mailbox_messages_max
        self._bytes_max = limits.mailbox_bytes_max
        self._boxes: dict[str, Mailbox] = {}
        self._dedup = DedupWindow(limits.dedup)
        self._expiring: list[tuple[int, int, Mailbox]] = []  # a heap, by time
        # Of this batch: what `rollback` must take back.
        self._appended: list[tuple[Mailbox, int, Mailbox | None, str, str, int]] = []
        self._undo: list[Undo] = []

    def __len__(self) -> int:
        return len(self._boxes)

    def __contains__(self, name: str) -> bool:
        return name in self._boxes

    @property
    def last(self) -> int:
        """The highest sequence given out."""
        return self.next_seq - 1

    def waiting(self) -> int:
        """Count the messages that no reader has acknowledged. Walks over all mailboxes."""
        return sum(len(box.seqs) - box.head for box in list(self._boxes.values()) if not box.room)

    def find(self, name: str) -> Mailbox:
        """Return a mailbox. Errors: ``no_such_user``, ``no_such_room``."""
        box = self._boxes.get(name)
        if box is None:
            raise no_such_room() if name.startswith(ROOM_MARK) else _no_such_user()
        return box

    def get(self, name: str) -> Mailbox | None:
        """Return a mailbox, or None."""
        return self._boxes.get(name)

    def reader(self, box: Mailbox, device: str) -> Reader:
        """Return a reader; a device that is not known reads from its user's cursor on."""
        if not device:
            return box.reader
        return box.devices.get(device) or Reader(box.reader.cursor)

    # --- messages ----------------------------------------------------------------------------

    def duplicate(self, sender: str, message_id: str) -> int | None:
        """Return the sequence that this id was stored under, if it is remembered."""
        return self._dedup.find(sender, message_id)

    def append(
        self, to: str, sender: str, message_id: str, size: int, now_ms: int
    ) -> tuple[Mailbox, int]:
        """Give out the next sequence to a message of ``size`` bytes. Errors: as `Store.append`."""
        boxes = self._boxes
        box = boxes.get(to) or self.find(to)
        own = boxes.get(sender)
        if box.room and (own is None or box not in own.rooms):
            raise no_such_room()
        waiting = len(box.seqs) - box.head
        if waiting >= self._messages_max or (
            waiting and box.waiting_bytes + size > self._bytes_max
        ):
            raise _full(box)
        seq = self.next_seq
        self.next_seq = seq + 1
        box.seqs.append(seq)
        box.sizes.append(size)
        box.waiting_bytes += size
        if own is not None:
            own.sent.append(seq)
        self._dedup.add(sender, message_id, seq, now_ms)
        self._appended.append((box, box.last, own, sender, message_id, size))
        box.last = seq
        return box, seq

    def expire_at(self, box: Mailbox, seq: int, expires_ms: int) -> None:
        """Take a message out when the time has come, see `expire`."""
        heappush(self._expiring, (expires_ms, seq, box))

    def acknowledge(self, box: Mailbox, device: str, seq: int) -> tuple[Reader, bool]:
        """Move a reader's cursor to ``seq``, within the mailbox and only forward.

        Return the reader, and whether there is something to be written down.
        """
        reader, known = self.reader(box, device), not device or device in box.devices
        if not known:
            self._add_device(box, device, reader)
        seq = min(seq, box.reached())
        if seq <= reader.cursor:
            return reader, not known
        read, undo = box.acknowledge(reader, seq)
        self._count_read(read)
        self._undo.append(undo)
        return reader, True

    def history(
        self, box: Mailbox, of: str, before: int | None, after: int | None, limit: int
    ) -> Sequence[int]:
        """Return up to ``limit`` sequences of what is kept. Errors: ``no_such_room``."""
        if of == INBOX:
            return box.kept(before, after, limit)
        if of == SENT:
            return box.sent_page(before, after, limit)
        room = self._boxes.get(of)
        since = box.rooms.get(room) if room is not None else None
        if room is None or since is None:
            raise no_such_room()
        return room.kept(before, after, limit, low=0 if room.history else since)

    def state(self, seq: int, to: str) -> State:
        """Tell where a message that is kept stands."""
        box = self._boxes.get(to)
        if seq in self.expired:
            return State.EXPIRED
        if box is None or box.room:
            return State.STORED
        if seq <= box.furthest:
            return State.ACKNOWLEDGED
        return State.DELIVERED if seq <= box.delivered() else State.STORED

    # --- what leaves -------------------------------------------------------------------------

    def expire(self, now_ms: int) -> tuple[list[int], list[int]]:
        """Take out messages whose time is over; return those unread, and the others.

        At most `EXPIRED_PER_STEP_MAX`.
        """
        unread: list[int] = []
        others: list[int] = []
        heap = self._expiring
        while heap and heap[0][0] <= now_ms and len(unread) + len(others) < EXPIRED_PER_STEP_MAX:
            entry = heappop(heap)
            self._undo.append(partial(heappush, heap, entry))
            _, seq, box = entry
            (unread if self._is_unread(box, seq) else others).append(seq)
            self._take_out(box, seq)
        for seq in unread:
            self._note_expired(seq, now_ms)
        return unread, others

    def expire_unread(self, box: Mailbox, seq: int, now_ms: int) -> None:
        """Take out one message that nobody has read, as `expire` does when its time has come."""
        self._take_out(box, seq)
        self._note_expired(seq, now_ms)

    def purge(self, rows: Iterable[tuple[int, Mailbox | None, str]]) -> list[Mailbox]:
        """Forget messages (sequence, mailbox, sender) that are deleted, in order of sequence.

        Return the mailboxes whose ``purged`` has changed.
        """
        received: defaultdict[Mailbox, list[int]] = defaultdict(list)
        sent: defaultdict[str, list[int]] = defaultdict(list)
        for seq, box, sender in rows:
            if box is not None:
                received[box].append(seq)
            if sender:
                sent[sender].append(seq)
            at_ms = self.expired.pop(seq, None)
            if at_ms is not None:
                self._undo.append(partial(self.expired.__setitem__, seq, at_ms))
        for sender, gone in sent.items():
            own = self._boxes.get(sender)
            if own is not None:
                self._undo.append(own.cut_sent(gone))
        return [box for box, gone in received.items() if self._cut(box, gone)]

    def _cut(self, box: Mailbox, gone: list[int]) -> bool:
        """Take out what is deleted; tell whether somebody had not read it yet."""
        seqs = box.seqs[bisect_left(box.seqs, gone[0]) : bisect_right(box.seqs, gone[-1])]
        kept = set(seqs)
        there = [seq for seq in gone if seq in kept]
        if not there:
            return False
        read, undo = box.cut(gone)
        self._count_read(-read)
        self._undo.append(undo)
        if not box.room and all(reader.cursor >= there[-1] for reader in box.readers()):
            return False
        self._undo.append(partial(setattr, box, "purged", box.purged))
        box.purged = there[-1]
        return True

    def _take_out(self, box: Mailbox, seq: int) -> None:
        read, undo = box.cut([seq])
        self._count_read(-read)
        self._undo.append(undo)

    def _note_expired(self, seq: int, now_ms: int) -> None:
        self.expired[seq] = now_ms
        self._undo.append(partial(self.expired.pop, seq))

    @staticmethod
    def _is_unread(box: Mailbox, seq: int) -> bool:
        index = bisect_left(box.seqs, seq, box.head)
        return index < len(box.seqs) and box.seqs[index] == seq

    # --- mailboxes and rooms -----------------------------------------------------------------

    def add(self, box: Mailbox) -> None:
        """Take in the mailbox of a new account or room."""
        self._undo.append(partial(self._put_back, box.name, self._boxes.get(box.name)))
        self._boxes[box.name] = box

    def remove(self, name: str) -> Mailbox | None:
        """Drop a mailbox with all that is in it, and take it out of its rooms or members."""
        box = self._boxes.pop(name, None)
        if box is not None:
            self._undo.append(partial(self._put_back, name, box))
            for room in list(box.rooms):
                self.leave(box, room)
            for member in list(box.members):
                self.leave(member, box)
            self._count_read(-sum(box.sizes[: box.head]))
        return box

    def join(self, box: Mailbox, room: Mailbox, since: int) -> None:
        """Let a user read a room from above ``since`` on."""
        self._undo.append(partial(_unseat, box, room))
        _seat(box, room, since)

    def leave(self, box: Mailbox, room: Mailbox) -> None:
        """Let a user read a room no longer."""
        since = box.rooms.get(room)
        if since is not None:
            self._undo.append(partial(_seat, box, room, since))
            _unseat(box, room)

    def _add_device(self, box: Mailbox, device: str, reader: Reader) -> None:
        """Take in a device, where there are too many in place of the one furthest behind."""
        before = dict(box.devices)
        self._undo.append(partial(setattr, box, "devices", before))
        box.devices = dict(before)
        if len(before) >= DEVICES_PER_USER_MAX:
            del box.devices[min(before, key=lambda name: before[name].cursor)]
        box.devices[device] = reader

    def _count_read(self, size: int) -> None:
        if size:
            self._undo.append(partial(setattr, self, "read_bytes", self.read_bytes))
            self.read_bytes += size

    def _put_back(self, name: str, box: Mailbox | None) -> None:
        if box is None:
            self._boxes.pop(name, None)
        else:
            self._boxes[name] = box

    # --- while the engine is being opened ------------------------------------------------------

    def restore(self, box: Mailbox, own: Mailbox | None, seq: int, size: int) -> None:
        """Put back a stored message, in order of sequence."""
        if seq not in self.expired:
            box.seqs.append(seq)
            box.sizes.append(size)
        if own is not None:
            own.sent.append(seq)

    def restore_reader(self, box: Mailbox, device: str, seq: int) -> None:
        """Put back a cursor."""
        if device:
            box.devices = {**box.devices, device: Reader(seq)}
        else:
            box.reader.cursor = seq

    def restored(self, next_seq: int) -> None:
        """End the opening: everything stored before may have been delivered before."""
        self.next_seq = next_seq
        self.restored_to = next_seq - 1
        for box in self._boxes.values():
            if not box.room:
                box.furthest = max(reader.cursor for reader in box.readers())
                box.head = bisect_right(box.seqs, box.furthest)
            box.last = box.seqs[-1] if box.seqs else box.furthest
            box.waiting_bytes = sum(box.sizes[box.head :])
            self.read_bytes += sum(box.sizes[: box.head])
        self.commit()

    def remember(self, sender: str, message_id: str, seq: int, at_ms: int) -> None:
        """Put back a stored id, in order of sequence."""
        self._dedup.add(sender, message_id, seq, at_ms)

    # --- batches -----------------------------------------------------------------------------

    def commit(self) -> None:
        """Keep the batch."""
        self._appended.clear()
        self._undo.clear()

    def rollback(self) -> None:
        """Take back the batch: what was appended, then every other step, newest first."""
        for box, last, own, sender, message_id, size in reversed(self._appended):
            box.seqs.pop()
            box.sizes.pop()
            box.waiting_bytes -= size
            box.last = last
            if own is not None:
                own.sent.pop()
            self._dedup.discard(sender, message_id)
        if self._appended and self._expiring:
            first = self.next_seq - len(self._appended)
            self._expiring[:] = [entry for entry in self._expiring if entry[1] < first]
            heapify(self._expiring)
        self.next_seq -= len(self._appended)
        while self._undo:
            self._undo.pop()()
        self._appended.clear()


def _seat(box: Mailbox, room: Mailbox, since: int) -> None:
    box.rooms = {**box.rooms, room: since}
    if isinstance(room.members, frozenset):
        room.members = set()
    room.members.add(box)


def _unseat(box: Mailbox, room: Mailbox) -> None:
    box.rooms = {each: since for each, since in box.rooms.items() if each is not room}
    if isinstance(room.members, set):
        room.members.discard(box)


def _no_such_user() -> WireError:
    return WireError(Code.NO_SUCH_USER, "there is no user of that name: check the spelling")


def no_such_room() -> WireError:
    """Make the refusal of a room that is not there, or not for whoever asks."""
    return WireError(
        Code.NO_SUCH_ROOM, "there is no such room, or you are not in it: join it, or be invited"
    )


def _full(box: Mailbox) -> WireError:
    sentence = (
        "the room keeps too much: try again when its oldest messages have gone"
        if box.room
        else "the recipient has too many unread messages: try again later"
    )
    return WireError(Code.MAILBOX_FULL, sentence, _FULL_RETRY_MS)
