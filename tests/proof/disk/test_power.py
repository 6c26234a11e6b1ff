"""Power cuts: the store survives them, and a store that syncs too little is caught."""

from __future__ import annotations

import random
from contextlib import closing
from pathlib import Path

import pytest

from tests.proof.disk.course import DONE, Course
from tests.proof.disk.interposer import Interposer
from tests.proof.disk.model import Disk, put_back
from tests.proof.disk.power import CUTS_PER_LIFE, PowerCuts, cut_power
from tests.proof.disk.prove import JOURNAL_BUGS
from tests.proof.disk.running import live
from tests.proof.disk.store_calls import StoreCalls
from tests.proof.disk.whole import CUTS_PER_KILL, cut_power_of_broker


def nothing_broken(cuts: PowerCuts) -> bool:
    assert not cuts.breaches, "\n".join(map(str, cuts.breaches))
    return cuts.answered > 100 and cuts.syncs > 5  # there was something to lose


@pytest.fixture(scope="module")
def cuts(library: Path) -> PowerCuts:
    return cut_power(library, cycles=CUTS_PER_LIFE + 4, seed=1)


def test_nothing_that_was_answered_is_lost_to_a_power_cut(cuts: PowerCuts) -> None:
    assert nothing_broken(cuts)
    assert cuts.lives >= 2


@pytest.mark.parametrize("synchronous", ["NORMAL", "OFF"])
def test_a_store_that_syncs_too_little_is_caught(library: Path, synchronous: str) -> None:
    """The check of the checker: a proof that lets this pass proves nothing."""
    cuts = cut_power(library, cycles=60, seed=1, synchronous=synchronous, until_breach=True)
    assert cuts.breaches
    # Its journal has begun anew for a commit that the disk does not have: either is its loss.
    found = cuts.breaches[0].found
    assert any("LOST" in line or "kotak.journal, the journal of" in line for line in found)


@pytest.mark.parametrize("bug", JOURNAL_BUGS)
def test_a_journal_that_keeps_too_little_is_caught(library: Path, bug: str) -> None:
    cuts = cut_power(library, cycles=200, seed=1, spoiled=bug, until_breach=True)
    assert cuts.breaches
    assert any("LOST" in line for line in cuts.breaches[0].found), str(cuts.breaches[0])


def test_a_broker_with_clients_loses_nothing_and_keeps_their_tokens(library: Path) -> None:
    cuts = cut_power_of_broker(library, kills=1, seed=1)
    assert nothing_broken(cuts)
    assert cuts.cycles == CUTS_PER_KILL


def test_a_first_start_that_was_cut_short_may_be_repeated(library: Path, tmp_path: Path) -> None:
    """Nothing can be lost yet, so nothing may be refused."""
    data, cut = tmp_path.resolve() / "data", tmp_path / "cut"
    data.mkdir(mode=0o700)
    with Interposer(library, data, tmp_path) as disk:
        ended = live(data, Course(1, batches=1), disk.environment())
        assert ended.code == DONE, ended.complaint
        entries = [e for e in disk.entries() if e.at_ns < (ended.said.opened_ns or 0)]
    model = Disk({}, rng=random.Random(1))
    for entry in entries:
        put_back(cut, model.cut(under_way=entry))
        StoreCalls(cut).close()
        model.apply(entry)


def test_a_power_cut_is_not_taken_for_an_old_backup(library: Path, tmp_path: Path) -> None:
    """A new epoch tells every client that history was lost. None was."""
    data, cut = tmp_path.resolve() / "data", tmp_path / "cut"
    data.mkdir(mode=0o700)
    with Interposer(library, data, tmp_path) as disk:
        ended = live(data, Course(1, batches=3), disk.environment())
        entries = disk.entries()
    last_ns = ended.said.batches[-1].at_ns
    assert last_ns is not None, ended.complaint
    model = Disk({}, rng=random.Random(1))
    for entry in entries:
        if entry.at_ns < last_ns:  # its clean end is not what is cut
            model.apply(entry)
    for _ in range(30):
        put_back(cut, model.cut())
        with closing(StoreCalls(cut)) as store:
            assert store.epoch == ended.said.epoch


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", [11, 22_000])
def test_200_power_cuts(library: Path, seed: int) -> None:
    assert nothing_broken(cut_power(library, cycles=200, seed=seed))


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_a_broker_with_clients_over_ten_lives(library: Path) -> None:
    assert nothing_broken(cut_power_of_broker(library, kills=10, seed=2))
