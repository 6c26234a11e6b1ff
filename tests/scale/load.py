"""Three brokers on a Redis Cluster, and a load spread over them, judged by the checker."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from rich.console import Console
from rich.text import Text

from tests.load.plan import Plan
from tests.load.report import Report, report, verdict_text
from tests.scale import site
from tests.scale.trial import (
    TIMEOUT_MS,
    Row,
    add_site,
    between,
    conclude,
    parser,
    progress,
    sentence,
    setting_of,
    table,
)

HELP = "the load test over three brokers on a Redis Cluster: the laws, messages a second, p99"


def main(argv: Sequence[str]) -> int:
    """Return 0 where every law held."""
    made = parser("load", __doc__ or "")
    add_site(made)
    add = made.add_argument
    add("--senders", type=between(1, 64), default=3, metavar="N", help="sender processes (3)")
    add("--readers", type=between(1, 64), default=3, metavar="N", help="reader processes (3)")
    add("--seconds", type=between(1, 3_600, float), default=8.0, metavar="S",
        help="how long is sent (8)")  # fmt: skip
    add("--window", type=between(1, 10_000), default=200, metavar="N",
        help="messages of a sender under way at once (200)")  # fmt: skip
    add("--mailboxes", type=between(1, 10_000), default=60, metavar="N", help="recipients (60)")
    add("--histories", type=Path, metavar="FOLDER", help="keep what the clients saw")
    given = made.parse_args(argv)
    setting = setting_of(given)
    plan = Plan(
        senders=given.senders,
        readers=min(given.readers, given.mailboxes),
        messages=None,
        seconds=given.seconds,
        window=given.window,
        mailboxes=given.mailboxes,
        histories=given.histories,
        timeout_ms=TIMEOUT_MS,
    )
    with progress(Console(stderr=True)) as show, site.site_on_redis(setting, plan, show) as where:
        before_s = where.servers_cpu_seconds()
        outcome = site.load(where, plan, show)
        redis_s = where.servers_cpu_seconds() - before_s
    result = report(plan, outcome)
    redis_us = redis_s * 1e6 / max(result.figures.sends_ok, 1)
    conclude(
        as_json(result) | {"site": str(setting), "redis_cpu_us_per_send": redis_us},
        as_json=given.json,
        parts=[Text(str(setting)), table(_rows(plan, result, redis_us)), *judgement(result)],
    )
    return result.exit_code and 1


def _rows(plan: Plan, result: Report, redis_us: float) -> list[Row]:
    seen = result.figures
    rows = [
        ("sent", f"{seen.sends_per_s:,.0f}/s", f"{seen.sends_ok:,} answered OK"),
        ("drained", f"{seen.drained_per_s:,.0f}/s", f"{seen.read:,} messages read"),
        ("latency p50", f"{seen.p50_ms:,.1f} ms", f"{plan.window} under way a sender"),
        ("p99", f"{seen.p99_ms:,.1f} ms", ""),
        ("brokers' CPU", f"{seen.broker_cpu_us_per_send or 0:,.0f} µs",
         "a send, with the reading meanwhile"),
        ("Redis's CPU", f"{redis_us:,.0f} µs", "a send, with its reading, replicas included"),
        ("tokens", f"{seen.tokens_valid} of {seen.tokens}", "good at the end, at any broker"),
    ]  # fmt: skip
    return rows + [("refused", f"{count:,}", what) for what, count in sorted(seen.errors.items())]


def as_json(result: Report) -> dict[str, object]:
    """Return what a program wants to know of a load."""
    verdict = result.verdict
    return {
        **asdict(result.figures),
        "clean": result.clean,
        "laws": {law: verdict.counts[law] for law in verdict.laws},
        "undecided": verdict.undecided,
        "breaches": [str(breach) for breach in verdict.breaches],
        "complaints": result.complaints,
    }


def judgement(result: Report) -> list[Text]:
    """Return the verdict on the laws, and what else is wrong."""
    complaints = [sentence(complaint, good=False) for complaint in result.complaints]
    return [verdict_text(result), *complaints]
