"""Threads that change places all the time, that meet faults, or that die."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from time import monotonic
from typing import Final

from broker.exits import Exit
from broker.wire.errors import Code
from clients.client import Client
from clients.errors import RequestError
from tests.proof.disk import whole
from tests.proof.disk.course import USERS
from tests.proof.history import Send
from tests.proof.process.machine import Machine

_LOGINS: Final = 9
#: What a broker that cannot go on is given to find that out.
_SECONDS_MAX: Final = 20.0
#: What ends a broker, and never goes on in half.
FATAL: Final = ("failing-writer", "broken-turns", "dying-worker")


@dataclass
class Threads:
    """What came of one broker."""

    sends: int = 0
    logins: dict[str, int] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)


def live_through(place: Path, spoiled: str, seconds: float) -> Threads:
    """Serve under load with what is done to it, end in good order, and be judged."""
    result = Threads()
    with Machine(place, spoiled=spoiled) as machine:
        machine.start()
        crowd = machine.crowd()
        result.logins = _log_in(machine, until_s=seconds)
        records, result.breaches = machine.finish(crowd)
        result.sends = sum(isinstance(record, Send) for record in records)
        code, took = machine.terminate()
        if code != Exit.OK:
            result.breaches.append(f"it ended with {code} after {took:.1f} s")
        result.breaches += machine.judged()
    return result


def _log_in(machine: Machine, *, until_s: float) -> dict[str, int]:
    """Log in again and again, which threads other than the leader work on; count the answers."""
    answers: Counter[str] = Counter()
    until, number = monotonic() + until_s, 0
    while number < _LOGINS or monotonic() < until:
        with Client(machine.process.doors.zmq, timeout_ms=20_000) as client:
            try:
                client.login(USERS[number % len(USERS)], whole._PASSWORD)
                answers["OK"] += 1
            except RequestError as error:
                answers[error.code] += 1
        number += 1
    return dict(answers)


def die(place: Path, spoiled: str) -> Threads:
    """Serve until the fault; the broker must end, by its exit code, and a restart recovers."""
    result = Threads()
    with Machine(place, spoiled=spoiled) as machine:
        machine.start()
        records, result.breaches = machine.work(_SECONDS_MAX)
        code = machine.ended()
        if code != Exit.DISK_FAILED:
            result.breaches.append(f"it ended with {code}, not with {int(Exit.DISK_FAILED)}")
        result.sends = sum(isinstance(record, Send) for record in records)
        result.breaches += machine.judged()
    return result


def unanswered(logins: dict[str, int]) -> list[str]:
    """Say which answers to a login should not have been."""
    allowed = {"OK", Code.INTERNAL, Code.UNAVAILABLE}
    return [f"{number} logins ended in {code}" for code, number in logins.items()
            if code not in allowed]  # fmt: skip
