"""What a person, or a program, is told about a load: the figures, then the verdict."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Self

from rich import box
from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as Bars
from rich.table import Table
from rich.text import Text

from tests.load.live import Live, measure_live, percentile_ms, rows
from tests.load.plan import Plan
from tests.load.run import Outcome, Progress
from tests.proof.checker import Verdict, judge
from tests.proof.history import OK

_UNREACHABLE = 3
_BROKEN = 1


@dataclass(frozen=True)
class Figures:
    """Rates a second over the wall clock, latencies from handing over to answer, in ms."""

    sends: int
    sends_ok: int
    read: int
    sends_per_s: float
    drained_per_s: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    max_ms: float
    broker_cpu_us_per_send: float | None
    broker_memory_mib: float | None
    kills: int
    tokens: int
    tokens_valid: int
    errors: dict[str, int]
    live: Live | None


def measure(plan: Plan, outcome: Outcome) -> Figures:
    """Return the figures of a load. O(messages)."""
    history = outcome.history
    times = [(s.t0, s.t1) for s in history.sends if s.answer == OK and s.t1 is not None]
    took = sorted(t1 - t0 for t0, t1 in times)
    began = min((t0 for t0, _ in times), default=0)
    sent_s = (max((t1 for _, t1 in times), default=0) - began) / 1e9
    read_s = (max((read.t1 or 0 for read in history.reads), default=began) - began) / 1e9
    read = sum(len(read.messages) for read in history.reads)
    usage = outcome.usage
    return Figures(
        sends=len(history.sends),
        sends_ok=len(times),
        read=read,
        sends_per_s=len(times) / sent_s if sent_s else 0.0,
        drained_per_s=read / read_s if read_s else 0.0,
        p50_ms=percentile_ms(took, 50),
        p95_ms=percentile_ms(took, 95),
        p99_ms=percentile_ms(took, 99),
        max_ms=percentile_ms(took, 100),
        broker_cpu_us_per_send=usage.cpu_seconds * 1e6 / len(times) if usage and times else None,
        broker_memory_mib=usage.memory_mib if usage else None,
        kills=len(outcome.restarts),
        tokens=sum(summary.tokens for summary in outcome.summaries),
        tokens_valid=sum(summary.tokens_valid for summary in outcome.summaries),
        errors=dict(sum((s.errors for s in outcome.summaries), Counter[str]())),
        live=measure_live(history, outcome.restarts, plan.subscribers)
        if plan.subscribers
        else None,
    )


@dataclass(frozen=True)
class Report:
    """The result of one load."""

    plan: Plan
    figures: Figures
    verdict: Verdict
    faults: list[str]
    unreachable: bool

    @property
    def complaints(self) -> list[str]:
        """What is wrong beside the laws, in sentences."""
        figures = self.figures
        complaints = list(self.faults)
        if figures.tokens_valid < figures.tokens:
            lost = figures.tokens - figures.tokens_valid
            complaints.append(f"{lost} of {figures.tokens} tokens were no longer valid at the end")
        if figures.kills < self.plan.kills:
            complaints.append(
                f"the load was over after {figures.kills} of {self.plan.kills} kills: "
                "send more messages"
            )
        return complaints

    @property
    def clean(self) -> bool:
        return self.verdict.clean and not self.complaints

    @property
    def exit_code(self) -> int:
        """0: clean, 1: a promise was broken, 3: the broker was not reached."""
        if self.verdict.counts:
            return _BROKEN
        if self.unreachable:
            return _UNREACHABLE
        return 0 if self.clean else _BROKEN


def report(plan: Plan, outcome: Outcome) -> Report:
    """Measure and judge."""
    faults = [summary.fault for summary in outcome.summaries if summary.fault]
    unreachable = any(summary.unreachable for summary in outcome.summaries)
    return Report(plan, measure(plan, outcome), judge(outcome.history), faults, unreachable)


def print_json(result: Report) -> None:
    """Print one JSON object."""
    verdict = result.verdict
    print(  # noqa: T201 - the result of the command
        json.dumps(
            {
                **asdict(result.figures),
                "clean": result.clean,
                "laws": {law: verdict.counts[law] for law in verdict.laws},
                "undecided": verdict.undecided,
                "breaches": [str(breach) for breach in verdict.breaches],
                "complaints": result.complaints,
            }
        )
    )


def print_table(result: Report, console: Console) -> None:
    """Print the figures as a table and the verdict below it."""
    figures = result.figures
    if figures.sends:
        console.print(Text(_title(result.plan)), soft_wrap=True)
        console.print(_table(result.plan, figures))
        console.print(verdict_text(result), soft_wrap=True)
    for complaint in result.complaints:
        console.print(Text(complaint, "red"), soft_wrap=True)


def _table(plan: Plan, figures: Figures) -> Table:
    table = Table(box=box.SIMPLE, show_header=False)
    table.add_column(style="bold")
    table.add_column(justify="right")
    table.add_column(style="dim")
    row = table.add_row
    row("sent", f"{figures.sends_per_s:,.0f}/s", f"{figures.sends_ok:,} messages answered OK")
    verb = "pushed" if figures.live else "read"
    row("drained", f"{figures.drained_per_s:,.0f}/s", f"{figures.read:,} messages {verb}")
    row("latency p50", f"{figures.p50_ms:,.2f} ms", f"{plan.window:,} under way a sender")
    row("p95", f"{figures.p95_ms:,.2f} ms")
    row("p99", f"{figures.p99_ms:,.2f} ms")
    row("max", f"{figures.max_ms:,.2f} ms")
    for live_row in rows(figures.live) if figures.live else ():
        row(*live_row)
    if figures.broker_cpu_us_per_send is not None:
        cpu = f"{figures.broker_cpu_us_per_send:,.1f} µs"
        row("broker CPU", cpu, "a send, with the reading meanwhile")
        row("broker memory", f"{figures.broker_memory_mib:,.0f} MiB", "resident")
    if plan.kills:
        row(
            "kill -9", str(figures.kills), f"{figures.tokens_valid} of {figures.tokens} tokens live"
        )
    for error, number in sorted(figures.errors.items()):
        row(Text("refused", "yellow"), f"{number:,}", Text(error))
    return table


def _title(plan: Plan) -> str:
    readers = f"{plan.readers} readers, {plan.mailboxes} mailboxes"
    if plan.subscribers:
        each = f" with {plan.devices} devices each" if plan.devices else ""
        readers = f"{plan.subscribers} subscribers{each}"
    return (
        f"{plan.senders} senders, {readers}, "
        f"{plan.size_bytes} bytes, {plan.door} door, {plan.broker or plan.store}"
    )


def verdict_text(result: Report) -> Text:
    """Return which laws hold, and what shows it where one does not."""
    verdict = result.verdict
    text = Text(" ")
    for law in verdict.laws:
        count = verdict.counts[law]
        text.append(f" {law} ", "bold")
        text.append("holds " if not count else f"BROKEN {count:,}x ", "red" if count else "green")
    if verdict.clean:
        return text
    return text.append(f"\n{verdict}")


class Display:
    """Two bars while a load runs; nothing where the output is not a terminal."""

    def __init__(self, plan: Plan, console: Console) -> None:
        self._bars = Bars(
            TextColumn("{task.description:10}"),
            BarColumn(),
            TextColumn("{task.fields[count]:>12,}"),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._plan = plan
        self._sending = self._bars.add_task("starting", total=1.0, count=0, note="")
        self._reading = self._bars.add_task("read", total=1.0, count=0, note="")

    def __enter__(self) -> Self:
        self._bars.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bars.stop()

    def show(self, progress: Progress) -> None:
        note = f"kill {progress.kills}/{self._plan.kills}" if self._plan.kills else ""
        self._bars.update(
            self._sending,
            description=progress.phase,
            completed=progress.share,
            count=progress.sent,
            note=note,
        )
        share = progress.share * progress.read / progress.sent if progress.sent else 0.0
        self._bars.update(self._reading, completed=share, count=progress.read)
