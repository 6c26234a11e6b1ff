"""A long life: messages without end, some of what comes malformed, and nothing that grows.

In rounds: send, read, acknowledge, wait until what was read has been deleted, then look. What a
broker keeps (ids, messages that were read) is set small, so that it is full after the first rounds.
"""

from __future__ import annotations

import random
import re
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from itertools import combinations, islice
from pathlib import Path
from statistics import median
from typing import Final, NamedTuple

import msgpack

from broker.stores.folder import DATABASE_FILE
from clients.client import Client
from clients.results import Receipt
from tests.e2e.raw_peer import RawPeer
from tests.proof.disk.course import USERS
from tests.proof.process.machine import Machine

#: Of what comes, one in so many is malformed.
MALFORMED_ONE_IN: Final = 100
#: Megabytes a million messages, once it is warm.
SLOPE_MAX: Final = 1.0
#: With fewer messages than that, noise of the allocator would be judged.
JUDGED_MESSAGES_MIN: Final = 500_000
_ROUNDS: Final = 20
#: The allocator's steps end by then.
_WARM: Final = 0.5
_WINDOW: Final = 500
_IDS: Final = 10_000
_OPTIONS: Final = (
    *("--retention-read-ms", "1000", "--dedup-window-ms", "1000"),
    *("--dedup-ids-max", str(_IDS), "--dedup-ids-per-sender", str(_IDS)),
)
_QUIET_S_MAX: Final = 30.0
_MIB: Final = 1_048_576


class Look(NamedTuple):
    """What the broker holds after so many messages."""

    messages: int
    memory_mib: float
    files: int
    threads: int
    log_bytes: int


@dataclass
class Soak:
    """What came of it."""

    messages: int = 0
    malformed: int = 0
    refused: int = 0
    looks: list[Look] = field(default_factory=list)
    slope: float = 0.0
    breaches: list[str] = field(default_factory=list)


def soak(
    place: Path, messages: int, seed: int, show: Callable[[int], None] = lambda _: None
) -> Soak:
    """Send so many messages, and judge what grows. ``show`` is told how many were sent."""
    result, rng = Soak(), random.Random(seed)
    with Machine(place, spoiled="brisk", options=_OPTIONS) as machine:
        machine.start()
        for _ in range(_ROUNDS):
            _round(machine, messages // _ROUNDS, rng, result)
            result.looks.append(_look(machine, result.messages))
            show(result.messages)
    _judge(result)
    return result


def _round(machine: Machine, messages: int, rng: random.Random, result: Soak) -> None:
    door, (to, sender, _) = machine.process.doors.zmq, USERS
    reader = threading.Thread(target=_read, args=(door, machine.tokens[to], messages))
    reader.start()
    spoiler = threading.Thread(
        target=_spoil, args=(door, messages // MALFORMED_ONE_IN, rng.random(), result)
    )
    spoiler.start()
    with Client(door, token=machine.tokens[sender]) as client:
        letters = ((to, f"message {number}") for number in range(messages))
        answers = client.send_many(letters, window=_WINDOW)
        stored = sum(isinstance(answer, Receipt) for answer in answers)
    for thread in (reader, spoiler):
        thread.join()
    if stored != messages:
        result.breaches.append(f"{messages - stored} of {messages} sends were refused")
    result.messages += messages


def _read(door: str, token: str, messages: int) -> None:
    """Read and acknowledge until so many have come."""
    read = 0
    with Client(door, token=token) as client:
        while read < messages:
            page = client.inbox(limit=1_000).messages
            if page:
                client.acknowledge(page[-1].seq)
                read += len(page)
            else:
                time.sleep(0.005)


def _spoil(door: str, messages: int, seed: float, result: Soak) -> None:
    """Send what no client sends, and read what is answered; now and then as somebody new."""
    frames = malformed(random.Random(seed))
    while messages > 0:
        with RawPeer(door) as peer:
            for frame in islice(frames, min(messages, 50)):
                peer.send(frame)
                result.malformed += 1
                result.refused += peer.reply().error is not None
        messages -= 50


def malformed(rng: random.Random) -> Iterator[list[bytes]]:
    """Yield messages that the broker must refuse, without end."""
    request = msgpack.packb([1, "chat", "kt_no-such-token", {"to": "ann", "text": "x", "id": "1"}])
    while True:
        yield rng.choice(
            (
                [rng.randbytes(rng.randint(1, 300))],
                [request[: rng.randrange(len(request))]],
                [request],
                [request + b"\0"],
                [msgpack.packb([1, "no such command", None, {}])],
                [msgpack.packb([1, "chat", 7, ["not", "a", "map"]])],
                [b"\xdd\xff\xff\xff\xff"],
                [b"\x91" * rng.randint(10, 3_000)],
                [request] * 300,
                [rng.randbytes(100_000)],
            )
        )


def _look(machine: Machine, messages: int) -> Look:
    """Wait until what was read is deleted, then look at the process from outside."""
    until = time.monotonic() + _QUIET_S_MAX
    while _rows(machine.data) > 2 * _IDS and time.monotonic() < until:
        time.sleep(0.1)
    status = Path(f"/proc/{machine.pid}/status").read_text()
    threads = re.search(r"Threads:\s+(\d+)", status)
    assert threads
    return Look(
        messages,
        machine.process.memory_mib(),
        sum(1 for _ in Path(f"/proc/{machine.pid}/fd").iterdir()),
        int(threads[1]),
        (machine.data / f"{DATABASE_FILE}-wal").stat().st_size,
    )


def _rows(data: Path) -> int:
    with closing(sqlite3.connect(f"file:{data / DATABASE_FILE}?mode=ro", uri=True)) as database:
        rows: int = database.execute("SELECT count(*) FROM messages").fetchone()[0]
    return rows


def _judge(result: Soak) -> None:
    """Compare the looks of a broker that is warm."""
    warm = result.looks[int(len(result.looks) * _WARM) :]
    # The median of the slopes between any two looks: a leak is in all of them, a step in few.
    slopes = (
        (b.memory_mib - a.memory_mib) / (b.messages - a.messages) for a, b in combinations(warm, 2)
    )
    result.slope = round(median(slopes) * 1e6, 2)
    if result.messages >= JUDGED_MESSAGES_MIN and result.slope > SLOPE_MAX:
        result.breaches.append(f"memory grows by {result.slope} MiB a million messages")
    for name in ("files", "threads", "log_bytes"):
        first, last = (getattr(look, name) for look in (warm[0], warm[-1]))
        if last > first * 1.1:
            result.breaches.append(f"{name} grew from {first} to {last}")
    if result.refused < result.malformed:
        result.breaches.append(
            f"{result.malformed - result.refused} of {result.malformed} malformed were not refused"
        )
