"""A backup is put back whole, or not at all, and the next start tells clients what that means.

Source: docs/OPERATIONS.md, "Backup and restore"; docs/DURABILITY.md, "When history was lost".
"""

from __future__ import annotations

import errno
import os
import shutil
import sqlite3
import subprocess
import sys
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from broker.core.model import Account
from broker.core.ports import StoreUnusableError
from broker.stores import sqlite_restore
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_backup import back_up
from broker.stores.sqlite_epoch import WITNESS_NAME
from broker.stores.sqlite_journal import JOURNAL_NAME
from broker.stores.sqlite_restore import Restored, put_back
from tests.stores.sqlite_steps import FaultyConnection, open_at
from tests.stores.steps import NOW_MS, ids, send, with_users

STAMP = "20261123T040213Z"
FORMER = f"kotak.db.before-restore-{STAMP}"
OLD = ["old1", "old2"]
NEW = [*OLD, "new1", "new2"]


class Scene(NamedTuple):
    """A database with four messages, closed, and a backup from when there were two."""

    path: Path
    backup: Path
    epoch: int

    @property
    def wal(self) -> Path:
        return self.path.with_name("kotak.db-wal")

    @property
    def journal(self) -> Path:
        return self.path.with_name(JOURNAL_NAME)


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return made(tmp_path)


def made(folder: Path, *, killed: bool = False, journal: bool = False) -> Scene:
    """``journal``: of a killed broker, only that has the last two; else only the log has them."""
    path = folder / "data" / "kotak.db"
    path.parent.mkdir(mode=0o700)
    store = with_users(open_at(path, journal=journal), "ann", "bob")
    for name in OLD:
        send(store, name)
    backup = back_up(path, "one", stopping=lambda: False).path.rename(folder / "one.db")
    for name in NEW[2:]:
        send(store, name)
    if killed:
        shutil.copytree(path.parent, folder / "killed")
    store.close()
    if killed:
        shutil.rmtree(path.parent)
        (folder / "killed").rename(path.parent)
    return Scene(path, backup, store.epoch.number)


def restore(scene: Scene) -> Restored:
    return put_back(scene.backup, scene.path, stamp=STAMP)


def refusal(scene: Scene) -> str:
    with pytest.raises(StoreUnusableError) as raised:
        restore(scene)
    return str(raised.value)


def state(path: Path) -> tuple[list[str], int]:
    """Start a store there; return the messages and the epoch's number."""
    store = SqliteStore(path)
    try:
        return ids(store), store.epoch.number
    finally:
        store.close()


# --- what it does ------------------------------------------------------------------------------


def test_the_backup_takes_the_place_and_the_former_database_is_beside_it(scene: Scene) -> None:
    restored = restore(scene)
    assert restored == Restored(2, 2, 0, scene.path.with_name(FORMER))
    assert state(scene.path)[0] == OLD
    former = scene.path.parent.parent / "former"
    former.mkdir(mode=0o700)
    shutil.copy(scene.path.with_name(FORMER), former / "kotak.db")
    assert state(former / "kotak.db")[0] == NEW
    assert scene.backup.exists(), "a backup is not used up"
    assert scene.path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize("journal", [False, True])
def test_what_only_the_log_or_the_journal_of_a_killed_broker_has_is_in_the_former_database(
    tmp_path: Path, *, journal: bool
) -> None:
    scene = made(tmp_path, killed=True, journal=journal)
    assert scene.wal.exists()
    assert scene.journal.exists() == journal
    restore(scene)
    assert not scene.wal.exists()
    assert not scene.journal.exists()
    assert state(scene.path)[0] == OLD, "the former log was replayed into it"
    shutil.copy(scene.path.with_name(FORMER), scene.path)
    scene.path.with_name(WITNESS_NAME).unlink()
    assert state(scene.path)[0] == NEW


def test_an_empty_folder_gets_the_database_alone(scene: Scene, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir(mode=0o700)
    restored = put_back(scene.backup, empty / "kotak.db", stamp=STAMP)
    assert restored.former is None
    assert [each.name for each in empty.iterdir()] == ["kotak.db"]
    assert state(empty / "kotak.db")[0] == OLD


def latest(scene: Scene) -> None:
    """The witness has seen more than the backup has."""


def none_in_the_folder(scene: Scene) -> None:
    scene.path.with_name(WITNESS_NAME).unlink()


def of_the_moment_of_the_backup(scene: Scene) -> None:
    """As where nothing was stored after it: by the witness alone nothing would be amiss."""
    scene.path.with_name(WITNESS_NAME).write_text(f'{{"epoch": {scene.epoch}, "last": 2}}')


@pytest.mark.parametrize("witness", [latest, none_in_the_folder, of_the_moment_of_the_backup])
def test_the_next_start_begins_a_new_epoch_whatever_the_witness_knows(
    scene: Scene, witness: Callable[[Scene], None]
) -> None:
    witness(scene)
    restore(scene)
    store = SqliteStore(scene.path)
    assert store.epoch.number != scene.epoch
    assert store.epoch.lost.first == 3
    assert send(store, "later") > store.epoch.lost.last > 4
    store.close()
    assert state(scene.path)[1] == store.epoch.number, "a new epoch begins once"


def test_a_backup_whose_witness_could_never_be_written_begins_a_new_epoch_too(
    scene: Scene, tmp_path: Path
) -> None:
    with closing(sqlite3.connect(scene.backup)) as database:
        database.execute("UPDATE epoch SET witnessed = 0")
        database.commit()
    (empty := tmp_path / "empty").mkdir(mode=0o700)
    put_back(scene.backup, empty / "kotak.db", stamp=STAMP)
    assert state(empty / "kotak.db")[1] != scene.epoch


def test_the_same_backup_put_back_twice_begins_two_epochs(scene: Scene) -> None:
    restore(scene)
    first = state(scene.path)
    put_back(scene.backup, scene.path, stamp="later")
    second = state(scene.path)
    assert first[1] != second[1]
    assert first[0] == second[0] == OLD


# --- what it refuses ---------------------------------------------------------------------------


def missing(scene: Scene) -> str:
    scene.backup.unlink()
    return "there is no file"


def folder(scene: Scene) -> str:
    scene.backup.unlink()
    scene.backup.mkdir()
    return "there is no file"


def empty_file(scene: Scene) -> str:
    scene.backup.write_bytes(b"")
    return "is no database of Kotak's"


def text(scene: Scene) -> str:
    scene.backup.write_text("a letter, longer than the head of a database\n" * 100)
    return "is no database of Kotak's"


def foreign(scene: Scene) -> str:
    scene.backup.unlink()
    with closing(sqlite3.connect(scene.backup)) as database:
        database.execute("CREATE TABLE notes (text)")
    return "is no database of Kotak's"


def newer(scene: Scene) -> str:
    with closing(sqlite3.connect(scene.backup)) as database:
        database.execute("PRAGMA user_version = 99")
    return "was written by a newer Kotak (schema 99"


def too_old(scene: Scene) -> str:
    with closing(sqlite3.connect(scene.backup)) as database:
        database.execute("PRAGMA user_version = 1")
    return "is older than what can be restored"


def cut_short(scene: Scene) -> str:
    with scene.backup.open("rb+") as file:
        file.truncate(scene.backup.stat().st_size // 8_192 * 4_096)
    return "is damaged"


def garbled(scene: Scene) -> str:
    with scene.backup.open("rb+") as file:
        file.seek(4_096)
        file.write(b"\xff" * 20_000)
    return "is damaged"


def with_its_log(scene: Scene) -> str:
    scene.backup.with_name("one.db-wal").write_bytes(b"x")
    return "a part of a database in use"


@pytest.mark.parametrize(
    "spoil",
    [missing, folder, empty_file, text, foreign, newer, too_old, cut_short, garbled, with_its_log],
)
def test_what_is_no_whole_backup_is_refused_and_nothing_is_changed(
    scene: Scene, spoil: Callable[[Scene], str]
) -> None:
    said = spoil(scene)
    before = {
        each.name: each.read_bytes() for each in scene.path.parent.iterdir() if each.is_file()
    }
    assert said in refusal(scene)
    after = {each.name: each.read_bytes() for each in scene.path.parent.iterdir() if each.is_file()}
    assert after == before
    assert state(scene.path) == (NEW, scene.epoch)


def test_a_disk_without_room_is_told_and_nothing_is_changed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(shutil, "copyfileobj", full)
    assert "there is no room" in refusal(scene)
    monkeypatch.undo()
    assert state(scene.path) == (NEW, scene.epoch)


def test_a_disk_that_fails_is_told_and_nothing_is_changed(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(shutil, "copyfileobj", fail)
    assert "(Input/output error): look at the folder and its disk" in refusal(scene)
    monkeypatch.undo()
    assert state(scene.path) == (NEW, scene.epoch)


@pytest.mark.parametrize("statement", ["PRAGMA integrity_check", "UPDATE epoch"])
@pytest.mark.parametrize(
    ("number", "said"),
    [
        (sqlite3.SQLITE_FULL, "there is no room"),
        (sqlite3.SQLITE_IOERR, "(SQLITE_IOERR): look at the folder and its disk"),
    ],
)
def test_a_disk_that_sqlite_cannot_use_is_not_called_a_damaged_backup(
    scene: Scene, monkeypatch: pytest.MonkeyPatch, statement: str, number: int, said: str
) -> None:
    connect = sqlite3.connect

    def faulty(path: Path, **options: object) -> object:
        return FaultyConnection(connect(path, **options), statement, number)  # type: ignore[call-overload]  # as it was asked

    monkeypatch.setattr(sqlite3, "connect", faulty)
    assert said in refusal(scene)
    monkeypatch.undo()
    assert state(scene.path) == (NEW, scene.epoch)


def test_a_former_database_that_is_damaged_is_kept_with_its_log(tmp_path: Path) -> None:
    """That is why somebody restores: nothing may be lost of it that an expert could still read."""
    scene = made(tmp_path, killed=True)
    with scene.path.open("rb+") as file:
        file.write(b"\xff" * 4_096)
    log, damaged = scene.wal.read_bytes(), scene.path.read_bytes()
    with pytest.raises(StoreUnusableError):
        SqliteStore(scene.path)
    restore(scene)
    assert state(scene.path)[0] == OLD
    assert scene.path.with_name(FORMER).read_bytes() == damaged
    assert scene.path.with_name(f"{FORMER}-wal").read_bytes() == log


def test_a_log_that_is_damaged_is_kept_as_it_is(tmp_path: Path) -> None:
    scene = made(tmp_path, killed=True)
    content = bytearray(scene.wal.read_bytes())
    content[40:60] = b"\xff" * 20
    scene.wal.write_bytes(content)
    restore(scene)
    assert state(scene.path)[0] == OLD
    assert scene.path.with_name(f"{FORMER}-wal").read_bytes() == bytes(content)


def test_a_log_without_its_database_is_kept(tmp_path: Path) -> None:
    scene = made(tmp_path, killed=True)
    log = scene.wal.read_bytes()
    scene.path.unlink()
    restored = restore(scene)
    assert restored.former is None
    assert state(scene.path)[0] == OLD
    assert scene.path.with_name(f"{FORMER}-wal").read_bytes() == log


# --- a kill at each step -----------------------------------------------------------------------

_KILLED = """
import os, sys
from pathlib import Path
from broker.stores.sqlite_journal import JOURNAL_NAME
from broker.stores.sqlite_restore import put_back
def step(name):
    if name == sys.argv[3]:
        os._exit(9)
put_back(Path(sys.argv[1]), Path(sys.argv[2]), stamp="killed", step=step)
"""

WHOLE = ["copied", "prepared", "log moved", "set aside", "put in"]
DAMAGED = [*WHOLE[:3], "log copied", "moved aside", *WHOLE[3:]]


def killed_at(step: str, scene: Scene) -> None:
    words = [sys.executable, "-c", _KILLED, str(scene.backup), str(scene.path), step]
    ended = subprocess.run(words, check=False, capture_output=True, timeout=60)
    assert ended.returncode == 9, ended.stderr.decode()


@pytest.mark.parametrize("end", ["stopped", "killed", "killed with a journal"])
@pytest.mark.parametrize("step", WHOLE)
def test_a_kill_leaves_the_old_state_or_the_new_one(tmp_path: Path, step: str, end: str) -> None:
    scene = made(tmp_path, killed=end != "stopped", journal="journal" in end)
    killed_at(step, scene)
    found, epoch = state(scene.path)
    assert found == (OLD if step == "put in" else NEW)
    assert (epoch == scene.epoch) == (found == NEW)
    restore(scene)
    assert state(scene.path)[0] == OLD, "and it can be repeated"
    assert not scene.path.with_name("kotak.db.restoring").exists()


@pytest.mark.parametrize("step", DAMAGED)
def test_a_kill_beside_a_damaged_database_leaves_a_refusal_or_the_new_state(
    tmp_path: Path, step: str
) -> None:
    scene = made(tmp_path, killed=True)
    with scene.path.open("rb+") as file:
        file.write(b"\xff" * 4_096)
    killed_at(step, scene)
    if step == "put in":
        assert state(scene.path)[0] == OLD
    else:
        with pytest.raises(StoreUnusableError):
            SqliteStore(scene.path)
    restore(scene)
    assert state(scene.path)[0] == OLD


def test_every_step_is_one_of_those_that_were_tried(tmp_path: Path) -> None:
    (tmp_path / "whole").mkdir()
    (tmp_path / "damaged").mkdir()
    whole, damaged = made(tmp_path / "whole"), made(tmp_path / "damaged", killed=True)
    damaged.path.write_bytes(b"\xff" * 4_096)
    for scene, wanted in ((whole, WHOLE), (damaged, DAMAGED)):
        steps: list[str] = []
        put_back(scene.backup, scene.path, stamp=STAMP, step=steps.append)
        assert steps == wanted


def test_it_goes_by_the_epochs_range_of_the_store() -> None:
    assert sqlite_restore._EPOCH_MAX == 2**53


def test_accounts_come_back_with_their_passwords(scene: Scene) -> None:
    store = SqliteStore(scene.path)
    with store.batch():
        store.put(Account("ann", "Ann", "another hash"))
        store.append("bob", "ann", "x", "hi", NOW_MS)
    store.close()
    restore(scene)
    store = SqliteStore(scene.path)
    found = store.find(Account, "ann")
    store.close()
    assert found is not None
    assert found.password_hash == "hash"
