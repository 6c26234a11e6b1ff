"""All mailboxes in memory. Engines of one process share it.

Messages themselves are the engine's; this index decides what an append, a read and an
acknowledgement mean, and can take back a batch that the engine could not commit.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Sequence
from functools import partial
from heapq import heapify, heappop, heappush
from typing import Final, NamedTuple

from broker.core.dedup import DedupWindow
from broker.core.mailbox import Mailbox, Reader, Undo
from broker.core.model import Depth, Membership, State
from broker.core.ports import StoreLimits
from broker.wire import commands
from broker.wire.commands import INBOX, SENT
from broker.wire.errors import Code, WireError
from broker.wire.limits import DEVICES_PER_USER_MAX, ROOM_MARK

#: Messages taken out at once because their time is over: a millisecond or two.
EXPIRED_PER_STEP_MAX: Final = 500
#: When a full mailbox may have room again: its reader has to read first.
_FULL_RETRY_MS: Final = 5_000

#: What became of a letter: its mailbox and sequence; None for one that is there already, under that
#: sequence; or why it was refused.
Placed = tuple[Mailbox | None, int] | WireError


class _Appended(NamedTuple):
    """Messages of this batch that one sender sent in one step."""

    sender: str
    own: Mailbox | None
    letters: Sequence[commands.ChatArgs]
    #: What became of each, and of those with a place, what was the last sequence there.
    placed: list[Placed]
    lasts: list[int]


class Acknowledged(NamedTuple):
    """What an acknowledgement led to. ``changed``: the reader's cursor must be written down.

    ``replaced``: the device, if any, whose place was taken.
    """

    reader: Reader
    changed: bool
    replaced: str | None


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
        # A heap: when, the sequence, the mailbox. Entries stay when their message goes.
        self._expiring: list[tuple[int, int, str]] = []
        # Of this batch: what `rollback` must take back, newest first, and what was put on the heap.
        self._undo: list[Undo | _Appended] = []
        self._scheduled: list[tuple[int, int, str]] = []

    def __len__(self) -> int:
        return len(self._boxes)

    def __contains__(self, name: str) -> bool:
        return name in self._boxes

    @property
    def last(self) -> int:
        """The highest sequence given out."""
        return self.next_seq - 1

    def depth(self, user: str | None = None) -> Depth:
        """Tell what no reader has acknowledged: of one user, or (a walk) of all.

        Any thread may ask for all. Errors: ``no_such_user``.
        """
        boxes = list(self._boxes.values()) if user is None else [self.find(user)]
        users = [box for box in boxes if not box.room]
        return Depth(
            len(users),
            sum(len(box.seqs) - box.head for box in users),
            sum(box.waiting_bytes for box in users),
        )

    def find(self, name: str) -> Mailbox:
        """Return a mailbox. Errors: ``no_such_user``, ``no_such_room``."""
        box = self._boxes.get(name)
        if box is None:
            raise no_such(name)
        return box

    def get(self, name: str) -> Mailbox | None:
        """Return a mailbox, or None."""
        return self._boxes.get(name)

    def reader(self, box: Mailbox, device: str) -> Reader:
        """Return a reader; a device that is not known reads from its user's cursor on."""
        if not device:
            return box.reader
        return box.devices.get(device) or self._stranger(box)

    def _stranger(self, box: Mailbox) -> Reader:
        """Make a reader of a device that is not known, or no longer: then anything was given."""
        reader = Reader(box.reader.cursor)
        if len(box.devices) >= DEVICES_PER_USER_MAX:
            reader.delivered = self.last
        return reader

    def give(self, box: Mailbox, reader: Reader, seq: int) -> None:
        """Note that a reader was given messages up to ``seq``."""
        if seq > reader.delivered:
            self._undo.append(partial(setattr, reader, "delivered", reader.delivered))
            reader.delivered = seq
        if seq > box.given:
            self._undo.append(partial(setattr, box, "given", box.given))
            box.given = seq

    # --- messages ----------------------------------------------------------------------------

    def duplicate(self, sender: str, message_id: str) -> int | None:
        """Return the sequence that this id was stored under, if it is remembered."""
        return self._dedup.find(sender, message_id)

    def append_all(
        self, sender: str, letters: Sequence[commands.ChatArgs], now_ms: int
    ) -> list[Placed]:
        """Give out the next sequences to one sender's letters. Refusals: as `Store.append`.

        Hot path: what is the same for all of them is looked up once.
        """
        boxes, messages_max, bytes_max = self._boxes, self._messages_max, self._bytes_max
        own, find = boxes.get(sender), self._dedup.find
        ids, newest = self._dedup.begin(sender)
        placed: list[Placed] = []
        lasts: list[int] = []
        seq = self.next_seq
        try:
            for to, text, message_id, _ in letters:
                if message_id > newest:
                    newest = message_id
                else:
                    known = find(sender, message_id)
                    if known is not None:
                        placed.append((None, known))
                        continue
                box = boxes.get(to)
                if box is None or (box.room and (own is None or box not in own.rooms)):
                    placed.append(no_such(to))
                    continue
                size = len(text) if text.isascii() else len(text.encode())
                seqs, waiting_bytes = box.seqs, box.waiting_bytes + size
                waiting = len(seqs) - box.head
                if waiting >= messages_max or (waiting_bytes > bytes_max and waiting):
                    placed.append(full(room=box.room))
                    continue
                seqs.append(seq)
                box.sizes.append(size)
                box.waiting_bytes = waiting_bytes
                lasts.append(box.last)
                placed.append((box, seq))
                box.last = ids[message_id] = seq
                seq += 1
        finally:
            if lasts:
                if own is not None:
                    own.sent.extend(range(self.next_seq, seq))
                self.next_seq = seq
                self._dedup.added(sender, len(lasts), newest, now_ms)
                self._undo.append(_Appended(sender, own, letters, placed, lasts))
        return placed

    def expire_at(self, box: Mailbox, seq: int, expires_ms: int) -> None:
        """Take a message out when the time has come, see `expire`."""
        entry = (expires_ms, seq, box.name)
        heappush(self._expiring, entry)
        self._scheduled.append(entry)

    def acknowledge(self, box: Mailbox, device: str, seq: int) -> Acknowledged:
        """Move a reader's cursor to ``seq``, within the mailbox and only forward."""
        reader, known = self.reader(box, device), not device or device in box.devices
        replaced = None if known else self._add_device(box, device, reader)
        seq = min(seq, box.reached())
        if seq <= reader.cursor:
            return Acknowledged(reader, not known, replaced)
        read, undo = box.acknowledge(reader, seq)
        self._count_read(read)
        self._undo.append(undo)
        return Acknowledged(reader, changed=True, replaced=replaced)

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
        return State.DELIVERED if seq <= box.given else State.STORED

    # --- what leaves -------------------------------------------------------------------------

    def expire(self, now_ms: int) -> list[int]:
        """Take out messages whose time is over; return those that nobody has read.

        At most `EXPIRED_PER_STEP_MAX`.
        """
        heap = self._expiring
        due: list[tuple[int, int, str]] = []
        while heap and heap[0][0] <= now_ms and len(due) < EXPIRED_PER_STEP_MAX:
            due.append(heappop(heap))
        if not due:
            return []
        self._undo.append(lambda: self._reschedule(due))
        received: defaultdict[str, set[int]] = defaultdict(set)
        for _, seq, name in due:
            received[name].add(seq)
        unread: list[int] = []
        for name, seqs in received.items():
            box = self._boxes.get(name)
            if box is not None:
                there = box.there(sorted(seqs))
                unread += [seq for seq in there if seq > box.furthest]
                self._take_out(box, there)
        self.expired.update(dict.fromkeys(unread, now_ms))
        self._undo.append(lambda: [self.expired.pop(seq) for seq in unread])
        return sorted(unread)

    def _reschedule(self, entries: Iterable[tuple[int, int, str]]) -> None:
        for entry in entries:
            heappush(self._expiring, entry)

    def purge(self, rows: Iterable[tuple[int, Mailbox | None, str]]) -> list[Mailbox]:
        """Forget messages (sequence, mailbox, sender) that are deleted, in order of sequence.

        Return the mailboxes whose ``purged`` has changed.
        """
        received: defaultdict[Mailbox, list[int]] = defaultdict(list)
        sent: list[tuple[int, str]] = []
        for seq, box, sender in rows:
            if box is not None:
                received[box].append(seq)
            sent.append((seq, sender))
            at_ms = self.expired.pop(seq, None)
            if at_ms is not None:
                self._undo.append(partial(self.expired.__setitem__, seq, at_ms))
        self.forget_sent(sent)
        return [box for box, gone in received.items() if self._purge_of(box, gone)]

    def forget_sent(self, rows: Iterable[tuple[int, str]]) -> None:
        """Forget who sent messages (sequence, sender), in order of sequence."""
        sent: defaultdict[str, list[int]] = defaultdict(list)
        for seq, sender in rows:
            sent[sender].append(seq)
        for sender, gone in sent.items():
            own = self._boxes.get(sender)
            if own is not None:
                self._undo.append(own.cut_sent(gone))

    def _purge_of(self, box: Mailbox, gone: list[int]) -> bool:
        """Take out what is deleted; tell whether somebody had not read it yet."""
        there = box.there(gone)
        self._take_out(box, there)
        if not there or there[-1] <= box.purged:
            return False
        if not box.room and all(reader.cursor >= there[-1] for reader in box.readers()):
            return False
        self._undo.append(partial(setattr, box, "purged", box.purged))
        box.purged = there[-1]
        return True

    def _take_out(self, box: Mailbox, seqs: list[int]) -> None:
        if seqs:
            read, undo = box.cut(seqs)
            self._count_read(-read)
            self._undo.append(undo)

    # --- mailboxes and rooms -----------------------------------------------------------------

    def add(self, box: Mailbox) -> None:
        """Take in the mailbox of a new account or room."""
        self._undo.append(partial(self._boxes.pop, box.name))
        self._boxes[box.name] = box
        # Who had the name before may have used the ids that its new owner uses.
        self._undo.append(self._dedup.forget(box.name))

    def remove(self, name: str) -> Mailbox | None:
        """Drop a mailbox with all that is in it, and take it out of its rooms or members."""
        box = self._boxes.pop(name, None)
        if box is not None:
            self._undo.append(partial(self._boxes.__setitem__, name, box))
            for room in list(box.rooms):
                self._leave(box, room)
            for member in list(box.members):
                self._leave(member, box)
            self._count_read(-sum(box.sizes[: box.head]))
        return box

    def seat(self, membership: Membership) -> bool:
        """Let a user read a room from now on, or no longer; tell whether it begins to.

        Errors: ``no_such_user``, ``no_such_room``.
        """
        box, room = self.find(membership.user), self.find(membership.room)
        if not membership.joined:
            self._leave(box, room)
            return False
        if room in box.rooms:
            return False
        self.join(box, room, self.last)
        return True

    def unseat(self, room: str, user: str) -> None:
        """Let a user, if there is one, read a room no longer."""
        if room in self and user in self:
            self._leave(self.find(user), self.find(room))

    def join(self, box: Mailbox, room: Mailbox, since: int) -> None:
        """Let a user read a room from above ``since`` on."""
        self._undo.append(partial(_unseat, box, room))
        _seat(box, room, since)

    def _leave(self, box: Mailbox, room: Mailbox) -> None:
        since = box.rooms.get(room)
        if since is not None:
            self._undo.append(partial(_seat, box, room, since))
            _unseat(box, room)

    def alter(self, room: Mailbox, *, history: bool) -> None:
        """Let members read what was said before they came, or not."""
        self._undo.append(partial(setattr, room, "history", room.history))
        room.history = history

    def _add_device(self, box: Mailbox, device: str, reader: Reader) -> str | None:
        """Take in a device, where there are too many in place of the one furthest behind."""
        before, replaced = box.devices, None
        self._undo.append(partial(setattr, box, "devices", before))
        box.devices = {**before, device: reader}
        if len(before) >= DEVICES_PER_USER_MAX:
            replaced = min(before, key=lambda name: (before[name].cursor, name))
            del box.devices[replaced]
        return replaced

    def _count_read(self, size: int) -> None:
        if size:
            self._undo.append(partial(setattr, self, "read_bytes", self.read_bytes))
            self.read_bytes += size

    # --- while the engine is being opened ------------------------------------------------------

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
            box.last = max(box.last, box.furthest, box.purged)
            box.waiting_bytes = sum(box.sizes[box.head :])
            self.read_bytes += sum(box.sizes[: box.head])
        self.commit()

    def remember(self, sender: str, message_id: str, seq: int, at_ms: int) -> None:
        """Put back a stored id, in order of sequence."""
        self._dedup.add(sender, {message_id: seq}, at_ms)

    # --- batches -----------------------------------------------------------------------------

    def commit(self) -> None:
        """Keep the batch."""
        self._undo.clear()
        self._scheduled.clear()

    def rollback(self) -> None:
        """Take back the batch, step by step, newest first."""
        while self._undo:
            step = self._undo.pop()
            if isinstance(step, _Appended):
                self._take_back(step)
            else:
                step()
        if self._scheduled:
            scheduled = set(self._scheduled)
            self._expiring[:] = [entry for entry in self._expiring if entry not in scheduled]
            heapify(self._expiring)
            self._scheduled.clear()

    def _take_back(self, appended: _Appended) -> None:
        sender, own, letters, placed, lasts = appended
        self.next_seq -= len(lasts)
        if own is not None:
            del own.sent[-len(lasts) :]
        for (_, _, message_id, _), place in reversed([*zip(letters, placed, strict=False)]):
            if isinstance(place, tuple) and (box := place[0]) is not None:
                box.seqs.pop()
                box.waiting_bytes -= box.sizes.pop()
                box.last = lasts.pop()
                self._dedup.discard(sender, message_id)


def _seat(box: Mailbox, room: Mailbox, since: int) -> None:
    box.rooms = {**box.rooms, room: since}
    if isinstance(room.members, frozenset):
        room.members = set()
    room.members.add(box)


def _unseat(box: Mailbox, room: Mailbox) -> None:
    box.rooms = {each: since for each, since in box.rooms.items() if each is not room}
    assert isinstance(room.members, set)  # since the box was seated
    room.members.discard(box)


def no_such_user() -> WireError:
    """Make the refusal of a user who is not there."""
    return WireError(Code.NO_SUCH_USER, "there is no user of that name: check the spelling")


def no_such(name: str) -> WireError:
    """Make the refusal of a recipient who is not there, or a room that is not the sender's."""
    return no_such_room() if name.startswith(ROOM_MARK) else no_such_user()


def no_such_room() -> WireError:
    """Make the refusal of a room that is not there, or not for whoever asks."""
    return WireError(
        Code.NO_SUCH_ROOM, "there is no such room, or you are not in it: join it, or be invited"
    )


def full(*, room: bool) -> WireError:
    """Make the refusal of a mailbox, or of a room, that takes no more."""
    sentence = (
        "the room keeps too much: try again when its oldest messages have gone"
        if room
        else "the recipient has too many unread messages: try again later"
    )
    return WireError(Code.MAILBOX_FULL, sentence, _FULL_RETRY_MS)
