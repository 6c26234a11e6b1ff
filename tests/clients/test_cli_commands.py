"""The one-shot commands against a broker of one dictionary: what they print, keep and return."""

from __future__ import annotations

import argparse
import getpass
import io
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from broker.wire.errors import Code
from broker.wire.limits import PASSWORD_BYTES_MAX, TEXT_BYTES_MAX
from clients import cli
from clients.errors import ConnectionFailed, RequestTimeout
from clients.invocation import DEFAULT_ADDRESS
from clients.session_file import read_session, write_session
from tests.clients.fake_calls import FakeBroker, refusal

Kotak = Callable[..., int]


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def session_path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "session.json"


@pytest.fixture
def kotak(broker: FakeBroker, session_path: Path, monkeypatch: pytest.MonkeyPatch) -> Kotak:
    """Return what runs ``kotak ARGUMENTS`` as the whole program would and returns its exit code."""
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(session_path))
    monkeypatch.delenv("KOTAK_BROKER", raising=False)
    monkeypatch.setenv("MKS", "mks")
    monkeypatch.setenv("PRP", "prp")

    def run(*argv: str) -> int:
        parser = argparse.ArgumentParser(prog="kotak")
        cli.add_commands(parser.add_subparsers(required=True), connect=broker.connect)
        args = parser.parse_args(argv)
        code: int = args.run(args)
        return code

    return run


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


# --- send -------------------------------------------------------------------------------------


def test_send_joins_its_words(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_fadly("send", "shafwa", "hai", "dudee  ", "--", "-5") == 0
    assert broker.waiting("shafwa") == ["hai dudee   -5"]
    assert capsys.readouterr().out == "message sent to shafwa (sequence 1)\n"


def test_the_old_names_of_the_commands_work(as_fadly: Kotak, broker: FakeBroker) -> None:
    assert as_fadly("chat", "shafwa", "hai") == 0
    assert as_fadly("kotakmasuk") == 0
    assert as_fadly("user_on") == 0
    assert broker.calls[1:] == ["send", "inbox", "users_on"]


def test_an_unknown_recipient_is_refused_with_the_brokers_code(
    as_fadly: Kotak, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_fadly("send", "nobody", "hi") == 1
    assert capsys.readouterr().err == "kotak: there is no user of that name (no_such_user)\n"


def _stdin(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content), encoding="utf-8"))


def test_a_dash_sends_standard_input_without_its_last_line_end(
    as_fadly: Kotak, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stdin(monkeypatch, "one\n\ntwo ✓\n".encode())
    assert as_fadly("send", "shafwa", "-") == 0
    assert broker.waiting("shafwa") == ["one\n\ntwo ✓"]


@pytest.mark.parametrize(
    "case",
    [
        (b"", "nothing to send"),
        (b"\n", "nothing to send"),
        (b"x" * (TEXT_BYTES_MAX + 1), "bytes at most"),
        (b"x" * (TEXT_BYTES_MAX * 2), "bytes at most"),
        (b"\xff", "not valid UTF-8"),
    ],
)
def test_standard_input_that_is_no_message_is_a_usage_error(
    as_fadly: Kotak,
    broker: FakeBroker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    case: tuple[bytes, str],
) -> None:
    content, words = case
    _stdin(monkeypatch, content)
    assert as_fadly("send", "shafwa", "-") == 2
    assert words in capsys.readouterr().err
    assert not broker.waiting("shafwa")


def test_the_longest_text_fits(
    as_fadly: Kotak, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    _stdin(monkeypatch, b"x" * TEXT_BYTES_MAX + b"\n")
    assert as_fadly("send", "shafwa", "-") == 0
    assert broker.waiting("shafwa") == ["x" * TEXT_BYTES_MAX]


def test_an_argument_that_is_no_utf8_is_a_usage_error(
    as_fadly: Kotak, capsys: pytest.CaptureFixture[str]
) -> None:
    assert as_fadly("send", "shafwa", os.fsdecode(b"\xff")) == 2
    assert "not valid UTF-8" in capsys.readouterr().err


def test_a_send_without_an_answer_says_how_to_repeat_it_safely(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.faults["send"].append(RequestTimeout("no answer within 30 s"))
    assert as_fadly("send", "shafwa", "hi") == 3
    err = capsys.readouterr().err
    assert f"add --id {broker.sent_ids[0]}\n" in err
    assert err.endswith("kotak: no answer within 30 s\n")
    assert as_fadly("send", "shafwa", "hi", "--id", broker.sent_ids[0]) == 0
    assert broker.sent_ids[0] == broker.sent_ids[1]


@pytest.mark.parametrize(
    ("fault", "code", "advice"),
    [
        (ConnectionFailed("no broker at tcp://127.0.0.1:8890"), 3, False),
        (refusal(Code.UNAVAILABLE, "the broker is stopping"), 1, True),
        (refusal(Code.MAILBOX_FULL, "too many unread messages"), 1, False),
        (KeyboardInterrupt(), 130, True),
    ],
)
def test_the_advice_to_repeat_is_given_where_the_message_may_be_stored(
    as_fadly: Kotak,
    broker: FakeBroker,
    capsys: pytest.CaptureFixture[str],
    fault: BaseException,
    *,
    code: int,
    advice: bool,
) -> None:
    broker.faults["send"].append(fault)
    assert as_fadly("send", "shafwa", "hi") == code
    assert ("stored once or not at all" in capsys.readouterr().err) is advice


# --- inbox ------------------------------------------------------------------------------------


def test_inbox_shows_the_messages_then_acknowledges_them(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.put("fadly", "shafwa", "hai dudee")
    broker.put("fadly", "mamang", "two\nlines")
    assert as_fadly("inbox") == 0
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0].endswith("] Shafwa (shafwa) to Fadly: hai dudee")
    assert lines[1].endswith("] mamang to Fadly: two")
    assert lines[2] == "    lines"
    assert err == "messages: 2\n"
    assert broker.waiting("fadly") == []
    assert as_fadly("inbox") == 0
    assert capsys.readouterr() == ("", "no messages\n")


def test_keep_acknowledges_nothing(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.put("fadly", "shafwa", "hai")
    assert as_fadly("inbox", "--keep") == 0
    assert broker.waiting("fadly") == ["hai"]
    assert capsys.readouterr().err == "messages: 1, kept\n"


@pytest.mark.parametrize("keep", [(), ("--keep",)])
def test_every_page_is_followed(
    as_fadly: Kotak,
    broker: FakeBroker,
    capsys: pytest.CaptureFixture[str],
    keep: tuple[str, ...],
) -> None:
    broker.page_max = 2
    for number in range(5):
        broker.put("fadly", "shafwa", str(number))
    assert as_fadly("inbox", "--json", *keep) == 0
    out, err = capsys.readouterr()
    assert [json.loads(line)["text"] for line in out.splitlines()] == list("01234")
    assert err == ""
    assert broker.waiting("fadly") == (list("01234") if keep else [])


def test_a_limit_takes_no_more_than_it_shows(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.page_max = 2
    for number in range(5):
        broker.put("fadly", "shafwa", str(number))
    assert as_fadly("inbox", "--limit", "3") == 0
    assert broker.waiting("fadly") == ["3", "4"]
    assert capsys.readouterr().err == "messages: 3\nmore messages are waiting\n"


def test_json_is_one_ascii_line_a_message_with_the_names_of_the_protocol(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.put("fadly", "shafwa", "✓\n\x1b[31m\x9b")
    assert as_fadly("inbox", "--json") == 0
    out = capsys.readouterr().out
    assert out.isascii()
    assert out.count("\n") == 1
    assert json.loads(out) == {
        "seq": 1,
        "at_ms": 1_700_000_000_000,
        "from": "shafwa",
        "name": "Shafwa",
        "id": "id1",
        "text": "✓\n\x1b[31m\x9b",
    }


def test_a_message_cannot_speak_to_the_terminal(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.put("fadly", "shafwa", "a\x1b]0;x\x07b\rc\u202ed\x9be\x7f", name="[bold]\nmamang")
    assert as_fadly("inbox") == 0
    assert capsys.readouterr().out.endswith(
        "] [bold]\\nmamang (shafwa) to Fadly: a\\x1b]0;x\\x07b\\rc\\u202ed\\x9be\\x7f\n"
    )


def test_messages_that_were_not_acknowledged_are_announced_as_such(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.put("fadly", "shafwa", "hai")
    broker.faults["acknowledge"].append(RequestTimeout("no answer"))
    assert as_fadly("inbox") == 3
    assert "will be shown again" in capsys.readouterr().err
    assert broker.waiting("fadly") == ["hai"]


def _pipe_as_stdout(monkeypatch: pytest.MonkeyPatch) -> int:
    """Put a pipe behind standard output; return the descriptor to read it from."""
    reading, writing = os.pipe()
    monkeypatch.setattr(sys, "stdout", os.fdopen(writing, "w"))
    return reading


def test_a_reader_that_has_gone_takes_nothing(
    as_fadly: Kotak,
    broker: FakeBroker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker.put("fadly", "shafwa", "hai")
    os.close(_pipe_as_stdout(monkeypatch))
    assert as_fadly("inbox") == 141
    sys.stdout.close()  # what is left in the buffer goes nowhere, in silence
    monkeypatch.undo()
    assert broker.waiting("fadly") == ["hai"]
    assert "acknowledge" not in broker.calls
    assert capsys.readouterr().err == ""


def test_a_reader_that_leaves_after_the_first_line_loses_nothing(
    as_fadly: Kotak, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(1_000):  # far more than a pipe holds
        broker.put("fadly", "shafwa", f"{number} " + "x" * 1_000)
    reading = _pipe_as_stdout(monkeypatch)

    def head() -> None:
        with os.fdopen(reading) as lines:
            lines.readline()

    thread = threading.Thread(target=head)
    thread.start()
    assert as_fadly("inbox") == 141
    thread.join()
    sys.stdout.close()
    assert len(broker.waiting("fadly")) == 1_000


def test_a_full_disk_behind_standard_output_takes_nothing(
    as_fadly: Kotak,
    broker: FakeBroker,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    broker.put("fadly", "shafwa", "hai")
    with Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stdout", full)
        assert as_fadly("inbox") == 2
    assert broker.waiting("fadly") == ["hai"]
    assert "kotak: cannot read or write: No space left on device\n" in capsys.readouterr().err


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


# --- the outcome ------------------------------------------------------------------------------


def test_ctrl_c_is_quiet(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.faults["inbox"].append(KeyboardInterrupt())
    assert as_fadly("inbox") == 130
    assert capsys.readouterr() == ("", "")


def test_a_fault_of_ours_is_not_dressed_up(as_fadly: Kotak, broker: FakeBroker) -> None:
    broker.faults["inbox"].append(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        as_fadly("inbox")


def test_the_brokers_sentence_cannot_speak_to_the_terminal(
    as_fadly: Kotak, broker: FakeBroker, capsys: pytest.CaptureFixture[str]
) -> None:
    broker.faults["inbox"].append(refusal(Code.INTERNAL, "\x1b[2Jgone"))
    assert as_fadly("inbox") == 1
    assert "kotak: \\x1b[2Jgone (internal)\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    "argv",
    [
        ("login",),
        ("login", "shafwa", "mks"),  # a password is no argument
        ("login", "shafwa", "--password-fd", "1", "--password-env", "X"),
        ("send", "fadly"),
        ("inbox", "--limit", "0"),
        ("inbox", "--limit", "x"),
        ("inbox", "--timeout", "0"),
        ("inbox", "--timeout", "nan"),
        ("inbox", "--timeout", "99999"),
    ],
)
def test_wrong_arguments_exit_with_2(
    kotak: Kotak, argv: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        kotak(*argv)
    assert stopped.value.code == 2
    assert "usage: kotak" in capsys.readouterr().err


def test_help_tells_the_exit_codes(kotak: Kotak, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        kotak("send", "--help")
    assert cli.EXIT_CODES in capsys.readouterr().out


def test_without_a_terminal_no_password_is_read_in_the_open(tmp_path: Path) -> None:
    """In a process without a terminal, login names the options instead of echoing a password."""
    program = (
        "import argparse, sys\n"
        "from clients import cli\n"
        "parser = argparse.ArgumentParser(prog='kotak')\n"
        "cli.add_commands(parser.add_subparsers())\n"
        "args = parser.parse_args()\n"
        "sys.exit(args.run(args))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "login", "shafwa"],
        input="mks\n",
        capture_output=True,
        text=True,
        start_new_session=True,  # no controlling terminal
        timeout=60,
        check=False,
        cwd=Path(__file__).parents[2],
        env={**os.environ, "KOTAK_SESSION_FILE": str(tmp_path / "s.json")},
    )
    assert done.returncode == 2
    assert "--password-stdin or --password-env NAME" in done.stderr
    assert "Traceback" not in done.stderr
