"""A rolling restart of all brokers under load: what do callers notice?

Each broker is told to end (SIGTERM), drains, ends, and starts again; then the next. Callers send
one message at a time, at a pace of theirs. The goal: no call ends otherwise than with OK.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

from rich.console import Console
from rich.text import Text

from tests.load.broker_process import BrokerError, BrokerProcess, Restart
from tests.load.plan import Plan
from tests.load.report import Report, report
from tests.scale import site
from tests.scale.calls import Calls, calls
from tests.scale.load import as_json, judgement
from tests.scale.site import Due, Setting, Site
from tests.scale.trial import (
    Row,
    Show,
    add_callers,
    add_site,
    callers,
    conclude,
    parser,
    progress,
    sentence,
    setting_of,
    table,
)

HELP = "a rolling restart of all brokers under load: errors seen by callers (goal 0), p99"
#: The share of the time before the first broker is restarted: what is compared with.
_QUIET_SHARE: Final = 0.35


def _restart(where: Site, broker: BrokerProcess) -> None:
    began_ns = time.monotonic_ns()
    where.away.add(broker)
    broker.stop()
    broker.start()
    where.away.discard(broker)
    where.restarts.append(Restart(began_ns, time.monotonic_ns()))


@dataclass(frozen=True)
class Seen:
    """What a rolling restart came to."""

    result: Report
    before: Calls
    during: Calls
    restarts_s: list[float]

    @property
    def errors(self) -> int:
        return sum(self.result.figures.errors.values())

    @property
    def holds(self) -> bool:
        return self.result.clean and not self.errors


def main(argv: Sequence[str]) -> int:
    """Return 0 where no caller saw an error and every law held."""
    made = parser("roll", __doc__ or "")
    add_site(made)
    add_callers(made, seconds=18.0)
    given = made.parse_args(argv)
    setting = setting_of(given)
    with progress(Console(stderr=True)) as show:
        seen = _try(setting, callers(given), show)
    result = {
        **as_json(seen.result), "site": str(setting), "caller_errors": seen.errors,
        "before": seen.before._asdict(), "during": seen.during._asdict(),
        "restarts_s": seen.restarts_s,
    }  # fmt: skip
    conclude(
        result,
        as_json=given.json,
        parts=[Text(str(setting)), table(_rows(seen)), *judgement(seen.result), _goal(seen)],
    )
    return 0 if seen.holds else 1


def _try(setting: Setting, plan: Plan, show: Show) -> Seen:
    seconds = plan.seconds or 0.0
    quiet_s = seconds * _QUIET_SHARE
    # The last one gets as long as the others to come back, before the sending ends.
    apart_s = (seconds - quiet_s) / (setting.brokers + 0.5)
    with site.site_on_redis(setting, plan, show) as where:
        where.course += [
            Due(quiet_s + number * apart_s, partial(_restart, where, broker))
            for number, broker in enumerate(where.brokers)
        ]
        outcome = site.load(where, plan, show)
    sends, restarts = outcome.history.sends, outcome.restarts
    if len(restarts) < setting.brokers:
        raise BrokerError("the load was over before all brokers were restarted: more --seconds")
    begun = min(send.t0 for send in sends)
    return Seen(
        result=report(plan, outcome),
        before=calls(sends, begun, restarts[0].killed_ns),
        during=calls(sends, restarts[0].killed_ns, restarts[-1].ready_ns),
        restarts_s=[(each.ready_ns - each.killed_ns) / 1e9 for each in restarts],
    )


def _rows(seen: Seen) -> list[Row]:
    each = ", ".join(f"{seconds:.1f}" for seconds in seen.restarts_s)
    return [
        ("restarts", str(len(seen.restarts_s)), f"from SIGTERM until ready again: {each} s"),
        ("errors", f"{seen.errors:,}", f"of {seen.result.figures.sends:,} calls; the goal is 0"),
        *_latencies("before", seen.before),
        *_latencies("during", seen.during),
    ]


def _latencies(when: str, seen: Calls) -> list[Row]:
    return [
        (f"{when}: p50", f"{seen.p50_ms:,.1f} ms", f"{seen.number:,} calls"),
        (f"{when}: p99", f"{seen.p99_ms:,.1f} ms", f"the longest {seen.max_ms:,.0f} ms"),
    ]


def _goal(seen: Seen) -> Text:
    if not seen.errors:
        return sentence("no caller saw an error", good=True)
    errors = ", ".join(f"{n}x {what}" for what, n in sorted(seen.result.figures.errors.items()))
    return sentence(f"callers saw errors: {errors}", good=False)
