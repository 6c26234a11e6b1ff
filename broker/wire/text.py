r"""The text door's language: lines in, JSON objects out, byte for byte what its 2020 clients expect.

A line ends in ``\r\n`` or ``\n``; a reply is one pure-ASCII JSON object and ``\r\n\r\n``.
Source: docs/PROTOCOL.md, "The text door".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from broker.wire.commands import ALIASES
from broker.wire.errors import Code, WireError
from broker.wire.limits import LINE_BYTES_MAX

REPLY_END: Final = b"\r\n\r\n"

UNKNOWN_COMMAND: Final = "**Protocol Tidak Benar"
BAD_LINE: Final = "--Protocol Tidak Benar"
UNKNOWN_TOKEN: Final = "Informasi tidak ditemukan"
BAD_CREDENTIALS: Final = "Uncorrect Password"
NO_SUCH_USER: Final = "User Tidak Ditemukan"

#: The original's words for what it knew; any other refusal travels in our own words.
_WORDS: Final[Mapping[Code, str]] = {
    Code.UNKNOWN_COMMAND: UNKNOWN_COMMAND,
    Code.BAD_REQUEST: BAD_LINE,
    Code.TOO_LARGE: BAD_LINE,
    Code.UNAUTHORIZED: UNKNOWN_TOKEN,
    Code.BAD_CREDENTIALS: BAD_CREDENTIALS,
    Code.NO_SUCH_USER: NO_SUCH_USER,
}


class Line(NamedTuple):
    """One parsed line: the canonical command, the token (None for ``login``) and its arguments."""

    command: str
    token: str | None
    args: dict[str, str]


class LineSplitter:
    """Cut a byte stream into lines, whatever the segments; an endless line costs bounded memory.

    ``feed`` returns the lines completed, without their ends; a line over ``LINE_BYTES_MAX`` is
    returned as None once, and thrown away up to its end.
    """

    def __init__(self) -> None:
        self._rest = b""
        self._skipping = False

    @property
    def partial(self) -> bool:
        """True while a line has begun and not ended (a timeout may be due)."""
        return bool(self._rest) or self._skipping

    def feed(self, received: bytes) -> list[bytes | None]:
        lines = (self._rest + received).split(b"\n")
        self._rest = lines.pop()
        out: list[bytes | None] = []
        for line in lines:
            if self._skipping:
                self._skipping = False
            else:
                out.append(line.removesuffix(b"\r") if len(line) <= LINE_BYTES_MAX else None)
        if self._skipping:
            self._rest = b""
        elif len(self._rest) > LINE_BYTES_MAX:
            self._rest = b""
            self._skipping = True
            out.append(None)
        return out


def parse_line(line: bytes) -> Line | None:
    """Parse one line; None for the empty one that some clients send after each command.

    Errors: `WireError` ``bad_request`` (too few words, bad UTF-8, a NUL), ``unknown_command``.
    """
    if not line:
        return None
    try:
        words = line.decode()
    except UnicodeDecodeError:
        raise WireError(Code.BAD_REQUEST, BAD_LINE) from None
    if "\0" in words:
        raise WireError(Code.BAD_REQUEST, BAD_LINE)
    name = words.split(" ", 1)[0].strip()
    command = ALIASES.get(name, name)
    parse = _PARSERS.get(command)
    if parse is None:
        raise WireError(Code.UNKNOWN_COMMAND, UNKNOWN_COMMAND)
    try:
        return parse(command, words)
    except (IndexError, ValueError):
        raise WireError(Code.BAD_REQUEST, BAD_LINE) from None


def _parse_login(command: str, words: str) -> Line:
    _, user, password, *_ = words.split()
    return Line(command, None, {"user": user, "password": password})


def _parse_chat(command: str, words: str) -> Line:
    """``chat TOKEN USER  TEXT ``: the blank before the text's first word and after its last frame it."""
    _, token, to, text = words.split(" ", 3)
    text = text.removeprefix(" ").removesuffix(" ")
    if not (token and to and text):
        raise ValueError
    return Line(command, token, {"to": to, "text": text})


def _parse_token_only(command: str, words: str) -> Line:
    return Line(command, words.split()[1], {})


_PARSERS: Final[Mapping[str, Callable[[str, str], Line]]] = {
    "login": _parse_login,
    "chat": _parse_chat,
    "kotakmasuk": _parse_token_only,
    "user_on": _parse_token_only,
    "logout": _parse_token_only,
}


def encode(reply: Mapping[str, Any]) -> bytes:
    """Encode one reply: ASCII only, since clients decode it in fixed chunks of bytes."""
    return json.dumps(reply, ensure_ascii=True).encode("ascii") + REPLY_END


def login_reply(token: str) -> bytes:
    """Both spellings: ``tokenid`` is what the clients' code reads, ``tokenId`` what their manual shows."""
    return encode({"status": "OK", "tokenid": token, "tokenId": token})


def chat_reply() -> bytes:
    return encode({"status": "OK", "message": "Message Sent"})


def inbox_reply(messages: Iterable[tuple[str, str, str]]) -> bytes:
    """``messages`` are (sender's display name, reader's display name, text), in order of arrival."""
    return encode(
        {
            "status": "OK",
            "messages": [
                {"msg_from": sender, "msg_to": to, "msg": text} for sender, to, text in messages
            ],
        }
    )


def users_reply(users: Iterable[str]) -> bytes:
    return encode({"status": "OK", "message": "".join(f"{user}, " for user in users)})


def logout_reply() -> bytes:
    return encode({"status": "OK", "message": "logout success", "messages": "logout success"})


def error_reply(error: WireError) -> bytes:
    """The original's words where it had any, ours where it had not."""
    return encode({"status": "ERROR", "message": _WORDS.get(error.code, error.message)})
