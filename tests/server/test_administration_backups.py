"""``kotak admin backup`` and ``restore``, of a broker that runs and of one that does not."""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.admin import printing
from broker.config import Config
from broker.exits import Exit
from broker.server import Doors, Server
from broker.server.operations import Reloaded, RunningOperations
from broker.stores.sqlite_backup import Copied
from broker.wire.errors import Code, WireError
from clients import Client
from tests.server.admin_command import (
    Admin,
    administrator,
    logged_in,
    own_surroundings,
    refusal,
    run,
    serving,
    stopped_with_a_message,
)
from tests.server.in_process import PlainHasher, any_ports

TIMEOUT_S = 30


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    with own_surroundings(tmp_path, monkeypatch):
        yield


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return any_ports(tmp_path / "data", text=None)


@pytest.fixture
def doors(config: Config) -> Iterator[Doors]:
    with serving(config) as doors:
        yield doors


@pytest.fixture
def admin(config: Config, capsys: pytest.CaptureFixture[str]) -> Admin:
    return administrator(config, capsys)


def test_a_backup_of_a_running_broker_is_restored_when_it_is_stopped(
    config: Config, admin: Admin, tmp_path: Path
) -> None:
    server = Server(config, hasher=PlainHasher())
    try:
        doors = server.start()
        with logged_in(doors, "shafwa", "mks") as client:
            client.send("fadly", "before")
            said = admin("backup", "first")
            backup = config.data / "backups" / "first.db"
            assert said == (Exit.OK, f"{backup}\n", "")
            client.send("fadly", "after")
            epoch = client.inbox().epoch
        held = admin("restore", str(backup))
        assert held.code == Exit.DATA_FOLDER
        assert "stop it first" in held.err
    finally:
        server.stop()
    said = admin("restore", str(backup))
    assert said.code == Exit.OK
    assert said.out == f"restored 1 message and 4 users into {config.data}\n"
    assert "kotak.db.before-restore-" in said.err
    assert "good again: 1 session of the backup" in said.err
    server = Server(config, hasher=PlainHasher())
    try:
        with logged_in(server.start(), "fadly", "prp") as client:
            inbox = client.inbox()
            assert [each.text for each in inbox.messages] == ["before"]
            assert inbox.epoch != epoch
    finally:
        server.stop()


def test_backup_tells_all_as_json_and_takes_the_time_for_a_name(doors: Doors, admin: Admin) -> None:
    taken = json.loads(admin("backup", "--json").out)
    assert set(taken) == {"path", "bytes", "messages", "epoch", "took_ms"}
    assert Path(taken["path"]).stat().st_size == taken["bytes"]
    with closing(sqlite3.connect(taken["path"])) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_backup_without_a_name_from_another_client_gets_the_time_too(
    doors: Doors, admin: Admin, config: Config
) -> None:
    note = json.loads((config.data / "admin.json").read_text())
    with Client(note["zmq"], token=note["token"]) as client:
        paths = {client.request("broker_backup", {})["path"] for _ in range(3)}
    assert len(paths) == 3


@pytest.mark.parametrize(
    ("name", "said"), [("x", "there is a backup x.db already"), ("../x", "a backup's name has")]
)
def test_a_name_that_is_taken_or_none_is_refused_in_a_sentence(
    doors: Doors, admin: Admin, name: str, said: str
) -> None:
    admin("backup", "x")
    ended = admin("backup", name)
    assert (ended.code, ended.out) == (Exit.REFUSED, "")
    assert ended.err.startswith(f"kotak: {said}")


def test_a_broker_in_memory_has_nothing_to_back_up(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = any_ports(tmp_path / "data", text=None, store="memory:")
    server = Server(config, hasher=PlainHasher())
    server.start()
    try:
        said = run(capsys, "backup", "--data", str(config.data))
    finally:
        server.stop()
    assert said.code == Exit.REFUSED
    assert "nothing on disk to back up" in said.err


def test_one_backup_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    began, end = threading.Event(), threading.Event()

    def slow(database: Path, name: str, *, stopping: object) -> Copied:
        began.set()
        assert end.wait(TIMEOUT_S)
        return Copied(tmp_path / name, 1, 1, 1)

    monkeypatch.setattr("broker.server.operations.back_up", slow)
    operations = RunningOperations(
        tmp_path / "kotak.db", reload=lambda: Reloaded([], []), stopping=lambda: False
    )
    thread = threading.Thread(target=operations.backup, args=("one",))
    thread.start()
    assert began.wait(TIMEOUT_S)
    with pytest.raises(WireError) as raised:
        operations.backup("two")
    assert raised.value.code == Code.BUSY
    end.set()
    thread.join()
    operations.backup("three")


def test_a_broker_that_stops_gives_a_backup_up_and_says_so(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopping takes a few seconds at most, however large the store is."""
    began = threading.Event()

    def endless(database: Path, name: str, *, stopping: Callable[[], bool]) -> Copied:
        began.set()
        while not stopping():
            pass
        raise WireError(Code.UNAVAILABLE, "given up")

    def ask() -> None:
        with Client(note["zmq"], token=note["token"]) as client:
            codes.append(refusal(lambda: client.request("broker_backup", {}, timeout_ms=2_000)))

    monkeypatch.setattr("broker.server.operations.back_up", endless)
    codes: list[str] = []
    server = Server(config, hasher=PlainHasher())
    server.start()
    try:
        note = json.loads((config.data / "admin.json").read_text())
        thread = threading.Thread(target=ask)
        thread.start()
        assert began.wait(TIMEOUT_S)
    finally:
        server.stop()
    thread.join(TIMEOUT_S)
    assert codes == [Code.UNAVAILABLE]


def test_a_backup_that_takes_long_shows_that_it_is_at_work(
    doors: Doors, admin: Admin, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(printing, "PROGRESS_AFTER_S", 0.0)
    monkeypatch.setattr("rich.console.Console.is_terminal", True)
    monkeypatch.setenv("TERM", "xterm")
    assert "backing up" in admin("backup").err


@pytest.fixture
def stopped(config: Config) -> Config:
    return stopped_with_a_message(config)


def test_restore_goes_into_a_new_folder_but_not_into_somebody_elses(
    stopped: Config, admin: Admin, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    backup = admin("backup").out.strip()
    said = run(capsys, "restore", backup, "--data", str(tmp_path / "new"))
    assert said.code == Exit.OK
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    (other := tmp_path / "other").mkdir(mode=0o700)
    (other / "letter").write_text("mine")
    said = run(capsys, "restore", backup, "--data", str(other))
    assert said.code == Exit.DATA_FOLDER
    assert [each.name for each in other.iterdir()] == ["letter"]
    said = run(capsys, "restore", "/nowhere", "--data", str(tmp_path / "never"))
    assert (said.code, said.err) == (
        Exit.USAGE,
        "kotak: there is no file /nowhere: give that of a backup\n",
    )
    assert not (tmp_path / "never").exists()
