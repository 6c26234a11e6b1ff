"""What the clients of a run saw, and how it becomes a history that the checker can judge.

A message to a user has as many readers as the user has cursors, one to a room as many as its
members have. The checker knows mailboxes with one cursor, so each reader becomes a mailbox of its
own, `user/device`, and each send one to every reader that it was meant for: a send that its reader
must get (`must`) is judged as it was answered, one that it may get (`may`) as one without an
answer, and one that it must not get is left out, so that reading it breaks L4.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import inf
from typing import Literal, NamedTuple

from tests.proof.history import (
    OK,
    Ack,
    Drained,
    Gap,
    History,
    HistoryLost,
    Read,
    Record,
    Seen,
    gather,
)
from tests.proof.history import Send as Sent

Duty = Literal["must", "may", "not"]


class Reader(NamedTuple):
    """One cursor."""

    user: str
    device: str

    def __str__(self) -> str:
        return f"{self.user}/{self.device}"


@dataclass(slots=True)
class Send:
    """One attempt to send a message, from its beginning to its answer."""

    sender: str
    to: str
    id: str
    i: int
    digest: int
    ttl_ms: int | None
    t0: int
    t1: int | None = None
    answer: str | None = None
    seq: int | None = None
    #: What its sender was told of it last.
    state: str | None = None


@dataclass(slots=True)
class Stay:
    """A membership: asked for, granted, given up, ended. Infinite: not so, or not known."""

    user: str
    room: str
    asked: float
    granted: float = inf
    leaving: float = inf
    left: float = inf


class Shown(NamedTuple):
    """One message as its reader got it."""

    seq: int
    sender: str
    id: str
    digest: int
    room: str | None
    redelivered: bool


class Given(NamedTuple):
    """One read, or one message pushed, and all it returned."""

    reader: Reader
    t0: int
    t1: int
    messages: tuple[Shown, ...]


@dataclass(slots=True)
class Journal:
    """All that was seen. Times are microseconds."""

    sends: list[Send] = field(default_factory=list)
    given: list[Given] = field(default_factory=list)
    acks: list[Ack] = field(default_factory=list)
    drains: list[tuple[Reader, int, int]] = field(default_factory=list)
    losses: list[tuple[Reader, int, int, int]] = field(default_factory=list)
    stays: list[Stay] = field(default_factory=list)
    #: When the store was put back, and the highest sequence that it still had then.
    restored: list[tuple[int, int]] = field(default_factory=list)
    readers: set[Reader] = field(default_factory=set)
    #: Does a message of a room have another sequence for each reader?
    own_places: bool = False


def _sender(name: str, room: str | None, reader: Reader) -> str:
    """Return the sender's name in the history: one for each mailbox, and each room's order."""
    return f"{name} to {reader}" if room is None else f"{name} in {room} to {reader}"


def to_history(journal: Journal) -> History:
    """Return what the checker judges."""
    unclear = _unclear(journal)
    records: list[Record] = []
    records += _sends(journal, unclear)
    for given in journal.given:
        t0 = max(
            # What was asked before the store was put back, and answered after it.
            [given.t0, *(at for at, _ in journal.restored if at < given.t1)]
        )
        seen = tuple(
            # The mark is passed on where it is missing; whether it may be there, the door judges.
            Seen(
                shown.seq,
                _sender(shown.sender, shown.room, given.reader),
                shown.id,
                shown.digest,
                None if shown.redelivered or t0 > given.t0 else False,
            )
            for shown in given.messages
            if (shown.sender, shown.id) not in unclear and not shown.sender.startswith("!")
        )
        records.append(Read(str(given.reader), t0, given.t1, OK, messages=seen))
    records += [ack._replace(user=f"{ack.user}/{ack.device}", device="") for ack in journal.acks]
    records += [Drained(str(reader), t0, t1) for reader, t0, t1 in journal.drains]
    records += [
        HistoryLost(str(reader), first, last, at, at) for reader, first, last, at in journal.losses
    ]
    for at, _ in journal.restored:  # acknowledgements since the copy was made may be undone
        records += [HistoryLost(str(reader), 1, 0, at, at) for reader in sorted(journal.readers)]
    records.append(Gap(None, 0, 0))
    return gather(records)


def _unclear(journal: Journal) -> set[tuple[str, str]]:
    """Return the ids that were under way when the store was put back: two copies are no breach."""
    by_id: defaultdict[tuple[str, str], list[Send]] = defaultdict(list)
    for send in journal.sends:
        by_id[send.sender, send.id].append(send)
    return {
        key
        for key, sends in by_id.items()
        for at, _ in journal.restored
        if sends[0].t0 <= at
        and not any(send.answer == OK and (send.t1 or 0) < at for send in sends)
    }


def _sends(journal: Journal, unclear: set[tuple[str, str]]) -> Iterator[Sent]:
    duties = _Duties(journal)
    by_id: defaultdict[tuple[str, str], list[Send]] = defaultdict(list)
    for send in journal.sends:
        by_id[send.sender, send.id].append(send)
    readers = sorted(journal.readers)
    for key, attempts in by_id.items():
        if key in unclear:
            continue
        for reader in readers:
            duty = duties.of(attempts, reader)
            if duty != "not":
                own = journal.own_places
                yield from (_sent(each, reader, duty, own_places=own) for each in attempts)


def _sent(send: Send, reader: Reader, duty: Duty, *, own_places: bool) -> Sent:
    sender = _sender(send.sender, send.to if send.to.startswith("#") else None, reader)
    sent = Sent(sender, str(reader), send.id, send.i, send.digest, send.t0)
    if duty == "may" and send.answer == OK:
        return sent
    # Of several brokers' store each mailbox has places of its own for what was said in a room.
    seq = None if own_places and send.to.startswith("#") else send.seq
    return sent._replace(t1=send.t1, answer=send.answer, seq=seq)


class _Duties:
    """What each reader must, may and must not get."""

    def __init__(self, journal: Journal) -> None:
        self._restored = journal.restored
        self._stays: defaultdict[tuple[str, str], list[Stay]] = defaultdict(list)
        for stay in journal.stays:
            self._stays[stay.user, stay.room].append(stay)

    def of(self, attempts: list[Send], reader: Reader) -> Duty:
        """Judge one message, whose attempts are one and the same copy."""
        to = attempts[0].to
        if not to.startswith("#"):
            duty: Duty = "must" if to == reader.user else "not"
        else:
            duty = self._of_room(attempts, self._stays[reader.user, to])
        if duty == "must" and (attempts[0].ttl_ms is not None or self.undone(attempts)):
            return "may"
        return duty

    @staticmethod
    def _of_room(attempts: list[Send], stays: list[Stay]) -> Duty:
        first = attempts[0].t0
        end = next((send.t1 for send in attempts if send.answer == OK), None) or inf
        if any(stay.granted < first and stay.leaving == inf for stay in stays):
            return "must"
        if any(stay.asked <= end and first <= stay.left for stay in stays):
            return "may"
        return "not"

    def undone(self, attempts: list[Send]) -> bool:
        """Tell whether a message was lost when the store was put back."""
        return any(
            send.seq is not None and send.seq > last and send.t0 <= at
            for at, last in self._restored
            for send in attempts
        )


def vanished(journal: Journal) -> Iterator[str]:
    """Tell of messages to a user that nobody got, and that have not expired.

    What a reader was told to be lost, since another one had read it long before, was got by that.
    """
    duties, unclear = _Duties(journal), _unclear(journal)
    got = {(each.sender, each.id) for given in journal.given for each in given.messages}
    for send in journal.sends:
        key = (send.sender, send.id)
        if key in got or key in unclear or send.answer != OK or send.state == "expired":
            continue
        if not send.to.startswith("#") and not duties.undone([send]):
            told = "" if send.state is None else f", and its state is told to be {send.state}"
            yield f"{send.id} was answered OK and never read by anybody{told}"
