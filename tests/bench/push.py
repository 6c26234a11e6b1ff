"""The parts of live push: who sends messages that bear the time, and who has them pushed.

A text begins with the time at which it was handed to the library, in ns of the monotonic clock,
which all processes of one machine share. So whoever gets it knows how long it took, and neither
side keeps a list.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import closing
from random import Random
from typing import Final

from clients.client import Client
from clients.errors import RequestError
from tests.bench.crew import Shift
from tests.bench.parts import TIMEOUT_MS, Limit, Role
from tests.load.plan import PASSWORD, Plan

#: The last text of each sender to each mailbox: who has one from every sender is done.
END: Final = "end"
_READY: Final = "ready"


def stamped(size_bytes: int) -> str:
    """Return a text that says when it was made, filled up to its size (20 bytes at the least)."""
    return f"{time.monotonic_ns()} ".ljust(size_bytes, "x")


def age_s(text: str, now_ns: int) -> float:
    """Return how many seconds before ``now_ns`` a text was `stamped`."""
    return (now_ns - int(text.split(" ", 1)[0])) / 1e9


def letters(plan: Plan, number: int, until: Limit, pause_ms: float) -> Iterator[tuple[str, str]]:
    """Yield (mailbox, text) up to a limit (``seconds`` on the clock), then an `END` for each box.

    The pauses between them are half of ``pause_ms`` to half as much again: an even beat might
    fall in with a timer of the broker.
    """
    i, chance = 0, Random(number)
    while i < until.messages and time.monotonic() < until.seconds:
        if pause_ms:
            time.sleep(pause_ms / 1000 * (0.5 + chance.random()))
        yield plan.recipient(number, i), stamped(plan.size_bytes)
        i += 1
    for box in range(plan.mailboxes):
        yield plan.mailbox(box), END


def send(shift: Shift, role: Role, limit: Limit, pause_ms: float) -> None:
    """Send stamped texts; neither counted nor timed here, but by who gets them."""
    plan, number = role.plan, role.number
    with Client(role.address, timeout_ms=TIMEOUT_MS) as client:
        client.login(plan.sender(number), PASSWORD)
        until = limit._replace(seconds=shift.begin() + limit.seconds)
        sent = letters(plan, number, until, pause_ms)
        if plan.window == 1:
            for box, text in sent:
                client.send(box, text)
        else:
            for outcome in client.send_many(sent, window=plan.window):
                if isinstance(outcome, RequestError):
                    raise outcome
        shift.end()


def receive(shift: Shift, role: Role, senders: int) -> None:
    """Take what is pushed to one mailbox, until each sender's `END` has come.

    A latency ends where the loop over the messages has the message.
    """
    with Client(role.address, timeout_ms=TIMEOUT_MS) as client:
        user = role.plan.mailbox(role.number)
        client.login(user, PASSWORD)
        client.send(user, _READY)
        with closing(client.messages()) as arriving:
            next(arriving)  # the subscription stands, before anybody is measured
            shift.begin()
            shift.messages = take(shift, (message.text for message in arriving), senders)
            shift.end()


def take(shift: Shift, texts: Iterator[str], senders: int) -> int:
    """Time the texts up to the last `END`; return how many there were beside these."""
    now_ns, latency, messages = time.monotonic_ns, shift.latencies.append, 0
    for text in texts:
        if text != END:
            latency(age_s(text, now_ns()))
            messages += 1
        elif (senders := senders - 1) == 0:
            break
    return messages
