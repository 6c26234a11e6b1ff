"""Who may have answered for what a server has lost: a roll on each server that all brokers sign.

A server's writes go to its replicas in order, and so does the roll. When a replica has taken over,
the roll that it has tells up to where it has everything, and which brokers had been using the
server. Each of them that lives compares what it remembers (`broker.stores.redis.witness`) and signs
again, for the new server. Where one does not, nobody knows what it had answered: all mailboxes of
that server are in doubt (`broker.stores.redis.doubt`).

A *server* here is one state of data that only grows: who it is, its term, which each taking over
changes, and its stream, which a restart changes as well. Source: docs/decisions/0014.
"""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from broker.stores.redis.keys import Keys
from broker.stores.redis.link import Call, Link, script

#: Between two signatures, in seconds: a round trip to each server, beside what a turn does anyway.
BEAT_S: Final = 1.0


class Server(NamedTuple):
    """A primary, as one that signs finds it; all text."""

    who: str
    term: str
    stream: str

    def became(self, other: Server, *, restarted: bool) -> bool:
        """Tell whether this is the other now, with all that it had; maybe ``restarted``."""
        known = self.who == other.who
        return known and (self.stream == other.stream or (restarted and self.term == other.term))


class Entry(NamedTuple):
    """A signature: for which server, a number of the broker's, and the server's time then, in us.

    The number is the broker's clock in microseconds; 0 of one that cannot sign any more. Of the
    note it is since when the server has been the one, by its own time; 0: always.
    """

    server: Server
    beat: int
    at: int
    text: bytes

    @classmethod
    def parse(cls, text: bytes) -> Entry:
        who, term, stream, beat, at = text.decode().split()
        return cls(Server(who, term, stream), int(beat), int(at), text)


class Unvouched(NamedTuple):
    """A server of which some that used it do not come and compare.

    ``place`` is a place on it; nothing with a sequence of ``since`` or less is lost.
    """

    place: str
    server: Server
    since: int
    missing: Mapping[str, bytes]
    #: When the server had taken over, by its own time.
    began: int


class _Taken(NamedTuple):
    """A server that took over, with its roll as it was found."""

    server: Server
    entries: Mapping[str, Entry]


class _Seen(NamedTuple):
    """What another broker signed, what the server was then, and since when it is so, here."""

    entry: Entry
    server: Server
    since: float


#: On the roll: the server that has been accounted for. Whoever has known it before signs for it.
_NOTE: Final = ""


class RollCall:
    """This broker's part in it.

    ``syncs``: what a server has answered survives its restart. ``lease_s``: who has not signed for
    so long, while this broker could look, is gone. Not ``needed``: nobody signs, nobody is missed.
    """

    def __init__(
        self, link: Link, keys: Keys, *, syncs: bool, lease_s: float, needed: bool = True
    ) -> None:
        self.own = secrets.token_hex(8)
        #: When to call again, by the monotonic clock.
        self.due_at = time.monotonic() if needed else float("inf")
        self._needed = needed
        self._link = link
        self._keys = keys
        self._syncs = syncs
        self._lease_s = lease_s
        self._began = time.monotonic()
        self._looked_at = self._back_at = self._began
        # By place: the server that this broker has compared with, or began with.
        self._known: dict[str, Server] = {}
        self._taken: dict[str, _Taken] = {}
        # By place and broker.
        self._seen: dict[str, dict[str, _Seen]] = {}
        #: By place: a server that has taken over, and since when it is the one, by its own time.
        self.took_over: dict[str, tuple[Server, int]] = {}
        #: What is in doubt now, for who is to have it marked.
        self.unvouched: list[Unvouched] = []

    def call(self) -> bool:
        """Sign, and look who does not; tell whether a server was taken over by another one.

        Then it is not signed: compare, and `vouch`. Errors: as `Link.ask`.
        """
        if not self._needed:
            return False
        now = time.monotonic()
        self.due_at = now + BEAT_S
        if now - self._looked_at > self._lease_s:
            self._back_at = now  # it may have been this broker that was away
        places = self._link.spread(self._keys.roll)
        self._leave_places({*self._known} - {*places})
        replies = self._link.ask([self._signature(place, _beat()) for place in places])
        self._looked_at = now
        self._taken.clear()
        self.unvouched.clear()
        for place, reply in zip(places, replies, strict=True):
            self._take(place, reply, now)
        return bool(self._taken)

    @property
    def since(self) -> int:
        """Return up to which sequence the servers that were found have everything; 0: unknown."""
        found = [self._last(place) for place in self._taken]
        return min((each.at if each else 0 for each in found), default=0)

    def began(self, place: str) -> int:
        """Return when the server of a mailbox took over, in us of its own time; 0: it has not.

        What was noted before in the mailbox, but for its messages, may be lost.
        """
        beside = self._link.beside(place)
        return max((at for roll, (_, at) in self.took_over.items() if beside(roll)), default=0)

    def vouch(self, remembers: Callable[[float], bool]) -> None:
        """Sign for the servers that took over, after the comparison.

        ``remembers``: whether all that was answered since a monotonic time was compared. Errors: as
        `Link.ask`.
        """
        calls: list[Call] = []
        signed: list[tuple[int, str, Server]] = []
        for place, (server, entries) in self._taken.items():
            before, last = self._known[place], self._last(place)
            # Who had signed before this broker's last signature, and is not there, has signed off.
            gone = {
                name
                for name, seen in self._seen.get(place, {}).items()
                if name not in entries and seen.entry.at > (last.at if last else 0)
            }
            if not remembers(last.beat / 1e6 if last else self._began):
                gone.add(f"{self.own}!")  # it cannot say
            text = f"{' '.join(before)} 0 0"
            calls += [("HSETNX", f"{place}:brokers", each, text) for each in sorted(gone)]
            signed.append((len(calls), place, server))
            calls.append(self._signature(place, _beat(), server, before))
        replies = self._link.ask(calls)
        for at, place, server in signed:
            if replies[at][3]:
                self._known[place] = server
        self._taken.clear()

    def leave(self) -> None:
        """Sign off: this broker answers no more. Errors: as `Link.ask`."""
        self._link.ask([self._signature(place, "") for place in self._known])

    # -------------------------------------------------------------------------------------------

    def _signature(
        self, place: str, beat: str, known: Server | None = None, before: Server | None = None
    ) -> Call:
        nobody = ("", "", "")
        known = known or self._known.get(place)
        flags = ("1" if self._link.cluster else "", "1" if self._syncs else "")
        began = self.took_over[place][1] if before else 0
        args = (*(known or nobody), beat, *flags, *(before or nobody), began)
        return script("sign", place, self.own, *args)

    def _leave_places(self, places: set[str]) -> None:
        """Leave no trace where a server has got another place, since its slots were moved."""
        for place in places:
            self._link.tell(("HDEL", f"{place}:brokers", self.own, _NOTE))
            del self._known[place]
            self._seen.pop(place, None)
            self.took_over.pop(place, None)

    def _last(self, place: str) -> Entry | None:
        """Return this broker's last signature for the server that was, as the new one has it."""
        entry = self._taken[place].entries.get(self.own)
        return entry if entry and entry.server.became(self._known[place], restarted=True) else None

    def _take(self, place: str, reply: Any, now: float) -> None:
        who, term, stream, signed, flat, time_us = reply
        server = Server(who.decode(), term.decode(), stream.decode())
        names, texts = flat[::2], flat[1::2]
        pairs = zip(names, texts, strict=True)
        entries = {name.decode(): Entry.parse(text) for name, text in pairs}
        self._note_beginning(place, server, entries.get(_NOTE), time_us, signed=bool(signed))
        if not signed:
            self._taken[place] = _Taken(server, entries)
            return
        self._known[place] = server
        silent = self._silent(place, server, entries, now)
        ended = {name for name in silent if self._is_good(name, entries[name], server)}
        if ended:
            self._link.tell(("HDEL", f"{place}:brokers", *sorted(ended)))
        missing = {name: entries[name] for name in silent - ended}
        if missing and self.own == min({*entries, self.own} - silent - {_NOTE}):
            since = min(each.at for each in missing.values())
            texts_by_name = {name: each.text for name, each in missing.items()}
            began = self.took_over[place][1] if place in self.took_over else 0
            self.unvouched.append(Unvouched(place, server, since, texts_by_name, began))

    def _note_beginning(
        self, place: str, server: Server, note: Entry | None, time_us: int, *, signed: bool
    ) -> None:
        """Keep since when a server is the one: what the note says, or where it is old, now."""
        before = self.took_over.get(place)
        if before and before[0].became(server, restarted=True):
            return
        if signed and (note is None or self._is_good(_NOTE, note, server)):
            if note and note.beat:
                self.took_over[place] = (server, note.beat)
        else:
            self.took_over[place] = (server, time_us)

    def _silent(
        self, place: str, server: Server, entries: Mapping[str, Entry], now: float
    ) -> set[str]:
        """Return who has signed nothing new for too long."""
        before = self._seen.get(place, {})
        seen = self._seen[place] = {}
        for name, entry in entries.items():
            if name == self.own or (name == _NOTE and self._is_good(name, entry, server)):
                continue
            known = before.get(name)
            if known is None or (known.entry, known.server) != (entry, server):
                known = _Seen(entry, server, now)
            seen[name] = known
        waited_from = now - self._lease_s
        return {name for name, each in seen.items() if max(each.since, self._back_at) < waited_from}

    def _is_good(self, name: str, entry: Entry, server: Server) -> bool:
        # A restart loses nothing that was accounted for; what came later, its brokers know.
        return entry.server.became(server, restarted=self._syncs or name == _NOTE)


def _beat() -> str:
    return str(int(time.monotonic() * 1e6))
