"""``kotak`` as a person uses it, against a real broker: commands, pipes, a terminal."""

from __future__ import annotations

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from clients.invocation import TIMEOUT_S_DEFAULT
from tests.e2e.program import PATIENCE_S, ROOT, Ended, Serving, connect, environment, run
from tests.e2e.terminal import Terminal

Kotak = Callable[..., Ended]
#: What a message to fadly is answered with.
SENT = r"message sent to fadly \(sequence \d+\)\n"


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serving]:
    data = tmp_path_factory.mktemp("cli") / "data"
    with Serving(data, "--demo", "--store", "memory:", "--register") as serving:
        yield serving


def settings(broker: Serving, session: Path) -> dict[str, str]:
    return {
        "KOTAK_BROKER": broker.zmq,
        "KOTAK_SESSION_FILE": str(session),
        "MKS": "mks",
        "PRP": "prp",
        "NEW": "a new password",
    }


@pytest.fixture
def kotak(broker: Serving, tmp_path: Path) -> Kotak:
    """Return what runs ``kotak WORDS`` with a session file of its own."""
    env = settings(broker, tmp_path / "session.json")
    return lambda *words, typed="": run(*words, typed=typed, env=env)


def test_an_evening_of_single_commands(kotak: Kotak, broker: Serving, tmp_path: Path) -> None:
    said = kotak("login", "shafwa", "--password-env", "MKS")
    assert said == (0, f"logged in as Shafwa (shafwa) at {broker.zmq}\n", "")
    assert (tmp_path / "session.json").stat().st_mode & 0o777 == 0o600
    sent = kotak("send", "fadly", "hai", "dudee")
    assert (sent.code, sent.err) == (0, "")
    assert re.fullmatch(SENT, sent.out)
    assert kotak("send", "fadly", "-", typed="baris satu\nbaris dua\n").code == 0
    assert kotak("whoami").out == f"Shafwa (shafwa) at {broker.zmq}\n"
    assert kotak("inbox") == (0, "", "no messages\n")
    said = kotak("login", "fadly", "--password-stdin", typed="prp\n")
    assert said.code == 0
    assert kotak("who").out == "Fadly (fadly)\n"  # shafwa's session was replaced, and so ended
    kept = kotak("inbox", "--keep", "--json")
    texts = [json.loads(line)["text"] for line in kept.out.splitlines()]
    assert texts == ["hai dudee", "baris satu\nbaris dua"]
    assert json.loads(kept.out.splitlines()[0])["from"] == "shafwa"
    shown = kotak("inbox")
    assert "hai dudee" in shown.out
    assert shown.err == "messages: 2\n"
    assert kotak("inbox", "--json") == (0, "", "")
    assert kotak("logout") == (0, "logout success\n", "")
    assert not (tmp_path / "session.json").exists()


def test_an_evening_in_a_room(kotak: Kotak) -> None:
    def lines(*words: str) -> list[str]:
        ended = kotak(*words)
        assert (ended.code, ended.err) == (0, "")
        return re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d|(?<=sequence )\d+", "N", ended.out).splitlines()

    lines("login", "shafwa", "--password-env", "MKS")
    assert lines("room", "create", "evening") == [
        "room #evening made: its members may invite others"
    ]
    assert lines("room", "invite", "evening", "fadly") == ["fadly may join #evening now"]
    lines("login", "fadly", "--password-env", "PRP", "--device", "phone")
    assert "shafwa invites you to the room #evening" in kotak("inbox").out
    assert lines("room", "join", "#evening") == ["joined #evening (2 members)"]
    assert lines("send", "#evening", "hai", "semua") == ["message sent to #evening (sequence N)"]
    assert lines("inbox", "--keep", "--json")
    assert kotak("inbox").out.endswith("] Fadly (fadly) in #evening: hai semua\n")
    assert lines("history", "--room", "evening")[-1].endswith("in #evening: hai semua")
    assert lines("history", "--sent")[-1].endswith("to #evening, stored: hai semua")
    assert lines("room", "members", "evening") == ["Fadly (fadly)", "Shafwa (shafwa)"]
    assert "Fadly (fadly): connected" in lines("who", "--detail")
    assert lines("room", "leave", "evening") == ["you are not in #evening any more"]


def test_a_sender_asks_where_a_message_stands(kotak: Kotak) -> None:
    kotak("login", "shafwa", "--password-env", "MKS")
    found = re.search(r"sequence (\d+)", kotak("send", "mamang", "sudah?", "--ttl", "1h").out)
    assert found
    assert kotak("status", "mamang", found[1]).out.endswith(": stored, not delivered yet\n")
    kotak("login", "mamang", "--password-stdin", typed="jkt\n")
    assert "sudah?" in kotak("inbox").out
    kotak("login", "shafwa", "--password-env", "MKS")
    assert kotak("status", "mamang", found[1]).out.endswith(": acknowledged\n")


def test_a_newcomer_registers_and_changes_the_password(kotak: Kotak) -> None:
    assert kotak("register", "ana", "--name", "Ana B", "--password-env", "NEW").code == 0
    again = kotak("register", "ana", "--password-env", "NEW")
    assert again.code == 1
    assert again.err.endswith("(user_exists)\n")
    assert kotak("login", "ana", "--password-env", "NEW").out.startswith("logged in as Ana B (ana)")
    lines = "a new password\nanother password\n"
    assert kotak("passwd", "--password-stdin", "--new-password-stdin", typed=lines).code == 0
    assert kotak("whoami").code == 0  # the session that changed it lives on
    assert kotak("login", "ana", "--password-env", "NEW").code == 1


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("login", "shafwa", "--password-env", "PRP"), 1, "(bad_credentials)"),
        (("login", "shafwa", "--password-env", "UNSET"), 2, "the password is empty"),
        (("login", "shafwa"), 2, "use --password-stdin or --password-env NAME"),
        (("send", "fadly", "hai"), 1, "not logged in: run kotak login USER"),
        (("inbox",), 1, "not logged in"),
        (("send", "fadly"), 2, "TEXT"),
        (("inbox", "--limit", "0"), 2, "between 1 and"),
        (("sned", "fadly", "hai"), 2, "did you mean send?"),
        (("who", "--broker", "foo"), 2, "tcp://HOST:PORT"),
        (("who", "--timeout", "-1"), 2, "seconds"),
    ],
)
def test_what_goes_wrong_is_a_line_and_an_exit_code(
    kotak: Kotak, words: tuple[str, ...], code: int, said: str
) -> None:
    ended = kotak(*words)
    assert ended.code == code
    assert said in ended.err
    assert ended.err.startswith("kotak: ")
    assert ended.out == ""


def test_refusals_of_the_broker_reach_the_person(kotak: Kotak) -> None:
    kotak("login", "shafwa", "--password-env", "MKS")
    assert kotak("send", "nobody", "hai").err.endswith("(no_such_user)\n")
    assert kotak("send", "fadly", "hai", "--id", "same").code == 0
    assert kotak("send", "fadly", "hai", "--id", "same").code == 0
    other = kotak("send", "fadly", "hei", "--id", "same")
    assert (other.code, other.err.endswith("(conflict)\n")) == (1, True)
    assert kotak("send", "fadly", "-", typed="x" * 65_537).code == 2


def test_a_broker_that_is_not_there_is_given_up_in_time(kotak: Kotak) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        free = f"tcp://127.0.0.1:{nobody.getsockname()[1]}"
    began = time.monotonic()
    words = ("login", "shafwa", "--password-env", "MKS", "--timeout", "1.5", "--broker", free)
    ended = kotak(*words)
    assert ended.code == 3
    assert time.monotonic() - began < PATIENCE_S / 4
    assert free in ended.err
    assert "is the broker running" in ended.err
    assert "Traceback" not in ended.err


def test_a_broker_that_never_answers_is_given_up_in_time(kotak: Kotak) -> None:
    """A listener that accepts and says nothing, as a hung process does."""
    with socket.create_server(("127.0.0.1", 0)) as hung:
        address = f"tcp://127.0.0.1:{hung.getsockname()[1]}"
        words = ("login", "shafwa", "--password-env", "MKS", "--timeout", "1.5")
        ended = kotak(*words, "--broker", address)
    assert ended.code == 3


def test_a_broker_that_comes_back_in_time_is_waited_for(tmp_path: Path) -> None:
    data = tmp_path / "data"
    with Serving(data, "--demo") as broker:
        env = settings(broker, tmp_path / "session.json")
        assert run("login", "shafwa", "--password-env", "MKS", env=env).code == 0
        broker.stop()
        waiting = subprocess.Popen(
            [sys.executable, "-m", "broker.cli", "send", "fadly", "hai"],
            cwd=ROOT,
            env=environment(env),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        assert waiting.stderr
        assert "waiting for the broker" in waiting.stderr.readline()
        with broker.again():
            out, _ = waiting.communicate(timeout=PATIENCE_S)
    assert waiting.returncode == 0
    assert re.fullmatch(SENT, out)


def test_output_into_a_closed_pipe_takes_nothing(broker: Serving, tmp_path: Path) -> None:
    """``kotak inbox | true``: what nobody has read is still there."""
    env = settings(broker, tmp_path / "session.json")
    run("login", "mamang", "--password-stdin", typed="jkt\n", env=env)
    for number in range(3):
        run("send", "mamang", f"{number}", env=env)
    reader, writer = os.pipe()
    os.close(reader)
    done = subprocess.run(
        [sys.executable, "-m", "broker.cli", "inbox"],
        cwd=ROOT,
        env=environment(env),
        stdout=writer,
        stderr=subprocess.PIPE,
        check=False,
        timeout=PATIENCE_S,
    )
    os.close(writer)
    assert done.returncode == 141
    assert b"Traceback" not in done.stderr
    assert len(run("inbox", "--json", env=env).out.splitlines()) == 3


# --- the chat ------------------------------------------------------------------------------------


def test_the_chat_reads_a_script(kotak: Kotak) -> None:
    script = "kotakmasuk\nlogin afif plp\nchat afif halo diri\nkotakmasuk\nuser_on\nlogout\nquit\n"
    ended = kotak(typed=script)
    assert ended.code == 1  # the first line was refused
    lines = ended.out.splitlines()
    assert lines[0] == "Error, not authorized"
    assert lines[1].startswith("username afif logged in, token kt_")
    assert lines[2] == "message sent to afif"
    assert "halo diri" in lines[3]
    assert "afif" in next(line for line in lines if line.startswith("user aktif: "))
    assert lines[-1] == "logout success"


def test_the_text_client_reads_a_script(kotak: Kotak, broker: Serving) -> None:
    script = "login afif plp\nchat afif  dua  spasi\nkotakmasuk\nfoo\nlogout\n"
    ended = kotak("text", broker.text, typed=script)
    assert ended.code == 1
    login, sent, message, unknown, out = ended.out.splitlines()
    assert re.fullmatch(r"username afif logged in, token kt_\S+", login)
    assert sent == "message sent to afif"
    assert message == "from Afif to Afif:  dua  spasi"
    assert unknown == "*Maaf, command tidak benar"
    assert out == "logout success"


def test_the_text_client_without_a_door_says_so(kotak: Kotak) -> None:
    with socket.create_server(("127.0.0.1", 0)) as nobody:
        free = f"127.0.0.1:{nobody.getsockname()[1]}"
    ended = kotak("text", free, typed="login afif plp\n")
    assert ended.code == 1
    assert ended.out.startswith("Error, ")
    assert "Traceback" not in ended.err


def test_a_chat_at_a_terminal(broker: Serving, tmp_path: Path) -> None:
    with contextlib.closing(Terminal(settings(broker, tmp_path / "s.json"))) as terminal:
        terminal.read_until("Command :")
        terminal.type("login shafwa\r")
        terminal.read_until("Password:")
        terminal.type("mks\r")
        terminal.read_until("username shafwa logged in, token kt_")
        terminal.read_until("Command kt_")
        terminal.type("chat shafwa dari terminal\r")
        terminal.read_until("message sent to shafwa")
        terminal.read_until("Command kt_")
        terminal.type("kotakmasuk\r")
        terminal.read_until("dari terminal")
        assert terminal.leave("\x04") == 0
        assert "mks" not in terminal.seen


def test_a_chat_whose_broker_hangs_and_goes_says_what_is_known_and_ends(tmp_path: Path) -> None:
    with (
        Serving(tmp_path / "data", "--demo", "--store", "memory:") as broker,
        contextlib.closing(Terminal(settings(broker, tmp_path / "s.json"))) as terminal,
    ):
        terminal.read_until("Command :")
        terminal.type("login shafwa mks\r")
        terminal.read_until("Command kt_")
        broker.signal(signal.SIGSTOP)
        os.waitid(os.P_PID, broker.process.pid, os.WSTOPPED)
        terminal.type("chat shafwa satu kali\r")
        terminal.read_until("waiting for the broker")
        terminal.process.send_signal(signal.SIGINT)
        terminal.read_until("Error, interrupted; whether the message was sent is not known")
        terminal.read_until("Command kt_")
        broker.signal(signal.SIGCONT)
        terminal.type("chat shafwa satu kali\r")
        terminal.read_until("message sent to shafwa")
        with connect(broker) as client:
            assert [message.text for message in client.inbox().messages] == ["satu kali"]
        terminal.read_until("Command kt_")
        broker.signal(signal.SIGKILL)
        began = time.monotonic()
        assert terminal.leave("quit\r") == 0
        assert time.monotonic() - began < TIMEOUT_S_DEFAULT / 2
        terminal.read_until("the sessions of this chat were not ended")


def test_a_password_is_asked_for_hidden_at_a_terminal(broker: Serving, tmp_path: Path) -> None:
    env = settings(broker, tmp_path / "s.json")
    with contextlib.closing(Terminal(env, "login", "shafwa")) as terminal:
        terminal.read_until("Password of shafwa:")
        terminal.type("mks\r")
        terminal.read_until("logged in as Shafwa (shafwa)")
        assert terminal.process.wait(PATIENCE_S) == 0
        assert "mks" not in terminal.seen


def test_ctrl_c_ends_a_question_quietly(broker: Serving, tmp_path: Path) -> None:
    env = settings(broker, tmp_path / "s.json")
    with contextlib.closing(Terminal(env, "login", "shafwa")) as terminal:
        terminal.read_until("Password of shafwa:")
        terminal.process.send_signal(signal.SIGINT)  # Ctrl-C, but for the terminal's own part in it
        assert terminal.process.wait(PATIENCE_S) == 130
        assert "Traceback" not in terminal.seen
