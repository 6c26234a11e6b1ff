"""A message sent at one broker, pushed to a subscriber at another: how long does that take?

Every sender has a mailbox of its own to write to, one message at a time, at a pace of its own. A
text bears the time at which it was handed to the sender's library; it is over where the loop over
the subscriber's messages has it. Beside it the same with both at one broker.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from clients.client import Client
from tests.bench import push
from tests.bench.crew import Part, carry_out
from tests.bench.parts import TIMEOUT_MS, Limit, Role
from tests.load.live import percentile_ms
from tests.load.plan import PASSWORD, Plan
from tests.scale.site import Setting, Site, site_on_redis
from tests.scale.trial import add_site, between, conclude, parser, progress, sentence, setting_of

HELP = "sent at broker A, pushed to a subscriber at broker B: p50 and p99"
#: The looking after that comes every 5 s without any hint: what takes nearly as long has come so.
_UNHINTED_MS: Final = 2_000.0
_NS: Final = 1e9


class Seen(NamedTuple):
    """One way, in ms."""

    way: str
    number: int
    p50_ms: float
    p99_ms: float
    max_ms: float
    #: Messages that came only since somebody looked after everybody.
    unhinted: int


def main(argv: Sequence[str]) -> int:
    """Return 0 where every message was pushed because of a hint."""
    made = parser("push", __doc__ or "")
    add_site(made)
    add = made.add_argument
    add("--seconds", type=between(1, 3_600, float), default=8.0, metavar="S",
        help="how long is sent, each way (8)")  # fmt: skip
    add("--pairs", type=between(1, 16), default=2, metavar="N",
        help="senders, each with a subscriber (2)")  # fmt: skip
    add("--pause", type=between(1, 10_000, float), default=20.0, metavar="MS",
        help="between two messages of a sender, about (20)")  # fmt: skip
    given = made.parse_args(argv)
    if given.brokers < 2:
        made.error("--brokers must be 2 or more: one sends, another pushes")
    setting = setting_of(given)
    plan = Plan(senders=given.pairs, readers=given.pairs, mailboxes=given.pairs, window=1)
    with progress(Console(stderr=True)) as show, site_on_redis(setting, plan, show) as site:
        show("sent at A, pushed at B")
        across = _measure(site, plan, given.seconds, given.pause, across=True)
        show("sent at A, pushed at A")
        within = _measure(site, plan, given.seconds, given.pause, across=False)
    seen = [across, within]
    conclude(
        {"site": str(setting), "ways": [each._asdict() for each in seen]},
        as_json=given.json,
        parts=[Text(_title(setting, given.pairs, given.pause)), _table(seen), *_judgement(seen)],
    )
    return 1 if across.unhinted or within.unhinted else 0


def _measure(site: Site, plan: Plan, seconds: float, pause_ms: float, *, across: bool) -> Seen:
    """Send for so long. Errors: `CrewError`."""
    doors = [broker.doors.zmq for broker in site.brokers]
    for number in range(plan.mailboxes):
        _empty(doors[0], plan.mailbox(number))
    crew: list[Part] = []
    for number in range(plan.senders):
        a = number % len(doors)
        b = (a + 1) % len(doors) if across else a
        # Each sender writes to all mailboxes: END from everybody ends a subscriber.
        limit = Limit(seconds=seconds)
        crew.append((push.send, (Role(doors[a], plan, number), limit, pause_ms)))
        crew.append((push.receive, (Role(doors[b], plan, number), plan.senders)))
    latencies_ns = [int(s * _NS) for s in carry_out(crew, site).latencies]
    return Seen(
        "A to B" if across else "A to A",
        len(latencies_ns),
        percentile_ms(latencies_ns, 50),
        percentile_ms(latencies_ns, 99),
        percentile_ms(latencies_ns, 100),
        sum(ns > _UNHINTED_MS * 1e6 for ns in latencies_ns),
    )


def _empty(address: str, user: str) -> None:
    """Acknowledge what the way before left: its subscriber ended at the last message."""
    with Client(address, timeout_ms=TIMEOUT_MS) as client:
        client.login(user, PASSWORD)
        while messages := client.inbox().messages:
            client.acknowledge(messages[-1].seq)


def _title(setting: Setting, pairs: int, pause_ms: float) -> str:
    return f"{setting}; {pairs} senders, {pairs} subscribers, a message each {pause_ms:g} ms"


def _table(seen: Sequence[Seen]) -> Table:
    table = Table("way", "pushed", "p50", "p99", "max", "unhinted", box=box.SIMPLE)
    for column in table.columns[1:]:
        column.justify = "right"
    for each in seen:
        table.add_row(
            each.way,
            f"{each.number:,}",
            f"{each.p50_ms:,.2f} ms",
            f"{each.p99_ms:,.2f} ms",
            f"{each.max_ms:,.1f} ms",
            f"{each.unhinted:,}",
        )
    return table


def _judgement(seen: Sequence[Seen]) -> list[Text]:
    if not any(each.unhinted for each in seen):
        return [sentence("every message was pushed as soon as it was there", good=True)]
    text = (
        f"some messages took over {_UNHINTED_MS / 1000:g} s: their hint was lost, and only the "
        "regular look at all subscriptions found them"
    )
    return [sentence(text, good=False)]
