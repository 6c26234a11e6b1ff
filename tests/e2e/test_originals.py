"""The 2020 client against the text door: every request and reply of the original, byte for byte.

Source: docs/PROTOCOL.md, "The text door". The table runs against a whole broker, and against the
door before an in-memory one, so that a difference says on which side of the door it lies.
"""

from __future__ import annotations

import json
import re
import socket
from collections.abc import Iterator
from typing import Any

import pytest

from tests.conftest import demo
from tests.transports.fake_broker import fake_door

TIMEOUT_S = 30.0
TOKEN = re.compile(rb'\{"status": "OK", "tokenid": "([!-~]+)", "tokenId": "([!-~]+)"\}\r\n\r\n')


def error(message: str) -> bytes:
    return b'{"status": "ERROR", "message": "%b"}\r\n\r\n' % message.encode()


WRONG_PASSWORD = error("Uncorrect Password")
TOO_FEW_WORDS = error("--Protocol Tidak Benar")
UNKNOWN_COMMAND = error("**Protocol Tidak Benar")
UNKNOWN_TOKEN = error("Informasi tidak ditemukan")
SENT = b'{"status": "OK", "message": "Message Sent"}\r\n\r\n'
LOGGED_OUT = b'{"status": "OK", "message": "logout success", "messages": "logout success"}\r\n\r\n'
NO_MESSAGES = b'{"status": "OK", "messages": []}\r\n\r\n'


class Original:
    """As the 2020 client behaves on the wire: it never reads more than it waits for, nor less.

    A line ends in a blank and CRLF. It reads 64 bytes at a time, decodes each chunk by itself and
    stops as soon as what it has ends in an empty line. At the end of the stream the original spins
    for ever; this one fails.
    """

    def __init__(self, address: tuple[str, int]) -> None:
        self.socket = socket.create_connection(address, TIMEOUT_S)
        self.token = ""

    def raw(self, line: bytes) -> bytes:
        self.socket.sendall(line)
        received = ""
        while not received.endswith("\r\n\r\n"):
            chunk = self.socket.recv(64)
            assert chunk, "closed without a complete reply: the original spins for ever"
            received += chunk.decode("utf-8")
        return received.encode()

    def obey(self, typed: str) -> str:
        """Carry out what a user types and return what the original prints."""
        words = typed.split(" ")
        command = words[0].strip()
        if command == "login":
            reply = self._ask(f"login {words[1]} {words[2]} \r\n")
            if reply["status"] == "OK":
                self.token = reply["tokenid"]
                return f"username {words[1]} logged in, token {self.token} "
        elif not self.token:
            return "Error, not authorized"
        elif command == "chat":
            text = "".join(f" {word}" for word in words[2:])
            reply = self._ask(f"chat {self.token} {words[1]} {text} \r\n")
            if reply["status"] == "OK":
                return f"message sent to {words[1]}"
        else:
            reply = self._ask(f"{command} {self.token} \r\n")
            if reply["status"] == "OK":
                if command == "kotakmasuk":
                    return json.dumps(reply["messages"])
                return "user aktif: " * (command == "user_on") + str(reply["message"])
        return f"Error, {reply['message']}"

    def _ask(self, line: str) -> dict[str, Any]:
        reply: dict[str, Any] = json.loads(self.raw(line.encode()))
        return reply


@pytest.fixture(params=["door", "broker"])
def address(request: pytest.FixtureRequest) -> Iterator[tuple[str, int]]:
    """The text door's address, with the coursework's users behind it and nobody logged in."""
    if request.param == "broker":
        yield request.getfixturevalue("demo_broker").text
    else:
        with fake_door() as bound:
            yield bound


@pytest.fixture(scope="module", params=["door", "broker"])
def any_address(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[str, int]]:
    """The same for lines that nobody need be logged in for, and that leave nothing behind."""
    if request.param == "broker":
        with demo(tmp_path_factory.mktemp("broker")) as broker:
            yield broker.text
    else:
        with fake_door() as bound:
            yield bound


@pytest.fixture
def stranger(any_address: tuple[str, int]) -> Iterator[Original]:
    original = Original(any_address)
    with original.socket:
        yield original


@pytest.fixture
def client(address: tuple[str, int]) -> Iterator[Original]:
    original = Original(address)
    with original.socket:
        yield original


@pytest.fixture
def second(address: tuple[str, int]) -> Iterator[Original]:
    original = Original(address)
    with original.socket:
        yield original


def logged_in(client: Original, user: bytes = b"shafwa", password: bytes = b"mks") -> bytes:
    reply = client.raw(b"login %b %b \r\n" % (user, password))
    found = TOKEN.fullmatch(reply)
    assert found, reply
    assert found[1] == found[2]
    return found[1]


def test_login_answers_with_both_spellings_of_the_token(client: Original) -> None:
    assert logged_in(client) != logged_in(client)  # two sessions of one user


def test_unknown_user_and_wrong_password_are_answered_alike(client: Original) -> None:
    assert client.raw(b"login nobody x \r\n") == WRONG_PASSWORD
    assert client.raw(b"login shafwa bad \r\n") == WRONG_PASSWORD


@pytest.mark.parametrize(
    "line",
    [
        *(b"login\r\n", b"login \r\n", b"login shafwa \r\n", b"chat\r\n", b"chat T fadly \r\n"),
        *(b"kotakmasuk\r\n", b"user_on \r\n", b"logout\r\n", b"auth a\n", b"send T u\n"),
        *(
            b"login \xff\xfe x \r\n",
            b"chat T fadly \0 \r\n",
            b"chat T u " + b"x" * 70_000 + b"\r\n",
        ),
    ],
)
def test_too_few_words_and_bad_lines(stranger: Original, line: bytes) -> None:
    assert stranger.raw(line) == TOO_FEW_WORDS


@pytest.mark.parametrize("line", [b"foo\r\n", b"LOGIN a b\r\n", b"foo \r\n", b"ack T 1 \r\n"])
def test_unknown_commands(stranger: Original, line: bytes) -> None:
    assert stranger.raw(line) == UNKNOWN_COMMAND


@pytest.mark.parametrize("token", [b"T", b"aed66926-1a6a-4d5e-b3e0-3d5d22ad4b0b", b"x" * 300])
@pytest.mark.parametrize(
    "line",
    [b"chat %b fadly  hi \r\n", b"kotakmasuk %b \r\n", b"user_on %b \r\n", b"logout %b \r\n"],
)
def test_every_command_with_an_unknown_token(stranger: Original, line: bytes, token: bytes) -> None:
    assert stranger.raw(line % token) == UNKNOWN_TOKEN


def test_a_message_goes_from_one_to_the_other_once(client: Original, second: Original) -> None:
    shafwa, fadly = logged_in(client), logged_in(second, b"fadly", b"prp")
    assert client.raw(b"chat %b fadly  hai dudee \r\n" % shafwa) == SENT
    assert second.raw(b"kotakmasuk %b \r\n" % fadly) == (
        b'{"status": "OK", "messages": '
        b'[{"msg_from": "Shafwa", "msg_to": "Fadly", "msg": "hai dudee"}]}\r\n\r\n'
    )
    assert second.raw(b"kotakmasuk %b \r\n" % fadly) == NO_MESSAGES


def test_messages_are_one_flat_list_in_order_of_arrival(client: Original) -> None:
    shafwa, mamang = logged_in(client), logged_in(client, b"mamang", b"jkt")
    client.raw(b"chat %b afif  satu \r\n" % shafwa)
    client.raw(b"chat %b afif  dua \r\n" % mamang)
    client.raw(b"chat %b afif tiga\n" % shafwa)
    inbox = json.loads(client.raw(b"kotakmasuk %b \r\n" % logged_in(client, b"afif", b"plp")))
    assert [(m["msg_from"], m["msg_to"], m["msg"]) for m in inbox["messages"]] == [
        ("Shafwa", "Afif", "satu"),
        ("mamang", "Afif", "dua"),
        ("Shafwa", "Afif", "tiga"),
    ]


def test_a_text_keeps_its_inner_blanks_and_travels_as_ascii(client: Original) -> None:
    token = logged_in(client)
    line = f"chat {token.decode()} shafwa   dua  spasi, é \U0001f600  \r\n"
    assert client.raw(line.encode()) == SENT
    assert client.raw(b"kotakmasuk %b \r\n" % token) == (
        b'{"status": "OK", "messages": [{"msg_from": "Shafwa", "msg_to": "Shafwa", '
        b'"msg": " dua  spasi, \\u00e9 \\ud83d\\ude00 "}]}\r\n\r\n'
    )


def test_chat_to_nobody(client: Original) -> None:
    token = logged_in(client)
    assert client.raw(b"chat %b nobody hi \r\n" % token) == error("User Tidak Ditemukan")


def test_user_on_lists_each_user_once_in_order_of_login(client: Original) -> None:
    token = logged_in(client)
    logged_in(client, b"fadly", b"prp")
    logged_in(client)
    assert client.raw(b"user_on %b \r\n" % token) == (
        b'{"status": "OK", "message": "shafwa, fadly, "}\r\n\r\n'
    )


def test_logout_ends_the_session(client: Original) -> None:
    token = logged_in(client)
    assert client.raw(b"logout %b \r\n" % token) == LOGGED_OUT
    assert client.raw(b"logout %b \r\n" % token) == UNKNOWN_TOKEN


def test_the_aliases_are_the_same_commands(client: Original) -> None:
    found = TOKEN.fullmatch(client.raw(b"auth shafwa mks\r\n"))
    assert found
    assert client.raw(b"send %b fadly hi\r\n" % found[1]) == SENT
    assert client.raw(b"inbox %b\r\n" % found[1]) == NO_MESSAGES
    assert client.raw(b"who %b\r\n" % found[1]) == (
        b'{"status": "OK", "message": "shafwa, "}\r\n\r\n'
    )


def test_the_empty_line_that_some_clients_add_is_never_answered(client: Original) -> None:
    for _ in range(3):
        assert client.raw(b"foo\r\n\r\n") == UNKNOWN_COMMAND
    client.socket.shutdown(socket.SHUT_WR)
    assert client.socket.recv(64) == b""


def test_pipelined_lines_get_one_reply_each_in_order(client: Original) -> None:
    client.socket.sendall(b"foo \r\nlogin\r\nuser_on T \r\nlogin shafwa bad \r\n")
    expected = UNKNOWN_COMMAND + TOO_FEW_WORDS + UNKNOWN_TOKEN + WRONG_PASSWORD
    received = b""
    while len(received) < len(expected):
        chunk = client.socket.recv(64)
        assert chunk
        received += chunk
    assert received == expected


def test_an_evening_with_the_unmodified_client(client: Original, second: Original) -> None:
    assert client.obey("kotakmasuk") == "Error, not authorized"
    assert client.obey("login shafwa salah") == "Error, Uncorrect Password"
    assert client.obey("login shafwa mks").startswith("username shafwa logged in, token ")
    assert second.obey("login fadly prp").startswith("username fadly logged in, token ")
    assert client.obey("chat fadly hai dudee, apa kabar?") == "message sent to fadly"
    assert client.obey("chat siapa hai") == "Error, User Tidak Ditemukan"
    assert json.loads(second.obey("kotakmasuk")) == [
        {"msg_from": "Shafwa", "msg_to": "Fadly", "msg": "hai dudee, apa kabar?"}
    ]
    assert second.obey("user_on") == "user aktif: shafwa, fadly, "
    assert client.obey("login afif plp").startswith("username afif logged in")  # another user
    assert client.obey("logout") == "logout success"
    assert second.obey("logout") == "logout success"
