"""How fast the simulator catches a planted bug."""

from __future__ import annotations

import time
from itertools import chain
from typing import Final, NamedTuple

from tests.proof.seeded.bugs import Bug
from tests.simulator.disk import Disks
from tests.simulator.run import Result, run

#: Seeds that are tried first, of bugs that few seeds show; the last five were in the broker itself
#: until the simulator came upon them there. A change of the plans changes what these seeds show:
#: then the hunt goes on from the beginning.
KNOWN: Final = {
    "rollback-keeps-ids": 80,
    "undelivered-is-forgotten": 33,
    "receipt-after-failed-commit": 8,
    "client-acknowledges-too-much": 6,
    "lost-wake-up": 4,
    "status-lies": 3,
    "rollback-keeps-cursors": 2,
    "unread-is-deleted": 115,
    "room-read-from-before-joining": 34,
    "leaving-changes-nothing": 14,
    "client-overlooks-the-end": 200,
    "epoch-not-changed": 9,
    "epoch-without-a-clock": 9,
    "end-told-once": 200,
    "clock-stands-still": 2004,
    "one-loss-hides-another": 43291,
    "deleted-while-subscribed": 3543,
}


class Catch(NamedTuple):
    """What caught a bug, at which seed, how many seeds and seconds it took. No law: nothing did."""

    bug: Bug
    law: str
    sentence: str
    seed: int
    seeds: int
    seconds: float

    @property
    def caught(self) -> bool:
        return bool(self.law)


def hunt(bug: Bug, place: Disks, *, seconds_max: float) -> Catch:
    """Run seeds until one breaks a law with the bug and breaks none without it."""
    began = time.monotonic()
    seed = count = 0
    seeds = chain([KNOWN[bug.name]] if bug.name in KNOWN else [], range(100_000))
    for count, seed in enumerate(seeds, 1):
        with bug.plant():
            found = _law(seed, place)
        seconds = time.monotonic() - began
        if found is not None and not run(seed, place).breaches:
            law, sentence = found
            return Catch(bug, law, sentence, seed, count, seconds)
        if seconds > seconds_max:
            break
    return Catch(bug, "", "", seed, count, time.monotonic() - began)


def _law(seed: int, place: Disks) -> tuple[str, str] | None:
    """Return the first law that a run breaks, and how."""
    try:
        result: Result = run(seed, place)
    except Exception as error:  # noqa: BLE001 - a planted bug may well end in any
        return "ends", f"the broker or a client ended in {type(error).__name__}: {error}"
    if not result.breaches:
        return None
    law, sentence = result.breaches[0]
    return law, sentence.splitlines()[0]
