r"""The text door's language: lines in, JSON objects out, byte for byte as its 2020 clients expect.

A line ends in ``\r\n`` or ``\n``; a reply is one pure-ASCII JSON object and ``\r\n\r\n``.
Source: docs/PROTOCOL.md, "The text door".
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from broker.wire.commands import ALIASES
from broker.wire.errors import Code, WireError
from broker.wire.limits import LINE_BYTES_MAX, TOKEN_CHARS_MAX

REPLY_END: Final = b"\r\n\r\n"

UNKNOWN_COMMAND: Final = "**Protocol Tidak Benar"
BAD_LINE: Final = "--Protocol Tidak Benar"
UNKNOWN_SESSION: Final = "Informasi tidak ditemukan"
BAD_CREDENTIALS: Final = "Uncorrect Password"
NO_SUCH_USER: Final = "User Tidak Ditemukan"

#: The original's words for what it knew; any other refusal travels in our own words.
_WORDS: Final[Mapping[Code, str]] = {
    Code.UNKNOWN_COMMAND: UNKNOWN_COMMAND,
    Code.BAD_REQUEST: BAD_LINE,
    Code.TOO_LARGE: BAD_LINE,
    Code.UNAUTHORIZED: UNKNOWN_SESSION,
    Code.BAD_CREDENTIALS: BAD_CREDENTIALS,
    Code.NO_SUCH_USER: NO_SUCH_USER,
    Code.NO_SUCH_ROOM: NO_SUCH_USER,
}


class Line(NamedTuple):
    """One parsed line: the canonical command, the token (None for ``login``) and its arguments."""

    command: str
    token: str | None
    args: dict[str, str]


class LineSplitter:
    """Cut a byte stream into lines, whatever the segments; an endless line costs bounded memory.

    ``feed`` what was received, then ``pop`` until it returns None.
    """

    __slots__ = ("_bytes", "_searched", "_skipping")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._searched = 0  # no line ends before this: each byte is looked at once
        self._skipping = False  # inside the tail of a line that was cut

    @property
    def partial(self) -> bool:
        """True while a line has begun and not ended (ask when ``pop`` has returned None)."""
        return bool(self._bytes) or self._skipping

    def feed(self, received: bytes | memoryview) -> None:
        self._bytes += received

    def pop(self) -> bytes | None:
        """Return the next line without its end, None where none is complete.

        A line over ``LINE_BYTES_MAX`` is returned once, cut behind its first byte too many, so
        that `parse_line` refuses it; the remainder is thrown away as it arrives.
        """
        if not self._bytes:
            return None
        while (end := self._bytes.find(b"\n", self._searched)) >= 0:
            line = bytes(self._bytes[: min(end, LINE_BYTES_MAX + 1)])
            del self._bytes[: end + 1]
            self._searched = 0
            if not self._skipping:
                return line if len(line) > LINE_BYTES_MAX else line.removesuffix(b"\r")
            self._skipping = False
        return self._cut()

    def _cut(self) -> bytes | None:
        """Give up on an unfinished line as soon as it is too long, and forget what follows it."""
        cut = None
        if not self._skipping and len(self._bytes) > LINE_BYTES_MAX:
            cut = bytes(self._bytes[: LINE_BYTES_MAX + 1])
            self._skipping = True
        if self._skipping:
            self._bytes.clear()
        self._searched = len(self._bytes)
        return cut


def parse_line(line: bytes) -> Line | None:
    """Parse one line; None for the empty one that some clients send after each command.

    Errors: `WireError` ``bad_request`` (too few words, bad UTF-8, a NUL), ``too_large``,
    ``unknown_command``, ``unauthorized`` (a token that is too long to be one).
    """
    if len(line) > LINE_BYTES_MAX:
        raise WireError(Code.TOO_LARGE, f"a line may have {LINE_BYTES_MAX} bytes at most")
    if not line.strip(b" "):
        return None
    try:
        words = line.decode()
    except UnicodeDecodeError:
        raise WireError(Code.BAD_REQUEST, "a line must be UTF-8") from None
    if "\0" in words:
        raise WireError(Code.BAD_REQUEST, "a line may hold no NUL")
    name = words.split(" ", 1)[0]
    command = ALIASES.get(name, name)
    parse = _PARSERS.get(command)
    if parse is None:
        raise WireError(Code.UNKNOWN_COMMAND, "unknown command; they are in small letters")
    try:
        return parse(command, words)
    except ValueError:
        raise WireError(Code.BAD_REQUEST, f"'{command}' needs more words") from None


def _parse_login(command: str, words: str) -> Line:
    _, user, password, *_ = filter(None, words.split(" "))
    return Line(command, None, {"user": user, "password": password})


def _parse_chat(command: str, words: str) -> Line:
    """``chat TOKEN USER  TEXT ``: a blank before the text and one after it are the frame's."""
    _, token, to, text = words.split(" ", 3)
    text = text.removeprefix(" ").removesuffix(" ")
    if not (token and to and text):
        raise ValueError
    return Line(command, _token(token), {"to": to, "text": text})


def _parse_token_only(command: str, words: str) -> Line:
    _, token, *_ = filter(None, words.split(" "))
    return Line(command, _token(token), {})


def _token(word: str) -> str:
    if len(word) > TOKEN_CHARS_MAX:  # the other door calls this malformed, this one knows no such
        raise WireError(Code.UNAUTHORIZED, "this token is too long to be one: log in again")
    return word


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
    """Spell it both ways: the clients' code reads ``tokenid``, their manual shows ``tokenId``."""
    return encode({"status": "OK", "tokenid": token, "tokenId": token})


#: Always the same, and the one that is sent most.
_SENT: Final = encode({"status": "OK", "message": "Message Sent"})


def chat_reply() -> bytes:
    return _SENT


def inbox_reply(messages: Iterable[tuple[str, str, str]]) -> bytes:
    """``messages``: (sender's display name, reader's or ``#room``, text), in order of arrival."""
    inbox = [{"msg_from": sender, "msg_to": to, "msg": text} for sender, to, text in messages]
    return encode({"status": "OK", "messages": inbox})


def users_reply(users: Iterable[str]) -> bytes:
    return encode({"status": "OK", "message": "".join(f"{user}, " for user in users)})


def logout_reply() -> bytes:
    return encode({"status": "OK", "message": "logout success", "messages": "logout success"})


def error_reply(error: WireError) -> bytes:
    """Use the original's words where it had any, ours where it had not."""
    return encode({"status": "ERROR", "message": _WORDS.get(error.code, error.message)})
