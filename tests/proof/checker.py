"""Judge what clients saw against the promises of docs/PROTOCOL.md, knowing nothing of the broker.

    python -m tests.proof.checker FOLDER      exit 0: clean, 1: a promise was broken, 2: no history

| law | promise |
| --- | --- |
| L1 | every send answered OK is read |
| L2 | no read invoked after a completed acknowledgement returns that message |
| L3 | per sender and recipient, the order of reading is the order of sending |
| L4 | nothing is read that nobody sent, changed, or meant for somebody else |
| L5 | a message id is stored once, and each repetition gets the same answer |
| L6 | a send without an answer appears at most once |
| L7 | who was given a message before, and who lost history, is told so |

L7 is judged where the history records it: `redelivered` must stand at what this reader was given
before, and must not at what was certainly never given; an epoch does not change in silence. What
lies in a range that its reader was told to be lost is no breach of L1. Nor is it one of L5 or L6
that a message is stored anew whose first copy was lost so, unanswered: its id went with it.

An operation without an answer may have happened at any time after it was invoked, or never. The
work is linear in the messages: sends are hashed by (sender, id), and all operations on a mailbox
are swept once in order of time. Only what had *completed* before a read was invoked binds it.
"""

from __future__ import annotations

import sys
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from math import inf
from pathlib import Path
from typing import Final, NamedTuple

from tests.proof.history import (
    OK,
    Ack,
    Drained,
    Gap,
    History,
    HistoryError,
    HistoryLost,
    Read,
    Record,
    Seen,
    Send,
    load,
    to_line,
)

LAWS: Final = ("L1", "L2", "L3", "L4", "L5", "L6")
#: Judged where marks or epochs were recorded.
TOLD: Final = "L7"
#: Breaches kept a law: the first few explain the fault, the rest are counted.
SHOWN_MAX: Final = 5
#: Answers after which nothing of the message may be stored (docs/PROTOCOL.md, "Errors"). Any other
#: error, such as `unavailable`, leaves open whether an earlier attempt was stored.
REFUSALS: Final = frozenset(
    {
        "bad_request",
        "unknown_command",
        "too_large",
        "no_such_user",
        "conflict",
        "no_such_room",
        "mailbox_full",
        "storage_full",
    }
)

Key = tuple[str, str]  # sender, message id
Operation = Read | Ack | Gap | HistoryLost
#: Of one mailbox, by sequence: the message that it names, and the read that showed it.
Names = dict[int, tuple[Key, Read]]


class Breach(NamedTuple):
    """A broken promise, and the few operations that show it."""

    law: str
    sentence: str
    shown_by: tuple[Record, ...]

    def __str__(self) -> str:
        return "\n    ".join([f"{self.law}: {self.sentence}", *map(to_line, self.shown_by)])


@dataclass
class Verdict:
    """What was found: breaches a law, the first `SHOWN_MAX` of each in full."""

    sends: int = 0
    sends_ok: int = 0
    messages_read: int = 0
    #: Deliveries that were recorded with or without their mark, and epochs that were compared.
    told: int = 0
    #: Messages answered OK and unread whose loss was announced: of a store that was put back.
    announced: int = 0
    #: Messages answered OK and unread in a mailbox that nobody drained afterwards: not proven.
    undecided: int = 0
    counts: Counter[str] = field(default_factory=Counter)
    breaches: list[Breach] = field(default_factory=list)

    @property
    def clean(self) -> bool:
        return not self.counts and not self.undecided

    @property
    def laws(self) -> tuple[str, ...]:
        """The laws that were judged."""
        return (*LAWS, TOLD) if self.told else LAWS

    def add(self, law: str, sentence: str, *shown_by: Record) -> None:
        self.counts[law] += 1
        if self.counts[law] <= SHOWN_MAX:
            self.breaches.append(Breach(law, sentence, shown_by))

    def __str__(self) -> str:
        counted = (
            f"{self.sends:,} sends, {self.sends_ok:,} answered OK, {self.messages_read:,} read"
        )
        if self.clean:
            return f"clean: {', '.join(self.laws)} hold ({counted})"
        lines = [f"BROKEN ({counted})", *map(str, self.breaches)]
        lines += [
            f"{law}: {count - SHOWN_MAX:,} more breaches"
            for law, count in sorted(self.counts.items())
            if count > SHOWN_MAX
        ]
        if self.undecided:
            lines.append(
                f"undecided: {self.undecided:,} messages answered OK were not read, and their "
                "mailbox was not drained afterwards"
            )
        return "\n".join(lines)


class Message:
    """One message id of one sender: all its sends, and what became of it."""

    __slots__ = ("first_read", "first_seen", "sends", "seqs")

    def __init__(self, first: Send) -> None:
        self.sends = [first]
        self.seqs: tuple[int, ...] = ()
        self.first_read: Read | None = None
        self.first_seen: Seen | None = None

    def stored_again(self, seq: int | None) -> bool:
        """Note where a copy is stored; True when this shows one more copy than was known."""
        if seq is None or seq in self.seqs:
            return False
        self.seqs += (seq,)
        return len(self.seqs) > 1

    @property
    def answered(self) -> Send | None:
        return next((send for send in self.sends if send.answer == OK), None)

    @property
    def placed(self) -> bool:
        """Whether its place in the order is certain: a lost first attempt may have come late."""
        return self.sends[0].answer == OK

    @property
    def law_of_copies(self) -> str:
        """A second copy of a message breaks L5; L6 where its sender never had an answer."""
        return "L5" if self.answered else "L6"


def judge(history: History) -> Verdict:
    """Judge a whole history. O(messages), plus sorting the reads and acknowledgements by time."""
    verdict = Verdict(len(history.sends))
    messages = _index(history.sends, verdict)
    names: defaultdict[str, Names] = defaultdict(dict)
    for (user, _), operations in _by_reader(history).items():
        _Reader(user, messages, names[user], verdict).sweep(operations)
    _judge_losses(messages.values(), history, verdict)
    return verdict


def _by_reader(history: History) -> dict[tuple[str, str], list[Operation]]:
    """Sort what concerns each cursor: of a user, or of one of the user's devices."""
    readers: defaultdict[tuple[str, str], list[Operation]] = defaultdict(list)
    for loss in history.losses:  # before the reads: the answer that told it is one of these
        readers[loss.user, loss.device].append(loss)
    for read in history.reads:
        readers[read.user, read.device].append(read)
    for ack in history.acks:
        readers[ack.user, ack.device].append(ack)
    for (user, _), operations in readers.items():
        operations.extend(gap for gap in history.gaps if gap.user in (None, user))
    return readers


def _index(sends: Iterable[Send], verdict: Verdict) -> dict[Key, Message]:
    """Group sends by message id, and judge their answers (L5)."""
    messages: dict[Key, Message] = {}
    for send in sends:
        verdict.sends_ok += send.answer == OK
        key = (send.sender, send.id)
        message = messages.get(key)
        if message is None:
            messages[key] = message = Message(send)
        else:
            _judge_repetition(message, send, verdict)
            message.sends.append(send)
        if send.answer == OK:
            message.stored_again(send.seq)
    return messages


def _judge_repetition(message: Message, send: Send, verdict: Verdict) -> None:
    before = message.answered
    if before is None or send.answer != OK:
        return
    if (before.to, before.digest) != (send.to, send.digest):
        verdict.add("L5", "one message id was accepted for two messages", before, send)
    elif before.seq != send.seq:
        verdict.add("L5", "a repeated send got another answer than the first", before, send)


def _judge_losses(messages: Iterable[Message], history: History, verdict: Verdict) -> None:
    last_drain: dict[str, Drained] = {}
    for drain in history.drains:
        if drain.user not in last_drain or last_drain[drain.user].t0 < drain.t0:
            last_drain[drain.user] = drain
    for message in messages:
        send = message.answered
        if send is None or message.first_read is not None:
            continue
        drained = last_drain.get(send.to)
        if _is_announced(send, history.losses):
            verdict.announced += 1
        elif drained is not None and (send.t1 or send.t0) < drained.t0:
            sentence = "a message answered OK was never read, and its mailbox is empty"
            verdict.add("L1", sentence, send, drained)
        else:
            verdict.undecided += 1


def _is_announced(send: Send, losses: Iterable[HistoryLost]) -> bool:
    return any(
        send.seq is not None and lost.user == send.to and lost.first <= send.seq <= lost.last
        for lost in losses
    )


def _only(read: Read, *seen: Seen) -> Read:
    """Return a read cut down to the messages that matter, for an explanation."""
    return read._replace(messages=seen)


class _Event(NamedTuple):
    """A moment of an operation; at equal times invocations come first, so that ties bind nobody."""

    at: int
    completed: bool
    operation: Operation


def _events(operations: Iterable[Operation]) -> list[_Event]:
    """Return the moments of all operations in order of time."""

    def moments() -> Iterator[_Event]:
        for operation in operations:
            if not isinstance(operation, Ack):
                yield _Event(operation.t0, False, operation)
            if isinstance(operation, Read | Ack) and operation.answer == OK:
                assert operation.t1 is not None
                yield _Event(operation.t1, True, operation)

    return sorted(moments(), key=lambda event: event[:2])


class _Reader:
    """One cursor swept in order of time: what completed operations forbid later reads."""

    def __init__(
        self, user: str, messages: dict[Key, Message], names: Names, verdict: Verdict
    ) -> None:
        self._user = user
        self._messages = messages
        self._names = names
        self._verdict = verdict
        self._acknowledged: Ack | None = None
        self._taken: dict[Key, Read] = {}
        # The furthest message of each sender that a completed read has returned.
        self._furthest: dict[str, tuple[int, Seen, Read]] = {}
        self._completed: set[Key] = set()
        self._copies: set[tuple[str, str, int | None]] = set()
        # How many reads so far returned a message; what was sent before then may have been given
        # to this reader unseen; the epoch that its last answer named.
        self._given: Counter[Key] = Counter()
        self._doubt_until: float = 0
        self._epoch: int | None = None
        self._losses: list[HistoryLost] = []

    def sweep(self, operations: Sequence[Operation]) -> None:
        self._losses = [each for each in operations if isinstance(each, HistoryLost)]
        for _, completed, operation in _events(operations):
            if isinstance(operation, Ack):
                self._complete_ack(operation)
            elif isinstance(operation, Gap):
                self._doubt_until = max(self._doubt_until, operation.t1)
            elif isinstance(operation, HistoryLost):
                self._begin_anew()
            elif completed:
                self._complete_read(operation)
            else:
                self._judge_read(operation)

    def _begin_anew(self) -> None:
        """After a loss that was told: acknowledgements may be undone, the epoch is another."""
        self._acknowledged, self._epoch = None, None
        self._taken.clear()

    def _complete_ack(self, ack: Ack) -> None:
        if self._acknowledged is None or ack.seq > self._acknowledged.seq:
            self._acknowledged = ack

    def _complete_read(self, read: Read) -> None:
        self._epoch = self._epoch if read.epoch is None else read.epoch
        for seen in read.messages:
            key = (seen.sender, seen.id)
            message = self._messages.get(key)
            if message is None:
                continue
            self._judge_mark_too_many(read, seen, message)
            self._completed.add(key)
            self._copies.add((*key, seen.seq))
            if read.taken:
                self._taken[key] = read
            i = message.sends[0].i
            if seen.sender not in self._furthest or self._furthest[seen.sender][0] < i:
                self._furthest[seen.sender] = (i, seen, read)

    def _judge_read(self, read: Read) -> None:
        self._verdict.messages_read += len(read.messages)
        if read.t1 is None:
            self._doubt_until = inf  # nobody knows what it was given, nor when
        self._judge_order_within(read)
        self._judge_epoch(read)
        for seen in read.messages:
            message = self._messages.get((seen.sender, seen.id))
            if message is None:
                self._verdict.add("L4", "a message was read that nobody sent", _only(read, seen))
                continue
            self._judge_origin(read, seen, message)
            self._judge_acknowledged(read, seen)
            self._judge_mark_missing(read, seen, message)
            self._judge_copies(read, seen, message)
            self._judge_first_sighting(read, seen, message)
            if message.first_read is None:
                message.first_read, message.first_seen = read, seen

    def _judge_origin(self, read: Read, seen: Seen, message: Message) -> None:
        """L4: to whom, what, and when."""
        first, sends = message.sends[0], message.sends
        if all(send.to != self._user for send in sends):
            sentence = "a message was read in another's mailbox"
        elif all(send.digest != seen.digest for send in sends):
            sentence = "a message was read with another text"
        elif all(send.answer in REFUSALS for send in sends):
            sentence = "a message was read that had been refused"
        elif read.t1 is not None and read.t1 < first.t0:
            sentence = "a message was read before it was sent"
        else:
            return
        self._verdict.add("L4", sentence, first, _only(read, seen))

    def _judge_acknowledged(self, read: Read, seen: Seen) -> None:
        """L2: what a completed acknowledgement covers stays away."""
        ack = self._acknowledged
        if ack is not None and seen.seq is not None and seen.seq <= ack.seq:
            sentence = "a message was read after its acknowledgement had completed"
            self._verdict.add("L2", sentence, ack, _only(read, seen))
        taken = self._taken.get((seen.sender, seen.id))
        if taken is not None:
            sentence = "a message was read after another read had taken it"
            self._verdict.add("L2", sentence, _only(taken, seen), _only(read, seen))

    def _judge_mark_missing(self, read: Read, seen: Seen, message: Message) -> None:
        """L7: whoever was given a message before is told so."""
        key = (seen.sender, seen.id)
        self._given[key] += 1
        self._verdict.told += seen.redelivered is not None
        if seen.redelivered is False and (*key, seen.seq) in self._copies:
            sentence = "a message was given again without the mark `redelivered`"
            before = self._first_sighting(message)
            self._verdict.add(TOLD, sentence, *before, _only(read, seen))

    def _judge_mark_too_many(self, read: Read, seen: Seen, message: Message) -> None:
        """L7: not at what this reader was certainly never given. Known when the read is over."""
        if not seen.redelivered or self._given[seen.sender, seen.id] > 1:
            return
        if message.sends[0].t0 > self._doubt_until:
            sentence = "a message bore the mark `redelivered` when it was given first"
            self._verdict.add(TOLD, sentence, message.sends[0], _only(read, seen))

    def _judge_epoch(self, read: Read) -> None:
        """L7: a reader that comes with an old epoch is told what may be lost."""
        if read.epoch is None:
            return
        self._verdict.told += 1
        if self._epoch not in (None, read.epoch):
            sentence = f"the epoch was {self._epoch}, and the reader was not told what is lost"
            self._verdict.add(TOLD, sentence, _only(read))

    def _judge_copies(self, read: Read, seen: Seen, message: Message) -> None:
        """L5, L6: one sequence for a message, one message for a sequence."""
        if message.stored_again(seen.seq) and not self._is_stored_anew(message):
            others = [message.answered or message.sends[0]]
            before = self._first_sighting(message)
            sentence = f"a message is stored {len(message.seqs)} times"
            self._verdict.add(message.law_of_copies, sentence, *others, *before, _only(read, seen))
        if seen.seq is None:
            return
        key = (seen.sender, seen.id)
        named, where = self._names.setdefault(seen.seq, (key, read))
        if named != key:
            other = Seen(seen.seq, *named, digest=0)
            sentence = "one sequence names two messages of a mailbox"
            self._verdict.add("L5", sentence, _only(where, other), _only(read, seen))

    def _is_stored_anew(self, message: Message) -> bool:
        """Tell whether all copies but the last were lost unanswered, as their reader was told."""
        answered = {send.seq for send in message.sends}
        return all(
            seq not in answered and any(lost.first <= seq <= lost.last for lost in self._losses)
            for seq in sorted(message.seqs)[:-1]
        )

    @staticmethod
    def _first_sighting(message: Message) -> list[Record]:
        if message.first_read is None or message.first_seen is None:
            return []
        return [_only(message.first_read, message.first_seen)]

    def _judge_first_sighting(self, read: Read, seen: Seen, message: Message) -> None:
        """L3 between reads: nothing first appears after a later message of its sender did."""
        furthest = self._furthest.get(seen.sender)
        if furthest is None or (seen.sender, seen.id) in self._completed:
            return
        i, later, where = furthest
        if message.sends[0].i < i and message.placed:
            self._verdict.add(
                "L3",
                "a message first appeared after one that was sent later",
                message.sends[0],
                _only(where, later),
                _only(read, seen),
            )

    def _judge_order_within(self, read: Read) -> None:
        """L3 inside one read, and no stored copy twice in it (L5, L6)."""
        furthest: dict[str, tuple[int, Seen]] = {}
        once: set[tuple[int | None, str, str]] = set()
        for seen in read.messages:
            message = self._messages.get((seen.sender, seen.id))
            if message is None:
                continue
            if seen[:3] in once:
                sentence = "one read returned a message twice"
                excerpt = _only(read, seen, seen)
                self._verdict.add(message.law_of_copies, sentence, message.sends[0], excerpt)
            once.add(seen[:3])
            i = message.sends[0].i
            before = furthest.get(seen.sender)
            if before is None or i > before[0]:
                furthest[seen.sender] = (i, seen)
            elif i < before[0] and message.placed:
                sentence = "one read returned two messages of a sender in the wrong order"
                self._verdict.add("L3", sentence, _only(read, before[1], seen))


def main(arguments: list[str]) -> int:
    """Judge one folder and print the verdict."""
    if len(arguments) != 1:
        sys.stderr.write("usage: python -m tests.proof.checker FOLDER\n")
        return 2
    try:
        verdict = judge(load(Path(arguments[0])))
    except (HistoryError, OSError) as error:
        sys.stderr.write(f"checker: {error}\n")
        return 2
    sys.stdout.write(f"{verdict}\n")
    return 0 if verdict.clean else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
