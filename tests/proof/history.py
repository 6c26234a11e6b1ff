"""What clients saw, as JSON lines: the one format that recorders write and the checker reads.

A history is a folder of ``*.jsonl`` files, one a process, each line one operation. Times are
``CLOCK_MONOTONIC`` nanoseconds of one machine: ``t0`` just before the request, ``t1`` just after
the answer, null where none came. ``answer`` is ``"OK"``, an error code, or null for silence.

    {"op": "send", "from": str, "to": str, "id": str, "i": int, "digest": int,
     "t0": int, "t1": int | null, "answer": str | null, "seq": int | null}
    {"op": "read", "user": str, "t0": int, "t1": int | null, "answer": str | null, "taken": bool,
     "messages": [[seq | null, from, id, digest, redelivered | null], ...],
     "device": str, "epoch": int | null}
    {"op": "ack", "user": str, "seq": int, "t0": int, "t1": int | null, "answer": str | null,
     "device": str}
    {"op": "drained", "user": str, "t0": int, "t1": int}
    {"op": "gap", "user": str | null, "t0": int, "t1": int}
    {"op": "history_lost", "user": str, "first": int, "last": int, "t0": int, "t1": int,
     "device": str}

``i`` is the message's place in its sender's order of sending. ``seq`` is null where a door tells
none. ``taken`` says that the read itself acknowledged what it returned (the text door).
``drained`` says that a read invoked at ``t0`` found the mailbox empty.

A pushed message is a read that was invoked and answered at the moment of its arrival: what the
broker pushed before it answered an acknowledgement arrives before that answer, since one receiver
has one connection. (Two receivers with one cursor between them cannot be recorded so.)

``device`` names the reader's device, empty for the user's own cursor. ``epoch`` is recorded where
the reader sent the epoch that it knew. ``redelivered`` is null where the recorder did not look. A
``gap`` says that from ``t0`` to ``t1`` the broker was down (``user`` null) or a receiver had no
connection: what was sent before ``t1`` may have been given to its reader unseen. ``history_lost``
is what a reader was told in an answer.
"""

from __future__ import annotations

import gc
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple
from zlib import crc32

OK: Final = "OK"


class HistoryError(Exception):
    """A file that is no history; the text names the file, the line, and what is wrong with it."""


class Send(NamedTuple):
    """One message as its sender saw it."""

    sender: str
    to: str
    id: str
    i: int
    digest: int
    t0: int
    t1: int | None = None
    answer: str | None = None
    seq: int | None = None

    def as_json(self) -> dict[str, Any]:
        fields = self._asdict()
        return {"op": "send", "from": fields.pop("sender"), **fields}


class Seen(NamedTuple):
    """One message as its reader saw it."""

    seq: int | None
    sender: str
    id: str
    digest: int
    redelivered: bool | None = None


class Read(NamedTuple):
    """One read of a mailbox and all it returned, in that order."""

    user: str
    t0: int
    t1: int | None = None
    answer: str | None = None
    taken: bool = False
    messages: tuple[Seen, ...] = ()
    device: str = ""
    epoch: int | None = None

    def as_json(self) -> dict[str, Any]:
        return {"op": "read", **self._asdict()}


class Ack(NamedTuple):
    """One acknowledgement: every message up to and with ``seq`` has been dealt with."""

    user: str
    seq: int
    t0: int
    t1: int | None = None
    answer: str | None = None
    device: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"op": "ack", **self._asdict()}


class Drained(NamedTuple):
    """A mailbox that was found empty."""

    user: str
    t0: int
    t1: int

    def as_json(self) -> dict[str, Any]:
        return {"op": "drained", **self._asdict()}


class Gap(NamedTuple):
    """A time in which messages may have been given away that nobody saw arrive."""

    user: str | None
    t0: int
    t1: int

    def as_json(self) -> dict[str, Any]:
        return {"op": "gap", **self._asdict()}


class HistoryLost(NamedTuple):
    """A reader was told that messages from ``first`` to ``last`` may be gone."""

    user: str
    first: int
    last: int
    t0: int
    t1: int
    device: str = ""

    def as_json(self) -> dict[str, Any]:
        return {"op": "history_lost", **self._asdict()}


Record = Send | Read | Ack | Drained | Gap | HistoryLost


class History(NamedTuple):
    """Everything that all clients saw."""

    sends: list[Send]
    reads: list[Read]
    acks: list[Ack]
    drains: list[Drained]
    gaps: list[Gap]
    losses: list[HistoryLost]


#: Operations whose line has the fields of their class.
_PLAIN: Final[Mapping[str, Callable[..., Record]]] = {
    "ack": Ack,
    "drained": Drained,
    "gap": Gap,
    "history_lost": HistoryLost,
}


def digest(text: str) -> int:
    """Return 32 bits that tell one text from another. The checker compares nothing else of it."""
    return crc32(text.encode())


def to_line(record: Record) -> str:
    """Return one line of a history, without its end."""
    return json.dumps(record.as_json(), separators=(",", ":"))


def parse_line(line: str) -> Record:
    """Return one record. Errors: `ValueError`, `KeyError` or `TypeError` for any other line."""
    fields = json.loads(line)
    op = fields.pop("op")
    if op == "send":
        return Send(fields.pop("from"), **fields)
    if op == "read":
        seen = tuple(Seen(*message) for message in fields.pop("messages"))
        return Read(**fields, messages=seen)
    if op in _PLAIN:
        return _PLAIN[op](**fields)
    raise ValueError(f"unknown operation {op!r}")


def write(path: Path, records: Iterable[Record]) -> None:
    """Write one process's history."""
    with path.open("w", encoding="ascii") as file:
        file.writelines(to_line(record) + "\n" for record in records)


def gather(records: Iterable[Record]) -> History:
    """Sort records by their kind, each kind in the order given."""
    history = History([], [], [], [], [], [])
    for record in records:
        match record:
            case Send():
                history.sends.append(record)
            case Read():
                history.reads.append(record)
            case Ack():
                history.acks.append(record)
            case Drained():
                history.drains.append(record)
            case Gap():
                history.gaps.append(record)
            case HistoryLost():
                history.losses.append(record)
    return history


def load(folder: Path) -> History:
    """Read a folder of histories. Errors: `HistoryError`."""
    paths = sorted(folder.glob("*.jsonl"))
    if not paths:
        raise HistoryError(f"{folder} holds no *.jsonl file: name the folder of a recorded load")
    # A million records make no cycle: without the collector they are read in half the time.
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        return gather(record for path in paths for record in _records(path))
    finally:
        if was_enabled:
            gc.enable()


def _records(path: Path) -> Iterator[Record]:
    with path.open(encoding="utf-8") as file:
        for number, line in enumerate(file, 1):
            try:
                yield parse_line(line)
            except (ValueError, KeyError, TypeError, AttributeError) as error:
                raise HistoryError(f"{path}:{number}: not a record of a history: {error}") from None
