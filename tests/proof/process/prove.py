"""What of the process is proved in one go."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from tests.proof.disk.prove import Row
from tests.proof.disk.running import scratch
from tests.proof.part import Part, Show, Size, Work, row
from tests.proof.process.ends import stop_under_load
from tests.proof.process.soak import soak
from tests.proof.process.starts import start_full
from tests.proof.process.threads import FATAL, die, live_through, unanswered

#: What is done to a broker that must go on, and how that is called.
_SURVIVED: Final = {
    "deadly-hashes": "threads that die of slow work",
    "faulty-turns": "turns that end in a fault",
}
_FATAL: Final = {
    "failing-writer": "a writer that fails",
    "broken-turns": "faults without end",
    "dying-worker": "a worker that dies",
}
_SPOILED_S: Final = 3.0
#: Of the log that the store starts with.
_LOG_MIB: Final = 64


def _work(sizes: Mapping[str, int], seed: int, show: Show) -> Iterator[Work]:
    if sizes["switching"]:
        what = "threads that change places each microsecond"
        yield partial(_lived, "restless", what, sizes["switching"], show)
    if sizes["spoiled"]:
        for spoiled, what in _SURVIVED.items():
            yield partial(_lived, spoiled, what, _SPOILED_S, show)
        assert set(_FATAL) == set(FATAL)
        for spoiled, what in _FATAL.items():
            yield partial(_died, spoiled, what, sizes["spoiled"], show)
    if sizes["stops"]:
        yield partial(_stops, sizes["stops"], seed, show)
    if sizes["waiting"]:
        yield partial(_start, sizes["waiting"], show)
    if sizes["soak"]:
        yield partial(_soak, sizes["soak"], seed, show)


def _lived(spoiled: str, what: str, seconds: float, show: Show) -> Row:
    show(what, 0, 1)
    with scratch() as place:
        done = live_through(place / "machine", spoiled, seconds)
    found = done.breaches + unanswered(done.logins)
    told = f"{done.sends:,} sends, {sum(done.logins.values())} logins"
    return row(what, f"{seconds:g} s of load", found, told, **_figures(done))


def _died(spoiled: str, what: str, runs: int, show: Show) -> Row:
    found: list[str] = []
    sends = 0
    for number in range(runs):
        show(what, number, runs)
        with scratch() as place:
            done = die(place / "machine", spoiled)
        found += done.breaches
        sends += done.sends
    return row(what, f"{runs} runs", found, f"exit 6 each time, {sends:,} sends", sends=sends)


def _stops(rounds: int, seed: int, show: Show) -> Row:
    what = "SIGTERM under load, dead peers"
    with scratch() as place:
        done = stop_under_load(place / "machine", rounds, seed, lambda n: show(what, n, rounds))
    told = f"{done.sends:,} sends, {done.longest_s:.1f} s at most"
    return row(what, f"{done.rounds} rounds", done.breaches, told, **_figures(done))


def _start(waiting: int, show: Show) -> Row:
    what = "start with messages waiting"
    show(what, 0, 1)
    with scratch() as place:
        done = start_full(place / "machine", waiting, _LOG_MIB)
    how_much = f"{waiting:,}, log of {done.log_mib:.0f} MiB"
    told = f"first OK after {done.seconds:.1f} s, {done.cpu_seconds:.1f} s of a core"
    return row(what, how_much, done.breaches, told, **_figures(done))


def _soak(messages: int, seed: int, show: Show) -> Row:
    what = "soak"
    with scratch() as place:
        done = soak(place / "machine", messages, seed, lambda n: show(what, n, messages))
    last = done.looks[-1]
    told = f"{done.slope:+.2f} MiB a million, {last.files} files, {last.threads} threads"
    how_much = f"{done.messages:,} messages, {done.malformed:,} malformed"
    return row(what, how_much, done.breaches, told, **_figures(done))


def _figures(done: Any) -> dict[str, Any]:
    return {name: value for name, value in asdict(done).items() if name != "breaches"}


PROCESS: Final = Part(
    "process",
    "The broker's threads, its end under load, its start with a full store, and a long life.",
    {
        "switching": Size(10, "seconds of threads that change places all the time"),
        "spoiled": Size(3, "runs of each broker with a fault that ends it"),
        "stops": Size(20, "rounds of SIGTERM under load"),
        "waiting": Size(1_000_000, "messages that wait when it is started"),
        "soak": Size(1_000_000, "messages of a long life"),
    },
    _work,
)
