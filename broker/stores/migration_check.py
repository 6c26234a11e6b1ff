"""Comparing the two sides of a migration: everything that the one has, against what the other has.

Each thing, from a message to a cursor, is a fact about one mailbox, and has a digest. Digests are
added up by mailbox for the source and taken off again for the target: what is left is not the same.
A message's sequence is part of it, and so its place in the order.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass
from typing import Any, Final, NamedTuple

from broker.core.mailbox import text_bytes
from broker.core.model import Account, Block, LoginKey, Message, Room, SessionRecord
from broker.stores.migration_source import PHASES, Owner, Part, Seat, Source, Stored
from broker.stores.migration_target import pairs
from broker.stores.redis.keys import Keys
from broker.stores.redis.link import Call, Link, script
from broker.stores.redis.messages import message as unpacked
from broker.stores.redis.records import Records
from broker.stores.redis.sent import SENT_MAX
from broker.wire.codec import unpack_reply
from broker.wire.limits import ROOM_MARK

#: What is counted, in the order of the table: the kind of a fact, and what it is called.
KINDS: Final = {
    "user": "users",
    "key": "login keys",
    "block": "blocks",
    "session": "sessions",
    "room": "rooms",
    "member": "members of rooms",
    "invitation": "invitations",
    "cursor": "cursors",
    "unread": "messages unread",
    "kept": "messages kept",
    "pointer": "messages of rooms in mailboxes",
    "expired": "messages expired",
    "id": "remembered ids",
    "sent": "entries of senders' lists",
}
#: Sums of digests stay below it.
_SUM: Final = 2**128
#: Mailboxes that are looked at together; messages of each in one page, and their text.
_MAILBOXES: Final = 50
_ROWS: Final = 500
_BYTES: Final = 262_144
_RECORDS: Final = 1_000

#: Told how many more rows have been looked at, on either side.
Watch = Callable[[int], None]
_Record = Account | Room | LoginKey | Block | SessionRecord


class Count(NamedTuple):
    """How many of one kind there are on each side."""

    kind: str
    source: int
    target: int


class Verdict(NamedTuple):
    """What came of a comparison: counts by kind, digests over all, mailboxes that differ."""

    counts: list[Count]
    digests: tuple[str, str]
    mailboxes: int
    differing: list[str]

    @property
    def same(self) -> bool:
        """Tell whether nothing is missing, and nothing too much."""
        return not self.differing and all(each.source == each.target for each in self.counts)


class Ledger:
    """What is left of each mailbox when what was found is taken off what was expected."""

    def __init__(self) -> None:
        self._left: dict[str, int] = {}
        self._counts = (Counter[str](), Counter[str]())
        self._sums = [0, 0]

    def expect(self, name: str, kind: str, *values: object, count: int = 1) -> None:
        """Add a fact about a mailbox of the source, which counts so much."""
        self._add(0, (name, kind, values), count)

    def find(self, name: str, kind: str, *values: object, count: int = 1) -> None:
        """Take off a fact about a mailbox of the target."""
        self._add(1, (name, kind, values), count)

    def _add(self, side: int, fact: tuple[str, str, tuple[object, ...]], count: int) -> None:
        name, kind, _ = fact
        number = int.from_bytes(hashlib.blake2b(repr(fact).encode(), digest_size=16).digest())
        self._counts[side][kind] += count
        self._sums[side] = (self._sums[side] + number) % _SUM
        self._left[name] = (self._left.get(name, 0) + (-number if side else number)) % _SUM

    def verdict(self) -> Verdict:
        """Return what came of it."""
        source, target = self._counts
        return Verdict(
            [Count(kind, source[kind], target[kind]) for kind in KINDS],
            (f"{self._sums[0]:032x}", f"{self._sums[1]:032x}"),
            len(self._left),
            sorted(name for name, left in self._left.items() if left),
        )


class Expected:
    """What the source has, told to a ledger."""

    def __init__(self, source: Source, ledger: Ledger) -> None:
        self._source = source
        self._expect = ledger.expect
        self._furthest: dict[str, int] = {}
        self._ids: dict[tuple[str, str, str], int] = {}
        self._sent = Counter[str]()

    def tell(self, watch: Watch) -> None:
        """Go through everything. Errors: as `Source.parts`."""
        for phase in PHASES:
            for page in self._source.pages(phase):
                for part in page.parts:
                    self._part(part)
                watch(page.rows)
        for (to, sender, message_id), seq in self._ids.items():
            self._expect(to, "id", sender, message_id, seq)
        for user, count in self._sent.items():
            self._expect(user, "sent", min(count, SENT_MAX), count=min(count, SENT_MAX))

    def _part(self, part: Part) -> None:
        if isinstance(part, Stored):
            self._stored(part)
        elif isinstance(part, Owner):
            self._owner(part)
        elif isinstance(part, Seat):
            room, user, joined = astuple(part.membership)
            self._expect(room, "member" if joined else "invitation", user)
            self._expect(user, "seat", room, part.standing(self._source.last))
        else:
            self._record(part)

    def _record(self, record: _Record) -> str:
        name, kind, values = _fact(record)
        self._expect(name, kind, *values)
        return name

    def _owner(self, owner: Owner) -> None:
        name, last = self._record(owner.record), self._source.last
        furthest = self._furthest[name] = max(owner.cursors.values(), default=0)
        for device, cursor in owner.cursors.items():
            self._expect(name, "cursor", device, cursor)
        given = last if isinstance(owner.record, Account) else 0
        self._expect(name, "standing", last, furthest, owner.purged, given)

    def _stored(self, stored: Stored) -> None:
        message = stored.message
        if stored.remembered:
            self._ids[message.to, message.sender, message.message_id] = message.seq
        if stored.sent:
            self._sent[message.sender] += 1
        if stored.expired_ms is not None:
            self._expect(message.to, "expired", *message, stored.expired_ms)
            return
        kind = _kind(message, self._furthest.get(message.to, 0))
        self._expect(message.to, kind, *message, stored.expires_ms)
        for user in stored.readers:
            self._expect(user, "pointer", f"{message.to} {message.seq}", message.seq)


class Found:
    """What the target has, told to a ledger."""

    def __init__(self, link: Link, prefix: str, ledger: Ledger) -> None:
        self._link = link
        self._keys = Keys(prefix)
        self._records = Records(link, self._keys, lambda _: None)
        self._find = ledger.find

    def tell(self, watch: Watch) -> None:
        """Go through everything. Errors: as `Link.ask`."""
        for user in self._paged(Account):
            self._mailboxes(user, watch)
        for room in self._paged(Room):
            self._mailboxes(room, watch)
        for _ in self._paged(LoginKey):
            pass
        for block in self._records.find_all(Block, of="", after="", limit=0):
            self._record(block)
        for session in self._records.find_all(SessionRecord, of="", after="", limit=0):
            self._record(session)

    def _paged(self, kind: type[Any]) -> Iterator[list[str]]:
        """Tell records of one kind; return their names, page by page."""
        after = ""
        while True:
            page: list[Any] = self._records.find_all(kind, of="", after=after, limit=_RECORDS)
            if not page:
                return
            yield [self._record(each) for each in page]
            last = page[-1]
            after = last.key if isinstance(last, LoginKey) else _fact(last)[0]

    def _record(self, record: _Record) -> str:
        name, kind, values = _fact(record)
        self._find(name, kind, *values)
        return name

    # --- mailboxes ---------------------------------------------------------------------------

    def _mailboxes(self, names: Sequence[str], watch: Watch) -> None:
        for start in range(0, len(names), _MAILBOXES):
            part = names[start : start + _MAILBOXES]
            calls = [call for name in part for call in self._look(name)]
            replies = self._link.ask(calls)
            step = len(calls) // len(part)
            boxes = [
                self._beside(name, replies[place : place + step])
                for name, place in zip(part, range(0, len(calls), step), strict=True)
            ]
            while boxes:
                pages = self._link.ask([self._page(box) for box in boxes])
                watch(sum(len(rows) for rows, _, _ in pages))
                boxes = [
                    box
                    for box, (rows, cut, _) in zip(boxes, pages, strict=True)
                    if self._messages(box, rows, more=bool(cut) or len(rows) > _ROWS)
                ]

    def _look(self, name: str) -> list[Call]:
        of = self._keys.of
        return [
            ("HGETALL", of(name, "meta")),
            ("HGETALL", of(name, "rooms")),
            ("ZRANGE", of(name, "over"), 0, -1),
            ("HGETALL", of(name, "ids:old")),
            ("HGETALL", of(name, "ids")),
            ("ZRANGE", of(name, "ttl"), 0, -1, "WITHSCORES"),
            ("ZRANGE", of(name, "pulled"), 0, -1, "WITHSCORES"),
            ("ZRANGE", of(name, "members"), 0, -1),
            ("SMEMBERS", of(name, "joined")),
            ("ZCARD", of(name, "sent")),
        ]

    def _beside(self, name: str, replies: Sequence[Any]) -> _Box:
        """Tell of one mailbox what stands beside its messages."""
        meta, rooms, over, old, ids, ttl, pulled, members, joined, sent = replies
        find = self._find
        fields = {field.decode(): int(value) for field, value in pairs(meta)}
        for field, value in fields.items():
            if field.startswith("c:"):
                find(name, "cursor", field[2:], value)
        given = fields.get("d:", 0)
        furthest = fields.get("f", 0)
        find(name, "standing", fields.get("last"), furthest, fields.get("purged", 0), given)
        for room, where in pairs(rooms):
            find(name, "seat", room.decode(), where.decode())
        self._expired(name, over)
        for known, seq in {**dict(pairs(old)), **dict(pairs(ids))}.items():
            find(name, "id", *known.decode().split("\0", 1), int(seq))
        for pointer, score in pairs(pulled):
            find(name, "pointer", pointer.decode(), int(float(score)))
        for user in members:
            find(name, "member" if user in joined else "invitation", user.decode())
        if sent:
            find(name, "sent", sent, count=sent)
        return _Box(
            name, furthest, {int(seq): int(float(at_ms)) for seq, at_ms in pairs(ttl)}, fields
        )

    def _expired(self, name: str, seqs: Sequence[bytes]) -> None:
        """Tell of messages that expired unread; their texts may be long."""
        for start in range(0, len(seqs), _ROWS):
            part = seqs[start : start + _ROWS]
            for row in self._link.one(("HMGET", self._keys.of(name, "gone"), *part)):
                if row is not None:
                    self._find(name, "expired", *unpacked(row, name), unpack_reply(row)[5])

    def _page(self, box: _Box) -> Call:
        return script("page", self._keys.place(box.name), box.low, "", _ROWS, _BYTES, "")

    def _messages(self, box: _Box, rows: Sequence[bytes], *, more: bool) -> bool:
        """Tell a page of a mailbox; return whether it goes on."""
        for row in rows:
            message = unpacked(row, box.name)
            if message.seq <= box.low:
                self._find(box.name, "disorder", message.seq)
            box.low = max(box.low, message.seq)
            kind = _kind(message, box.furthest)
            size = text_bytes(message.text)
            if box.name.startswith(ROOM_MARK) or kind == "unread":
                box.waiting, box.waiting_bytes = box.waiting + 1, box.waiting_bytes + size
            else:
                box.read_bytes += size
            self._find(box.name, kind, *message, box.expires.get(message.seq))
        if rows and more:
            return True
        counts = (box.waiting, box.waiting_bytes, box.read_bytes)
        if counts != tuple(box.fields.get(each, 0) for each in ("n", "b", "rb")):
            self._find(box.name, "miscounted", counts)
        return False


@dataclass(slots=True, eq=False)
class _Box:
    """A mailbox of the target that is being gone through, up to ``low``; what ``:meta`` says."""

    name: str
    furthest: int
    expires: dict[int, int]
    fields: dict[str, int]
    low: int = 0
    waiting: int = 0
    waiting_bytes: int = 0
    read_bytes: int = 0


def count(source: Source, watch: Watch) -> list[Count]:
    """Tell what a migration would move, having read all of it. Errors: as `Source.parts`."""
    ledger = Ledger()
    Expected(source, ledger).tell(watch)
    return ledger.verdict().counts


def compare(source: Source, link: Link, prefix: str, watch: Watch) -> Verdict:
    """Go through both sides. Errors: as `Source.parts` and `Link.ask`."""
    ledger = Ledger()
    Expected(source, ledger).tell(watch)
    Found(link, prefix, ledger).tell(watch)
    return ledger.verdict()


def _fact(record: _Record) -> tuple[str, str, tuple[object, ...]]:
    """Return whose a record is, its kind, and what it says."""
    if isinstance(record, Account):
        return record.user, "user", (record.name, record.password_hash, record.role)
    if isinstance(record, Room):
        return record.room, "room", (record.owner, record.open, record.history)
    if isinstance(record, LoginKey):
        return record.user, "key", (record.key,)
    if isinstance(record, Block):
        return record.user, "block", (record.sender,)
    return record.user, "session", astuple(record)


def _kind(message: Message, furthest: int) -> str:
    unread = not message.to.startswith(ROOM_MARK) and message.seq > furthest
    return "unread" if unread else "kept"
