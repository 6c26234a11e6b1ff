"""Every planted bug is caught. One that is not is a hole in the tests of the laws."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain

import pytest

from tests.proof.seeded.bugs import BUGS, Bug
from tests.proof.seeded.hunt import hunt
from tests.simulator.disk import Disks, disks

#: Seeds that are known to show a bug that few seeds show: a change of the plans changes them, and
#: costs time, nothing else.
KNOWN = {
    "rollback-keeps-ids": 80,
    "undelivered-is-forgotten": 26,
    "unread-is-deleted": 115,
    "room-read-from-before-joining": 34,
    "leaving-changes-nothing": 14,
    "client-overlooks-the-end": 200,
    "end-told-once": 200,
    "epoch-not-changed": 9,
    "epoch-without-a-clock": 9,
}
#: Generous: what few seeds show takes long on a busy machine when the plans have changed.
_SECONDS_MAX = 100


@pytest.fixture(scope="module")
def place() -> Iterator[Disks]:
    with disks() as place:
        yield place


@pytest.mark.parametrize("bug", BUGS, ids=lambda bug: bug.name)
@pytest.mark.timeout(3 * _SECONDS_MAX)
def test_a_planted_bug_is_caught(place: Disks, bug: Bug) -> None:
    known = [KNOWN[bug.name]] if bug.name in KNOWN else []
    catch = hunt(bug, place, chain(known, range(100_000)), seconds_max=_SECONDS_MAX)
    assert catch.caught, bug.sentence


def test_there_are_bugs_enough_each_with_a_name_of_its_own() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 15
    assert KNOWN.keys() <= {bug.name for bug in BUGS}
