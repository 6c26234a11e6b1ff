"""A slice of each: threads, ends, starts and a long life."""

from __future__ import annotations

import random
from itertools import islice
from pathlib import Path

import pytest

from tests.proof.disk.running import scratch
from tests.proof.process.ends import STOP_S_MAX, stop_under_load
from tests.proof.process.soak import Look, Soak, _judge, malformed, soak
from tests.proof.process.starts import start_full
from tests.proof.process.threads import die, live_through, unanswered


@pytest.mark.parametrize(
    "spoiled",
    ["restless", "faulty-turns", pytest.param("deadly-hashes", marks=pytest.mark.slow)],
)
def test_a_broker_goes_on_and_keeps_its_promises(spoiled: str) -> None:
    """Restless: threads change places each microsecond. Else: some work ends in a fault."""
    with scratch() as place:
        done = live_through(place / "machine", spoiled, 0.5)
    assert not done.breaches, "\n".join(done.breaches)
    assert not unanswered(done.logins)
    assert done.sends > 100
    assert done.logins["OK"]


@pytest.mark.parametrize(
    "spoiled",
    [
        "dying-worker",
        pytest.param("failing-writer", marks=pytest.mark.slow),
        pytest.param("broken-turns", marks=pytest.mark.slow),
    ],
)
def test_a_broker_that_cannot_go_on_ends_and_a_restart_recovers(spoiled: str) -> None:
    with scratch() as place:
        done = die(place / "machine", spoiled)
    assert not done.breaches, "\n".join(done.breaches)
    assert done.sends > 10


def test_sigterm_ends_it_soon_whoever_does_not_read() -> None:
    with scratch() as place:
        done = stop_under_load(place / "machine", 1, seed=1)
    assert not done.breaches, "\n".join(done.breaches)
    assert done.longest_s < STOP_S_MAX
    assert done.sends > 10


def test_a_store_that_was_left_full_by_a_kill_is_served() -> None:
    with scratch() as place:
        done = start_full(place / "machine", 10_000, 64)
    assert not done.breaches, "\n".join(done.breaches)
    assert done.waiting == 10_000


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_long_life_grows_by_nothing() -> None:
    with scratch() as place:
        done = soak(place / "machine", 100_000, seed=1)
    assert not done.breaches, "\n".join(done.breaches)
    assert done.malformed == done.refused == 1_000


def looks(**grown: float) -> Soak:
    """Return a life in which something grows by so much a look of 100 000 messages."""
    result = Soak(messages=1_000_000)
    for number in range(1, 11):
        fields = {"memory_mib": 100.0, "files": 30.0, "threads": 9.0, "log_bytes": 1e6}
        for name, step in grown.items():
            fields[name] += step * number
        memory, *others = fields.values()
        result.looks.append(Look(number * 100_000, memory, *map(int, others)))
    _judge(result)
    return result


@pytest.mark.parametrize(
    ("grown", "words"),
    [
        ({"memory_mib": 0.5}, "memory grows by 5.0 MiB"),
        ({"files": 1.0}, "files grew"),
        ({"threads": 1.0}, "threads grew"),
        ({"log_bytes": 1e5}, "log_bytes grew"),
    ],
)
def test_what_grows_is_seen(grown: dict[str, float], words: str) -> None:
    assert any(words in found for found in looks(**grown).breaches)


def test_what_stays_is_not_called_growth() -> None:
    assert not looks(memory_mib=0.05).breaches


def test_malformed_messages_are_of_many_kinds(tmp_path: Path) -> None:
    frames = list(islice(malformed(random.Random(1)), 200))
    assert len({(len(each), each[0][:1]) for each in frames}) > 10
