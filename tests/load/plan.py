"""What a load consists of: the options, and who sends what to whom.

Everything a message is follows from its sender and its number, so that senders need not keep
texts, and the same plan gives the same load.
"""

from __future__ import annotations

import argparse
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

#: Every account of a load has this password: it is made for the load and guards nothing.
PASSWORD: Final = "load-test-only"
MESSAGES_DEFAULT: Final = 25_000
#: Of readers by page: mailboxes are many, windows large, since the rate is what is looked at.
READERS_DEFAULT: Final = 2
MAILBOXES_DEFAULT: Final = 100
WINDOW_DEFAULT: Final = 1_000
#: With subscribers it is the time to each of them: what is under way waits no longer than it must.
LIVE_MESSAGES_DEFAULT: Final = 2_000
LIVE_WINDOW_DEFAULT: Final = 20
#: All senders, and all subscribers, share so many processes: more would measure the machine.
CROWD_PROCESSES: Final = 2
#: Each is a connection of its own, with some five descriptors in the client's process.
SUBSCRIBERS_MAX: Final = 300
DEVICES_MAX: Final = 4
SIZE_BYTES_MIN: Final = 40  # room for the longest label
SIZE_BYTES_MAX: Final = 60_000
#: How long one request may take: long enough for a broker to be killed and to come back.
TIMEOUT_MS: Final = 60_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One load. ``messages`` is per sender and None where ``seconds`` ends the sending."""

    senders: int = 4
    readers: int = READERS_DEFAULT
    #: Receivers by push, one for each mailbox, in ``readers`` processes; 0: mailboxes are read.
    subscribers: int = 0
    #: Devices of each of them, every one a receiver with a cursor of its own; 0: the user's cursor.
    devices: int = 0
    messages: int | None = MESSAGES_DEFAULT
    seconds: float | None = None
    window: int = WINDOW_DEFAULT
    #: Between two messages of a sender, half of it to half as much again; 0: as fast as it goes.
    pause_ms: float = 0.0
    mailboxes: int = MAILBOXES_DEFAULT
    size_bytes: int = 100
    store: str = "sqlite:"
    door: str = "zmq"
    broker: str | None = None
    kills: int = 0
    histories: Path | None = None
    timeout_ms: int = TIMEOUT_MS
    #: Tells the messages of this load from those of an earlier one on the same broker.
    run: str = field(default_factory=lambda: secrets.token_hex(3))

    def sender(self, number: int) -> str:
        return f"load-sender-{number}"

    def mailbox(self, number: int) -> str:
        return f"load-box-{number}"

    def accounts(self) -> list[str]:
        return [
            *(self.sender(number) for number in range(self.senders)),
            *(self.mailbox(number) for number in range(self.mailboxes)),
        ]

    def mailboxes_of(self, reader: int) -> list[str]:
        """Return the mailboxes that one reader reads: each mailbox has one reader."""
        return [self.mailbox(number) for number in range(reader, self.mailboxes, self.readers)]

    def receivers_of(self, process: int) -> list[tuple[str, str]]:
        """Return the (mailbox, device) pairs that a process receives for; "" is no device."""
        devices = [f"device-{number}" for number in range(self.devices)] or [""]
        return [(user, device) for user in self.mailboxes_of(process) for device in devices]

    @property
    def crowded(self) -> bool:
        """Whether senders share processes: what is looked at is the time, not the rate."""
        return bool(self.subscribers or self.pause_ms)

    @property
    def sender_processes(self) -> int:
        return min(self.senders, CROWD_PROCESSES) if self.crowded else self.senders

    def senders_of(self, process: int) -> range:
        """Return the senders that share a process."""
        return range(process, self.senders, self.sender_processes)

    def expected(self, mailbox: int, sent: Sequence[int]) -> int:
        """Return how many messages a mailbox gets when sender ``i`` has sent ``sent[i]``."""
        total = 0
        for sender, messages in enumerate(sent):
            first = (mailbox - sender * self.mailboxes // self.senders) % self.mailboxes
            total += max(0, -(-(messages - first) // self.mailboxes))
        return total

    def recipient(self, sender: int, i: int) -> str:
        """Return who gets message ``i``; each sender begins elsewhere, so that all boxes fill."""
        return self.mailbox((i + sender * self.mailboxes // self.senders) % self.mailboxes)

    def message_id(self, sender: int, i: int) -> str:
        return f"{self.run}-{sender}-{i}"

    def text(self, sender: int, i: int) -> str:
        """Return the text: sender and id first, since the text door tells neither, then filling."""
        return f"{self.sender(sender)} {self.message_id(sender, i)} ".ljust(self.size_bytes, ".")

    @staticmethod
    def label(text: str) -> tuple[str, str]:
        """Return (sender, message id) as `text` put them there; empty ones for other texts."""
        words = text.split(" ", 2)
        return (words[0], words[1]) if len(words) == 3 else ("", "")


def _integer(low: int, high: int) -> Callable[[str], int]:
    def read(word: str) -> int:
        if not low <= (number := int(word)) <= high:
            raise argparse.ArgumentTypeError(f"{number} must lie between {low:,} and {high:,}")
        return number

    return read


def _seconds(word: str) -> float:
    if not 0 < (seconds := float(word)) <= 86_400:
        raise argparse.ArgumentTypeError("must be above 0 and at most a day")
    return seconds


_BROKER_HELP: Final = (
    "use a running broker, tcp://HOST:PORT, that was started with --register (HOST:PORT with "
    "--door text, after a load with --door zmq); by default the load starts one of its own"
)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="scripts/loadtest",
        description="Load a broker with real client processes, and judge what they saw.",
        epilog="Two other trials, each with options of its own: scripts/loadtest stalled (somebody "
        "who no longer reads) and scripts/loadtest room (a room with many members). "
        "Exit code 0: every promise held. 1: one was broken. 3: the broker was not reached.",
    )
    add = parser.add_argument
    add("--senders", type=_integer(1, 64), default=4, metavar="P", help="sender processes (4)")
    add("--readers", type=_integer(1, 64), metavar="R",
        help=f"reader processes ({READERS_DEFAULT})")  # fmt: skip
    add("--subscribers", type=_integer(1, SUBSCRIBERS_MAX), metavar="N",
        help="instead of readers: so many receivers by push, each with a mailbox")  # fmt: skip
    add("--devices", type=_integer(1, DEVICES_MAX), metavar="N",
        help="devices of each subscriber: every one receives everything")  # fmt: skip
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--messages", type=_integer(1, 10_000_000), metavar="N",
        help=f"messages a sender ({MESSAGES_DEFAULT:,}; to subscribers {LIVE_MESSAGES_DEFAULT:,})",
    )  # fmt: skip
    amount.add_argument("--seconds", type=_seconds, metavar="S", help="send for so long instead")
    add("--window", type=_integer(1, 10_000), metavar="N",
        help=f"messages of a sender under way at once ({WINDOW_DEFAULT:,}; to subscribers "
             f"{LIVE_WINDOW_DEFAULT}); 1 shows the round trip")  # fmt: skip
    add("--mailboxes", type=_integer(1, 10_000), metavar="N",
        help=f"recipients ({MAILBOXES_DEFAULT})")  # fmt: skip
    add("--size", type=_integer(SIZE_BYTES_MIN, SIZE_BYTES_MAX), default=100, metavar="BYTES",
        help="size of a text (100)")  # fmt: skip
    add("--store", choices=("sqlite:", "memory:"), default="sqlite:", help="the broker's engine")
    add("--door", choices=("zmq", "text"), default="zmq", help="which door the clients use")
    add("--broker", metavar="ADDRESS", help=_BROKER_HELP)
    add("--kill", type=_integer(0, 100), default=0, metavar="N",
        help="kill -9 the broker so many times on the way, and restart it on its data")  # fmt: skip
    add("--timeout", type=_seconds, default=TIMEOUT_MS / 1000, metavar="S",
        help="how long a request may go without an answer (60)")  # fmt: skip
    add("--histories", type=Path, metavar="FOLDER",
        help="keep what the clients saw, for: python -m tests.proof.checker FOLDER")  # fmt: skip
    add("--json", action="store_true", help="print the result as one JSON object")
    return parser


def parse(arguments: Sequence[str] | None = None) -> tuple[Plan, bool]:
    """Return the plan, and whether the result is wanted as JSON. Exits with code 2 on a mistake."""
    parser = _parser()
    given = parser.parse_args(arguments)
    if given.kill and given.broker:
        parser.error("--kill needs the load's own broker: leave out --broker")
    if given.kill and given.door == "text":
        parser.error("--kill needs --door zmq: a line has no message id, so it cannot be repeated")
    if given.kill and given.store == "memory:":
        parser.error("--kill needs --store sqlite:, since a memory store forgets")
    if given.histories and given.histories.exists() and any(given.histories.iterdir()):
        parser.error(f"{given.histories} is not empty: the checker would judge both loads as one")
    if given.subscribers and (given.readers or given.mailboxes):
        parser.error("--subscribers have a mailbox each: leave out --readers and --mailboxes")
    if given.subscribers and given.door == "text":
        parser.error("--subscribers need --door zmq: the text door sends nothing unasked")
    if given.devices and given.devices * (given.subscribers or 0) > SUBSCRIBERS_MAX:
        parser.error(f"all --devices of all --subscribers may be {SUBSCRIBERS_MAX} at most")
    if given.devices and not given.subscribers:
        parser.error("--devices are those of --subscribers: say how many there are")
    live = bool(given.subscribers)
    mailboxes = given.subscribers or given.mailboxes or MAILBOXES_DEFAULT
    readers = CROWD_PROCESSES if live else given.readers or READERS_DEFAULT
    messages_default = LIVE_MESSAGES_DEFAULT if live else MESSAGES_DEFAULT
    plan = Plan(
        senders=given.senders,
        readers=min(readers, mailboxes),
        subscribers=given.subscribers or 0,
        devices=given.devices or 0,
        messages=given.messages or (None if given.seconds else messages_default),
        seconds=given.seconds,
        window=given.window or (LIVE_WINDOW_DEFAULT if live else WINDOW_DEFAULT),
        mailboxes=mailboxes,
        size_bytes=given.size,
        store=given.store,
        door=given.door,
        broker=given.broker,
        kills=given.kill,
        histories=given.histories,
        timeout_ms=int(given.timeout * 1000),
    )
    return plan, given.json
