"""Clients in processes of their own that write and read all the time, and note what they saw.

Times are ``CLOCK_MONOTONIC`` nanoseconds, one clock for all processes of a machine.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Final, NamedTuple

from clients import Client
from clients.errors import KotakError

#: Whose mailbox only fills, and whose is read and acknowledged meanwhile.
KEPT: Final = "kept"
TAKEN: Final = "taken"
SENDERS: Final = ("sender0", "sender1")
PASSWORD: Final = "a word of some length"
_TEXT_CHARS: Final = 100
_PATIENCE_MS: Final = 20_000
#: For the broker to have been heard of once more; after a kill nobody is there.
_JOIN_S: Final = 60.0
_PAGE: Final = 50


class Sent(NamedTuple):
    """A message: its place in its sender's order to this recipient; ``seq`` None: not answered."""

    sender: str
    to: str
    i: int
    t0: int
    t1: int | None
    seq: int | None


class Acked(NamedTuple):
    """An acknowledgement of all of `TAKEN` up to ``seq``; ``t1`` None: not answered."""

    seq: int
    t0: int
    t1: int | None


class Seen(NamedTuple):
    """What all clients noted."""

    sent: list[Sent]
    acked: list[Acked]


def text_of(sender: str, i: int) -> str:
    """Return a message's text, which says whose it is."""
    return f"{sender}:{i}:".ljust(_TEXT_CHARS, ".")


def origin_of(text: str) -> tuple[str, int]:
    """Return the sender and the place of a message. Errors: `ValueError`."""
    sender, i, _ = text.split(":")
    return sender, int(i)


@contextmanager
def load(address: str, notes: Path) -> Iterator[None]:
    """Have the clients at work in the block; what they noted is in ``notes`` afterwards."""
    context = get_context("spawn")
    stop = context.Event()
    ready = [context.Event() for _ in range(len(SENDERS) + 1)]
    arguments = (address, stop)
    processes = [
        context.Process(target=_send, args=(*arguments, ready[number], sender, notes / sender))
        for number, sender in enumerate(SENDERS)
    ]
    processes.append(
        context.Process(target=_take, args=(*arguments, ready[-1], notes / TAKEN)),
    )
    for process in processes:
        process.start()
    try:
        for each, process in zip(ready, processes, strict=True):
            assert each.wait(_JOIN_S), f"a client did not begin (exit code {process.exitcode})"
        yield
    finally:
        stop.set()
        for process in processes:
            process.join(_JOIN_S)
            process.kill()
            process.join()


def noted(notes: Path) -> Seen:
    """Return what the clients of a load have noted."""
    sent = [Sent(*row) for sender in SENDERS for row in json.loads((notes / sender).read_text())]
    acked = [Acked(*row) for row in json.loads((notes / TAKEN).read_text())]
    return Seen(sent, acked)


def _send(address: str, stop: Event, ready: Event, sender: str, path: Path) -> None:
    """Send one by one, to both in turn, until it is the end or nobody is there any more."""
    rows: list[Sent] = []
    with Client(address, timeout_ms=_PATIENCE_MS) as client:
        client.login(sender, PASSWORD)
        for number in range(10_000_000):
            if stop.is_set():
                break
            to, i = (KEPT, TAKEN)[number % 2], number // 2
            t0 = time.monotonic_ns()
            try:
                # The end comes by a kill: then there is no reason to try for long.
                seq = client.send(to, text_of(sender, i), timeout_ms=2_000).seq
            except KotakError:
                rows.append(Sent(sender, to, i, t0, None, None))
                break
            rows.append(Sent(sender, to, i, t0, time.monotonic_ns(), seq))
            ready.set()
    path.write_text(json.dumps(rows))


def _take(address: str, stop: Event, ready: Event, path: Path) -> None:
    """Read and acknowledge what comes to `TAKEN`."""
    rows: list[Acked] = []
    with Client(address, timeout_ms=_PATIENCE_MS) as client:
        client.login(TAKEN, PASSWORD)
        ready.set()
        while not stop.is_set():
            t0 = time.monotonic_ns()
            seq = 0
            try:
                page = client.request("kotakmasuk", {"limit": _PAGE}, timeout_ms=2_000)
                if not page["messages"]:
                    stop.wait(0.005)
                    continue
                seq = page["messages"][-1]["seq"]
                t0 = time.monotonic_ns()
                client.request("ack", {"seq": seq}, timeout_ms=2_000)
            except KotakError:
                rows.append(Acked(seq, t0, None))
                break
            rows.append(Acked(seq, t0, time.monotonic_ns()))
    path.write_text(json.dumps(rows))
