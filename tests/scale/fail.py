"""A broker or a primary of the Cluster goes away under load: when is everybody served again?

Five faults, each on brokers and a Cluster of its own: kill -9 of a broker; kill -9 of a primary; a
primary that stands still (SIGSTOP) and later goes on; kill -9 of a primary whose replica had not
heard of it for a second, so that what was answered OK meanwhile is gone for certain; the same
of a machine with a broker on it, so that nobody knows what that one had answered. Each comes back
after a while. Callers send one message at a time, at a pace of theirs; readers read and
acknowledge. The checker tells which messages are gone, and whether their readers were told.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.load.broker_process import Restart
from tests.load.plan import Plan
from tests.load.report import Report, report
from tests.scale import site
from tests.scale.calls import back_s, longest_s
from tests.scale.cluster import Cluster
from tests.scale.load import as_json
from tests.scale.node import Node
from tests.scale.site import Due, Setting, Site
from tests.scale.trial import (
    Show,
    add_callers,
    add_site,
    between,
    callers,
    conclude,
    parser,
    progress,
    sentence,
    setting_of,
)

HELP = "kill -9 of a broker, of a primary, a primary that stands still: back when, what was lost"
#: The load runs undisturbed until then.
_FAULT_AT_S: Final = 3.0
_LAG_S: Final = 1.0
#: A broker that ended is given up 5 s after the failover; what it knew is in doubt before the end.
_SECONDS: Final = 18.0


Act = Callable[[], object]


class Fault(NamedTuple):
    """How it comes, and how it goes; ``before`` is done a second earlier."""

    strike: Act
    mend: Act
    before: Act = bool


class _Happening:
    """One fault, as it happened."""

    def __init__(self, where: Site, fault: Fault) -> None:
        self.at_ns = 0
        self._where = where
        self._fault = fault

    def course(self, away_s: float) -> list[Due]:
        return [
            Due(_FAULT_AT_S - _LAG_S, self._before),
            Due(_FAULT_AT_S, self._strike),
            Due(_FAULT_AT_S + away_s, self._mend),
        ]

    def _before(self) -> None:
        self._fault.before()

    def _strike(self) -> None:
        self.at_ns = time.monotonic_ns()
        self._fault.strike()

    def _mend(self) -> None:
        self._fault.mend()
        # Until then something may have been given to a reader whose answer was lost.
        self._where.restarts.append(Restart(self.at_ns, time.monotonic_ns()))


def _broker(where: Site) -> Fault:
    broker = where.brokers[0]

    def strike() -> None:
        where.away.add(broker)
        broker.kill()

    def mend() -> None:
        broker.start()
        where.away.discard(broker)

    return Fault(strike, mend)


def _primary(where: Site) -> Fault:
    node, _ = _pair(where)
    return Fault(node.kill, node.start)


def _standstill(where: Site) -> Fault:
    node, _ = _pair(where)
    return Fault(node.stop, node.go_on)


def _behind(where: Site) -> Fault:
    """For a second the primary's replica gets nothing; then the primary is gone."""
    node, replica = _pair(where)

    def before() -> None:
        replica.stop()
        node.ask("CLIENT", "KILL", "TYPE", "replica")  # or it would find the rest in its socket

    def strike() -> None:
        node.kill()
        replica.go_on()

    return Fault(strike, node.start, before)


def _machine(where: Site) -> Fault:
    """As `_behind`, and a broker ends with it: what only that one knew of, the others doubt."""
    broker, primary = _broker(where), _behind(where)

    def strike() -> None:
        broker.strike()
        primary.strike()

    def mend() -> None:
        broker.mend()
        primary.mend()

    return Fault(strike, mend, primary.before)


def _pair(where: Site) -> tuple[Node, Node]:
    assert isinstance(where.servers, Cluster)
    return where.servers.pairs()[0]


#: By name: what a person is told, and the fault.
FAULTS: Final[Mapping[str, tuple[str, Callable[[Site], Fault]]]] = {
    "broker": ("kill -9 of a broker", _broker),
    "primary": ("kill -9 of a primary", _primary),
    "standstill": ("SIGSTOP of a primary, then SIGCONT", _standstill),
    "behind": ("kill -9 of a primary, its replica 1 s behind", _behind),
    "machine": ("as before, and of a broker with it", _machine),
}


@dataclass(frozen=True)
class Seen:
    """What one fault came to."""

    name: str
    result: Report
    #: Seconds; None: somebody was not served again before the end.
    back_s: float | None
    longest_s: float

    @property
    def silent(self) -> int:
        """Messages answered OK that are gone, of which nobody was told."""
        return self.result.verdict.counts["L1"]

    @property
    def announced(self) -> int:
        return self.result.verdict.announced

    @property
    def errors(self) -> int:
        """Calls that ended otherwise than with OK."""
        return sum(self.result.figures.errors.values())

    @property
    def holds(self) -> bool:
        return self.result.clean and self.back_s is not None

    def as_json(self) -> dict[str, Any]:
        return {
            **as_json(self.result),
            "fault": self.name,
            "back_s": self.back_s,
            "longest_s": self.longest_s,
            "lost": self.silent + self.announced,
            "announced": self.announced,
            "silent": self.silent,
            "holds": self.holds,
        }


def main(argv: Sequence[str]) -> int:
    """Return 0 where nothing was lost in silence and every law held."""
    made = parser("fail", __doc__ or "")
    add_site(made)
    add_callers(made, seconds=_SECONDS)
    add = made.add_argument
    add(
        "--fault",
        choices=(*FAULTS, "all"),
        default="all",
        help="which (all, one after the other)",
    )
    add("--away", type=between(0.5, 600, float), default=6.0, metavar="S",
        help="how long it stays away (6)")  # fmt: skip
    given = made.parse_args(argv)
    if given.seconds < _FAULT_AT_S + given.away + 1:
        made.error(f"--seconds must be {_FAULT_AT_S + given.away + 1:g} or more, for this --away")
    setting = setting_of(given)
    with progress(Console(stderr=True)) as show:
        seen = [
            _try(name, setting, callers(given), given.away, show) for name in _named(given.fault)
        ]
    conclude(
        {"site": str(setting), "faults": [each.as_json() for each in seen]},
        as_json=given.json,
        parts=[Text(_title(setting, given.away)), _table(seen), *_judgement(seen)],
    )
    return 0 if all(each.holds for each in seen) else 1


def _named(word: str) -> list[str]:
    return [word] if word != "all" else [*FAULTS]


def _try(name: str, setting: Setting, plan: Plan, away_s: float, show: Show) -> Seen:
    told, make = FAULTS[name]
    with site.site_on_redis(setting, plan, show) as where:
        happening = _Happening(where, make(where))
        where.course += happening.course(away_s)
        outcome = site.load(where, plan, lambda phase: show(f"{told}: {phase}"))
    sends = [send for send in outcome.history.sends if send.answer is not None]
    return Seen(
        name=name,
        result=report(plan, outcome),
        back_s=back_s(sends, happening.at_ns),
        longest_s=longest_s(sends, happening.at_ns),
    )


def _title(setting: Setting, away_s: float) -> str:
    clients = "with the addresses of all" if setting.lists else "with one address"
    return (
        f"{setting}, node timeout {setting.node_timeout_ms / 1000:g} s, clients {clients}; "
        f"each fault lasts {away_s:g} s"
    )


def _table(seen: Sequence[Seen]) -> Table:
    table = Table(
        "fault", "back after", "longest call", "sent", "not OK", "lost", "announced", "silent",
        "laws", box=box.SIMPLE,
    )  # fmt: skip
    for column in table.columns[1:-1]:
        column.justify = "right"
    for each in seen:
        verdict = each.result.verdict
        broken = ", ".join(f"{law} {verdict.counts[law]:,}x" for law in sorted(+verdict.counts))
        table.add_row(
            FAULTS[each.name][0],
            "never" if each.back_s is None else f"{each.back_s:.1f} s",
            f"{each.longest_s:.1f} s",
            f"{each.result.figures.sends_ok:,}",
            f"{each.errors:,}",
            f"{each.silent + each.announced:,}",
            f"{each.announced:,}",
            f"{each.silent:,}",
            Text(f"broken: {broken}", "red") if broken else Text("hold", "green"),
        )
    return table


def _judgement(seen: Sequence[Seen]) -> list[Text]:
    said = []
    for each in seen:
        errors = ", ".join(f"{n}x {what}" for what, n in sorted(each.result.figures.errors.items()))
        lines = [*each.result.complaints, *map(str, each.result.verdict.breaches[:3])]
        if errors:
            lines.insert(0, f"callers were answered: {errors}")
        said += [sentence(f"{each.name}: {line}", good=False) for line in lines]
    if all(each.holds for each in seen):
        said.append(sentence("nothing that was answered OK was lost in silence", good=True))
    elif any(each.silent for each in seen):
        said.append(
            sentence(
                "messages that had been answered OK are gone, and nobody was told: look at the "
                "mailbox's epoch (docs/DURABILITY.md); --replicas 1 makes such losses rare",
                good=False,
            )
        )
    return said
