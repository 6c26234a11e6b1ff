"""The interactive chat says what the 2020 client said; its terminal hides what must be hidden."""

from __future__ import annotations

import argparse
import contextlib
import io
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from prompt_toolkit.completion import CompleteEvent
from prompt_toolkit.document import Document

from broker.wire.errors import Code
from clients import cli
from clients.calls import waiting_notice
from clients.chat import NAMES_MAX, NOT_KNOWN, SESSIONS_MAX, UNKNOWN_OUTCOME, Chat
from clients.client import Client
from clients.errors import RequestTimeout
from clients.prompt import ChatCompleter, SafeHistory
from tests.clients.fake_calls import FakeBroker, FakeClient, refusal
from tests.conftest import Broker
from tests.e2e.terminal import Terminal

ADDRESS = "tcp://127.0.0.1:8890"


class Table:
    """A chat, what it said, and the broker behind it."""

    def __init__(self, *, ask_password: Callable[[], str | None] | None = None) -> None:
        self.broker = FakeBroker()
        self.client: FakeClient = self.broker.connect(ADDRESS, token=None, timeout_ms=1_000)
        self.said: list[str] = []
        self.chat = Chat(self.client, ADDRESS, say=self.said.append, ask_password=ask_password)

    def type(self, *lines: str) -> list[str]:
        """Type lines; return what was said to them."""
        before = len(self.said)
        for line in lines:
            assert self.chat.handle(line)
        return self.said[before:]

    def leave(self) -> None:
        self.chat.end_sessions(
            lambda token: self.broker.connect(ADDRESS, token=token, timeout_ms=1_000)
        )


@pytest.fixture
def table() -> Table:
    return Table()


def test_a_conversation_has_the_words_of_the_original(table: Table) -> None:
    assert table.chat.prompt == "Command :"
    (logged_in,) = table.type("login shafwa mks")
    assert table.client.token
    short = f"{table.client.token[:8]}..."
    assert logged_in == f"username shafwa logged in, token {short}"
    assert table.chat.prompt == f"Command {short}:"
    assert table.type("chat fadly hai  dudee ") == ["message sent to fadly"]
    assert table.broker.waiting("fadly") == ["hai  dudee"]
    assert table.type("user_on") == ["user aktif: shafwa"]
    assert table.type("logout") == ["logout success"]
    assert table.chat.prompt == "Command :"
    assert not table.chat.failed


def test_the_english_names_are_the_same_commands(table: Table) -> None:
    said = table.type("auth shafwa mks", "send shafwa hi", "inbox", "who")
    assert said[1] == "message sent to shafwa"
    assert said[2].endswith("] Shafwa (shafwa) to Shafwa: hi")
    assert said[3] == "user aktif: shafwa"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("foo", "*Maaf, command tidak benar"),
        ("LOGIN shafwa mks", "*Maaf, command tidak benar"),
        ("login", "-Maaf, command tidak benar"),
        ("login shafwa", "-Maaf, command tidak benar"),  # and nobody to ask
        ("chat fadly", "-Maaf, command tidak benar"),
        ("chat fadly hi", "Error, not authorized"),
        ("kotakmasuk", "Error, not authorized"),
        ("user_on", "Error, not authorized"),
        ("logout", "Error, not authorized"),
        ("login shafwa wrong", "Error, the user name or the password is wrong"),
    ],
)
def test_a_line_that_fails_says_so_in_the_words_of_the_original(
    table: Table, line: str, words: str
) -> None:
    assert table.type(line) == [words]
    assert table.chat.failed


def test_an_empty_line_says_nothing_and_is_no_error(table: Table) -> None:
    assert table.type("", "   ") == []
    assert not table.chat.failed


def test_login_without_a_password_asks_for_it() -> None:
    table = Table(ask_password=lambda: "mks")
    assert table.type("login shafwa")[0].startswith("username shafwa logged in")


def test_a_question_without_an_answer_logs_nobody_in() -> None:
    table = Table(ask_password=lambda: None)
    assert table.type("login shafwa") == []
    assert "login" not in table.broker.calls


def test_a_password_on_the_line_may_hold_blanks(table: Table) -> None:
    table.broker.accounts["afif"] = ("two words", "Afif")
    assert table.type("login afif two words")[0].startswith("username afif logged in")


def test_one_chat_serves_several_users_one_after_another(table: Table) -> None:
    table.type("login shafwa mks", "chat fadly hai", "login fadly prp")
    assert table.chat.who == "Fadly (fadly)"
    assert table.type("user_on") == ["user aktif: shafwa, fadly"]
    (message,) = table.type("kotakmasuk")
    assert message.endswith("] Shafwa (shafwa) to Fadly: hai")


def test_leaving_ends_every_session_that_the_chat_opened(table: Table) -> None:
    table.broker.sessions["elsewhere"] = "mamang"
    table.type("login shafwa mks", "login fadly prp", "logout", "login fadly prp")
    table.leave()
    assert table.broker.sessions == {"elsewhere": "mamang"}


def test_a_session_that_has_ended_does_not_keep_the_others_alive(table: Table) -> None:
    table.type("login shafwa mks")
    table.broker.sessions.clear()
    table.type("login fadly prp")
    table.leave()
    assert not table.broker.sessions


def test_leaving_gives_up_where_the_broker_is_gone(table: Table) -> None:
    table.type("login shafwa mks", "login fadly prp")
    table.broker.faults["logout"] += [RequestTimeout("no answer"), RequestTimeout("no answer")]
    table.leave()
    assert table.broker.calls.count("logout") == 1


def test_an_expired_session_leaves_the_chat_logged_out(table: Table) -> None:
    table.type("login shafwa mks")
    table.broker.sessions.clear()
    assert table.type("user_on") == ["Error, not authorized"]
    assert (table.chat.prompt, table.chat.who) == ("Command :", "")


def test_a_failed_login_leaves_the_session_as_it_was(table: Table) -> None:
    table.type("login shafwa mks", "login fadly wrong")
    assert table.type("user_on") == ["user aktif: shafwa"]


@pytest.mark.parametrize("word", ["quit", "exit", " quit "])
def test_quit_leaves(table: Table, word: str) -> None:
    assert table.chat.handle(word) is False


def test_help_names_every_command(table: Table) -> None:
    (text,) = table.type("help")
    for command in (*Chat.COMMANDS, "auth", "send", "inbox", "who", "quit"):
        assert command in text or command == "help"


def test_kotakmasuk_shows_then_acknowledges(table: Table) -> None:
    table.broker.page_max = 2
    for number in range(5):
        table.broker.put("shafwa", "fadly", str(number))
    said = table.type("login shafwa mks", "kotakmasuk", "kotakmasuk")
    assert [line[-1] for line in said[1:6]] == list("01234")
    assert said[6] == "no messages"
    assert table.broker.calls[1:7] == ["inbox", "acknowledge"] * 3


def test_messages_that_could_not_be_shown_stay(table: Table) -> None:
    table.broker.put("shafwa", "fadly", "hai")

    def say(line: str) -> None:
        if "hai" in line:
            raise BrokenPipeError

    chat = Chat(table.client, ADDRESS, say=say)
    chat.handle("login shafwa mks")
    with pytest.raises(BrokenPipeError):
        chat.handle("kotakmasuk")
    assert table.broker.waiting("shafwa") == ["hai"]


def test_what_strangers_wrote_cannot_speak_to_the_terminal(table: Table) -> None:
    table.broker.put("shafwa", "fadly", "\x1b[31mred\x9b", name="\x1b]0;x\x07")
    table.broker.faults["users_on"].append(refusal(Code.INTERNAL, "\x1b[2J"))
    said = table.type("login shafwa mks", "kotakmasuk", "user_on", "chat \x1b[7m hi")
    assert not any("\x1b" in line or "\x9b" in line for line in said)
    assert said[1].endswith("to Shafwa: \\x1b[31mred\\x9b")


def test_an_unanswered_message_typed_again_keeps_its_id(table: Table) -> None:
    table.type("login shafwa mks")
    table.broker.faults["send"].append(RequestTimeout("no answer within 30 s"))
    (said,) = table.type("chat fadly hai")
    assert said == f"Error, the broker did not answer in time; {UNKNOWN_OUTCOME}"
    table.type("chat fadly hai", "chat fadly hai")
    first, again, another = table.broker.sent_ids
    assert first == again != another


@pytest.mark.parametrize("between", ["login fadly prp", "chat fadly other"])
def test_another_sender_or_text_gets_an_id_of_its_own(table: Table, between: str) -> None:
    table.type("login shafwa mks")
    table.broker.faults["send"].append(RequestTimeout("no answer"))
    table.type("chat fadly hai", between, "chat fadly hai")
    assert table.broker.sent_ids[0] != table.broker.sent_ids[-1]


def test_a_line_that_is_no_utf8_is_an_error_and_not_the_end(table: Table) -> None:
    table.type("login shafwa mks")
    assert table.type("chat fadly \udcff") == ["Error, the line is not valid UTF-8"]


def test_what_the_chat_remembers_is_bounded(table: Table) -> None:
    for number in range(NAMES_MAX + 10):
        table.broker.accounts[f"u{number}"] = ("x", "x")
        table.broker.sessions[f"t{number}"] = f"u{number}"
    table.type(*["login shafwa mks"] * (SESSIONS_MAX + 5), "user_on")
    assert len(table.chat.names) == NAMES_MAX
    assert len(table.chat._opened) == SESSIONS_MAX


# --- the terminal's parts ---------------------------------------------------------------------


def test_history_holds_no_line_with_a_password() -> None:
    history = SafeHistory()
    for line in ("login shafwa mks", "auth shafwa mks", " login  shafwa  mks", "logn shafwa mks"):
        history.append_string(line)
    assert history.get_strings() == []
    for line in ("login shafwa", "chat fadly hai", "kotakmasuk"):
        history.append_string(line)
    assert history.get_strings() == ["login shafwa", "chat fadly hai", "kotakmasuk"]


def _completions(chat: Chat, text: str) -> list[str]:
    found = ChatCompleter(chat).get_completions(Document(text), CompleteEvent())
    return [completion.text for completion in found]


def test_commands_and_the_names_seen_are_completed(table: Table) -> None:
    table.type("login shafwa mks", "chat fadly hai")
    assert _completions(table.chat, "ko") == ["kotakmasuk "]
    assert _completions(table.chat, "lo") == ["login ", "logout "]
    assert _completions(table.chat, "chat ") == ["fadly ", "shafwa "]
    assert _completions(table.chat, "send f") == ["fadly "]
    assert _completions(table.chat, "login shafwa s") == []
    assert _completions(table.chat, "user_on f") == []


def test_a_slow_answer_is_announced(monkeypatch: pytest.MonkeyPatch) -> None:
    # Not capsys: what another thread writes while it reads is lost.
    said = io.StringIO()
    monkeypatch.setattr(sys, "stderr", said)
    deadline = time.monotonic() + 30
    with waiting_notice("tcp://broker:1\x1b", after_s=0.01):
        while not said.getvalue().endswith("\n") and time.monotonic() < deadline:
            time.sleep(0.001)
    assert said.getvalue() == (
        "waiting for the broker at tcp://broker:1\\x1b (Ctrl-C to give up)\n"
    )


def test_a_quick_answer_is_not(capsys: pytest.CaptureFixture[str]) -> None:
    with waiting_notice("tcp://broker:1", after_s=3_600):
        pass
    assert capsys.readouterr().err == ""


# --- the whole, without a terminal ------------------------------------------------------------


def _interactive(
    monkeypatch: pytest.MonkeyPatch, fake: FakeBroker, lines: str, **options: str
) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return cli.interactive(argparse.Namespace(**options), connect=fake.connect)


def test_a_script_is_read_line_by_line_without_prompts(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = FakeBroker()
    script = "login shafwa mks\nchat fadly hai\nquit\nchat fadly never\n"
    assert _interactive(monkeypatch, broker, script, broker="tcp://there:1") == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("username shafwa logged in, token kt_")
    assert out[1:] == ["message sent to fadly"]
    assert broker.waiting("fadly") == ["hai"]
    assert not broker.sessions
    assert broker.connected[0][0] == "tcp://there:1"


def test_a_script_with_an_error_goes_on_and_returns_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    broker = FakeBroker()
    assert _interactive(monkeypatch, broker, "foo\nlogin shafwa mks\n") == 1
    assert len(capsys.readouterr().out.splitlines()) == 2


@pytest.mark.parametrize(("line", "doubt"), [("chat fadly hai", f"; {NOT_KNOWN}"), ("user_on", "")])
def test_a_script_that_is_interrupted_says_whether_its_message_may_have_been_sent(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], line: str, doubt: str
) -> None:
    broker = FakeBroker()
    for call in ("send", "users_on"):
        broker.faults[call].append(KeyboardInterrupt())
    script = f"login shafwa mks\n{line}\nchat fadly never\n"
    assert _interactive(monkeypatch, broker, script) == cli.INTERRUPTED
    assert capsys.readouterr().out.splitlines()[1:] == [f"Error, interrupted{doubt}"]
    assert not broker.sessions  # they are ended all the same
    assert broker.waiting("fadly") == []


def test_the_chat_does_not_touch_the_saved_session(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(tmp_path / "session.json"))
    assert _interactive(monkeypatch, FakeBroker(), "login shafwa mks\n") == 0
    assert list(tmp_path.iterdir()) == []


# --- the whole, at a terminal -----------------------------------------------------------------

_PROGRAM = """
import argparse, sys
from clients import cli
from tests.clients.fake_calls import FakeBroker
sys.exit(cli.interactive(argparse.Namespace(), connect=FakeBroker().connect))
"""


@pytest.fixture
def terminal() -> Iterator[Terminal]:
    with contextlib.closing(Terminal({}, program=("-c", _PROGRAM))) as opened:
        yield opened


def test_at_a_terminal_the_password_is_hidden_and_ctrl_d_leaves(terminal: Terminal) -> None:
    terminal.read_until("Command :")
    terminal.type("login shafwa\r")
    terminal.read_until("Password:")
    terminal.type("mks\r")
    terminal.read_until("username shafwa logged in, token kt_")
    terminal.read_until("Command kt_")
    assert "mks" not in terminal.seen
    terminal.type("chat fadly hai\r")
    terminal.read_until("message sent to fadly")
    terminal.read_until("Command kt_")  # before it, Ctrl-D would reach nobody
    terminal.type("\x04")
    assert terminal.process.wait(30) == 0


def test_at_a_terminal_ctrl_c_drops_the_line_and_not_the_chat(terminal: Terminal) -> None:
    terminal.read_until("Command :")
    terminal.type("chat fadly never\x03")
    terminal.read_until("(quit or Ctrl-D to leave)")
    terminal.read_until("Command :")
    terminal.type("foo\r")
    terminal.read_until("*Maaf, command tidak benar")
    terminal.read_until("Command :")
    terminal.type("quit\r")
    assert terminal.process.wait(30) == 0


def test_at_a_terminal_messages_appear_above_the_line_that_is_being_typed(
    demo_broker: Broker,
) -> None:
    command = Terminal({}, "--broker", demo_broker.zmq)
    with contextlib.closing(command) as terminal, Client(demo_broker.zmq) as other:
        other.login("shafwa", "mks")
        terminal.read_until("Command :")
        terminal.type("login fadly prp\r")
        terminal.read_until("Command kt_")
        terminal.type("chat shafwa ha")
        terminal.read_until("chat shafwa ha")
        other.send("fadly", "hai fadly")
        while not terminal.seen_within(
            0.5, "to Fadly: hai"
        ):  # it may have come before the look-out
            other.send("fadly", "hai lagi")
        terminal.type("lo\r")
        terminal.read_until("message sent to shafwa")
        assert [message.text for message in other.inbox().messages] == ["halo"]
        terminal.read_until("Command kt_")
        terminal.type("kotakmasuk\r")
        terminal.read_until("to Fadly: hai fadly")
        terminal.read_until("Command kt_")
        terminal.type("quit\r")
        assert terminal.process.wait(30) == 0
        assert [user.user for user in other.users_on()] == ["shafwa"]
