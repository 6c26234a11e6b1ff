"""How fast the simulator catches a planted bug."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import NamedTuple

from tests.proof.seeded.bugs import Bug
from tests.simulator.disk import Disks
from tests.simulator.run import Result, run


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


def hunt(bug: Bug, place: Disks, seeds: Iterable[int], *, seconds_max: float) -> Catch:
    """Run seeds until one breaks a law with the bug and breaks none without it."""
    began = time.monotonic()
    seed = count = 0
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
