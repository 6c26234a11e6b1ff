"""What each user has sent: where to, and under which sequence there.

Written behind the appends, in the sender's slot: with the next round trip, so at no price, and at
the latest a turn later. It is a list for people to look back; no promise rests on it. What it leads
to lies in the recipients' mailboxes, and what they no longer have falls out of the list when
somebody looks.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from broker.core.mailbox import fitting
from broker.core.model import History, Message, State
from broker.stores.redis.keys import Keys
from broker.stores.redis.link import Call, Link, script
from broker.stores.redis.messages import message
from broker.wire.limits import ROOM_MARK

#: Of one user, about 100 bytes each; the oldest fall out.
SENT_MAX: Final = 10_000


class _Place(NamedTuple):
    to: str
    seq: int
    member: bytes


class Sent:
    """The lists of all senders; `note` is told of each append."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        self._noted: defaultdict[str, list[str | int]] = defaultdict(list)

    def note(self, sender: str, to: str, seq: int) -> None:
        """Remember an append, to be written down with what comes next."""
        self._noted[sender] += (to, seq)

    def forget(self, sender: str) -> None:
        """Write nothing down of an account that is removed."""
        self._noted.pop(sender, None)

    def tell(self) -> None:
        """Have written down what was noted."""
        for sender, flat in self._noted.items():
            self._link.tell(script("sent", self._keys.place(sender), SENT_MAX, *flat))
        self._noted.clear()

    def history(
        self, user: str, *, before: int | None, after: int | None, limit: int, bytes_max: int
    ) -> History:
        """Return a page of what a user has sent and is still kept, with where it stands."""
        forward = after is not None
        bound = after if forward else before
        found: list[tuple[Message, State]] = []
        more = True
        while more and len(found) <= limit:
            places = self._page(user, bound, limit + 1, forward=forward)
            more = len(places) > limit
            found += self._standing(user, places)
            if places:
                bound = places[-1].seq
        page = fitting((each for each, _ in found[:limit]), bytes_max)
        states = [state for _, state in found[: len(page)]]
        if not forward:
            page.reverse()
            states.reverse()
        return History(page, states, more=more or len(found) > len(page))

    def _page(self, user: str, bound: int | None, limit: int, *, forward: bool) -> list[_Place]:
        key = self._keys.of(user, "sent")
        if forward:
            call: Call = ("ZRANGEBYSCORE", key, f"({bound}", "+inf", "LIMIT", 0, limit)
        else:
            high = "+inf" if bound is None else f"({bound}"
            call = ("ZREVRANGEBYSCORE", key, high, "-inf", "LIMIT", 0, limit)
        found = []
        for member in self._link.one(call):
            to, _, seq = member.decode().rpartition(" ")
            found.append(_Place(to, int(seq), member))
        return found

    def _standing(self, user: str, places: Iterable[_Place]) -> list[tuple[Message, State]]:
        """Return those that are kept, in the same order, and drop the others from the list."""
        wanted: defaultdict[str, list[_Place]] = defaultdict(list)
        for place in places:
            wanted[place.to].append(place)
        calls: list[Call] = [
            script("states", self._keys.place(to), *(each.seq for each in there))
            for to, there in wanted.items()
        ]
        standing: dict[_Place, tuple[Message, State]] = {}
        for there, (furthest, given, *states) in zip(
            wanted.values(), self._link.ask(calls), strict=True
        ):
            for place, state in zip(there, states, strict=True):
                if state:
                    standing[place] = _stands(place, state, furthest, given)
        gone = [each.member for each in places if each not in standing]
        if gone:
            self._link.tell(("ZREM", self._keys.of(user, "sent"), *gone))
        return [standing[each] for each in places if each in standing]


def _stands(place: _Place, state: Any, furthest: int, given: int) -> tuple[Message, State]:
    row, expired_ms = state
    told = message(row, place.to)
    if expired_ms:
        return told, State.EXPIRED
    if place.to.startswith(ROOM_MARK):
        return told, State.STORED
    if place.seq <= furthest:
        return told, State.ACKNOWLEDGED
    return told, State.DELIVERED if place.seq <= given else State.STORED
