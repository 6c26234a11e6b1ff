"""The text client: its connection over real TCP, its words over a scripted door, its process."""

from __future__ import annotations

import argparse
import io
import socket
import struct
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from clients import text_cli, text_connection
from clients.text_cli import MAY_BE_SENT, TextChat
from clients.text_connection import TextConnection, TextDoorError
from tests.transports.fake_broker import fake_door

OK = b'{"status": "OK", "message": "logout success"}\r\n\r\n'


@contextmanager
def server(*serve: Callable[[socket.socket], None]) -> Iterator[tuple[str, int]]:
    """A listener: ``serve`` handles one connection each, which is closed afterwards."""
    listener = socket.create_server(("127.0.0.1", 0))

    def accept() -> None:
        for each in serve:
            connection, _ = listener.accept()
            with connection:
                each(connection)

    thread = threading.Thread(target=accept)
    thread.start()
    try:
        yield listener.getsockname()
    finally:
        thread.join(10)
        listener.close()


def replying(*pieces: bytes) -> Callable[[socket.socket], None]:
    def serve(connection: socket.socket) -> None:
        connection.recv(65_536)
        for piece in pieces:
            connection.sendall(piece)

    return serve


# --- the connection --------------------------------------------------------------------------


def test_every_command_of_the_connection_speaks_the_protocol() -> None:
    with fake_door() as (host, port), TextConnection(host, port) as door:
        token = door.login("shafwa", "mks")["tokenid"]
        assert door.chat(token, "shafwa", " dua  spasi ")["message"] == "Message Sent"
        assert door.user_on(token)["message"] == "shafwa, "
        assert door.kotakmasuk(token)["messages"] == [
            {"msg_from": "Shafwa", "msg_to": "Shafwa", "msg": " dua  spasi "}
        ]
        assert door.logout(token)["status"] == "OK"
        assert door.logout(token)["message"] == "Informasi tidak ditemukan"
        assert door.request("foo")["message"] == "**Protocol Tidak Benar"


def test_a_reply_in_pieces_is_put_together() -> None:
    pieces = replying(OK[:7], OK[7:-3], OK[-3:])
    with server(pieces) as address, TextConnection(*address) as door:
        assert door.logout("T")["message"] == "logout success"


@pytest.mark.parametrize(
    ("pieces", "says"),
    [
        ((b'{"status": "OK"',), "closed the connection"),
        ((), "closed the connection"),
        ((b"HTTP/1.1 400 Bad Request\r\n\r\n",), "is this the text door"),
        ((b"[1]\r\n\r\n",), "is this the text door"),
        ((b"[" * 100_000 + b"\r\n\r\n",), "is this the text door"),
    ],
)
def test_what_is_no_reply_is_named_and_the_next_request_starts_afresh(
    pieces: tuple[bytes, ...], says: str
) -> None:
    with server(replying(*pieces), replying(OK)) as address, TextConnection(*address) as door:
        with pytest.raises(TextDoorError, match=says):
            door.logout("T")
        assert door.logout("T")["status"] == "OK"


def test_a_connection_that_is_reset_is_told_as_one_that_was_closed() -> None:
    def reset(connection: socket.socket) -> None:
        connection.recv(1)  # the rest stays unread: closing resets
        linger = struct.pack("ii", 1, 0)
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)

    with server(reset, replying(OK)) as address, TextConnection(*address) as door:
        with pytest.raises(TextDoorError, match="closed the connection"):
            door.logout("T")
        assert door.logout("T")["status"] == "OK"


def test_a_reply_without_an_end_is_given_up_before_it_fills_the_memory(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(text_connection, "REPLY_BYTES_MAX", 1_000)
    endless = replying(b"x" * 100_000)
    with server(endless, replying(OK)) as address, TextConnection(*address) as door:
        with pytest.raises(TextDoorError, match="does not end"):
            door.logout("T")
        assert door.logout("T")["status"] == "OK"


def test_silence_is_an_error_in_time_and_the_next_request_starts_afresh() -> None:
    def silent(connection: socket.socket) -> None:
        while connection.recv(65_536):  # until the client has given up
            pass

    with server(silent, replying(OK)) as address, TextConnection(*address, timeout_ms=50) as door:
        with pytest.raises(TextDoorError, match=r"within 0.05 s"):
            door.logout("T")
        door._timeout_s = 10  # the machine may be slow, and this one must succeed
        assert door.logout("T")["status"] == "OK"


def test_the_error_that_a_stopping_door_left_is_the_next_reply() -> None:
    left = threading.Event()

    def stopping(connection: socket.socket) -> None:
        replying(OK, b'{"status": "ERROR", "message": "stopping"}\r\n\r\n')(connection)
        connection.shutdown(socket.SHUT_WR)
        left.set()
        connection.recv(1)

    with server(stopping) as address, TextConnection(*address) as door:
        door.logout("T")
        assert left.wait(10)
        assert door.logout("T")["message"] == "stopping"


def test_nobody_listening_is_an_error_that_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    door = TextConnection("127.0.0.1", port)
    with pytest.raises(TextDoorError, match="is the broker running"):
        door.logout("T")


@pytest.mark.parametrize("line", ["a\nb", "a\r", "a\0", "", " ", "\udcff"])
def test_a_line_that_would_be_two_or_none_is_never_sent(line: str) -> None:
    door = TextConnection("host.invalid", 1)
    with pytest.raises(TextDoorError, match=r"line|UTF-8"):
        door.request(line)
    with pytest.raises(TextDoorError, match="one word"):
        door.login("two words", "x")


# --- the words -------------------------------------------------------------------------------


class ScriptedDoor:
    """Answers each command with the next reply; ``asked`` records what came."""

    def __init__(self, *replies: dict[str, Any] | BaseException) -> None:
        self.asked: list[tuple[str, ...]] = []
        self._replies = iter(replies)

    def _next(self, *asked: str) -> dict[str, Any]:
        self.asked.append(asked)
        reply = next(self._replies)
        if isinstance(reply, BaseException):
            raise reply
        return reply

    def login(self, user: str, password: str) -> dict[str, Any]:
        return self._next("login", user, password)

    def chat(self, token: str, to: str, text: str) -> dict[str, Any]:
        return self._next("chat", token, to, text)

    def kotakmasuk(self, token: str) -> dict[str, Any]:
        return self._next("kotakmasuk", token)

    def user_on(self, token: str) -> dict[str, Any]:
        return self._next("user_on", token)

    def logout(self, token: str) -> dict[str, Any]:
        return self._next("logout", token)


LOGIN = {"status": "OK", "tokenid": "T1", "tokenId": "T1"}
REFUSED = {"status": "ERROR", "message": "User Tidak Ditemukan"}


def said(door: ScriptedDoor, *lines: str, **options: Any) -> list[str]:
    out: list[str] = []
    chat = TextChat(door, say=out.append, **options)
    for line in lines:
        assert chat.handle(line)
    return out


def test_the_five_commands_say_what_the_original_said() -> None:
    inbox = {"status": "OK", "messages": [{"msg_from": "Afif", "msg_to": "Fadly", "msg": "hai"}]}
    door = ScriptedDoor(
        LOGIN,
        {"status": "OK", "message": "Message Sent"},
        inbox,
        {"status": "OK", "messages": []},
        {"status": "OK", "message": "shafwa, fadly, "},
        {"status": "OK", "message": "logout success"},
    )
    lines = ("login fadly prp", "chat afif  hai  dudee", "kotakmasuk", "inbox", "who", "logout")
    assert said(door, *lines) == [
        "username fadly logged in, token T1",
        "message sent to afif",
        "from Afif to Fadly: hai",
        "no messages",
        "user aktif: shafwa, fadly, ",
        "logout success",
    ]
    assert door.asked[:2] == [("login", "fadly", "prp"), ("chat", "T1", "afif", " hai  dudee")]


def test_a_room_is_a_recipient_and_is_named_where_its_messages_are_read() -> None:
    message = {"msg_from": "Afif", "msg_to": "#team", "msg": "hai"}
    door = ScriptedDoor(
        LOGIN,
        {"status": "OK", "message": "Message Sent"},
        {"status": "OK", "messages": [message]},
    )
    lines = said(door, "login fadly prp", "chat #team hai  semua", "kotakmasuk")
    assert lines[1:] == ["message sent to #team", "from Afif to #team: hai"]
    assert door.asked[1] == ("chat", "T1", "#team", "hai  semua")


def test_the_prompt_shows_the_token_of_the_session() -> None:
    chat = TextChat(ScriptedDoor(LOGIN, {"status": "OK"}), say=lambda _: None)
    assert chat.prompt == "Command :"
    chat.handle("login a b")
    assert chat.prompt == "Command T1:"
    chat.handle("logout")
    assert chat.prompt == "Command :"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("chat fadly hai", "Error, not authorized"),
        ("kotakmasuk", "Error, not authorized"),
        ("user_on", "Error, not authorized"),
        ("logout", "Error, not authorized"),
        ("foo", "*Maaf, command tidak benar"),
        ("LOGIN a b", "*Maaf, command tidak benar"),
        ("login", "-Maaf, command tidak benar"),
        ("login a", "-Maaf, command tidak benar"),
        ("chat fadly ", "-Maaf, command tidak benar"),
    ],
)
def test_what_is_refused_before_it_is_sent(line: str, words: str) -> None:
    door = ScriptedDoor()
    assert said(door, line) == [words]
    assert door.asked == []


def test_errors_of_the_door_and_of_the_connection_are_shown_and_remembered() -> None:
    door = ScriptedDoor(LOGIN, REFUSED, TextDoorError("the broker closed the connection"))
    out: list[str] = []
    chat = TextChat(door, say=out.append)
    chat.handle("login a b")
    assert not chat.failed
    chat.handle("chat x y")
    chat.handle("user_on")
    assert chat.failed
    assert out[1:] == ["Error, User Tidak Ditemukan", "Error, the broker closed the connection"]


@pytest.mark.parametrize(
    ("line", "doubt"), [("chat x y", f"; {MAY_BE_SENT}"), ("kotakmasuk", ""), ("user_on", "")]
)
def test_an_interrupted_line_says_whether_a_message_may_have_been_sent(
    line: str, doubt: str
) -> None:
    door = ScriptedDoor(LOGIN, REFUSED, KeyboardInterrupt())
    out: list[str] = []
    chat = TextChat(door, say=out.append)
    for each in ("login a b", "chat x y"):
        chat.handle(each)
    with pytest.raises(KeyboardInterrupt):
        chat.handle(line)
    chat.interrupted()
    assert out[2:] == [f"Error, interrupted{doubt}"]
    assert chat.failed


def test_a_script_that_is_interrupted_while_it_sends_says_so_and_ends(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    door = ScriptedDoor(LOGIN, KeyboardInterrupt())
    monkeypatch.setattr(sys, "stdin", io.StringIO("login a b\nchat x y\nchat x never\n"))
    assert text_cli._run_lines(door) == text_cli.INTERRUPTED
    assert capsys.readouterr().out.splitlines()[1:] == [f"Error, interrupted; {MAY_BE_SENT}"]
    assert len(door.asked) == 2


def test_a_connection_that_is_closed_before_the_reply_leaves_the_outcome_open() -> None:
    with server(replying()) as address, TextConnection(*address) as door:
        out: list[str] = []
        chat = TextChat(door, say=out.append)
        chat.token = "T"
        chat.handle("chat x y")
    assert out == [
        "Error, the broker closed the connection without a reply: it may have done it all the same"
    ]


def test_at_a_terminal_login_asks_for_the_password() -> None:
    door = ScriptedDoor(LOGIN)
    said(door, "login a", ask_password=lambda: "hidden words")
    assert door.asked == [("login", "a", "hidden words")]
    assert said(ScriptedDoor(), "login a", ask_password=lambda: None) == [
        "-Maaf, command tidak benar"
    ]


def test_a_message_cannot_command_the_terminal_or_pretend_to_be_two() -> None:
    text = "\x1b[2Jhai\nfrom Admin to Fadly: x"
    inbox = {"status": "OK", "messages": [{"msg_from": "A\nB", "msg_to": "F", "msg": text}]}
    (_, shown) = said(ScriptedDoor(LOGIN, inbox), "login a b", "kotakmasuk")
    assert shown == "from A\\nB to F: \\x1b[2Jhai\n    from Admin to Fadly: x"


def test_empty_lines_do_nothing_and_quit_leaves() -> None:
    chat = TextChat(ScriptedDoor(), say=pytest.fail)
    assert chat.handle("\n")
    assert chat.handle("  ")
    assert not chat.handle("quit\n")


# --- the command -----------------------------------------------------------------------------


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    text_cli.add_arguments(parser)
    return parser.parse_args(words)


def piped(lines: str, *words: str, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return text_cli.run(parsed(*words))


def test_a_script_is_carried_out_and_its_success_returned(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with fake_door() as (host, port):
        script = "login shafwa mks\nchat shafwa hai dudee\nkotakmasuk\nlogout\n"
        assert piped(script, f"{host}:{port}", monkeypatch=monkeypatch) == 0
        assert capsys.readouterr().out.splitlines()[1:] == [
            "message sent to shafwa",
            "from Shafwa to Shafwa: hai dudee",
            "logout success",
        ]
        bad = piped(
            "login shafwa no\nquit\nfoo",
            "--host",
            host,
            "--port",
            str(port),
            monkeypatch=monkeypatch,
        )
        assert bad == 1
        assert capsys.readouterr().out == "Error, Uncorrect Password\n"


def test_the_address_may_be_given_in_three_ways() -> None:
    assert parsed("127.0.0.1:99").address == ("127.0.0.1", 99)
    assert parsed("[::1]:99").address == ("::1", 99)
    assert (parsed("--port", "99").port, parsed("--host", "h").host) == (99, "h")


@pytest.mark.parametrize("address", ["127.0.0.1", ":99", "h:0", "h:65536", "h:x", "h:"])
def test_a_bad_address_is_a_usage_error(address: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        parsed(address)
    assert "HOST:PORT" in capsys.readouterr().err
