"""The bench itself, with real processes: every kind of point once, briefly, and what is printed."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.bench import parts, scenarios
from tests.bench.crew import CrewError, Part, carry_out
from tests.bench.figures import Result, to_line
from tests.bench.machine import MeasuredBroker
from tests.bench.parts import Limit, Role
from tests.bench.points import Point
from tests.bench.scenarios import SCENARIOS, Bench
from tests.load.plan import Plan

ROOT = Path(__file__).parents[2]
SMALL = Point(name="small", scenario="send", series="send", mailboxes=4)
BRIEF = Bench(seconds=0.3, store="memory:")


def bench(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its script does."""
    return subprocess.run(
        [sys.executable, "-m", "tests.bench", *options],
        cwd=ROOT, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip


def point(scenario: str, **changed: Any) -> Point:
    return Point(name=scenario, scenario=scenario, series=scenario, mailboxes=4, **changed)


@pytest.mark.parametrize(
    "small",
    [point("send", senders=1, window=1), point("send", waiting=100, idle=4, size_bytes=2_000)],
    ids=["one by one", "pipelined beside idle connections"],
)
def test_sends_are_counted_timed_and_billed_to_broker_and_clients(small: Point) -> None:
    found = SCENARIOS["send"](BRIEF, small)
    assert found["messages"] > 0
    assert found["p99_us"] >= found["p50_us"] > 0
    assert found["client_us"] > 0
    assert found["memory_mib"] > 1


def test_a_drain_reads_all_that_was_sent() -> None:
    found = SCENARIOS["drain"](BRIEF, point("drain", waiting=2_000, window=1_000))
    assert found["messages"] == 2_000
    assert found["drained_per_s"] > 0


def test_pushed_messages_are_timed_from_sender_to_receiver() -> None:
    paced = point("push", senders=1, window=1, paced_messages=20, pause_ms=1.0)
    found = SCENARIOS["push"](BRIEF, paced)
    assert found["messages"] == 20
    assert found["p99_us"] >= found["p50_us"] > 0
    assert "pushed_per_s" not in found


def test_pushed_messages_are_counted_where_they_arrive() -> None:
    found = SCENARIOS["push"](BRIEF, point("push"))
    assert found["messages"] > 0
    assert found["pushed_per_s"] > 0
    assert found["broker_us"] > 0


def test_lines_are_sent_through_the_text_door() -> None:
    found = SCENARIOS["text"](BRIEF, point("text", connections=6))
    assert found["messages"] >= 6


def test_a_start_is_timed_to_its_first_ok(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(scenarios, "_WARM_MESSAGES", 100)
    durable = Bench(seconds=0.3)  # accounts must outlive the broker
    found = SCENARIOS["start"](durable, point("start", waiting=300, window=1_000))
    assert found["start_empty_s"] > 0
    assert found["start_full_s"] > 0


def test_who_cannot_begin_says_why_and_nobody_waits_for_it(tmp_path: Path) -> None:
    with MeasuredBroker(tmp_path / "data", store="memory:") as broker:
        nobody = Role(broker.doors.zmq, Plan(), 0)  # without an account
        crew: list[Part] = [
            (parts.send, (nobody, Limit(seconds=1))),
            (parts.be_there, (broker.doors.zmq, 2)),
        ]
        with pytest.raises(CrewError, match="BadCredentials"):
            carry_out(crew, broker)


def _unknown(shift: object) -> None:
    """Cannot be found by a new process, which does not know this module, and ends."""


def test_a_process_that_dies_without_a_word_ends_the_measurement(tmp_path: Path) -> None:
    with MeasuredBroker(tmp_path / "data", store="memory:") as broker:
        crew: list[Part] = [(_unknown, ()), (parts.be_there, (broker.doors.zmq, 2))]
        with pytest.raises(CrewError, match="ended with code"):
            carry_out(crew, broker)


def test_the_command_prints_a_line_a_point_and_compares_it(tmp_path: Path) -> None:
    before = tmp_path / "before"
    figures = {"sends_per_s": 1.0, "broker_us": 1.0}
    then = Result(
        point="send-1x1", series="send", at="", figures=figures, repeats=1, commit="abc"
    )  # fmt: skip
    before.write_text(to_line(then))
    done = bench("--points", "send-1x1", "--seconds", "0.3", "--compare", str(before))
    assert done.returncode == 0, done.stderr
    line: dict[str, Any] = json.loads(done.stdout)
    assert line["point"] == "send-1x1"
    assert line["sends_per_s"] > 0
    assert "now / then" in done.stderr
    drawn = bench("--read", str(before), "--json")
    assert drawn.stdout == before.read_text() + "\n"
