"""``kotak admin``, from the command line down to a real broker: by its folder, by the network."""

from __future__ import annotations

import json
import os
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import NamedTuple

import pytest

from broker import cli
from broker.admin import operation, printing
from broker.config import Config
from broker.exits import Exit
from broker.server import Doors, Server
from broker.server.operations import Reloaded, RunningOperations
from broker.stores.sqlite_backup import Copied
from broker.wire.errors import Code, WireError
from clients import Client
from clients.errors import KotakError, RequestError
from tests.server.in_process import PlainHasher, any_ports

TIMEOUT_S = 30


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


Admin = Callable[..., Said]


@pytest.fixture(autouse=True)
def _surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    for name in [name for name in os.environ if name.startswith("KOTAK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(tmp_path / "session.json"))
    old = os.umask(0o077)
    yield
    os.umask(old)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return any_ports(tmp_path / "data", text=None)


@pytest.fixture
def doors(config: Config) -> Iterator[Doors]:
    server = Server(config, hasher=PlainHasher())
    try:
        yield server.start()
    finally:
        server.stop()


@pytest.fixture
def admin(config: Config, capsys: pytest.CaptureFixture[str]) -> Admin:
    """Return what runs ``kotak admin WORDS`` on the broker's machine."""
    return lambda *words: run(capsys, *words, "--data", str(config.data))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Said:
    capsys.readouterr()
    code = cli.main(["admin", *words])
    said = capsys.readouterr()
    return Said(code, said.out, said.err)


def logged_in(doors: Doors, user: str, password: str, device: str | None = None) -> Client:
    client = Client(doors.zmq)
    client.login(user, password, device=device)
    return client


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(RequestError) as raised:
        call()
    return raised.value.code


# --- looking -------------------------------------------------------------------------------------


def test_status_tells_how_the_broker_stands(doors: Doors, admin: Admin) -> None:
    with logged_in(doors, "shafwa", "mks") as client:
        client.send("fadly", "hai")
    fields = dict(line.split("\t") for line in admin("status").out.splitlines())
    assert (fields["waiting"], fields["waiting_bytes"], fields["draining"]) == ("1", "3", "no")
    assert (fields["durability"], fields["mailboxes"]) == ("fsync", "4")
    assert json.loads(admin("status", "--json").out)["waiting"] == 1


def test_depth_lists_who_has_something_waiting_or_everybody(doors: Doors, admin: Admin) -> None:
    with logged_in(doors, "shafwa", "mks") as client:
        client.send("fadly", "hai")
    assert admin("depth").out == "fadly\t1\t3\n"
    assert admin("depth", "afif").out == "afif\t0\t0\n"
    assert len(admin("depth", "--all").out.splitlines()) == 4
    assert json.loads(admin("depth", "--json").out) == [
        {"user": "fadly", "waiting": 1, "waiting_bytes": 3}
    ]
    assert admin("depth", "nobody").code == Exit.REFUSED


# --- sessions ------------------------------------------------------------------------------------


def test_a_session_is_listed_and_ended_by_its_name_and_the_others_stay(
    doors: Doors, admin: Admin
) -> None:
    with (
        logged_in(doors, "shafwa", "mks") as first,
        logged_in(doors, "shafwa", "mks", "phone") as second,
    ):
        rows = [line.split("\t") for line in admin("sessions", "shafwa").out.splitlines()]
        assert [row[1:3] for row in rows] == [["", "no"], ["phone", "no"]]
        name = rows[1][0]
        assert first.token
        assert second.token
        assert name not in second.token
        said = admin("revoke", "shafwa", name.upper())
        assert said == (Exit.OK, f"ended session {name} of shafwa\n", "")
        assert refusal(second.ping) == Code.UNAUTHORIZED
        first.ping()
        assert admin("revoke", "shafwa", name).code == Exit.REFUSED


def test_all_sessions_of_a_user_are_ended_at_once(doors: Doors, admin: Admin) -> None:
    with (
        logged_in(doors, "shafwa", "mks") as one,
        logged_in(doors, "shafwa", "mks") as two,
        logged_in(doors, "fadly", "prp") as other,
    ):
        assert admin("revoke", "shafwa", "--all").out == "ended 2 sessions of shafwa\n"
        for client in (one, two):
            assert refusal(client.ping) == Code.UNAUTHORIZED
        other.ping()
    assert admin("sessions", "shafwa").out == ""


@pytest.mark.parametrize("words", [(), ("0123456789abcdef", "--all")])
def test_which_session_is_meant_must_be_said(
    doors: Doors, admin: Admin, words: tuple[str, ...]
) -> None:
    said = admin("revoke", "shafwa", *words)
    assert said.code == Exit.USAGE
    assert "--all for every one" in said.err


# --- draining ------------------------------------------------------------------------------------


def page(doors: Doors, path: str) -> int:
    try:
        with urllib.request.urlopen(f"http://{doors.http}{path}", timeout=TIMEOUT_S) as answer:
            status: int = answer.status
    except urllib.error.HTTPError as error:
        with error:
            status = error.code
    return status


def test_a_broker_that_drains_takes_nothing_new_but_is_read_and_is_not_ready(
    doors: Doors, admin: Admin
) -> None:
    with logged_in(doors, "shafwa", "mks") as client:
        client.send("shafwa", "before")
        assert page(doors, "/readyz") == 200
        assert "still to be read: 1 message" in admin("drain").out
        assert page(doors, "/readyz") == 503
        assert page(doors, "/healthz") == 200
        with pytest.raises(KotakError):
            client.send("shafwa", "meanwhile", timeout_ms=300)
        (message,) = client.inbox().messages
        client.acknowledge(message.seq)
        assert admin("drain").out.splitlines()[1] == "nothing waits to be read"
        assert "yes" in admin("status").out
        assert admin("drain", "--off") == (Exit.OK, "messages are taken again\n", "")
        assert page(doors, "/readyz") == 200
        client.send("shafwa", "after")


def test_drain_waits_until_nothing_waits(
    doors: Doors, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(operation, "POLL_S", 0.01)
    looked = threading.Event()
    with logged_in(doors, "shafwa", "mks") as client:
        seq = client.send("shafwa", "to be read").seq
    monkeypatch.setattr("broker.admin.operation.sleep", lambda _: looked.set())

    def read() -> None:
        looked.wait(TIMEOUT_S)
        with logged_in(doors, "shafwa", "mks") as reader:
            reader.acknowledge(seq)

    thread = threading.Thread(target=read)
    thread.start()
    said = admin("drain", "--wait")
    thread.join()
    assert said.code == Exit.OK
    assert said.out.splitlines()[-1] == "nothing waits to be read"
    assert said.err == "kotak: still to be read: 1 message\n"


def test_who_stops_waiting_is_told_that_the_broker_goes_on_draining(
    doors: Doors, admin: Admin, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    with logged_in(doors, "shafwa", "mks") as client:
        client.send("shafwa", "to be read")
    monkeypatch.setattr("broker.admin.operation.sleep", interrupt)
    said = admin("drain", "--wait")
    assert said.code == 130
    assert "kotak admin drain --off ends that" in said.err


# --- reload --------------------------------------------------------------------------------------


def test_reload_without_anything_to_read_says_so(doors: Doors, admin: Admin) -> None:
    said = admin("reload")
    assert said.code == Exit.OK
    assert said.out.startswith("there was nothing to read anew")


def test_reload_names_what_was_read_and_what_was_wrong(tmp_path: Path, admin: Admin) -> None:
    assert cli.main(["keygen", str(tmp_path / "broker.key")]) == Exit.OK
    (clients := tmp_path / "clients").mkdir()
    assert cli.main(["keygen", str(clients / "me.key")]) == Exit.OK
    (clients / "me.key").unlink()
    config = any_ports(
        tmp_path / "data", text=None, curve_key=tmp_path / "broker.key", curve_clients=clients
    )
    server = Server(config, hasher=PlainHasher())
    server.start()
    try:
        assert admin("reload").out == "curve_clients was read anew\n"
        (clients / "bad.pub").write_text("rubbish")
        said = admin("reload")
        assert said.code == Exit.REFUSED
        assert "curve_clients: " in said.err
        assert "reload again" in said.err
    finally:
        server.stop()


# --- backups -------------------------------------------------------------------------------------


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


# --- a broker that does not run ------------------------------------------------------------------


@pytest.fixture
def stopped(config: Config) -> Config:
    server = Server(config, hasher=PlainHasher())
    with logged_in(server.start(), "shafwa", "mks") as client:
        client.send("fadly", "hai")
    server.stop()
    return config


@pytest.mark.parametrize("words", [("status",), ("drain",), ("drain", "--wait"), ("reload",)])
def test_what_only_a_running_broker_can_do_says_so(
    stopped: Config, admin: Admin, words: tuple[str, ...]
) -> None:
    said = admin(*words)
    assert said.code == Exit.UNREACHABLE
    assert said.err.startswith(f"kotak: no broker runs on {stopped.data}: start it")


def test_sessions_depth_and_backup_need_no_running_broker(stopped: Config, admin: Admin) -> None:
    assert admin("depth").out == "fadly\t1\t3\n"
    assert len(admin("sessions", "shafwa").out.splitlines()) == 1
    assert admin("revoke", "shafwa", "--all").out == "ended 1 session of shafwa\n"
    backup = Path(admin("backup").out.strip())
    with closing(sqlite3.connect(backup)) as database:
        assert database.execute("SELECT count(*) FROM messages").fetchone() == (1,)


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


# --- over the network ----------------------------------------------------------------------------


def log_in(doors: Doors, user: str, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("PW", password)
    assert cli.main(["login", user, "--broker", doors.zmq, "--password-env", "PW"]) == Exit.OK


def test_an_administrator_does_the_same_over_the_network_and_an_observer_looks(
    doors: Doors,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    log_in(doors, "shafwa", monkeypatch, "mks")
    remote = ("--broker", doors.zmq)
    said = run(capsys, "status", *remote)
    assert (said.code, said.out) == (Exit.REFUSED, "")
    assert "forbidden" in said.err
    for role, may in (("observer", Exit.REFUSED), ("admin", Exit.OK)):
        words = ["user", "role", "shafwa", role, "--data", str(config.data)]
        assert cli.main(words) == Exit.OK
        assert run(capsys, "sessions", "shafwa", *remote).code == Exit.OK
        assert run(capsys, "backup", *remote).code == may
        assert run(capsys, "drain", *remote).code == may
    assert run(capsys, "revoke", "shafwa", "--all", *remote).code == Exit.OK
    said = run(capsys, "status", *remote)
    assert said.code == Exit.REFUSED
    assert said.err.startswith("kotak: not logged in: run kotak login USER --broker tcp://")


def test_an_administrator_keeps_accounts_over_the_network_too(
    doors: Doors,
    config: Config,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert cli.main(["user", "role", "shafwa", "admin", "--data", str(config.data)]) == Exit.OK
    log_in(doors, "shafwa", monkeypatch, "mks")
    monkeypatch.setenv("ANAS", "a password")
    capsys.readouterr()
    words = ["--broker", doors.zmq]
    assert cli.main(["user", "add", "ana", "--password-env", "ANAS", *words]) == Exit.OK
    assert cli.main(["user", "role", "ana", "observer", *words]) == Exit.OK
    assert cli.main(["user", "list", *words]) == Exit.OK
    assert "ana\tana\tobserver\n" in capsys.readouterr().out
    assert cli.main(["user", "add", "ana", "--password-env", "ANAS", *words]) == Exit.REFUSED
    assert "user_exists" in capsys.readouterr().err


def test_over_an_encrypted_door_the_keys_of_the_login_are_used(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["keygen", str(tmp_path / "broker.key")]) == Exit.OK
    public = capsys.readouterr().out.strip()
    config = any_ports(tmp_path / "data", text=None, curve_key=tmp_path / "broker.key")
    server = Server(config, hasher=PlainHasher())
    try:
        doors = server.start()
        words = ["user", "role", "shafwa", "observer", "--data", str(config.data)]
        assert cli.main(words) == Exit.OK
        monkeypatch.setenv("KOTAK_CURVE", public)
        log_in(doors, "shafwa", monkeypatch, "mks")
        monkeypatch.delenv("KOTAK_CURVE")
        assert run(capsys, "status", "--broker", doors.zmq).code == Exit.OK
        said = run(capsys, "status", "--broker", doors.zmq, "--curve", public)
        assert said.code == Exit.OK
    finally:
        server.stop()


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--broker", "here"], Exit.USAGE, "a broker's address is tcp://HOST:PORT"),
        (["--broker", "tcp://127.0.0.1:1"], Exit.REFUSED, "not logged in"),
        (["--broker", "tcp://h:1", "--data", "/x"], Exit.USAGE, "give one of --broker"),
        (["--broker", "tcp://h:1", "--curve", "/nowhere"], Exit.USAGE, "cannot read"),
    ],
)
def test_a_way_that_cannot_be_gone_is_told_in_a_sentence(
    words: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    ended = run(capsys, "status", *words)
    assert (ended.code, ended.out) == (code, "")
    assert said in ended.err


def test_a_broker_that_has_gone_is_told(
    config: Config, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    server = Server(config, hasher=PlainHasher())
    doors = server.start()
    log_in(doors, "shafwa", monkeypatch, "mks")
    server.stop()
    monkeypatch.setattr("clients.invocation.TIMEOUT_S_DEFAULT", 0.5)
    said = run(capsys, "status", "--broker", doors.zmq)
    assert said.code == Exit.UNREACHABLE
    assert said.out == ""
