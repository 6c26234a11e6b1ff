"""What docs/DURABILITY.md says that the proof has found can be replayed as it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

import pytest

from tests.proof.seeded.bugs import BUGS
from tests.proof.seeded.hunt import KNOWN

_ROOT: Final = Path(__file__).parents[2]
_CHAPTER: Final = "### What these tests have found"


def rows() -> list[tuple[str, str]]:
    """Return (shown by, replay) of each bug in the table."""
    chapter = (_ROOT / "docs/DURABILITY.md").read_text("utf-8").split(_CHAPTER)[1]
    table = chapter.split("\n\n")[1].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    return [(shown_by, replay) for _, shown_by, replay in cells]


def replays() -> list[str]:
    return [each for _, replay in rows() for each in re.findall("`([^`]+)`", replay)]


@pytest.mark.parametrize("replay", [each for each in replays() if each.startswith("tests/")])
def test_a_test_that_is_named_is_there(replay: str) -> None:
    ((path, words),) = re.findall(r'^(\S+) -k "?([\w ]+?)"?$', replay)
    tests = re.findall(r"^\s*def (test_\w+)", (_ROOT / path).read_text("utf-8"), re.MULTILINE)
    for word in words.split(" or "):
        assert any(word in name for name in tests), word


def test_every_bug_that_the_simulator_has_found_can_be_planted_and_is_shown_by_its_seed() -> None:
    planted = {
        replay.strip("`").removeprefix("seeded "): shown_by
        for shown_by, replay in rows()
        if replay.startswith("`seeded ")
    }
    assert len(planted) >= 5
    assert planted.keys() <= {bug.name for bug in BUGS}
    assert planted == {name: f"simulator, seed {KNOWN[name]}" for name in planted}
