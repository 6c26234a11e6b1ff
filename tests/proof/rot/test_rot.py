"""A slice of the rot, and the check of the check: what is lost or changed must be seen."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from broker.stores import sqlite_recovery
from broker.stores.sqlite_epoch import WITNESS_NAME
from broker.stores.sqlite_journal import JOURNAL_NAME
from tests.proof.disk.model import put_back
from tests.proof.rot.damage import Kind, damage
from tests.proof.rot.folders import DATABASE_FILE, Content, Folder, make_folders
from tests.proof.rot.prove import LOG_FILE, rot
from tests.proof.rot.start import Outcome, compare, start

BEFORE = Content({"messages": {1: ("a",), 2: ("b",)}, "readers": {"1/": (1,)}}, 7, (0, 0))


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[Folder]:
    return make_folders(tmp_path_factory.mktemp("rot"), seed=1)


@pytest.mark.parametrize("file", [DATABASE_FILE, LOG_FILE, JOURNAL_NAME, WITNESS_NAME])
def test_a_damaged_file_is_refused_or_read_and_nothing_is_less_in_silence(file: str) -> None:
    done = rot(file, 20, seed=2)
    assert not done.breaches, "\n".join(done.breaches)
    assert sum(done.outcomes.values()) == 20
    assert len(done.outcomes) > 1 or file == WITNESS_NAME


def test_a_folder_that_nobody_damaged_is_exact(folders: list[Folder], tmp_path: Path) -> None:
    for folder in folders:
        put_back(tmp_path, folder.image)
        assert start(tmp_path, folder.content).outcome is Outcome.EXACT


def test_a_database_without_its_first_page_is_refused(
    folders: list[Folder], tmp_path: Path
) -> None:
    image = folders[0].image
    spoiled = bytes(4096) + image[DATABASE_FILE][4096:]
    put_back(tmp_path, {**image, DATABASE_FILE: spoiled})
    assert start(tmp_path, folders[0].content).outcome is Outcome.REFUSED


def test_a_witness_that_is_gone_begins_a_new_epoch(folders: list[Folder], tmp_path: Path) -> None:
    image = dict(folders[0].image)
    del image[WITNESS_NAME]
    put_back(tmp_path, image)
    assert start(tmp_path, folders[0].content).outcome is Outcome.ANNOUNCED


@pytest.mark.parametrize(
    ("after", "outcome"),
    [
        (BEFORE, Outcome.EXACT),
        (BEFORE._replace(epoch=8, lost=(3, 9)), Outcome.ANNOUNCED),
        (BEFORE._replace(rows={**BEFORE.rows, "messages": {1: ("a",)}}), Outcome.LOST),
        (
            BEFORE._replace(rows={**BEFORE.rows, "messages": {1: ("a",)}}, epoch=8, lost=(2, 9)),
            Outcome.ANNOUNCED,
        ),
        (
            BEFORE._replace(rows={**BEFORE.rows, "messages": {1: ("a",)}}, epoch=8, lost=(3, 9)),
            Outcome.LOST,
        ),
        (
            BEFORE._replace(rows={**BEFORE.rows, "messages": {1: ("a",), 2: ("x",)}}),
            Outcome.CHANGED,
        ),
        (
            BEFORE._replace(rows={**BEFORE.rows, "readers": {"1/": (1,), "1/b": (2,)}}),
            Outcome.INVENTED,
        ),
    ],
)
def test_what_is_gone_changed_or_invented_is_told_apart(after: Content, outcome: Outcome) -> None:
    assert compare(BEFORE, after).outcome is outcome


def test_what_only_the_journal_has_is_missed_where_it_is_not_taken_in(
    folders: list[Folder], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The check of the check: one of the folders has most of it there."""
    (journalled,) = (each for each in folders if each.name == "journalled")
    monkeypatch.setattr(sqlite_recovery, "records", lambda *_: iter(()))
    put_back(tmp_path, journalled.image)
    found = start(tmp_path, journalled.content)
    assert found.outcome is Outcome.LOST
    assert int(found.told.split()[0]) > 100


def test_a_damage_changes_its_file_and_a_seed_repeats_it() -> None:
    content = random.Random(1).randbytes(20_000)
    kinds = set()
    for seed in range(60):
        done = damage(LOG_FILE, content, 10_000, random.Random(seed))
        assert done == damage(LOG_FILE, content, 10_000, random.Random(seed))
        assert done.content != content
        kinds.add(done.kind)
    assert kinds == set(Kind)


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("file", [DATABASE_FILE, LOG_FILE, JOURNAL_NAME, WITNESS_NAME])
def test_200_damages(file: str) -> None:
    done = rot(file, 200, seed=3)
    assert not done.breaches, "\n".join(done.breaches)
