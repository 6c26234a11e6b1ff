"""Every planted bug is caught. One that is not is a hole in the tests of the laws."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.proof.seeded.bugs import BUGS, Bug
from tests.proof.seeded.hunt import KNOWN, hunt
from tests.simulator.disk import Disks, disks

#: Generous: what few seeds show takes long on a busy machine when the plans have changed.
_SECONDS_MAX = 100


@pytest.fixture(scope="module")
def place() -> Iterator[Disks]:
    with disks() as place:
        yield place


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
@pytest.mark.timeout(3 * _SECONDS_MAX)
def test_a_planted_bug_is_caught(place: Disks, bug: Bug) -> None:
    catch = hunt(bug, place, seconds_max=_SECONDS_MAX)
    assert catch.caught, bug.sentence


def test_there_are_bugs_enough_each_with_a_name_of_its_own() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 15
    assert KNOWN.keys() <= {bug.name for bug in BUGS}
