"""What the trials share: options, progress, the table, and what a load on a site shows."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from tests.load.plan import Plan
from tests.scale.cluster import NODE_TIMEOUT_MS
from tests.scale.site import Setting

Row = tuple[str, str, str]  # what, the figure, a remark
Show = Callable[[str], None]

#: How long a call may go without an answer: longer than a failover takes.
TIMEOUT_MS: Final = 60_000
#: Of a table that nobody looks at on a terminal.
_WIDTH: Final = 120
_EXITS: Final = (
    "Exit code 0: what is promised held. 1: it did not. 2: it could not be tried, or an option is "
    "wrong."
)


def parser(name: str, text: str) -> argparse.ArgumentParser:
    """Return a parser with what every trial understands."""
    made = argparse.ArgumentParser(prog=f"scripts/scale {name}", description=text, epilog=_EXITS)
    made.add_argument("--json", action="store_true", help="print the result as one JSON object")
    return made


def between(low: float, high: float, kind: type[int | float] = int) -> Callable[[str], Any]:
    """Return a reader of numbers for an option."""

    def read(word: str) -> float:
        if not low <= (number := kind(word)) <= high:
            raise argparse.ArgumentTypeError(f"{word} must lie between {low:,} and {high:,}")
        return number

    read.__name__ = "number"  # which argparse shows of what it cannot read
    return read


def add_site(made: argparse.ArgumentParser, *, replicas: int = 0) -> None:
    """Add what a Cluster with brokers on it can be told."""
    add = made.add_argument
    add("--brokers", type=between(1, 16), default=3, metavar="N", help="brokers (3)")
    add("--replicas", type=between(0, 1), default=replicas, metavar="N",
        help=f"replicas that must have a send before it is answered ({replicas})")  # fmt: skip
    add("--node-timeout", type=between(200, 60_000), default=NODE_TIMEOUT_MS, metavar="MS",
        help=f"silence after which a primary is replaced ({NODE_TIMEOUT_MS:,})")  # fmt: skip
    add("--one-address", action="store_true",
        help="tell each client of one broker only: it has nowhere else to go")  # fmt: skip


def setting_of(given: argparse.Namespace) -> Setting:
    """Return the site that the options describe."""
    return Setting(
        brokers=given.brokers,
        replicas=given.replicas,
        node_timeout_ms=given.node_timeout,
        lists=not given.one_address,
    )


def add_callers(made: argparse.ArgumentParser, *, seconds: float) -> None:
    """Add what callers can be told who send at a pace of theirs and look at the time it takes."""
    add = made.add_argument
    add("--seconds", type=between(2, 3_600, float), default=seconds, metavar="S",
        help=f"how long is sent ({seconds:g})")  # fmt: skip
    add("--callers", type=between(1, 64), default=12, metavar="N",
        help="users that send, each one message at a time (12)")  # fmt: skip
    add("--pause", type=between(1, 10_000, float), default=20.0, metavar="MS",
        help="rest of a caller between two messages, about (20)")  # fmt: skip
    add("--mailboxes", type=between(2, 1_000), default=30, metavar="N", help="recipients (30)")


def callers(given: argparse.Namespace) -> Plan:
    """Return the plan of `add_callers`."""
    return Plan(
        senders=given.callers,
        readers=2,
        messages=None,
        seconds=given.seconds,
        window=1,
        pause_ms=given.pause,
        mailboxes=given.mailboxes,
        timeout_ms=TIMEOUT_MS,
    )


@contextmanager
def progress(console: Console) -> Iterator[Show]:
    """Show on a terminal what is being done; nothing elsewhere."""
    if not console.is_terminal:
        yield lambda _: None
        return
    with console.status("starting") as status:
        yield status.update


def table(rows: Sequence[Row]) -> Table:
    """Return figures with their remarks."""
    made = Table(box=box.SIMPLE, show_header=False)
    made.add_column(style="bold")
    made.add_column(justify="right")
    made.add_column(style="dim")
    for row in rows:
        made.add_row(*map(Text, row))
    return made


def conclude(result: dict[str, Any], *, as_json: bool, parts: Sequence[Any]) -> None:
    """Print the result: one object for a program, or a table and sentences for a person."""
    if as_json:
        print(json.dumps(result))  # noqa: T201 - the result of the command
        return
    console = Console()
    if not console.is_terminal:
        console = Console(width=_WIDTH)
    for part in parts:
        console.print(part, soft_wrap=isinstance(part, Text))


def sentence(text: str, *, good: bool) -> Text:
    return Text(text, "green" if good else "red")
