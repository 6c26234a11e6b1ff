"""The simulator's own proof: a seed replays, the laws hold, and what it has found stays found."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof.seeded.bugs import BUGS
from tests.simulator.disk import Disks, disks
from tests.simulator.plan import plan_of
from tests.simulator.report import Summary, as_json, explain
from tests.simulator.run import Result, run

#: The slice of every day, and that of the slow tests.
_FEW = range(40)
_MANY = range(5_000)


@pytest.fixture(scope="module")
def place() -> Iterator[Disks]:
    with disks() as place:
        yield place


@pytest.mark.parametrize("seed", [1, 2, 9, 10])
def test_a_seed_replays_bit_for_bit(place: Disks, seed: int) -> None:
    assert run(seed, place).hash == run(seed, place).hash


def test_a_seed_replays_in_another_process_with_other_hashes(place: Disks) -> None:
    code = "from tests.simulator.__main__ import main; main()"
    printed = {run(3, place).hash}
    for hashes in ("1", "2"):
        done = subprocess.run(
            [sys.executable, "-c", code, "--seed", "3"],
            env=os.environ | {"PYTHONHASHSEED": hashes},
            cwd=Path(__file__).parents[2],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
        )
        printed.add(done.stdout.split("(")[1].rstrip(")\n"))
    assert len(printed) == 1


def test_every_law_holds(place: Disks) -> None:
    summary = _carry_out(_FEW, place)
    assert not summary.broken, "\n".join(map(explain, summary.broken))
    # Not in a world without troubles: every kind of fault was there, and brokers died of them.
    assert summary.faults.keys() == {
        "crash", "failure", "full", "outage", "restore", "jump",
        "cut", "hole", "stall", "partition", "death",
    }  # fmt: skip
    assert summary.lives > 2 * len(_FEW)
    assert summary.reads > 10 * len(_FEW)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
def test_every_law_holds_for_thousands_of_seeds(place: Disks) -> None:
    summary = _carry_out(_MANY, place)
    assert not summary.broken, "\n".join(map(explain, summary.broken))


#: A bug of the broker that the simulator has found, switched on again; the seed that shows it.
FOUND = [
    # The end of a silent subscription, told to a receiver that had no room for it, was told once:
    # the receiver went on sending heartbeats and waited for ever.
    ("end-told-once", 200),
    # One copy of the store put back twice began two epochs at the same sequence, so that a reader
    # who skips what it has seen skipped messages of the second.
    ("epoch-without-a-clock", 9),
    # After the machine's clock had been set back the broker's stood still, for hours perhaps, and
    # with it all that is tried again after a while: a receiver that had no room got nothing more.
    ("clock-stands-still", 2004),
    # A reader who came after the store had been put back was told of that loss only, and never of
    # what had been deleted before it had read it.
    ("one-loss-hides-another", 43291),
    # What was deleted while a device was subscribed, and behind, was passed over without a word.
    ("deleted-while-subscribed", 3543),
]


@pytest.mark.parametrize(("name", "seed"), FOUND)
def test_what_was_found_once_is_found_again_and_is_mended(
    place: Disks, name: str, seed: int
) -> None:
    (bug,) = (bug for bug in BUGS if bug.name == name)
    with bug.plant():
        assert run(seed, place).breaches
    assert not run(seed, place).breaches


@pytest.mark.parametrize("seed", [468689, 469235, 482618, 478035, 482193])
def test_what_stands_though_it_was_refused_is_no_breach(place: Disks, seed: int) -> None:
    """The store was gone behind the commit, by the answer: an acknowledgement has made room in a
    window (the first two) and changed a status (the third), a page counts as given (the others).
    """
    assert not run(seed, place).breaches


def test_plans_differ_and_each_fault_is_in_some_and_not_in_all() -> None:
    plans = [plan_of(seed) for seed in range(300)]
    for fault in (
        "crashes",
        "failures",
        "full",
        "restores",
        "jumps",
        "cuts",
        "holes",
        "deaths",
        "outages",
    ):
        with_it = sum(getattr(plan, fault) > 0 for plan in plans)
        assert 10 < with_it < 290, fault


def test_a_breach_names_the_law_and_how_to_see_it_again(place: Disks) -> None:
    (bug,) = (bug for bug in BUGS if bug.name == "redelivered-never-set")
    with bug.plant():
        result = next(result for result in _results(range(20), place) if result.breaches)
    assert "L7: " in explain(result)
    assert f"--seed {result.plan.seed} --verbose" in explain(result)
    summary = Summary()
    summary.add(result)
    told = json.loads(as_json(summary))
    assert told["clean"] is False
    assert list(told["broken"]) == [str(result.plan.seed)]


def test_the_trace_of_a_run_tells_what_was_asked_and_answered(place: Disks) -> None:
    lines: list[str] = []
    run(1, place, lines.append)
    assert any("asks" in line and "chat" in line for line in lines)
    assert any("is answered ack" in line for line in lines)
    assert not any("token-" in line for line in lines)


def _carry_out(seeds: range, place: Disks) -> Summary:
    summary = Summary()
    for result in _results(seeds, place):
        summary.add(result)
    return summary


def _results(seeds: range, place: Disks) -> Iterator[Result]:
    for seed in seeds:
        yield run(seed, place)
