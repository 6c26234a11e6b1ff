"""The points that are measured, as data: who sends how, to whom, and what else is there.

A point names its scenario (`tests.bench.scenarios.SCENARIOS`); a new kind of measurement is a
scenario there and its points here.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Final

WORKERS_DEFAULT: Final = 4


@dataclass(frozen=True, kw_only=True)
class Point:
    """One measurement. ``series`` is what it belongs to when drawn, ``at`` its place there."""

    name: str
    scenario: str
    series: str
    at: str = ""
    senders: int = 2
    #: Messages of one sender under way at once.
    window: int = 100
    mailboxes: int = 100
    size_bytes: int = 100
    #: Messages that wait in the mailboxes before the measurement begins.
    waiting: int = 0
    #: Connections that are open and silent meanwhile.
    idle: int = 0
    workers: int = WORKERS_DEFAULT
    #: Connections to the text door, each with one line under way.
    connections: int = 0
    #: Messages in one page of a drain.
    page: int = 100
    #: A sender of pushed messages sends so many, and not for the run's time, with pauses of about
    #: so long between them.
    paced_messages: int = 0
    pause_ms: float = 0.0


def _sends() -> Iterator[Point]:
    for senders, window in ((1, 1), (8, 1), (2, 100), (2, 1_000)):
        name = f"send-{senders}x{window}"
        yield Point(name=name, scenario="send", series="send", senders=senders, window=window)


def _drains() -> Iterator[Point]:
    for page in (100, 1_000):
        yield Point(
            name=f"drain-{page}", scenario="drain", series="drain", page=page,
            window=1_000, waiting=300_000,
        )  # fmt: skip


def _texts() -> Iterator[Point]:
    for connections in (8, 1_000):
        yield Point(
            name=f"text-{connections}", scenario="text", series="text", connections=connections
        )


def _pushes() -> Iterator[Point]:
    yield Point(
        name="push-idle", scenario="push", series="push", senders=1, window=1, mailboxes=1,
        paced_messages=400, pause_ms=5.0,
    )  # fmt: skip
    # A mailbox has a receiving process of its own: more of them would measure the machine's cores.
    yield Point(name="push-2x100", scenario="push", series="push", mailboxes=2)


def _growth() -> Iterator[Point]:
    def grows(series: str, at: str, **changed: int) -> Point:
        name = f"{series}-{at.replace(' ', '')}"
        return Point(name=name, scenario="send", series=series, at=at, **changed)

    for mailboxes in (1, 100, 10_000, 100_000):
        yield grows("mailboxes", f"{mailboxes}", mailboxes=mailboxes)
    for waiting in (0, 100_000, 1_000_000):
        yield grows("waiting", f"{waiting}", waiting=waiting)
    for idle in (0, 1_000, 5_000):
        yield grows("idle", f"{idle}", idle=idle)
    for at, size_bytes in (("10 B", 10), ("100 B", 100), ("1 KB", 1_024), ("64 KB", 65_536)):
        yield grows("body", at, size_bytes=size_bytes)
    for workers in (2, 4, 6, 8):
        yield grows("workers", f"{workers}", workers=workers)


def _full() -> Iterator[Point]:
    yield Point(
        name="full", scenario="send", series="full", mailboxes=100_000, waiting=1_000_000
    )  # fmt: skip


def _start() -> Iterator[Point]:
    yield Point(name="start", scenario="start", series="start", waiting=1_000_000, window=1_000)


POINTS: Final[Sequence[Point]] = (
    *(*_sends(), *_drains(), *_pushes(), *_texts()),
    *(*_growth(), *_full(), *_start()),
)

#: The series in which something grows: each is one figure. Its title, and what stands below it.
DRAWN: Final = {
    "mailboxes": ("More mailboxes", "mailboxes that are sent to"),
    "waiting": ("More waiting messages", "messages that wait already"),
    "idle": ("More connections", "idle connections beside the senders"),
    "body": ("Longer messages", "length of a text"),
    "workers": ("More worker threads", "worker threads"),
}


def chosen(patterns: Sequence[str]) -> list[Point]:
    """Return the points whose name or series fits a pattern of the shell (``body-*``), in order.

    Errors: `ValueError` for a pattern that fits none.
    """
    if not patterns:
        return list(POINTS)
    fitting = {pattern: [p for p in POINTS if _fits(p, pattern)] for pattern in patterns}
    for pattern, points in fitting.items():
        if not points:
            raise ValueError(f"no point fits {pattern!r}: --list names them all")
    return [p for p in POINTS if any(p in points for points in fitting.values())]


def _fits(point: Point, pattern: str) -> bool:
    return fnmatchcase(point.name, pattern) or point.series == pattern
