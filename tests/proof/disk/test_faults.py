"""Failing disks, at the store: who ends, who goes on, and that nothing is lost either way."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import pytest

from tests.proof.disk.course import DISK_FAILED, DONE
from tests.proof.disk.faults import FAULTS, Fault, sweep
from tests.proof.disk.full import FullDisk, fill_disk, start_on_full_disk

#: How it begins when answers go on after a sync has failed.
UNHEARD: Final = "a sync failed, and"

BY_NAME: Final = {fault.name: fault for fault in FAULTS}
SYNC_ONCE: Final = BY_NAME["a sync fails once"]
WRITE_ONCE: Final = BY_NAME["a write fails once"]
TRUNCATE_ONCE: Final = BY_NAME["a truncation fails once"]
NO_ROOM: Final = BY_NAME["no write finds room from there on"]
HALF: Final = BY_NAME["half a write, then no room once"]


def test_a_failing_disk_ends_the_process_and_loses_nothing(library: Path) -> None:
    """A short slice: a few calls of three kinds, also with a power cut at the end."""
    done = sweep(library, [SYNC_ONCE, WRITE_ONCE, TRUNCATE_ONCE], seed=3, stride=7)
    assert not [str(breach) for breach in done.breaches]
    assert done.ends[DISK_FAILED]


def test_a_full_disk_refuses_and_does_not_end_the_process(library: Path) -> None:
    done = sweep(library, [NO_ROOM, HALF], seed=3, stride=30)
    assert not [str(breach) for breach in done.breaches]
    assert done.ends[DONE]
    assert done.refused


@pytest.mark.slow
@pytest.mark.timeout(1_200)
@pytest.mark.parametrize("seed", [3, 4])
@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_every_single_call_may_fail(library: Path, fault: Fault, seed: int) -> None:
    done = sweep(library, [fault], seed=seed)
    assert done.lives == done.calls > 0
    assert not [str(breach) for breach in done.breaches]


def test_a_sync_that_fails_in_a_checkpoint_ends_the_process_too(library: Path) -> None:
    # A checkpoint syncs twice, the log and the database: each second call meets it.
    breaches = sweep(library, [SYNC_ONCE], seed=3, stride=2, until_breach=True).breaches
    assert not [str(b) for b in breaches if b.found.startswith(UNHEARD)]


def test_a_full_disk_does_not_keep_readers_out_at_the_start(library: Path) -> None:
    answers, complaint = start_on_full_disk(library, reserve=True)
    assert answers == ["OK", "OK", "storage_full", "OK"], complaint


def test_a_full_disk_without_a_reserve_is_told_as_such(library: Path) -> None:
    answers, complaint = start_on_full_disk(library, reserve=False)
    assert not answers
    assert "no room on the disk" in complaint
    assert "backup" not in complaint


@pytest.fixture(scope="module")
def full(library: Path) -> FullDisk:
    return fill_disk(library)


class TestFullDisk:
    """Filled to the last byte under a store that runs, and given room again."""

    def test_sends_are_refused_and_reads_go_on(self, full: FullDisk) -> None:
        assert full.sent > 100
        assert full.refusal == "storage_full"
        assert full.read == "OK"

    def test_it_goes_on_by_itself_and_nothing_is_missing(self, full: FullDisk) -> None:
        assert not full.breaches()

    def test_acknowledgements_go_on(self, full: FullDisk) -> None:
        assert full.acknowledged == full.waiting
