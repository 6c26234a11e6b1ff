"""What a store promises, in the plainest form: one list of everything, and nothing undone.

Nothing is indexed, cached or optimised here. Source: `broker.core.ports.Store`. Where engines may
differ, `Ways` says how this one does.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

from broker.core.model import Account, Lost, Membership, Room, SessionRecord, State
from broker.core.ports import StoreLimits
from broker.wire.errors import Code
from broker.wire.limits import ROOM_MARK

#: So few that a history comes to replacing one.
DEVICES_MAX = 2


class Refused(Exception):
    """The code to expect."""


class Ways(NamedTuple):
    """How an engine does what the port leaves to it; see `tests.stores.engines.Engine`."""

    one_log: bool
    ids_per_mailbox: bool
    remembers_given: bool


@dataclass(eq=False)
class Reader:
    cursor: int
    delivered: int = 0


@dataclass(eq=False)
class Box:
    """The mailbox of a user or of a room. ``born``: the last sequence before it."""

    name: str
    born: int
    history: bool = False
    user: Reader = field(default_factory=lambda: Reader(0))
    devices: dict[str, Reader] = field(default_factory=dict)
    rooms: dict[str, int] = field(default_factory=dict)
    furthest: int = 0
    given: int = 0
    last: int = 0
    purged: int = 0

    @property
    def is_room(self) -> bool:
        return self.name.startswith(ROOM_MARK)


@dataclass(eq=False)
class Row:
    """One message. ``over``: taken out because of its time; ``expired_ms``: and then unread.

    ``late``: unread for too long, which is not written down before it is taken out.
    """

    seq: int
    at_ms: int
    sender: str
    id: str
    text: str
    box: Box
    ends_ms: int | None
    late: bool = False
    over: bool = False
    expired_ms: int | None = None

    @property
    def size(self) -> int:
        return len(self.text.encode())


class Reference:
    """The store, without batches: whoever wants one undone keeps a copy.

    Sequences of an engine that has no one log are its own: `append` is told them, and only sees to
    it that they rise.
    """

    def __init__(self, limits: StoreLimits, ways: Ways) -> None:
        self.limits = limits
        self.ways = ways
        self.last = 0
        self.restored_to = 0
        self.rows: list[Row] = []
        self.boxes: dict[str, Box] = {}
        #: By sender and id, and by recipient where each mailbox has its own.
        self.ids: dict[tuple[str, str, str], int] = {}
        #: All sequences there ever were.
        self.seqs: list[int] = []
        self.accounts: dict[str, Account] = {}
        self.sessions: dict[bytes, SessionRecord] = {}
        self.room_records: dict[str, Room] = {}
        self.memberships: dict[tuple[str, str], Membership] = {}

    # --- looking ---------------------------------------------------------------------------

    def box(self, name: str) -> Box:
        if name not in self.boxes:
            raise Refused(Code.NO_SUCH_ROOM if name.startswith(ROOM_MARK) else Code.NO_SUCH_USER)
        return self.boxes[name]

    def at(self, number: int) -> int:
        """Return the sequence of the so-manieth message, or one above all."""
        if number > len(self.seqs):
            return self.last + number - len(self.seqs)
        return self.seqs[number - 1] if number else 0

    def can_send(self, sender: str) -> bool:
        """Tell whether it is known what an append of this sender leads to.

        Where each mailbox is apart, what was sent is written down behind the appends, if the sender
        has a mailbox by then. (Who has no account has no session either.)
        """
        return self.ways.one_log or sender in self.boxes

    def reached(self, box: Box) -> int:
        """Return the last sequence that a user's mailbox has come to."""
        if self.ways.one_log:
            return max([box.last, *(self.boxes[room].last for room in box.rooms)])
        lasts = [(self.boxes[room].last, since) for room, since in box.rooms.items()]
        return max([box.last, *(last for last, since in lasts if last > since)])

    def last_of(self, box: Box) -> int:
        """Return the sequence that a user's readers are told to be the last."""
        if self.ways.one_log:
            return self.last
        return max(self.reached(box), box.furthest, box.given)

    def lives(self, row: Row) -> bool:
        return self.boxes.get(row.box.name) is row.box

    def kept(self, box: Box) -> Iterator[Row]:
        return (row for row in self.rows if row.box is box and not row.over)

    def of(self, box: Box) -> list[Row]:
        """Return what the user may read, read or not."""
        rooms = {self.boxes[room]: since for room, since in box.rooms.items()}
        return [
            row
            for row in self.rows
            if not row.over and (row.box is box or row.seq > rooms.get(row.box, self.last))
        ]

    def unread(self, box: Box) -> list[Row]:
        """Return what counts against the limits."""
        return [row for row in self.kept(box) if row.seq > box.furthest]

    def waiting(self) -> int:
        return sum(len(self.unread(box)) for box in self.boxes.values() if not box.is_room)

    def read_bytes(self) -> int:
        return sum(
            row.size
            for box in self.boxes.values()
            for row in self.kept(box)
            if row.seq <= box.furthest
        )

    def reader(self, box: Box, device: str) -> Reader:
        if not device:
            return box.user
        if device in box.devices:
            return box.devices[device]
        new = len(box.devices) < DEVICES_MAX
        return Reader(box.user.cursor, 0 if new else self.last_of(box))

    def lost(self, box: Box, reader: Reader) -> Lost | None:
        gone = [box.purged] if box.purged > reader.cursor else []
        for name, since in box.rooms.items():
            if self.boxes[name].purged > max(reader.cursor, since):
                gone.append(self.boxes[name].purged)
        return Lost(reader.cursor + 1, max(gone)) if gone else None

    def history(self, user: str, of: str) -> list[Row]:
        if user not in self.boxes and not self.ways.one_log and of != "inbox":
            if of == "sent":  # it lies in the mailboxes of others: nobody has to be there
                return []
            raise Refused(Code.NO_SUCH_ROOM)
        box = self.box(user)
        if of == "inbox":
            return self.of(box)
        if of == "sent":
            return [
                row
                for row in self.rows
                if row.sender == user and row.seq > box.born and self.lives(row)
            ]
        if of not in box.rooms:
            raise Refused(Code.NO_SUCH_ROOM)
        room = self.boxes[of]
        return [row for row in self.kept(room) if room.history or row.seq > box.rooms[of]]

    def state(self, row: Row) -> State:
        if row.expired_ms is not None:
            return State.EXPIRED
        if row.box.is_room:
            return State.STORED
        if row.seq <= row.box.furthest:
            return State.ACKNOWLEDGED
        return State.DELIVERED if row.seq <= row.box.given else State.STORED

    # --- messages --------------------------------------------------------------------------

    def append(
        self,
        to: str,
        sender: str,
        message_id: str,
        text: str,
        now_ms: int,
        *,
        ttl_ms: int | None,
        given: object = None,
    ) -> int:
        """Append; ``given`` is what the engine has answered."""
        name = (sender, message_id, to if self.ways.ids_per_mailbox else "")
        known = self.ids.get(name)
        if known is not None:
            for row in self.rows:
                if row.seq == known and self.lives(row) and (row.box.name, row.text) != (to, text):
                    raise Refused(Code.CONFLICT)
            return known
        box = self.box(to)
        if box.is_room and (sender not in self.boxes or to not in self.boxes[sender].rooms):
            raise Refused(Code.NO_SUCH_ROOM)
        unread = self.unread(box)
        size = len(text.encode())
        if len(unread) >= self.limits.mailbox_messages_max or (
            unread and sum(row.size for row in unread) + size > self.limits.mailbox_bytes_max
        ):
            raise Refused(Code.MAILBOX_FULL)
        self.last = box.last = self._next(given)
        self.seqs.append(self.last)
        ends_ms = None if ttl_ms is None else now_ms + ttl_ms
        self.rows.append(Row(self.last, now_ms, sender, message_id, text, box, ends_ms))
        self.ids[name] = self.last
        return self.last

    def _next(self, given: object) -> int:
        if not self.ways.one_log and isinstance(given, int) and given > self.last:
            return given
        return self.last + 1

    def acknowledge(self, user: str, device: str, seq: int) -> int:
        box = self.box(user)
        reader = self.reader(box, device)
        if device and device not in box.devices:
            if len(box.devices) >= DEVICES_MAX:
                del box.devices[min(box.devices, key=lambda name: (box.devices[name].cursor, name))]
            box.devices[device] = reader
        reader.cursor = max(reader.cursor, min(seq, self.reached(box)))
        box.furthest = max(box.furthest, reader.cursor)
        return reader.cursor

    def read(self, user: str, device: str, after: int) -> tuple[list[Row], int, int, Lost | None]:
        """Return all that waits, the cursor, how far was delivered, and what was lost."""
        box = self.box(user)
        reader = self.reader(box, device)
        found = [row for row in self.of(box) if row.seq > max(after, reader.cursor)]
        delivered = max(reader.delivered, self.restored_to)
        return found, reader.cursor, delivered, self.lost(box, reader)

    def give(self, user: str, device: str, seq: int) -> None:
        box = self.box(user)
        reader = self.reader(box, device)
        reader.delivered = max(reader.delivered, seq)
        box.given = max(box.given, seq)

    def expire(self, now_ms: int) -> list[int]:
        unread = []
        for row in self.rows:
            due = row.late or (row.ends_ms is not None and row.ends_ms <= now_ms)
            if due and not row.over and self.lives(row):
                row.over = True
                if row.seq > row.box.furthest:
                    row.expired_ms = now_ms
                    unread.append(row.seq)
        return unread

    def tidy(self, now_ms: int) -> None:
        limits = self.limits
        for row in list(self.rows):
            age_ms = now_ms - row.at_ms
            room = self.lives(row) and row.box.is_room
            unread = self.lives(row) and row.seq > row.box.furthest
            if row.expired_ms is not None:
                goes = now_ms - row.expired_ms > limits.retention_read_ms
            elif room:
                goes = age_ms > limits.retention_room_ms
            else:
                goes = not unread and age_ms > limits.retention_read_ms
            if goes:
                self._delete(row)
            elif unread and not room and 0 < limits.retention_unread_ms < age_ms:
                row.late = True

    def _delete(self, row: Row) -> None:
        self.rows.remove(row)
        box = row.box
        readers = [box.user, *box.devices.values()]
        if not row.over and (box.is_room or any(each.cursor < row.seq for each in readers)):
            box.purged = max(box.purged, row.seq)

    # --- the directory ---------------------------------------------------------------------

    def put_account(self, record: Account) -> None:
        if record.user not in self.boxes:
            self.boxes[record.user] = Box(record.user, self.last)
            if not self.ways.ids_per_mailbox:
                self._forget_ids(0, record.user)
        self.accounts[record.user] = record

    def put_room(self, record: Room) -> None:
        box = self.boxes.setdefault(record.room, Box(record.room, self.last))
        box.history = record.history
        self.room_records[record.room] = record

    def put_membership(self, record: Membership) -> None:
        box = self.box(record.user)
        self.box(record.room)
        if not record.joined:
            box.rooms.pop(record.room, None)
        else:
            box.rooms.setdefault(record.room, self.last)
        self.memberships[record.room, record.user] = record

    def remove_membership(self, room: str, user: str) -> None:
        self.memberships.pop((room, user), None)
        if user in self.boxes:
            self.boxes[user].rooms.pop(room, None)

    def remove(self, name: str) -> None:
        """Remove an account or a room; the rows of a room stay, for nobody, until their time."""
        self.accounts.pop(name, None)
        self.room_records.pop(name, None)
        box = self.boxes.pop(name, None)
        if box is None:
            return
        for room, user in list(self.memberships):
            if name in {room, user}:
                self.remove_membership(room, user)
        if not box.is_room:
            self.rows = [row for row in self.rows if row.box is not box]
        if self.ways.ids_per_mailbox:
            self._forget_ids(2, name)

    def _forget_ids(self, part: int, name: str) -> None:
        self.ids = {key: seq for key, seq in self.ids.items() if key[part] != name}

    def members(self, room: str) -> int:
        return sum(room in box.rooms for box in self.boxes.values())

    # --- a restart -------------------------------------------------------------------------

    def restart(self) -> None:
        """Forget what is not written down."""
        if self.ways.remembers_given:
            return  # all of it is
        self.restored_to = self.last
        kept = {row.seq for row in self.rows}
        self.ids = {key: seq for key, seq in self.ids.items() if seq in kept}
        for row in self.rows:
            row.late = False
            row.over = row.expired_ms is not None  # the rest: until the next look at the time
        for box in self.boxes.values():
            readers = [box.user, *box.devices.values()]
            for reader in readers:
                reader.delivered = 0
            box.given = 0
            box.furthest = max(reader.cursor for reader in readers)
            seqs = [row.seq for row in self.rows if row.box is box]
            box.last = max([box.furthest, box.purged, *seqs])
