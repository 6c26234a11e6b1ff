"""What the processes of a load share: the start, the progress, the end, and their last words."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from multiprocessing.context import SpawnContext
from pathlib import Path
from threading import BrokenBarrierError
from typing import Any, Final

from tests.load.doors import Door, UnreachableError
from tests.load.plan import Plan
from tests.load.text_door import TextDoor
from tests.load.zmq_door import ZmqDoor

#: fork would copy ZeroMQ's context without its threads.
CONTEXT: Final[SpawnContext] = multiprocessing.get_context("spawn")
#: Logging all accounts in costs a password hash each.
SETUP_SECONDS_MAX: Final = 300.0


@dataclass
class Summary:
    """How one process fared; ``fault`` is a sentence where it could not do its part."""

    role: str
    errors: Counter[str] = field(default_factory=Counter)
    tokens: int = 0
    tokens_valid: int = 0
    fault: str | None = None
    unreachable: bool = False


class Link:
    """Made by the parent, handed to each child."""

    def __init__(
        self, senders: int, readers: int, folder: Path, *, processes: int | None = None
    ) -> None:
        """``processes`` is how many there are, where it is not one for each sender and reader."""
        self.folder = folder
        self.ready = CONTEXT.Barrier((processes or senders + readers) + 1)
        #: Set when the last sender is done: what is empty from now on stays empty.
        self.all_sent = CONTEXT.Event()
        #: Set to end the sending early.
        self.stop = CONTEXT.Event()
        self.summaries: Any = CONTEXT.SimpleQueue()
        self.sent = CONTEXT.Array("Q", senders, lock=False)
        self.read = CONTEXT.Array("Q", readers, lock=False)

    def start_together(self) -> None:
        """Wait until everybody is logged in. Errors: `threading.BrokenBarrierError`."""
        self.ready.wait(SETUP_SECONDS_MAX)


def now_ns() -> int:
    """Return the one clock that all processes of a machine share."""
    return time.clock_gettime_ns(time.CLOCK_MONOTONIC)


def open_door(plan: Plan, address: str) -> Door:
    """Open the plan's door. Nothing is sent yet."""
    door = ZmqDoor if plan.door == "zmq" else TextDoor
    return door(address, plan.timeout_ms)


def play_part(
    role: str, part: Callable[[Door], Summary], plan: Plan, address: str, link: Link
) -> None:
    """Play one part as a process, through a door of its own; see `play`."""

    def through_a_door() -> Summary:
        with open_door(plan, address) as door:
            return part(door)

    play(role, through_a_door, link)


def play(role: str, part: Callable[[], Summary], link: Link) -> None:
    """Play one part as a process. Its last words go to ``link.summaries``.

    Who cannot begin breaks the barrier, so that nobody waits for it.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is the parent's, which ends its children
    try:
        summary = part()
    except UnreachableError as error:
        link.ready.abort()
        summary = Summary(role, fault=str(error), unreachable=True)
    except BrokenBarrierError:  # somebody else could not begin, and says why
        summary = Summary(role)
    except BaseException:
        link.ready.abort()
        raise
    link.summaries.put(summary)
