"""The one-shot commands for sessions and accounts: what they ask for, print, keep and return."""

from __future__ import annotations

import getpass
import json
import os
from pathlib import Path

import pytest

from broker.wire.limits import PASSWORD_BYTES_MAX
from clients.errors import RequestTimeout
from clients.invocation import DEFAULT_ADDRESS
from clients.session_file import read_session, write_session
from tests.clients.fake_calls import FakeBroker
from tests.clients.one_shot import Kotak, commands


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def session_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "session.json"


@pytest.fixture
def kotak(broker: FakeBroker, session_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kotak:
    return commands(broker, session_path, monkeypatch)


@pytest.fixture
def as_fadly(kotak: Kotak, capsys: pytest.CaptureFixture[str]) -> Kotak:
    assert kotak("login", "fadly", "--password-env", "PRP") == 0
    capsys.readouterr()
    return kotak


# --- login, logout and the session ------------------------------------------------------------


def test_login_keeps_the_session_and_prints_no_token(
    kotak: Kotak, session_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak("login", "shafwa", "--password-env", "MKS") == 0
    saved = read_session(session_path)
    assert saved
    assert (saved.user, saved.name, saved.address) == ("shafwa", "Shafwa", DEFAULT_ADDRESS)
    out, err = capsys.readouterr()
    assert out == "logged in as Shafwa (shafwa) at tcp://127.0.0.1:8890\n"
    assert err == ""


def test_a_wrong_password_is_refused_and_keeps_nothing(
    kotak: Kotak, session_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak("login", "shafwa", "--password-env", "PRP") == 1
    assert not session_path.exists()
    assert capsys.readouterr().err == (
        "kotak: the user name or the password is wrong (bad_credentials)\n"
    )


def test_the_password_is_asked_for_hidden_when_no_option_gives_it(
    kotak: Kotak, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def answer(prompt: str) -> str:
        asked.append(prompt)
        return "mks"

    monkeypatch.setattr(getpass, "getpass", answer)
    assert kotak("login", "shafwa") == 0
    assert asked == ["Password of shafwa: "]


def test_a_second_login_ends_the_session_that_it_replaces(
    as_fadly: Kotak, broker: FakeBroker
) -> None:
    assert as_fadly("login", "shafwa", "--password-env", "MKS") == 0
    assert list(broker.sessions.values()) == ["shafwa"]


def test_logout_ends_the_session_and_deletes_the_file(
    as_fadly: Kotak, broker: FakeBroker, session_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_fadly("logout") == 0
    assert not broker.sessions
    assert not session_path.exists()
    assert capsys.readouterr().out == "logout success\n"


def test_logout_of_a_session_that_has_ended_deletes_the_file_all_the_same(
    as_fadly: Kotak, broker: FakeBroker, session_path: Path
) -> None:
    broker.sessions.clear()
    assert as_fadly("logout") == 0
    assert not session_path.exists()


def test_logout_without_an_answer_keeps_the_session(
    as_fadly: Kotak, broker: FakeBroker, session_path: Path
) -> None:
    broker.faults["logout"].append(RequestTimeout("no answer"))
    assert as_fadly("logout") == 3
    assert read_session(session_path)


@pytest.mark.parametrize(
    "argv", [("send", "fadly", "hi"), ("inbox",), ("watch",), ("who",), ("whoami",), ("logout",)]
)
def test_without_a_session_it_says_what_to_run(
    kotak: Kotak, broker: FakeBroker, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak(*argv) == 1
    assert capsys.readouterr().err == "kotak: not logged in: run kotak login USER\n"
    assert not broker.calls


def test_an_expired_session_says_what_to_run(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.sessions.clear()
    assert as_fadly("inbox") == 1
    assert "not logged in: run kotak login USER\n" in capsys.readouterr().err


def test_a_token_goes_to_no_broker_but_its_own(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    connections = len(broker.connected)
    assert as_fadly("inbox", "--broker", "tcp://elsewhere:1") == 1
    assert len(broker.connected) == connections
    assert "run kotak login USER --broker tcp://elsewhere:1\n" in capsys.readouterr().err


def test_a_command_goes_where_the_session_was_opened(
    kotak: Kotak, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOTAK_BROKER", "tcp://there:1")
    assert kotak("login", "shafwa", "--password-env", "MKS") == 0
    monkeypatch.delenv("KOTAK_BROKER")
    assert kotak("who", "--timeout", "2.5") == 0
    address, token, timeout_ms = broker.connected[-1]
    assert (address, timeout_ms) == ("tcp://there:1", 2500)
    assert token in broker.sessions


def test_a_session_file_open_to_others_is_a_usage_error(
    as_fadly: Kotak, session_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    session_path.chmod(0o644)
    assert as_fadly("inbox") == 2
    assert "chmod 600" in capsys.readouterr().err


def test_the_session_option_goes_before_the_variable(
    as_fadly: Kotak, session_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    saved = read_session(session_path)
    assert saved
    write_session(tmp_path / "other.json", saved)
    session_path.unlink()
    assert as_fadly("whoami", "--session", str(tmp_path / "other.json")) == 0
    assert capsys.readouterr().out == "Fadly (fadly) at tcp://127.0.0.1:8890\n"


# --- who, whoami, register, passwd ------------------------------------------------------------


def test_who_lists_the_users(as_fadly: Kotak, capsys: pytest.CaptureFixture[str]) -> None:
    assert as_fadly("who") == 0
    assert capsys.readouterr().out == "Fadly (fadly)\n"
    assert as_fadly("who", "--json") == 0
    assert json.loads(capsys.readouterr().out) == {"user": "fadly", "name": "Fadly"}


def test_register_asks_twice_and_says_what_comes_next(
    kotak: Kotak,
    broker: FakeBroker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = iter(["long enough", "long enough"])
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: next(typed))
    assert kotak("register", "afif", "--name", "Afif") == 0
    assert broker.accounts["afif"] == ("long enough", "Afif")
    assert capsys.readouterr().out == "account afif made; now: kotak login afif\n"


def test_two_different_new_passwords_change_nothing(
    kotak: Kotak,
    broker: FakeBroker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    typed = iter(["long enough", "long enuogh"])
    monkeypatch.setattr(getpass, "getpass", lambda _prompt: next(typed))
    assert kotak("register", "afif") == 2
    assert not broker.calls
    assert "the two passwords differ" in capsys.readouterr().err


def test_both_passwords_may_come_through_one_descriptor(
    as_fadly: Kotak, broker: FakeBroker
) -> None:
    reading, writing = os.pipe()
    os.write(writing, b"prp\r\na new password\n")
    os.close(writing)
    number = str(reading)
    assert as_fadly("passwd", "--password-fd", number, "--new-password-fd", number) == 0
    os.close(reading)
    assert broker.accounts["fadly"][0] == "a new password"


def test_both_passwords_may_come_through_standard_input(
    as_fadly: Kotak, broker: FakeBroker
) -> None:
    """One line each: what reads the first must leave the second in the pipe."""
    reader, writer = os.pipe()
    os.write(writer, b"prp\nbaru sekali\n")
    os.close(writer)
    saved = os.dup(0)
    os.dup2(reader, 0)
    try:
        assert as_fadly("passwd", "--password-stdin", "--new-password-stdin") == 0
    finally:
        os.dup2(saved, 0)
        for each in (saved, reader):
            os.close(each)
    assert broker.accounts["fadly"][0] == "baru sekali"


@pytest.mark.parametrize(
    "address",
    [
        "foo",
        "127.0.0.1:8890",
        "tcp://foo",
        "tcp://foo:0",
        "tcp://h:65536",
        "ipc:///x",
        "tcp://::1:9",
    ],
)
def test_what_is_no_address_of_a_broker_exits_with_2_and_says_what_is(
    kotak: Kotak,
    address: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(SystemExit) as stop:
        kotak("who", "--broker", address)
    assert stop.value.code == 2
    assert "a broker's address is tcp://HOST:PORT" in capsys.readouterr().err
    monkeypatch.setenv("KOTAK_BROKER", address)
    assert kotak("who") == 2
    assert capsys.readouterr().err.startswith(f"kotak: KOTAK_BROKER is '{address}': a broker's")


@pytest.mark.parametrize("address", ["tcp://[::1]:8890", "tcp://mail.example.org:1"])
def test_an_address_may_be_a_name_or_ipv6(kotak: Kotak, broker: FakeBroker, address: str) -> None:
    assert kotak("login", "shafwa", "--password-env", "MKS", "--broker", address) == 0
    assert broker.connected[0][0] == address


def test_a_missing_new_password_is_called_by_its_name(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ("passwd", "--password-env", "PRP", "--new-password-env", "NO_SUCH_VARIABLE")
    assert as_fadly(*argv) == 2
    assert capsys.readouterr().err == "kotak: the new password is empty\n"
    assert "change_password" not in broker.calls


@pytest.mark.parametrize(
    ("password", "words"),
    [
        (b"", "the password is empty"),
        (b"\n", "the password is empty"),
        (b"\xff\n", "not valid UTF-8"),
        (b"x" * (PASSWORD_BYTES_MAX + 1) + b"\n", "bytes at most"),
    ],
)
def test_a_password_that_is_none_is_a_usage_error_and_is_not_quoted(
    kotak: Kotak,
    broker: FakeBroker,
    capsys: pytest.CaptureFixture[str],
    password: bytes,
    words: str,
) -> None:
    reading, writing = os.pipe()
    os.write(writing, password)
    os.close(writing)
    assert kotak("login", "shafwa", "--password-fd", str(reading)) == 2
    os.close(reading)
    err = capsys.readouterr().err
    assert words in err
    assert "xxxx" not in err
    assert not broker.calls


def test_a_bad_descriptor_or_variable_is_a_usage_error(
    kotak: Kotak, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak("login", "shafwa", "--password-fd", "987") == 2
    assert kotak("login", "shafwa", "--password-env", "NO_SUCH_VARIABLE") == 2
    assert "descriptor 987" in capsys.readouterr().err
