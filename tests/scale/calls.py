"""What callers saw of a fault: how long they waited, and from when on all were served again."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

from tests.load.live import percentile_ms
from tests.proof.history import OK, Send


class Calls(NamedTuple):
    """Calls that were begun in one stretch of time; latencies are those of calls answered OK."""

    number: int
    p50_ms: float
    p99_ms: float
    max_ms: float


def calls(sends: Iterable[Send], begin_ns: int, end_ns: int) -> Calls:
    """Return what the calls took that were begun from ``begin_ns`` until before ``end_ns``."""
    took = sorted(
        send.t1 - send.t0
        for send in sends
        if begin_ns <= send.t0 < end_ns and send.t1 is not None and send.answer == OK
    )
    return Calls(
        len(took), percentile_ms(took, 50), percentile_ms(took, 99), percentile_ms(took, 100)
    )


def longest_s(sends: Iterable[Send], since_ns: int) -> float:
    """Return how long the longest call took that was answered OK at ``since_ns`` or later."""
    took = (
        send.t1 - send.t0
        for send in sends
        if send.answer == OK and send.t1 is not None and send.t1 >= since_ns
    )
    return max(took, default=0) / 1e9


def back_s(sends: Sequence[Send], since_ns: int) -> float | None:
    """Return how long after ``since_ns`` everybody was served again; None: somebody never was.

    That is when each sender had a call answered OK, and each mailbox was sent to with an OK, that
    had been begun afterwards.
    """
    first: dict[tuple[bool, str], int] = {}
    for send in sends:
        if send.t0 >= since_ns and send.t1 is not None and send.answer == OK:
            for who in ((True, send.sender), (False, send.to)):
                first[who] = min(first.get(who, send.t1), send.t1)
    everybody = {who for send in sends for who in ((True, send.sender), (False, send.to))}
    if not everybody <= first.keys():
        return None
    return (max(first.values(), default=since_ns) - since_ns) / 1e9
