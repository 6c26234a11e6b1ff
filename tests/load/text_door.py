"""The text door: its own client for single requests, and lines in a pipeline for many sends."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterable, Iterator
from typing import Any, Final, Self

from clients.text_connection import TextConnection, TextDoorError
from tests.load.doors import START, Arrived, Letter, Outcome, Page, Place, UnreachableError
from tests.load.plan import PASSWORD
from tests.proof.history import OK

#: Lines handed to the system at once: each call costs more than a line.
_LINES_MAX: Final = 64
_RECEIVE_BYTES: Final = 262_144
_REPLY_END: Final = b"\r\n\r\n"
_SENT: Final = b'{"status": "OK", "message": "Message Sent"}'
#: What this door says where the ZeroMQ door has a code (docs/PROTOCOL.md, "The text door").
_CODES: Final = {
    "--Protocol Tidak Benar": "bad_request",
    "**Protocol Tidak Benar": "unknown_command",
    "Informasi tidak ditemukan": "unauthorized",
    "Uncorrect Password": "bad_credentials",
    "User Tidak Ditemukan": "no_such_user",
}


class TextDoor:
    """Nothing is repeated by itself, since a line has no message id."""

    takes = True

    def __init__(self, address: str, timeout_ms: int) -> None:
        host, _, port = address.rpartition(":")
        if not host or not port.isdecimal():
            raise UnreachableError(f"{address} is no HOST:PORT of a text door")
        self._address = (host, int(port))
        self._timeout_s = timeout_ms / 1000
        self._connection = TextConnection(host, int(port), timeout_ms=timeout_ms)
        self._tokens: dict[str, str] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def login(self, user: str) -> None:
        try:
            reply = self._connection.login(user, PASSWORD)
        except TextDoorError as error:
            raise UnreachableError(str(error)) from None
        if "tokenid" not in reply:
            raise UnreachableError(f"cannot log in as {user}: {reply.get('message')}")
        self._tokens[user] = reply["tokenid"]

    def send_all(self, user: str, letters: Iterable[Letter], window: int) -> Iterator[Outcome]:
        lines = (f"chat {self._tokens[user]} {to}  {text} \r\n".encode() for to, text, _ in letters)
        with socket.create_connection(self._address, self._timeout_s) as connection:
            for reply in _pipelined(connection, lines, window):
                yield _outcome(reply)

    def read(self, user: str, place: Place = START) -> Page | None:
        try:
            messages = self._connection.kotakmasuk(self._tokens[user]).get("messages")
        except TextDoorError:
            return None
        if messages is None:
            return None
        return Page([Arrived(None, message["msg"]) for message in messages])

    def acknowledge(self, user: str, seq: int) -> str | None:
        raise AssertionError("reading on this door acknowledges by itself")

    def tokens_valid(self) -> int:
        return sum(self._is_valid(token) for token in self._tokens.values())

    def _is_valid(self, token: str) -> bool:
        try:
            reply: dict[str, Any] = self._connection.user_on(token)
        except TextDoorError:
            return False
        return reply.get("status") == OK


def _outcome(reply: bytes | None) -> Outcome:
    if reply == _SENT:
        return Outcome(OK)
    if reply is None:
        return Outcome(None)
    message = str(json.loads(reply).get("message"))
    return Outcome(_CODES.get(message, message))


def _pipelined(
    connection: socket.socket, lines: Iterable[bytes], window: int
) -> Iterator[bytes | None]:
    """Yield the reply to each line, with at most ``window`` under way; None once it broke."""
    replies = _replies(connection)
    batch: list[bytes] = []
    batch_max = max(1, min(_LINES_MAX, window // 4))
    waiting = 0
    for line in lines:
        batch.append(line)
        waiting += 1
        if len(batch) == batch_max:
            _send(connection, batch)
        while not batch and waiting > window - batch_max:
            yield next(replies)
            waiting -= 1
    _send(connection, batch)
    for _ in range(waiting):
        yield next(replies)


def _send(connection: socket.socket, batch: list[bytes]) -> None:
    try:
        connection.sendall(b"".join(batch))
    except OSError:
        connection.close()  # a part of it may have arrived: nothing may follow that
    batch.clear()


def _replies(connection: socket.socket) -> Iterator[bytes | None]:
    """Yield each reply without its end, and None for ever after the connection broke."""
    rest = b""
    while True:
        try:
            received = connection.recv(_RECEIVE_BYTES)
        except OSError:
            received = b""
        if not received:
            break
        *complete, rest = (rest + received).split(_REPLY_END)
        yield from complete
    while True:
        yield None
