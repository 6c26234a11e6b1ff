"""The command: one table, or its figures as JSON."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.proof.disk.faults import FAULTS
from tests.proof.disk.prove import Proof, Row, Size
from tests.proof.disk.running import ROOT


def command(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tests.proof.disk", *options],
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        timeout=100,
    )


def test_the_figures_come_as_one_json_object(library: Path) -> None:
    size = ("--cycles", "2", "--spoiled", "0", "--kills", "0", "--stride", "0", "--seed", "1")
    done = command(*size, "--json")
    assert done.returncode in {0, 1}, done.stderr
    figures = json.loads(done.stdout)
    assert figures["passed"] is (done.returncode == 0)
    assert figures["size"]["seed"] == 1
    rows = {row["what"]: row for row in figures["rows"]}
    assert rows["power cut, the store"]["figures"]["cycles"] == 2


def test_one_row_that_failed_fails_the_whole() -> None:
    rows = [Row("a", "1", passed, "", 0.0) for passed in (True, False)]
    assert Proof(Size(), rows[:1]).passed
    assert not Proof(Size(), rows).passed


def test_every_fault_has_a_name_of_its_own() -> None:
    assert len({fault.name for fault in FAULTS}) == len(FAULTS)
