"""What a life of a store is told to do, and what it says of it: the words of two processes.

A life writes JSON lines. ``{"open": t, "epoch": n}``: the store is open. ``{"batch": [...]}``:
these operations, in the shape of tests.proof.history, are about to be committed. ``{"end":
[t, answer]}``: they were, or were not; at ``t`` their callers have the answer, in nanoseconds of
CLOCK_MONOTONIC.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Final, NamedTuple

from tests.proof.history import OK, Ack, Read, Record, Send, parse_line

USERS: Final = ("ann", "bob", "cat")
#: Exit codes of a life, as of the broker.
DONE: Final = 0
UNUSABLE: Final = 5
DISK_FAILED: Final = 6


@dataclass(frozen=True)
class Course:
    """One life: a seed gives the same operations, whatever becomes of them."""

    seed: int
    #: Which life of the folder this is: ids and places in the order go by it.
    life: int = 0
    #: Batches until the store is closed; 0: until the process is killed.
    batches: int = 0
    operations_max: int = 20
    text_bytes_max: int = 600
    synchronous: str | None = None
    #: A bug of tests.proof.seeded, by name.
    spoiled: str | None = None
    checkpoint_pages: int | None = None
    #: Changes in the journal before the database takes them in.
    journalled_max: int | None = None
    #: Is kept house between batches, which takes in the journal too?
    tidies: bool = True
    retention_read_ms: int = 86_400_000

    def as_json(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def parse(cls, text: str) -> Course:
        return cls(**json.loads(text))


class Batch(NamedTuple):
    """Operations that share a commit, and their common answer; None where none came."""

    operations: Sequence[Record]
    at_ns: int | None = None
    answer: str | None = None


@dataclass
class Said:
    """What one life has said."""

    opened_ns: int | None
    batches: list[Batch]
    epoch: int | None = None

    def until(self, at_ns: int | None) -> Iterator[Record]:
        """Return what callers knew at a moment; None: at the end."""
        for batch in self.batches:
            known = batch.at_ns is not None and (at_ns is None or batch.at_ns <= at_ns)
            for operation in batch.operations:
                if at_ns is None or operation.t0 <= at_ns:
                    yield _answered(operation, batch if known else Batch([]))


def _answered(operation: Record, batch: Batch) -> Record:
    at_ns, answer = batch.at_ns, batch.answer
    done = answer == OK
    match operation:
        case Send():
            return operation._replace(t1=at_ns, answer=answer, seq=operation.seq if done else None)
        case Read():
            messages = operation.messages if done else ()
            return operation._replace(t1=at_ns, answer=answer, messages=messages)
        case Ack():
            return operation._replace(t1=at_ns, answer=answer)
        case _:
            return operation


def parse_said(lines: Iterable[bytes]) -> Said:
    """Put together what a life wrote; a line that the kill has cut short was never said."""
    said = Said(None, [])
    for line in lines:
        if not line.endswith(b"\n"):
            break
        fields = json.loads(line)
        if "open" in fields:
            said.opened_ns, said.epoch = fields["open"], fields["epoch"]
        elif "batch" in fields:
            said.batches.append(Batch([parse_line(json.dumps(one)) for one in fields["batch"]]))
        else:
            said.batches[-1] = said.batches[-1]._replace(
                at_ns=fields["end"][0], answer=fields["end"][1]
            )
    return said
