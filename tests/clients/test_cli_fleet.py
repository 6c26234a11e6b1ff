"""The command line and several brokers: what is said of them, and where a token may go."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.cli import reaching
from broker.exits import Exit, ExitError
from broker.transports.curve import Pair
from broker.wire.errors import Code
from clients import cli
from clients.calls import waiting_notice
from clients.errors import ConnectionFailed, Unauthorized
from clients.invocation import UsageError, broker_addresses
from clients.session_file import read_session
from tests.clients.fake_calls import FakeBroker, refusal
from tests.e2e.program import eventually

Kotak = Callable[..., int]
A, B, C = (f"tcp://10.0.0.{number}:8890" for number in (1, 2, 3))
ALL = f"{A},{B},{C}"
LOGIN = ("login", "shafwa", "--password-env", "MKS")
KEY = Pair.make().public


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
    return path


@pytest.fixture
def kotak(broker: FakeBroker, session_path: Path) -> Kotak:
    """Return what runs ``kotak ARGUMENTS`` and returns its exit code."""
    del session_path

    def run(*argv: str) -> int:
        parser = argparse.ArgumentParser(prog="kotak")
        cli.add_commands(parser.add_subparsers(required=True), connect=broker.connect)
        args = parser.parse_args(argv)
        code: int = args.run(args)
        return code

    return run


def asked(broker: FakeBroker) -> list[str]:
    """Return where clients were made for, and forget it."""
    addresses = [address for address, _, _ in broker.connected]
    broker.connected.clear()
    return addresses


# --- addresses ---------------------------------------------------------------------------------


def test_several_addresses_are_checked_each_and_kept_without_blanks() -> None:
    assert broker_addresses(f"{A}, {B} ,{A}") == f"{A},{B}"
    assert broker_addresses(A) == A


@pytest.mark.parametrize("given", [f"{A},10.0.0.2:8890", f"{A},tcp://b:0", f"{A} {B}", f"{A};{B}"])
def test_one_that_is_no_address_is_told(given: str) -> None:
    with pytest.raises(UsageError, match="a broker's address is tcp://HOST:PORT"):
        broker_addresses(given, "--broker")


def test_too_many_are_told_with_their_source() -> None:
    many = ",".join(f"tcp://b{number}:1" for number in range(65))
    with pytest.raises(UsageError, match="KOTAK_BROKER: 65 brokers were given, 64 at most"):
        broker_addresses(many, "KOTAK_BROKER")


def test_a_wrong_variable_is_a_usage_error(
    kotak: Kotak, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("KOTAK_BROKER", f"{A},b")
    assert kotak(*LOGIN) == 2
    assert capsys.readouterr().err.startswith("kotak: KOTAK_BROKER is 'b': a broker's address is")


# --- sessions ----------------------------------------------------------------------------------


def test_a_session_keeps_all_its_brokers_and_what_follows_goes_to_them(
    kotak: Kotak,
    broker: FakeBroker,
    session_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert kotak(*LOGIN, "--broker", ALL) == 0
    assert capsys.readouterr().out == f"logged in as Shafwa (shafwa) at {ALL}\n"
    saved = read_session(session_path)
    assert saved
    assert saved.address == ALL
    for words in (("send", "fadly", "hai"), ("inbox",), ("whoami",), ("logout",)):
        assert kotak(*words) == 0
    assert asked(broker) == [ALL] * 5


def test_the_variable_may_name_several_too(
    kotak: Kotak, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KOTAK_BROKER", f"{A}, {B}, {C}")
    assert kotak(*LOGIN) == 0
    monkeypatch.delenv("KOTAK_BROKER")
    assert kotak("whoami") == 0
    assert asked(broker) == [ALL] * 2


@pytest.mark.parametrize("chosen", [A, f"{C},{A}", f"{C},{B},{A}"])
def test_a_token_goes_to_any_of_its_brokers(kotak: Kotak, broker: FakeBroker, chosen: str) -> None:
    assert kotak(*LOGIN, "--broker", ALL) == 0
    assert kotak("whoami", "--broker", chosen) == 0
    assert asked(broker) == [ALL, chosen]


@pytest.mark.parametrize("chosen", ["tcp://elsewhere:1", f"{A},tcp://elsewhere:1"])
def test_a_token_goes_to_no_broker_but_its_own(
    kotak: Kotak, broker: FakeBroker, chosen: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak(*LOGIN, "--broker", ALL) == 0
    assert kotak("inbox", "--broker", chosen) == 1
    assert asked(broker) == [ALL]
    assert capsys.readouterr().err == (
        f"kotak: not logged in: run kotak login USER --broker {chosen}\n"
    )


def test_a_login_ends_the_session_that_it_replaces_where_that_one_is_known(
    kotak: Kotak, broker: FakeBroker
) -> None:
    assert kotak(*LOGIN, "--broker", ALL) == 0
    assert kotak(*LOGIN, "--broker", A) == 0
    assert len(broker.sessions) == 1
    assert kotak(*LOGIN, "--broker", ALL) == 0
    assert len(broker.sessions) == 2, "the old token is not for the others"


def test_a_password_is_encrypted_as_before_where_any_of_the_brokers_is_the_same(
    kotak: Kotak, broker: FakeBroker
) -> None:
    assert kotak(*LOGIN, "--broker", A, "--curve", KEY) == 0
    broker.curves.clear()
    assert kotak(*LOGIN, "--broker", ALL) == 0
    assert [curve.server if curve else "" for curve in broker.curves] == [KEY]
    broker.curves.clear()
    assert kotak(*LOGIN, "--broker", "tcp://elsewhere:1") == 0
    assert broker.curves == [None]


def test_a_session_file_that_names_no_broker_is_none(
    kotak: Kotak, session_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak(*LOGIN, "--broker", ALL) == 0
    session_path.write_text(session_path.read_text().replace(ALL, ","))
    assert kotak("whoami") == 2
    assert "is not a Kotak session" in capsys.readouterr().err


# --- what is said ------------------------------------------------------------------------------


def test_an_unknown_session_says_what_the_broker_said_of_its_store(
    kotak: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak(*LOGIN, "--broker", ALL) == 0
    hint = refusal(Code.UNAUTHORIZED, "log in (they do not share a store)")
    assert isinstance(hint, Unauthorized)
    broker.faults["inbox"].append(hint)
    assert kotak("inbox") == 1
    assert capsys.readouterr().err.endswith(
        f"kotak: not logged in: run kotak login USER --broker {ALL}; log in (they do not share a "
        "store)\n"
    )


@pytest.mark.parametrize(
    ("address", "who"),
    [(A, f"the broker at {A}"), (ALL, f"one of the brokers at {ALL}")],
)
def test_who_waits_is_told_for_whom(
    address: str, who: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with waiting_notice(address, after_s=0):
        said = eventually(lambda: capsys.readouterr().err)
    assert said == f"waiting for {who} (Ctrl-C to give up)\n"


def test_what_no_broker_took_is_told_as_it_is(
    kotak: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert kotak(*LOGIN, "--broker", ALL) == 0
    broker.faults["ping"].append(ConnectionFailed(f"no connection to any of 3 brokers ({A}: gone)"))
    assert kotak("whoami") == 3
    assert capsys.readouterr().err == f"kotak: no connection to any of 3 brokers ({A}: gone)\n"


def test_an_administrators_command_goes_to_one_broker() -> None:
    """Asked again elsewhere after a lost answer, a drain would be that of another broker."""
    args = argparse.Namespace(broker=ALL, data=None)
    with (
        pytest.raises(ExitError, match="goes to one broker") as caught,
        reaching.opened(args, create=False),
    ):
        pass
    assert caught.value.code == Exit.USAGE
