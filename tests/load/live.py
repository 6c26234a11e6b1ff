"""The figures of a load with subscribers: how soon each message was there, also after a kill."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from tests.load.broker_process import Restart
from tests.proof.history import OK, History

Row = tuple[str, str, str]  # what, the figure, a remark


@dataclass(frozen=True)
class Live:
    """Times from handing a message to the sender's library to its first arrival, in ms.

    ``caught_up_ms``: for each restart, from the broker's being ready until all that had been
    answered OK before the kill had arrived; ``complete_ms``: from the last answer to a sender until
    the last message had arrived; ``again``: arrivals that were not a message's first.
    """

    subscribers: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    again: int
    caught_up_ms: list[float]
    complete_ms: float


def measure_live(history: History, restarts: Sequence[Restart], subscribers: int) -> Live:
    """Return the figures. O(messages)."""
    arrivals = 0
    first: defaultdict[tuple[str, str], dict[str, int]] = defaultdict(dict)  # by device
    for read in history.reads:
        arrivals += len(read.messages)
        for seen in read.messages:
            devices = first[seen.sender, seen.id]
            devices[read.device] = min(devices.get(read.device, read.t0), read.t0)
    sent = [
        (s, arrived)
        for s in history.sends
        if s.answer == OK
        for arrived in first[s.sender, s.id].values()
    ]
    took = sorted(arrived - s.t0 for s, arrived in sent)
    answered = [(s.t1 or 0, arrived) for s, arrived in sent]
    last = max((t1 for t1, _ in answered), default=0)
    return Live(
        subscribers=subscribers,
        p50_ms=percentile_ms(took, 50),
        p99_ms=percentile_ms(took, 99),
        max_ms=percentile_ms(took, 100),
        again=arrivals - sum(map(len, first.values())),
        caught_up_ms=[_caught_up_ms(answered, restart) for restart in restarts],
        complete_ms=max(0, max((arrived for _, arrived in answered), default=last) - last) / 1e6,
    )


def _caught_up_ms(answered: Sequence[tuple[int, int]], restart: Restart) -> float:
    """``answered``: when each message was answered OK, and when it arrived."""
    overdue = (
        arrived
        for t1, arrived in answered
        if t1 <= restart.killed_ns and arrived > restart.killed_ns
    )
    return max(0, max(overdue, default=restart.ready_ns) - restart.ready_ns) / 1e6


def percentile_ms(ordered_ns: Sequence[int], percent: int) -> float:
    """Return a percentile in ms (nearest rank); 0 where there is nothing."""
    if not ordered_ns:
        return 0.0
    return ordered_ns[max(0, -(-len(ordered_ns) * percent // 100) - 1)] / 1e6


def rows(live: Live) -> Iterator[Row]:
    """Yield what a person is shown."""
    yield (
        "arrived p50",
        f"{live.p50_ms:,.2f} ms",
        "from sender to subscriber, with what was waiting",
    )
    yield "p99", f"{live.p99_ms:,.2f} ms", ""
    yield "max", f"{live.max_ms:,.0f} ms", ""
    if live.again:
        yield "given again", f"{live.again:,}", "to who came back before it had acknowledged"
    if live.caught_up_ms:
        each = ", ".join(f"{ms:,.0f}" for ms in live.caught_up_ms)
        remark = f"after a restart, at the slowest ({each}): every subscriber had all that was OK"
        yield "caught up", f"{max(live.caught_up_ms):,.0f} ms", remark
    yield "complete", f"{live.complete_ms:,.1f} ms", "after the last answer to a sender"
