"""What docs/PROTOCOL.md promises, as lists and dictionaries: no index, no cache, nothing undone.

Written from the protocol, without a line of the broker's. Each command is a method of its name that
returns the result to expect or raises `Refused`; where more than one answer is right, the value
that it returns equals them all.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from math import inf
from typing import Any

NOTICE_SENDER = "!kotak"
SILENCE_MS = 60_000
TICK_MS = 1_000
#: A user, and its device.
Reader = tuple[str, str]


class OneOf:
    """Equals each of some values, or everything."""

    def __init__(self, *values: Any) -> None:
        self.values = values

    def __eq__(self, other: object) -> bool:
        return not self.values or other in self.values

    __hash__ = None  # type: ignore[assignment]  # it equals too much

    def __repr__(self) -> str:
        return f"OneOf{self.values}"


ANY = OneOf()


class Refused(Exception):
    """The code to expect."""


@dataclass(eq=False)
class Said:
    """One message. ``over``: its time is; ``unread``: it was so then. ``gone``: with its room."""

    seq: int
    at_ms: int
    sender: str
    id: str
    text: str
    to: str
    ends_ms: float = inf
    over: bool = False
    unread: bool = False
    gone: bool = False


@dataclass
class Room:
    owner: str
    open: bool
    history: bool
    members: dict[str, int] = field(default_factory=dict)
    invited: set[str] = field(default_factory=set)


@dataclass(eq=False)
class Receiver:
    """A subscription; ``flight`` is what was pushed since ``begin``."""

    reader: Reader
    window: int
    begin: int
    position: int
    heard_ms: int
    flight: list[int] = field(default_factory=list)
    void: set[int] = field(default_factory=set)
    stalled_ms: float = -inf
    logged_out: bool = False


class Reference:
    """The whole broker. ``most`` unread messages fit a mailbox.

    ``one_log``: the engine counts all messages, and knows every id whatever became of its mailbox.
    Else the last sequence is that of a mailbox, and what is above it was never there; ids lie in
    their recipient's mailbox, and go with it.
    """

    def __init__(
        self, users: Iterable[str], *, most: int, notices: bool, one_log: bool = True
    ) -> None:
        self.now_ms = 0
        #: Is the disk full, in this turn?
        self.full = False
        self.last = 0
        self.log: list[Said] = []
        self.rooms_by_name: dict[str, Room] = {}
        self.cursor: dict[Reader, int] = {(user, ""): 0 for user in users}
        self.users = list(users)
        self.receivers: dict[int, Receiver] = {}
        self._numbers: dict[tuple[bytes, str], int] = {}
        self._first: dict[tuple[str, str], Said] = {}
        self._most = most
        self._one_log = one_log
        self._notices = notices
        #: Who gets several events in this turn, through several sessions: which is first, is open.
        self._racing: set[Reader] = set()
        # Where each receiver is; which were told of their end, and which may be told once more.
        self._routes: dict[int, bytes] = {}
        self._ended: set[int] = set()
        self._unheard: set[int] = set()
        #: What a reader was given.
        self.given: defaultdict[Reader, set[int]] = defaultdict(set)
        #: Up to there it was stored before the broker was started.
        self._restored = 0

    def answer(self, command: str, reader: Reader, args: dict[str, Any]) -> Any:
        """Return the result to expect, or the code of the refusal."""
        try:
            return getattr(self, command)(reader, **args)
        except Refused as refusal:
            return str(refusal)

    # --- who sees what -----------------------------------------------------------------------

    def kept(self, name: str, since: int = 0) -> list[Said]:
        return [m for m in self.log if m.to == name and m.seq > since and not (m.over or m.gone)]

    def visible(self, user: str) -> list[Said]:
        found = self.kept(user)
        for name, room in self.rooms_by_name.items():
            if user in room.members:
                found += self.kept(name, room.members[user])
        return sorted(found, key=lambda m: m.seq)

    def waiting(self, reader: Reader, after: int = 0) -> list[Said]:
        low = max(after, self.cursor[reader])
        return [m for m in self.visible(reader[0]) if m.seq > low]

    def last_of(self, user: str) -> int:
        """Return the last sequence that there is for a user's readers."""
        if self._one_log:
            return self.last
        since = {user: 0}
        for name, room in self.rooms_by_name.items():
            since[name] = room.members.get(user, self.last)
        theirs = [m.seq for m in self.log if not m.gone and m.seq > since.get(m.to, self.last)]
        given = [seq for (name, _), seqs in self.given.items() if name == user for seq in seqs]
        return max(self.furthest(user), *given, *theirs, 0)

    def furthest(self, user: str) -> int:
        return max(seq for (name, _), seq in self.cursor.items() if name == user)

    def written(self, m: Said, **more: Any) -> dict[str, Any]:
        notice = m.sender == NOTICE_SENDER
        return {
            "seq": m.seq,
            "at_ms": m.at_ms,
            "from": m.sender,
            "name": "Kotak" if notice else m.sender,
            "id": ANY if notice else m.id,
            "text": ANY if notice else m.text,
            **({"room": m.to} if m.to[0] == "#" else {}),
            **more,
        }

    def given_to(self, reader: Reader, page: list[Said]) -> list[dict[str, Any]]:
        """Write a page for its reader, who gets it now."""
        given = self.given[reader]
        written = []
        for m in page:
            again: Any = m.seq in given or m.seq <= self._restored
            if reader in self._racing or (not again and m.seq <= max(given, default=0)):
                again = OneOf(True, False)
            written.append(self.written(m, redelivered=again))
        given.update(m.seq for m in page)
        return written

    def state(self, m: Said) -> Any:
        if m.unread:
            return "expired"
        if m.to[0] == "#":
            return "stored"
        if m.seq <= self.furthest(m.to):
            return "acknowledged"
        given = {seq for (user, _), each in self.given.items() if user == m.to for seq in each}
        if m.seq in given:
            return "delivered"
        if m.seq <= max(self._restored, *given, 0):
            return OneOf("stored", "delivered")
        return "stored"

    # --- messages ----------------------------------------------------------------------------

    def append(self, to: str, sender: str, message_id: str, text: str, ttl_ms: float = inf) -> Any:
        first = self._first.get((sender, message_id))
        if first is not None and (self._one_log or not first.gone):
            if first.gone:
                return ANY
            if (first.to, first.text) != (to, text):
                raise Refused("conflict")
            return first.seq
        room = self.rooms_by_name.get(to)
        if to[0] == "#" and (room is None or sender not in room.members):
            raise Refused("no_such_room")
        if to[0] != "#" and to not in self.users:
            raise Refused("no_such_user")
        read = 0 if room is not None else self.furthest(to)
        if len(self.kept(to, read)) >= self._most:
            raise Refused("mailbox_full")
        self.last += 1
        said = Said(self.last, self.now_ms, sender, message_id, text, to, self.now_ms + ttl_ms)
        self.log.append(said)
        self._first[sender, message_id] = said
        return said.seq

    def expire(self) -> None:
        late = [m for m in self.log if not (m.over or m.gone) and m.ends_ms <= self.now_ms]
        for m in late:
            m.unread = m.to[0] == "#" or m.seq > self.furthest(m.to)
        for m in late:
            m.over = True
        for m in late:
            if self._notices and m.unread and m.sender != NOTICE_SENDER:
                try:
                    self.append(m.sender, NOTICE_SENDER, f"expired-{m.seq}", "")
                except Refused:
                    continue

    def chat(self, reader: Reader, to: str, text: str, id: str, ttl_ms: float = inf) -> Any:  # noqa: A002 - as on the wire
        first = self._first.get((reader[0], id))
        if first is None or (first.gone and not self._one_log):  # what is stored has its answer
            self._takes_room()
        return {"seq": self.append(to, reader[0], id, text, ttl_ms), "durability": ANY}

    def kotakmasuk(self, reader: Reader, limit: int = 100, after: int = 0) -> Any:
        found = self.waiting(reader, after)
        result = {
            "user": reader[0],
            "name": reader[0],
            "messages": self.given_to(reader, found[:limit]),
            "more": len(found) > limit,
            "cursor": self.cursor[reader],
            "epoch": ANY,
        }
        return result | self._lost(reader, after)

    def ack(self, reader: Reader, seq: int) -> Any:
        """Allow for each cursor that hides what it should, and nothing that is still to come."""
        before = self.cursor[reader]
        low = max([before, *(m.seq for m in self.visible(reader[0]) if m.seq <= seq)])
        return {"cursor": OneOf(*range(low, max(before, min(seq, self.last)) + 1))}

    def status(self, reader: Reader, to: str, seq: int) -> Any:
        for m in self.log:
            if (m.sender, m.to, m.seq) == (reader[0], to, seq):
                if m.gone:
                    return ANY
                return {"state": self.state(m), "at_ms": m.at_ms, "id": m.id}
        raise Refused("no_such_message")

    def history(
        self,
        reader: Reader,
        of: str = "inbox",
        before: float = inf,
        after: int | None = None,
        limit: int = 100,
    ) -> Any:
        user = reader[0]
        if of == "sent":
            found = [m for m in self.log if m.sender == user]
            if any(m.gone for m in found):
                return ANY
        elif of == "inbox":
            found = self.visible(user)
        else:
            room = self.rooms_by_name.get(of)
            if room is None or user not in room.members:
                raise Refused("no_such_room")
            found = self.kept(of, 0 if room.history else room.members[user])
        found = [m for m in found if (after or 0) < m.seq < before]
        page = found[:limit] if after is not None else found[-limit:]
        more = {"state": self.state} if of == "sent" else {}
        return {
            "messages": [
                self.written(m, to=m.to, **{key: tell(m) for key, tell in more.items()})
                for m in page
            ],
            "more": len(found) > limit,
        }

    # --- rooms -------------------------------------------------------------------------------

    def rooms(self, reader: Reader) -> Any:
        user = reader[0]
        return {
            "rooms": [
                self._room(name, user)
                for name, room in sorted(self.rooms_by_name.items())
                if user in room.members or user in room.invited
            ]
        }

    def room_create(self, reader: Reader, room: str, *, open: bool, history: bool) -> Any:  # noqa: A002 - as on the wire
        self._takes_room()
        found = self.rooms_by_name.get(room)
        if found is not None:
            same = (found.owner, found.open, found.history) == (reader[0], open, history)
            if same and reader[0] in found.members:
                return {"room": self._room(room, reader[0])}
            raise Refused("room_exists")
        self.rooms_by_name[room] = Room(reader[0], open, history, {reader[0]: self.last})
        return {"room": self._room(room, reader[0])}

    def room_invite(self, reader: Reader, room: str, user: str) -> Any:
        self._takes_room()
        found = self.rooms_by_name.get(room)
        if found is None or reader[0] not in found.members:
            raise Refused("no_such_room")
        if user not in self.users:
            raise Refused("no_such_user")
        if user not in found.members and user not in found.invited:
            self.append(user, NOTICE_SENDER, f"{self.now_ms} {room} {user} {reader[0]}", "")
            found.invited.add(user)
        return {}

    def room_join(self, reader: Reader, room: str) -> Any:
        self._takes_room()
        found = self.rooms_by_name.get(room)
        user = reader[0]
        if found is None or not (found.open or user in found.members or user in found.invited):
            raise Refused("no_such_room")
        found.members.setdefault(user, self.last)
        found.invited.discard(user)
        return {"room": self._room(room, user)}

    def room_leave(self, reader: Reader, room: str) -> Any:
        found = self.rooms_by_name.get(room)
        if found is not None:
            if found.members.pop(reader[0], None) is not None:
                self._left(reader[0], room)
            found.invited.discard(reader[0])
            if not found.members:
                del self.rooms_by_name[room]
                for m in self.log:
                    m.gone = m.gone or m.to == room
        return {}

    def room_members(self, reader: Reader, room: str) -> Any:
        found = self.rooms_by_name.get(room)
        if found is None or reader[0] not in found.members:
            raise Refused("no_such_room")
        names = sorted(found.members)
        return {"members": [{"user": name, "name": name} for name in names], "more": False}

    def _room(self, name: str, user: str) -> dict[str, Any]:
        room = self.rooms_by_name[name]
        return {
            "room": name,
            "owner": room.owner,
            "open": room.open,
            "history": room.history,
            "members": len(room.members),
            "joined": user in room.members,
        }

    # --- push --------------------------------------------------------------------------------

    def subscribe(self, reader: Reader, window: int = 100, after: int = 0) -> Any:
        result = {
            "subscription": ANY,
            "user": reader[0],
            "name": reader[0],
            "window": window,
            "cursor": self.cursor[reader],
            "epoch": ANY,
        }
        return result | self._lost(reader, after)

    def subscribed(
        self, route: bytes, token: str, number: int, reader: Reader, *, window: int, after: int
    ) -> None:
        self.unsubscribed(route, token)
        self._numbers[route, token] = number
        self._routes[number] = route
        start = max(self.cursor[reader], after if after <= self.last_of(reader[0]) else 0)
        self.receivers[number] = Receiver(reader, window, start, start, self.now_ms)

    def unsubscribe(self, reader: Reader) -> Any:
        return {}

    def unsubscribed(self, route: bytes, token: str) -> None:
        self.receivers.pop(self._numbers.pop((route, token), 0), None)

    def all_pushed(self, bodies: list[dict[str, Any]]) -> None:
        """Check the events of a turn, and that no other was due."""
        self._ended = {body["subscription"] for body in bodies if body["kind"] == "ended"}
        again = self._ended & self._unheard
        self._unheard -= again
        bodies = [body for body in bodies if body["subscription"] not in again]
        readers = Counter(self.receivers[body["subscription"]].reader for body in bodies)
        self._racing = {reader for reader, events in readers.items() if events > 1}
        for body in bodies:
            self._pushed(self.receivers[body["subscription"]], body)
        self._racing.clear()
        self._settled()

    def _pushed(self, receiver: Receiver, body: dict[str, Any]) -> None:
        reader = receiver.reader
        if body["kind"] == "ended":
            assert receiver.logged_out or receiver.heard_ms < self.now_ms - SILENCE_MS
            del self.receivers[body["subscription"]]
            return
        assert not receiver.logged_out
        receiver.position = max(receiver.position, self.cursor[reader])
        # What was said in a room that was left since may be counted as received, or not.
        assert body["after"] == receiver.position or receiver.void
        page = self.waiting(reader, receiver.position)[: len(body["messages"])]
        assert self.given_to(reader, page) == body["messages"]
        receiver.position = page[-1].seq
        receiver.flight += [m.seq for m in page]
        receiver.stalled_ms = -inf
        assert self.slots(receiver) >= 0, "pushed beyond the window"

    def slots(self, receiver: Receiver) -> int:
        done = self.cursor[receiver.reader]
        return receiver.window - sum(
            seq > done and seq not in receiver.void for seq in receiver.flight
        )

    def _left(self, user: str, room: str) -> None:
        """Wait for no acknowledgement of what the user cannot read any more."""
        said = {m.seq for m in self.log if m.to == room}
        for receiver in self.receivers.values():
            if receiver.reader[0] == user:
                receiver.void |= said

    def _settled(self) -> None:
        """Check that everything was pushed that there is room for, and who was silent ended."""
        for receiver in self.receivers.values():
            assert receiver.heard_ms >= self.now_ms - SILENCE_MS - TICK_MS
            if receiver.logged_out:
                continue  # it is told so when there is next something to push
            if self.now_ms >= receiver.stalled_ms + TICK_MS and self.slots(receiver) > 0:
                left = self.waiting(receiver.reader, receiver.position)
                assert not left, "not pushed, though there is room"

    def lost(self, route: bytes, *, gone: bool) -> None:
        """Take back what a connection had no room for, or forget the connection."""
        if not gone:
            self._unheard |= {each for each in self._ended if self._routes[each] == route}
        for (where, token), number in list(self._numbers.items()):
            if where == route and number in self.receivers:
                receiver = self.receivers[number]
                if gone:
                    self.unsubscribed(route, token)
                    continue
                receiver.stalled_ms = self.now_ms
                cursor = self.cursor[receiver.reader]
                receiver.flight = [seq for seq in receiver.flight if seq <= cursor]
                receiver.position = max([receiver.begin, *receiver.flight])

    def logged_out(self, token: str) -> None:
        for (_, whose), number in self._numbers.items():
            if whose == token and number in self.receivers:
                self.receivers[number].logged_out = True

    def heard(self, route: bytes) -> None:
        for (where, _), number in self._numbers.items():
            if where == route and number in self.receivers:
                self.receivers[number].heard_ms = self.now_ms

    # --- what happens to the broker ----------------------------------------------------------

    def restarted(self, *, forgets: bool) -> None:
        self.receivers.clear()
        self._numbers.clear()
        self._ended.clear()
        self._unheard.clear()
        if forgets:
            self._restored = self.last
            self.given.clear()
            for (
                m
            ) in self.log:  # which had been read are not known to be over, until they are looked at
                m.over = m.unread

    def _takes_room(self) -> None:
        if self.full:
            raise Refused("storage_full")

    def _lost(self, reader: Reader, after: int) -> dict[str, Any]:
        last = self.last_of(reader[0])
        return {"history_lost": {"first": last + 1, "last": after}} if after > last else {}
