"""What is sent to the text door: lines of its clients, near misses, and tricks with their ends."""

from __future__ import annotations

import json
from collections.abc import Sequence
from random import Random
from typing import Final

from broker.wire.limits import LINE_BYTES_MAX, TEXT_BYTES_MAX, TOKEN_CHARS_MAX

WORDS: Final = (
    *("login", "chat", "kotakmasuk", "user_on", "logout", "auth", "send", "inbox", "who"),
    *("LOGIN", "online", "history", "ack", "user_add", "ping", "", "\ufeffchat", "chat\t"),
)
ENDS: Final = (b"\r\n", b" \r\n", b"\n", b" \r\n\r\n", b"\r", b"\r\r\n", b"\n\r", b"\0\r\n", b"")
BLANKS: Final = (b" ", b"  ", b"\t", b"\x0b", b"\xc2\xa0", b"")
ODD: Final = (
    b"\xff\xfe",
    b"\xed\xa0\x80",
    b"\xc0\x80",
    b"\0",
    b"\x1b[2J",
    b'{"command": "login", "user": "shafwa"}',
    b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",  # how TLS begins
    b"\xff\x00\x00\x00\x00\x00\x00\x00\x01\x7f\x03\x00NULL",  # how ZMTP begins
    b"\x94\x01\xa4ping\xc0\x80",  # the other door's ping
    "\u202e\u2028\u0085".encode(),
    b" " * 200,
    b"\n" * 20,
)
_LENGTHS: Final = (1, 63, TOKEN_CHARS_MAX, TOKEN_CHARS_MAX + 1, 1_024, 1_025)
_LONG: Final = (
    *(TEXT_BYTES_MAX, TEXT_BYTES_MAX + 1, LINE_BYTES_MAX - 1, LINE_BYTES_MAX, LINE_BYTES_MAX + 1),
)


class Lines:
    """Makes lines. The names and tokens given are those that a broker may know."""

    def __init__(
        self,
        rng: Random,
        *,
        users: Sequence[str] = ("shafwa", "fadly", "nobody", "#a"),
        tokens: Sequence[str] = ("kt_" + "A" * 43, "x"),
        passwords: Sequence[str] = ("mks", "prp", "bad"),
        words: Sequence[str] = WORDS,
        oddity: float = 0.1,
    ) -> None:
        self._rng = rng
        self._words = [word.encode() for word in words]
        self._users = [user.encode() for user in users]
        self._tokens = [token.encode() for token in tokens]
        self._passwords = [password.encode() for password in passwords]
        #: How often a part is something else than what belongs there.
        self._oddity = oddity

    def stream(self) -> bytes:
        """Make what one connection sends: a line, or a few of them."""
        count = 1 if self._rng.random() < 0.6 else self._rng.randrange(2, 8)
        return b"".join(self.line() for _ in range(count))

    def line(self) -> bytes:
        """Make one line with its end, or without."""
        rng = self._rng
        odd = rng.random() < self._oddity
        if odd and rng.random() < 0.4:
            return rng.choice(ODD) + rng.choice(ENDS)
        word = rng.choice(self._words)
        blank = rng.choice(BLANKS) if odd else b" "
        parts = [word, *self._rest(word)]
        if odd and rng.random() < 0.5:
            parts.insert(rng.randrange(len(parts) + 1), self._odd())
        end = rng.choice(ENDS) if rng.random() < self._oddity else b" \r\n"
        return blank.join(parts) + end

    def _rest(self, word: bytes) -> list[bytes]:
        rng = self._rng
        if word in (b"login", b"auth"):
            return [rng.choice(self._users), rng.choice(self._passwords)]
        token = rng.choice(self._tokens)
        if word in (b"chat", b"send"):
            return [token, rng.choice(self._users), b" " + self._text()]
        return [token] if rng.random() < 0.95 else []

    def _text(self) -> bytes:
        rng = self._rng
        texts = ("hai dudee", "x", "  two  blanks  ", "\U0001f4ee", json.dumps({"status": "OK"}))
        return rng.choice(texts).encode() if rng.random() < 0.97 else self._odd()

    def _odd(self) -> bytes:
        rng = self._rng
        if rng.random() < 0.9:
            return rng.choice(ODD)
        length = rng.choice(_LENGTHS if rng.random() < 0.9 else _LONG)
        return rng.choice((b"a", b" ", b"\xe6\xbc\xa2")) * length


def segments(rng: Random, stream: bytes) -> list[bytes]:
    """Cut a stream as a network may: often not at all, sometimes between any two bytes."""
    if rng.random() < 0.6 or len(stream) < 2:
        return [stream]
    cuts = sorted(rng.randrange(1, len(stream)) for _ in range(rng.randrange(1, 5)))
    return [stream[low:high] for low, high in zip([0, *cuts], [*cuts, len(stream)], strict=True)]
