"""What of the network is proved in one go."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final

from tests.load.broker_process import BrokerProcess
from tests.proof.disk.prove import Row
from tests.proof.disk.running import scratch
from tests.proof.network.faults import FAULTS, Fault
from tests.proof.network.trial import Trial, at_text_door, at_zmq_door, serving
from tests.proof.part import Part, Show, Size, Work, row

At = Callable[[BrokerProcess, dict[str, str], Fault, float, int], Trial]
_DOORS: Final[Mapping[str, At]] = {"zmq": at_zmq_door, "text": at_text_door}


def _work(sizes: Mapping[str, int], seed: int, show: Show) -> Iterator[Work]:
    if sizes["rounds"] and sizes["fault-ms"]:
        for door in _DOORS:
            yield partial(_door, door, sizes["rounds"], sizes["fault-ms"], show)


def _door(door: str, rounds: int, fault_ms: int, show: Show) -> Row:
    what = f"network faults at the {door} door"
    trials: list[Trial] = []
    faults = FAULTS * rounds
    with scratch() as place, serving(place) as (broker, tokens):
        for number, fault in enumerate(faults, 1):
            show(what, number, len(faults))
            trials.append(_DOORS[door](broker, tokens, fault, fault_ms / 1_000, number))
    found = [f"{trial.fault}: {each}" for trial in trials for each in trial.breaches]
    back = max(trial.back_s for trial in trials)
    sends = sum(trial.sends for trial in trials)
    return row(
        what,
        f"{len(trials)} faults of {fault_ms} ms",
        found,
        f"{sends:,} sends, back within {back:.1f} s",
        back_s={trial.fault: trial.back_s for trial in trials},
        sends=sends,
        silent=sum(trial.silent for trial in trials),
    )


NETWORK: Final = Part(
    "network",
    "Let the network between clients and doors fail in many ways, and heal.",
    {
        "rounds": Size(1, "times that each fault comes"),
        "fault-ms": Size(700, "how long each stays"),
    },
    _work,
)
