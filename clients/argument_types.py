"""What the values of ``kotak``'s arguments may be, and what a person is told where one is not.

Each is an argparse type: it returns the value or raises `argparse.ArgumentTypeError`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Final, TypeVar

from broker.wire.limits import SEQ_MAX
from clients.invocation import UsageError, broker_addresses

_T = TypeVar("_T")

TIMEOUT_S_MAX: Final = 3_600.0
#: What one mailbox holds at most, as brokers come.
LIMIT_MAX: Final = 1_000_000


def addresses(text: str) -> str:
    try:
        return broker_addresses(text)
    except UsageError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def seconds(text: str) -> float:
    given_s = float(text)
    if not 0 < given_s <= TIMEOUT_S_MAX:
        raise argparse.ArgumentTypeError(f"give more than 0 and at most {TIMEOUT_S_MAX:g} seconds")
    return given_s


def limit(text: str, *, most: int = LIMIT_MAX) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= most:
        raise argparse.ArgumentTypeError(f"give a number between 1 and {most}")
    return int(text)


def sequence(text: str) -> int:
    # No longer than the largest: the digits of an argument have a limit of their own.
    if not text.isdecimal() or len(text) > len(str(SEQ_MAX)) or not 1 <= int(text) <= SEQ_MAX:
        raise argparse.ArgumentTypeError("give a sequence: the number that a message bears")
    return int(text)


def told_by(read: Callable[[str], _T]) -> Callable[[str], _T]:
    """Return ``read`` as an argument's type, whose errors are what the person is told."""

    def parse(text: str) -> _T:
        try:
            return read(text)
        except ValueError as error:
            raise argparse.ArgumentTypeError(str(error)) from None

    return parse
