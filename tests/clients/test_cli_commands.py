"""The one-shot commands for messages against a broker of one dictionary, and how commands end."""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from broker.wire.errors import Code
from broker.wire.limits import TEXT_BYTES_MAX
from clients import cli
from clients.errors import ConnectionFailed, RequestTimeout
from tests.clients.fake_calls import FakeBroker, refusal
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
