"""How the command line encrypts: as it is told, and ever after as the session was begun."""

from __future__ import annotations

import argparse
import getpass
import io
import json
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from broker.transports.curve import Pair, write_pair
from clients import cli
from clients.curve_keys import Curve
from clients.session_file import read_session, write_session
from tests.clients.fake_calls import FakeBroker

Kotak = Callable[..., int]
BROKER, OTHER = (Pair.make().public for _ in range(2))
LOGIN = ("login", "shafwa", "--password-env", "MKS")


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def session_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "state" / "session.json"
    for name in ("KOTAK_BROKER", "KOTAK_CURVE"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(path))
    monkeypatch.setenv("MKS", "mks")
    monkeypatch.chdir(tmp_path)
    return path


@pytest.fixture
def kotak(broker: FakeBroker, session_path: Path) -> Kotak:
    """Return what runs ``kotak ARGUMENTS`` as the whole program would and returns its exit code."""
    del session_path

    def run(*argv: str) -> int:
        parser = argparse.ArgumentParser(prog="kotak")
        cli.add_common_options(parser)
        parser.set_defaults(run=lambda args: cli.interactive(args, connect=broker.connect))
        cli.add_commands(parser.add_subparsers(), connect=broker.connect)
        args = parser.parse_args(argv)
        code: int = args.run(args)
        return code

    return run


def servers(broker: FakeBroker) -> list[str]:
    """Return the broker's key of each connection that was made; empty for one in the clear."""
    made = [curve.server if curve else "" for curve in broker.curves]
    broker.curves.clear()
    return made


def test_what_follows_a_login_is_encrypted_as_it_was(kotak: Kotak, broker: FakeBroker) -> None:
    assert kotak(*LOGIN, "--curve", BROKER) == 0
    for words in (("send", "fadly", "hai"), ("inbox",), ("who",), ("whoami",), ("logout",)):
        assert kotak(*words) == 0
    assert servers(broker) == [BROKER] * 6


def test_the_option_wins_over_the_variable_and_that_over_the_session(
    kotak: Kotak, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kotak("--curve", BROKER, *LOGIN) == 0
    monkeypatch.setenv("KOTAK_CURVE", OTHER)
    assert kotak("whoami") == 0
    assert kotak("whoami", "--curve", BROKER) == 0
    assert servers(broker) == [BROKER, OTHER, BROKER]


def test_a_password_goes_where_the_session_was_encrypted_in_the_same_way(
    kotak: Kotak, broker: FakeBroker
) -> None:
    assert kotak(*LOGIN, "--curve", BROKER) == 0
    assert kotak(*LOGIN) == 0  # and the session that it replaces is ended
    assert servers(broker) == [BROKER] * 3
    assert kotak(*LOGIN, "--broker", "tcp://127.0.0.1:1") == 0
    assert servers(broker) == [""]


def test_off_is_said_once_and_kept(
    kotak: Kotak, broker: FakeBroker, session_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kotak(*LOGIN, "--curve", BROKER) == 0
    assert kotak(*LOGIN, "--curve", "off") == 0
    assert kotak("whoami") == 0
    assert servers(broker) == [BROKER, "", "", ""]
    saved = read_session(session_path)
    assert saved
    assert saved.curve == ""
    monkeypatch.setenv("KOTAK_CURVE", "off")
    write_session(session_path, replace(saved, curve=BROKER))
    assert kotak("whoami") == 0
    assert servers(broker) == [""]


def test_a_key_file_is_found_from_any_folder(
    kotak: Kotak,
    broker: FakeBroker,
    session_path: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pair = Pair.make()
    write_pair(tmp_path / "me.key", pair, server=BROKER)
    assert kotak(*LOGIN, "--curve", "me.key") == 0
    saved = read_session(session_path)
    assert saved
    assert saved.curve == str(tmp_path / "me.key")
    monkeypatch.chdir("/")
    assert kotak("whoami") == 0
    assert broker.curves == [Curve(server=BROKER, public=pair.public, secret=pair.secret)] * 2


def test_a_session_of_an_earlier_version_is_not_encrypted(
    kotak: Kotak, broker: FakeBroker, session_path: Path
) -> None:
    assert kotak(*LOGIN) == 0
    fields = json.loads(session_path.read_text())
    del fields["curve"]
    session_path.write_text(json.dumps(fields))
    assert kotak("whoami") == 0
    assert servers(broker) == ["", ""]


@pytest.mark.parametrize("words", [LOGIN, ("whoami",), ()])
def test_keys_that_cannot_be_used_are_a_wrong_usage(
    kotak: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert kotak("--curve", "/nowhere", *words) == 2
    said = capsys.readouterr().err
    assert said == "kotak: cannot read the keys in /nowhere: No such file or directory\n"
    assert servers(broker) == []


def test_keys_of_the_session_that_are_gone_end_the_command_and_not_the_encryption(
    kotak: Kotak, broker: FakeBroker, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_pair(tmp_path / "me.key", Pair.make(), server=BROKER)
    assert kotak(*LOGIN, "--curve", "me.key") == 0
    servers(broker)
    (tmp_path / "me.key").unlink()
    for words in (("whoami",), LOGIN, ()):
        capsys.readouterr()
        assert kotak(*words) == 2
        assert "cannot read the keys in" in capsys.readouterr().err
    assert servers(broker) == []


def test_the_chat_and_the_sessions_that_it_ends_are_encrypted(
    kotak: Kotak, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("login shafwa mks\n"))
    assert kotak("--curve", BROKER) == 0
    assert servers(broker) == [BROKER, BROKER]
    assert not broker.sessions


def test_the_way_to_log_in_is_told_with_the_keys_that_were_typed(
    kotak: Kotak, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak("whoami", "--curve", BROKER) == 1
    assert "kotak login USER --curve " in capsys.readouterr().err


# --- the key as the login --------------------------------------------------------------------


@pytest.fixture
def my_key(broker: FakeBroker, tmp_path: Path, session_path: Path) -> str:
    """Return a key file of one's own, whose key logs shafwa in."""
    del session_path
    pair = Pair.make()
    write_pair(tmp_path / "me.key", pair, server=BROKER)
    broker.keys[pair.public] = "shafwa"
    return str(tmp_path / "me.key")


def test_where_the_key_is_enough_no_password_is_asked_for(
    kotak: Kotak, broker: FakeBroker, my_key: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak("login", "shafwa", "--device", "phone", "--curve", my_key) == 0
    assert capsys.readouterr().out.startswith("logged in as Shafwa (shafwa), device phone,")
    assert broker.devices == ["phone"]
    assert kotak("login", "shafwa") == 0  # the session knows the file


def test_where_the_key_is_not_enough_the_password_is_asked_for(
    kotak: Kotak, broker: FakeBroker, my_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(getpass, "getpass", lambda _: "prp")
    assert kotak("login", "fadly", "--curve", my_key) == 0
    assert broker.calls == ["login", "login"]


def test_a_password_that_is_given_is_used_and_a_key_for_the_occasion_is_not_tried(
    kotak: Kotak, broker: FakeBroker, my_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert kotak(*LOGIN, "--curve", my_key) == 0
    monkeypatch.setattr(getpass, "getpass", lambda _: "mks")
    assert kotak("login", "shafwa", "--curve", BROKER) == 0
    assert broker.calls == ["login", "login", "logout"]


def test_the_chat_logs_in_by_key_too(
    kotak: Kotak, broker: FakeBroker, my_key: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("login shafwa\nlogin fadly\nlogin fadly prp\n"))
    assert kotak("--curve", my_key) == 1  # the second one needs its password
    assert broker.calls[:3] == ["login", "login", "login"]
    assert not broker.sessions
