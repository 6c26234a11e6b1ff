"""A slice of the kills, and the check of the check: what is lost by a kill must be seen."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from broker.stores.sqlite_schema import MIGRATIONS
from tests.proof.disk.course import Course
from tests.proof.disk.running import ROOT, live
from tests.proof.disk.verdict import judge
from tests.proof.kills import brokers
from tests.proof.kills.brokers import kill_brokers
from tests.proof.kills.chain import kill_stores
from tests.proof.kills.migration import kill_migrations
from tests.proof.kills.points import STORE, Point


def test_a_store_killed_at_each_point_keeps_what_it_answered() -> None:
    kills = kill_stores(len(STORE), seed=1)
    assert not kills.breaches, "\n".join(kills.breaches)
    assert kills.answered > 100
    assert set(kills.killed) == {point.value for point in STORE}
    assert sum(kills.killed.values()) >= len(STORE) - 1  # a purge may not be come to


def test_a_broker_killed_before_and_after_its_reply_keeps_what_it_answered() -> None:
    kills = kill_brokers(2, seed=3)
    assert not kills.breaches, "\n".join(kills.breaches)
    assert kills.answered > 10
    assert kills.silent == 2  # somebody was left without an answer each time


def test_a_broker_killed_in_the_checkpoint_of_its_start_is_a_life_like_any_other(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(brokers, "BROKER", (Point.ANY_TIME, Point.CHECKPOINT))
    monkeypatch.setattr(brokers, "_RARE", (1, 1))
    kills = kill_brokers(2, seed=5)
    assert not kills.breaches, "\n".join(kills.breaches)
    assert kills.killed[Point.CHECKPOINT.value] == 1


def test_a_migration_that_is_killed_leaves_the_one_schema_or_the_other() -> None:
    migrations = kill_migrations(30, 1, seed=1)
    assert not migrations.breaches, "\n".join(migrations.breaches)
    assert {1, len(MIGRATIONS)} <= set(migrations.left)
    assert migrations.killed == sum(migrations.left.values())


def test_a_life_ends_by_sigkill_where_it_is_told_to(tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    program = ("tests.proof.kills.life", Point.COMMITTED.value, "3")
    ended = live(data, Course(1, batches=50), {}, program=program)
    assert ended.code == -signal.SIGKILL
    assert ended.said.batches[-1].answer is None
    assert all(batch.answer == "OK" for batch in ended.said.batches[:-1])


def test_a_message_that_a_kill_has_lost_is_seen(tmp_path: Path) -> None:
    """Given what a life has said, if its folder is put back to an earlier one, it is told so."""
    data = tmp_path / "data"
    data.mkdir(mode=0o700)
    first = list(live(data, Course(1, batches=2), {}).said.until(None))
    image = {path.name: path.read_bytes() for path in data.iterdir()}
    second = list(live(data, Course(1, life=1, batches=20), {}).said.until(None))
    for name, content in image.items():
        (data / name).write_bytes(content)
    found = judge(data, [*first, *second])
    assert any(line.startswith("LOST") for line in found)


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_300_kills_of_a_store() -> None:
    kills = kill_stores(300, seed=77)
    assert not kills.breaches, "\n".join(kills.breaches)


def test_the_command_explains_itself() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.proof.kills", "--help"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert "lives of a store" in done.stdout
