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
SIZE_BYTES_MIN: Final = 40  # room for the longest label
SIZE_BYTES_MAX: Final = 60_000
#: How long one request may take: long enough for a broker to be killed and to come back.
TIMEOUT_MS: Final = 60_000


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One load. ``messages`` is per sender and None where ``seconds`` ends the sending."""

    senders: int = 4
    readers: int = 2
    messages: int | None = MESSAGES_DEFAULT
    seconds: float | None = None
    window: int = 1_000
    mailboxes: int = 100
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
        epilog="Exit code 0: every promise held. 1: one was broken. 3: the broker was not reached.",
    )
    add = parser.add_argument
    add("--senders", type=_integer(1, 64), default=4, metavar="P", help="sender processes (4)")
    add("--readers", type=_integer(1, 64), default=2, metavar="R", help="reader processes (2)")
    amount = parser.add_mutually_exclusive_group()
    amount.add_argument(
        "--messages", type=_integer(1, 10_000_000), metavar="N",
        help=f"messages a sender ({MESSAGES_DEFAULT:,})",
    )  # fmt: skip
    amount.add_argument("--seconds", type=_seconds, metavar="S", help="send for so long instead")
    add("--window", type=_integer(1, 10_000), default=1_000, metavar="N",
        help="messages of a sender under way at once (1,000); 1 shows the round trip")  # fmt: skip
    add("--mailboxes", type=_integer(1, 10_000), default=100, metavar="N",
        help="recipients (100)")  # fmt: skip
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
    messages = given.messages or (None if given.seconds else MESSAGES_DEFAULT)
    plan = Plan(
        senders=given.senders,
        readers=min(given.readers, given.mailboxes),
        messages=messages,
        seconds=given.seconds,
        window=given.window,
        mailboxes=given.mailboxes,
        size_bytes=given.size,
        store=given.store,
        door=given.door,
        broker=given.broker,
        kills=given.kill,
        histories=given.histories,
        timeout_ms=int(given.timeout * 1000),
    )
    return plan, given.json
