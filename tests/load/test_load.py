"""The load itself, with real processes: a short one on each door, and what a person is shown."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.proof import checker

ROOT = Path(__file__).parents[2]
SMALL = ["--senders", "2", "--readers", "2", "--mailboxes", "6", "--window", "200"]


def loadtest(*options: str) -> subprocess.CompletedProcess[str]:
    """Run the command as its script does."""
    return subprocess.run(
        [sys.executable, "-m", "tests.load", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def figures(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    result: dict[str, Any] = json.loads(done.stdout)
    return result


@pytest.mark.parametrize("door", ["zmq", "text"])
def test_a_short_load_breaks_no_promise(door: str, tmp_path: Path) -> None:
    kept = tmp_path / "kept"
    done = loadtest(
        *SMALL, "--messages", "1500", "--door", door, "--json", "--histories", str(kept)
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = figures(done)
    assert result["sends_ok"] == result["read"] == 3000
    assert result["tokens_valid"] == result["tokens"] == 8
    # The kept histories say the same to the checker alone.
    assert checker.main([str(kept)]) == 0


def test_a_memory_store_keeps_the_promises_too() -> None:
    done = loadtest(*SMALL, "--messages", "300", "--store", "memory:", "--json")
    assert done.returncode == 0, done.stdout + done.stderr
    assert figures(done)["read"] == 600


def test_a_person_is_shown_a_table_and_the_verdict() -> None:
    done = loadtest(*SMALL, "--messages", "200")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("2 senders", "sent", "latency p50", "broker CPU", "L1 holds", "L6 holds"):
        assert word in done.stdout


@pytest.mark.parametrize("door", ["zmq", "text"])
def test_a_broker_that_cannot_be_reached_is_exit_code_3_and_a_sentence(door: str) -> None:
    address = "tcp://127.0.0.1:9" if door == "zmq" else "127.0.0.1:9"
    done = loadtest(*SMALL, "--broker", address, "--door", door, "--timeout", "1")
    assert done.returncode == 3
    assert "127.0.0.1:9" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr
