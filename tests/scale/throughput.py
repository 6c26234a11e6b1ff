"""One, two and three brokers on one Redis, and one broker on SQLite: what a message costs.

Clients first send as fast as it goes, then read and acknowledge everything; the two are measured
apart. On a machine with few cores brokers, Redis and clients share them, so the rate does not grow
with the brokers: the CPU time of a message is what counts, and whether it stays as it is when
brokers are added.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.bench import parts
from tests.bench.crew import Measured, Part, carry_out
from tests.bench.parts import Limit, Role
from tests.load.plan import Plan
from tests.scale.site import Setting, Site, site_on_redis, site_on_sqlite
from tests.scale.trial import Show, between, conclude, parser, progress, sentence

HELP = "1, 2 and 3 brokers on one Redis beside one on SQLite: sends/s, CPU a message"
#: With three brokers a message may cost this much more than with one: batches are smaller.
FACTOR_MAX: Final = 1.5
_PAGE: Final = 1_000


class Phase(NamedTuple):
    """Sending, or reading with acknowledging; CPU in µs a message."""

    messages: int
    per_s: float
    p50_ms: float
    p99_ms: float
    broker_us: float
    redis_us: float
    client_us: float


class Seen(NamedTuple):
    """One arrangement."""

    brokers: int
    store: str
    sent: Phase
    drained: Phase

    @property
    def message_us(self) -> float:
        """CPU of brokers and Redis for a message that is sent, read and acknowledged."""
        phases = (self.sent, self.drained)
        return sum(phase.broker_us + phase.redis_us for phase in phases)

    def as_json(self) -> dict[str, Any]:
        named = {"sent": self.sent._asdict(), "drained": self.drained._asdict()}
        return {**self._asdict(), **named, "message_us": self.message_us}


class _Meter:
    """A site as a crew measures it: it notes what the servers have used at each look."""

    def __init__(self, site: Site) -> None:
        self._site = site
        self.servers_s: list[float] = []

    def cpu_seconds(self) -> float:
        self.servers_s.append(self._site.servers_cpu_seconds())
        return self._site.cpu_seconds()

    def last_words(self) -> str:
        return self._site.last_words()


def main(argv: Sequence[str]) -> int:
    """Return 0 where a message costs with all brokers what it costs with one."""
    made = parser("throughput", __doc__ or "")
    add = made.add_argument
    add("--brokers", type=between(1, 16), default=3, metavar="N", help="up to so many (3)")
    add("--seconds", type=between(1, 600, float), default=4.0, metavar="S",
        help="how long is sent, each time (4)")  # fmt: skip
    add("--senders", type=between(1, 16), default=3, metavar="N", help="sender processes (3)")
    add("--window", type=between(1, 10_000), default=200, metavar="N",
        help="messages of a sender under way at once (200)")  # fmt: skip
    add("--mailboxes", type=between(3, 10_000), default=300, metavar="N", help="recipients (300)")
    given = made.parse_args(argv)
    plan = Plan(
        senders=given.senders, readers=given.senders, window=given.window, mailboxes=given.mailboxes
    )
    with progress(Console(stderr=True)) as show:
        seen = [_try(plan, brokers, given.seconds, show) for brokers in range(given.brokers + 1)]
    conclude(
        {"arrangements": [each.as_json() for each in seen], "factor": _factor(seen)},
        as_json=given.json,
        parts=[Text(_title(plan)), _table(seen), _judgement(seen)],
    )
    return 0 if _factor(seen) <= FACTOR_MAX else 1


def _try(plan: Plan, brokers: int, seconds: float, show: Show) -> Seen:
    """Measure one arrangement; with no ``brokers`` it is the one broker on SQLite."""
    told = f"{brokers} on Redis: " if brokers else "SQLite: "
    with _arrangement(plan, brokers, lambda phase: show(told + phase)) as site:
        doors = [broker.doors.zmq for broker in site.brokers]
        show(told + "sending")
        limit = Limit(seconds=seconds)
        sent = _phase(
            site,
            [
                (parts.send, (Role(doors[number % len(doors)], plan, number), limit))
                for number in range(plan.senders)
            ],
        )
        show(told + "reading")
        drained = _phase(
            site,
            [
                (parts.drain, (Role(doors[number % len(doors)], plan, number), _PAGE))
                for number in range(plan.readers)
            ],
        )
    return Seen(max(brokers, 1), "Redis" if brokers else "SQLite", sent, drained)


@contextmanager
def _arrangement(plan: Plan, brokers: int, show: Show) -> Iterator[Site]:
    if brokers:
        with site_on_redis(Setting(brokers=brokers, cluster=False), plan, show) as site:
            yield site
    else:
        with site_on_sqlite(plan, show) as site:
            yield site


def _phase(site: Site, crew: list[Part]) -> Phase:
    meter = _Meter(site)
    measured = carry_out(crew, meter)
    first, *_, last = meter.servers_s
    return _figures(measured, last - first)


def _figures(measured: Measured, servers_s: float) -> Phase:
    messages, ordered = max(measured.messages, 1), measured.latencies
    return Phase(
        messages=measured.messages,
        per_s=measured.messages / measured.wall_s,
        p50_ms=ordered[len(ordered) // 2] * 1000 if ordered else 0.0,
        p99_ms=ordered[len(ordered) * 99 // 100] * 1000 if ordered else 0.0,
        broker_us=measured.broker_cpu_s * 1e6 / messages,
        redis_us=servers_s * 1e6 / messages,
        client_us=measured.client_cpu_s * 1e6 / messages,
    )


def _factor(seen: Sequence[Seen]) -> float:
    """Return what a message costs with the most brokers, with one on Redis being 1."""
    on_redis = [each for each in seen if each.store == "Redis"]
    return on_redis[-1].message_us / on_redis[0].message_us


def _title(plan: Plan) -> str:
    return (
        f"{plan.senders} senders, {plan.window} under way each, {plan.size_bytes} bytes, "
        f"{plan.mailboxes} mailboxes; CPU in µs a message"
    )


def _table(seen: Sequence[Seen]) -> Table:
    table = Table(
        "brokers", "sends/s", "p50", "p99", "broker", "Redis", "reads/s", "broker", "Redis",
        "together", "ratio", box=box.SIMPLE,
    )  # fmt: skip
    for column in table.columns[1:]:
        column.justify = "right"
    one = next(each for each in seen if each.store == "Redis")
    for each in seen:
        sent, drained = each.sent, each.drained
        table.add_row(
            f"{each.brokers} on {each.store}",
            f"{sent.per_s:,.0f}",
            f"{sent.p50_ms:,.1f} ms",
            f"{sent.p99_ms:,.1f} ms",
            f"{sent.broker_us:,.0f}",
            f"{sent.redis_us:,.0f}",
            f"{drained.per_s:,.0f}",
            f"{drained.broker_us:,.0f}",
            f"{drained.redis_us:,.0f}",
            f"{each.message_us:,.0f}",
            f"{each.message_us / one.message_us:.2f}",
        )
    return table


def _judgement(seen: Sequence[Seen]) -> Text:
    factor = _factor(seen)
    text = f"a message costs {factor:.2f} times as much with {seen[-1].brokers} brokers as with one"
    if factor <= FACTOR_MAX:
        return sentence(text, good=True)
    return sentence(
        f"{text}, more than {FACTOR_MAX:g}: run it again on a quiet machine before you look for "
        "the cause",
        good=False,
    )
