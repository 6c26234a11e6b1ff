"""``kotak admin``, from the command line down to a real broker: by its folder, by the network."""

from __future__ import annotations

import json
import sqlite3
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker import cli
from broker.admin import operation
from broker.config import Config
from broker.exits import Exit
from broker.server import Doors, Server
from broker.wire.errors import Code
from clients.errors import KotakError
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


# --- a broker that does not run ------------------------------------------------------------------


@pytest.fixture
def stopped(config: Config) -> Config:
    return stopped_with_a_message(config)


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
