"""Opening a store on what a disk has left, and judging what it still knows."""

from __future__ import annotations

import time
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Final

from broker.core.ports import StoreFailedError, StoreUnusableError
from broker.wire.errors import WireError
from tests.proof import checker
from tests.proof.disk.course import USERS
from tests.proof.disk.store_calls import StoreCalls, text_of
from tests.proof.history import OK, Ack, Drained, Read, Record, Send, digest, gather

_PAGE_MAX: Final = 1_000
_REPEATED_MAX: Final = 200
_SHOWN_MAX: Final = 5


#: How the sentence begins that says of a new epoch: nothing is lost, but clients are told so.
FALSE_ALARM: Final = "FALSE ALARM: "


def judge(
    folder: Path,
    records: Iterable[Record],
    *,
    repeat: Iterable[Record] = (),
    epoch: int | None = None,
) -> list[str]:
    """Open the store, repeat the sends without an answer, empty it; return every breach found.

    ``records`` is what callers knew; the laws are those of tests.proof.checker, and one more: what
    was answered OK and not acknowledged waits, whether somebody has read it before or not. Of
    ``repeat``, the sends that got no certain answer are sent again. ``epoch``: which it must be.
    """
    history = list(records)
    try:
        store = StoreCalls(folder)
    except StoreUnusableError as error:
        return [f"the store does not open: {error}"]
    with closing(store):
        try:
            found = _judge_open(store, history, _open_ended(repeat)[-_REPEATED_MAX:])
        except (StoreFailedError, WireError) as error:
            return [f"the store opens and then fails: {error!r}"]
        if epoch is not None and store.epoch != epoch:
            found.append(f"{FALSE_ALARM}a new epoch began, as if history had been lost")
        return found


def _judge_open(store: StoreCalls, history: list[Record], silent: list[Send]) -> list[str]:
    damage = store.damage()
    breaches = [] if damage == "ok" else [f"integrity_check: {damage}"]
    waiting = _owed(history)
    after = _repeat(store, silent)
    fresh = [_fresh(user) for user in USERS]
    after += _repeat(store, fresh)
    for user in USERS:
        drained = _drain(store, user)
        found = {m.id for one in drained if isinstance(one, Read) for m in one.messages}
        breaches += _missing(user, waiting.get(user, {}), found)
        after += drained
    verdict = checker.judge(gather([*history, *after]))
    return breaches + [str(breach) for breach in verdict.breaches]


def _open_ended(records: Iterable[Record]) -> list[Send]:
    """Return the sends of which nobody knows whether they are stored, each id once."""
    sends = [record for record in records if isinstance(record, Send)]
    certain = {s.id for s in sends if s.answer == OK or s.answer in checker.REFUSALS}
    return list({send.id: send for send in sends if send.id not in certain}.values())


def _owed(history: list[Record]) -> dict[str, dict[str, Send]]:
    """Return by mailbox and id what must wait: answered OK, and above all acknowledgements made."""
    taken = dict.fromkeys(USERS, 0)
    for record in history:
        if isinstance(record, Ack):
            taken[record.user] = max(taken[record.user], record.seq)
    owed: dict[str, dict[str, Send]] = {user: {} for user in USERS}
    for record in history:
        if isinstance(record, Send) and record.answer == OK:
            assert record.seq is not None
            if record.seq > taken[record.to]:
                owed[record.to][record.id] = record
    return owed


def _missing(user: str, owed: dict[str, Send], found: set[str]) -> list[str]:
    missing = [send for key, send in owed.items() if key not in found]
    lines = [f"LOST: answered OK, not acknowledged, not there: {s}" for s in missing[:_SHOWN_MAX]]
    more = len(missing) - len(lines)
    return [*lines, f"LOST: {more} more messages of {user}"] if more else lines


def _repeat(store: StoreCalls, sends: list[Send]) -> list[Record]:
    """Send each, again or for the first time, as a client does that got no answer."""
    began = time.monotonic_ns()
    with store.batch():
        seqs = [store.append(send.to, send.sender, send.id) for send in sends]
    at_ns = time.monotonic_ns()
    return [
        send._replace(t0=began, t1=at_ns, answer=OK, seq=seq)
        for send, seq in zip(sends, seqs, strict=True)
    ]


def _fresh(user: str) -> Send:
    """Make a message that nobody has sent: its sequence must be new."""
    message_id = f"after.{user}.{time.monotonic_ns()}-40"
    return Send(user, user, message_id, 10**12, digest(text_of(message_id)), 0)


def _drain(store: StoreCalls, user: str) -> list[Record]:
    """Read and acknowledge until nothing waits."""
    done: list[Record] = []
    while True:
        began = time.monotonic_ns()
        with store.batch():
            messages = store.read(user, _PAGE_MAX)
        read_ns = time.monotonic_ns()
        done.append(Read(user, began, read_ns, OK, messages=messages))
        if not messages:
            return [*done, Drained(user, began, read_ns)]
        seq = messages[-1].seq
        assert seq is not None
        with store.batch():
            store.acknowledge(user, seq)
        done.append(Ack(user, seq, read_ns, time.monotonic_ns(), OK))
