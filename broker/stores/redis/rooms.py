"""Rooms: who is in which, and how what is said there comes into each mailbox.

A room is a log of its own, and a member's mailbox holds pointers into it: before it is read, it
*pulls* what the room has above its position. Pointers, not copies: a text is stored once however
many are in the room, and what is deleted in a room is gone for all at once.

The room's side of a membership is the truth; the user's only says where to look.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, NamedTuple

from broker.core.mailboxes import no_such_room, no_such_user
from broker.core.model import Membership, Message
from broker.stores.redis.keys import Keys
from broker.stores.redis.link import Call, Link, script
from broker.stores.redis.messages import message
from broker.wire.limits import ROOM_MARK

#: Pointers that one look at a room brings at most.
PULLED_MAX: Final = 1_000


class Seat(NamedTuple):
    """A user's place in a room: it reads above ``since`` and has pulled up to ``position``."""

    joined: bool
    since: int
    position: int


class Gone(NamedTuple):
    """What is not there, or may not be: above ``low``, up to ``seq``, for those above ``since``."""

    since: int
    seq: int
    low: int


class Rooms:
    """Memberships, and pulling."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys

    # --- memberships -------------------------------------------------------------------------

    def find(self, room: str, user: str) -> Membership | None:
        known, joined = self._link.ask(
            [
                ("ZSCORE", self._keys.of(room, "members"), user),
                ("SISMEMBER", self._keys.of(room, "joined"), user),
            ]
        )
        return None if known is None else Membership(room, user, bool(joined))

    def put(self, record: Membership) -> None:
        """Seat a user. Errors: ``no_such_user``, ``no_such_room``."""
        keys, user, room = self._keys, record.user, record.room
        born, (there, last) = self._link.ask(
            [
                ("EXISTS", keys.of(user, "meta")),
                ("HMGET", keys.of(room, "meta"), "born", "last"),
            ]
        )
        if not born:
            raise no_such_user()
        if there is None:
            raise no_such_room()
        what = "1" if record.joined else "0"
        # The user's side first: a seat in a room that does not know it is without effect.
        self._link.tell(script("seat", keys.place(user), room, what, int(last or 0)))
        self._link.tell(script("member", keys.place(room), user, what))

    def remove(self, room: str, user: str) -> None:
        self._link.tell(script("member", self._keys.place(room), user, ""))
        self._link.tell(script("seat", self._keys.place(user), room, "", 0))

    def remove_all(self, name: str) -> None:
        """Take a user out of its rooms, or a room from its members, whichever it is."""
        if name.startswith(ROOM_MARK):
            for user in self._link.one(("ZRANGE", self._keys.of(name, "members"), 0, -1)):
                self.remove(name, user.decode())
        else:
            for room in self.seats(name):
                self.remove(room, name)

    def of_user(self, user: str) -> list[Membership]:
        """Return a user's memberships in order of room."""
        seats = self.seats(user)
        return [Membership(room, user, seats[room].joined) for room in sorted(seats)]

    def of_room(self, room: str, after: str, limit: int) -> list[Membership]:
        """Return a room's memberships in order of user."""
        low = f"({after}" if after else "-"
        page = ("LIMIT", 0, limit) if limit else ()
        users = self._link.one(("ZRANGEBYLEX", self._keys.of(room, "members"), low, "+", *page))
        if not users:
            return []
        joined = self._link.one(("SMISMEMBER", self._keys.of(room, "joined"), *users))
        return [
            Membership(room, user.decode(), bool(there))
            for user, there in zip(users, joined, strict=True)
        ]

    def seats(self, user: str) -> dict[str, Seat]:
        """Return where the user sits, or may."""
        return _seats(self._link.one(("HGETALL", self._keys.of(user, "rooms"))))

    # --- pulling -----------------------------------------------------------------------------

    def pull(self, user: str, flat: object) -> list[Gone]:
        """Bring into a mailbox what its rooms have; return what they have deleted.

        ``flat`` is what the user's ``:rooms`` holds.
        """
        seats = {room: seat for room, seat in _seats(flat).items() if seat.joined}
        peeks: list[Call] = [
            script("peek", self._keys.place(room), user, seat.position, PULLED_MAX)
            for room, seat in seats.items()
        ]
        args: list[Any] = []
        gone: list[Gone] = []
        for (room, seat), reply in zip(seats.items(), self._link.ask(peeks), strict=True):
            if reply == b"absent":
                continue
            _, purged, position, seqs, lost, low = reply
            gone += (Gone(seat.since, purged, purged), Gone(seat.since, lost, low))
            if position > seat.position:
                args += [room, seat.position, position, len(seqs), *seqs]
        if args:
            self._link.one(script("pull", self._keys.place(user), *args))
        return gone

    def resolve(self, user: str, pointers: Sequence[Any]) -> tuple[list[Message], bool]:
        """Fetch what pointers lead to; tell whether some led nowhere, which are dropped then.

        ``pointers`` are members of ``:pulled`` with their scores.
        """
        if not pointers:
            return [], False
        wanted: defaultdict[str, list[tuple[int, int, bytes]]] = defaultdict(list)
        for pointer, score in zip(pointers[::2], pointers[1::2], strict=True):
            room, _, seq = pointer.decode().rpartition(" ")
            wanted[room].append((int(seq), int(float(score)), pointer))
        found: list[Message] = []
        gone: list[bytes] = []
        for (room, places), reply in zip(wanted.items(), self._states(wanted), strict=True):
            for (_, seq, pointer), state in zip(places, reply[2:], strict=True):
                if state and not state[1]:
                    found.append(message(state[0], room, seq))
                else:
                    gone.append(pointer)
        if gone:
            self._link.tell(("ZREM", self._keys.of(user, "pulled"), *gone))
        return found, bool(gone)

    def _states(self, wanted: Mapping[str, Iterable[tuple[int, int, bytes]]]) -> list[Any]:
        calls: list[Call] = [
            script("states", self._keys.place(room), *(seq for seq, _, _ in places))
            for room, places in wanted.items()
        ]
        return self._link.ask(calls)


def _seats(flat: Any) -> dict[str, Seat]:
    pairs = flat.items() if isinstance(flat, dict) else zip(flat[::2], flat[1::2], strict=True)
    found = {}
    for room, value in pairs:
        joined, since, position, _ = value.decode().split()
        found[room.decode()] = Seat(joined == "1", int(since), int(position))
    return found
