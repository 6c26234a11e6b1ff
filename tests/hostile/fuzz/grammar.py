"""Requests as bytes: valid, nearly valid and odd ones of every command that the broker knows.

What a command takes is asked of its parser, so that a new command is fuzzed from its first day.
Everything is put together as msgpack bytes and not as values, since much of what is sent by the
hostile has no value in Python: headers that lie, keys twice, integers in nine bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import cache
from random import Random
from typing import Any, Final

from broker.wire.commands import ALIASES, PARSERS
from broker.wire.envelope import encoder
from broker.wire.limits import (
    ARRAY_ITEMS_MAX,
    FRAMES_PER_MESSAGE_MAX,
    MAP_PAIRS_MAX,
    SEQ_MAX,
    TEXT_BYTES_MAX,
    TOKEN_CHARS_MAX,
)
from broker.wire.roles import Role

_pack: Final = encoder()

#: By the argument classes' names of fields, where those on the wire are called otherwise.
ON_THE_WIRE: Final[Mapping[str, str]] = {"message_id": "id"}
#: A key of every kind that counts, in the 40 characters of Z85.
KEYS: Final = ("0" * 40, "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7", "#" * 40, "0" * 39 + "1")
COMMANDS: Final = (*PARSERS, *ALIASES)
#: What a `ChatArgs`, a plain tuple for speed, holds in this order.
_CHAT: Final[Mapping[str, str]] = {
    "to": "str", "text": "str", "id": "str", "ttl_ms": "int | None",
}  # fmt: skip

#: Around everything that is a limit somewhere, in our code or in a number's width.
INTEGERS: Final = tuple(
    sorted(
        {
            sign * (2**bits + off)
            for bits in (0, 4, 5, 7, 8, 15, 16, 31, 32, 52, 62)
            for off in (-1, 0, 1)
            for sign in (1, -1)
        }
        | {0, 100, 101, 256, 999, 1_000, 1_001, SEQ_MAX - 1, SEQ_MAX, 2**63, 2**64 - 1, -(2**63)}
        | {315_360_000_000, 315_360_000_001}
    )
)

#: What no field expects, as bytes.
ODD: Final = (
    *map(_pack, (None, True, False, -1, 1.5, float("nan"), float("inf"), b"", b"x")),
    *map(_pack, ("", [], {}, [[]], {"a": {"a": {}}}, {b"to": 1}, "\0", "x" * 300)),
    *map(_pack, ("\U0010ffff" * 70, "\r\n\r\n", "%s{}$1';--", "../..", "#", "#a")),
    b"\xc1",  # never used
    b"\xa1\xff",  # not UTF-8
    b"\xa3\xed\xa0\x80",  # a lone surrogate
    b"\xa2\xc0\x80",  # a NUL in two bytes
    b"\xd6\xff\x00\x00\x00\x00",  # a timestamp
    b"\xc7\x00\x05",  # an extension of no length
    b"\xdd\xff\xff\xff\xff",  # headers that promise four thousand million
    b"\xdf\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff",
    b"\xc6\xff\xff\xff\xff",
    b"\xc9\xff\xff\xff\xff\x01",
    b"\x81\x01\x02",  # a key that is a number
    b"\x82\xa1a\x01\xa1a\x02",  # a key twice
    b"\x81\xc0\x01",  # a key that is nil
    b"\x81\x91\x01\x01",  # a key that is an array
    b"\xcf\x00\x00\x00\x00\x00\x00\x00\x01",  # 1 in nine bytes
    b"\xd3\xff\xff\xff\xff\xff\xff\xff\xff",
    b"\xd9\x02to",  # a short text with a long header
    b"\x91" * 40 + b"\xc0",
    b"\x91" * 600 + b"\xc0",
    b"\x81\xa1a" * 300 + b"\xc0",
    b"\xdc\x01\x00" + b"\xc0" * 256,
    b"\xdc\x01\x01" + b"\xc0" * 257,
    b"\xde\x00\x10" + b"".join(bytes((0xA1, 97 + n, n)) for n in range(16)),
    b"\xde\x00\x11" + b"".join(bytes((0xA1, 97 + n, n)) for n in range(17)),
)

_TEXTS: Final = (
    "hai dudee",
    "x",
    " ",
    "\r\n\r\n",
    "\0",
    "\u202e\ufeff",
    "a\u0300" * 9,
    "\U0001f4ee" * 20,
    '{"status": "OK"}',
    "kotak masuk " * 40,
)
#: Lengths at which some field ends.
_LENGTHS: Final = (0, 1, 8, 31, 32, 33, 39, 40, 41, 63, 64, 65, 127, 128, 129, 256, 257)
_LONG: Final = (1_024, 1_025, 16_384, 16_385, TEXT_BYTES_MAX, TEXT_BYTES_MAX + 1)
_LETTERS: Final = ("a", "Z", "9", "-", "\u00e4", "\u6f22", "\U0001f4ee", "\0", "#")


@cache
def fields_of(command: str) -> Mapping[str, str]:
    """Return the fields that a command takes, and the type of each as its parser declares it."""
    if ALIASES.get(command, command) == "chat":
        return _CHAT
    declared: Any = getattr(PARSERS[ALIASES.get(command, command)], "__self__", None)
    kinds: Mapping[str, Any] = getattr(declared, "__annotations__", {})
    return {ON_THE_WIRE.get(name, name): str(kind) for name, kind in kinds.items()}


class Grammar:
    """Makes requests. The names, rooms and tokens given are those that a broker may know."""

    def __init__(
        self,
        rng: Random,
        *,
        users: Sequence[str] = ("shafwa", "fadly", "afif"),
        rooms: Sequence[str] = ("#a", "#b", "#room-1"),
        tokens: Sequence[str | None] = (
            None,
            "",
            "kt_" + "A" * 43,
            "x" * TOKEN_CHARS_MAX,
            "x" * 65,
        ),
        passwords: Sequence[str] = ("mks", "password", ""),
        commands: Sequence[str] = COMMANDS,
        oddity: float = 0.1,
    ) -> None:
        self._rng = rng
        self._users = users
        self._rooms = rooms
        self._tokens = [_pack(token) for token in tokens]
        self._passwords = passwords
        self._commands = commands
        #: How often a part is something else than what belongs there.
        self._oddity = oddity
        self._ids = 0
        self._made: Mapping[str, Callable[[], Any]] = {
            "user": lambda: rng.choice(users),
            "to": lambda: rng.choice(rooms if rng.random() < 0.3 else users),
            "room": lambda: rng.choice(rooms),
            "of": lambda: rng.choice(("inbox", "sent", *rooms)),
            "text": self._text,
            "id": lambda: f"m{rng.randrange(300)}" if rng.random() < 0.9 else self._length(),
            "key": lambda: rng.choice(KEYS),
            "device": lambda: f"d{rng.randrange(20)}",
            "password": lambda: rng.choice(passwords),
            "new_password": lambda: rng.choice(passwords),
            "password_hash": lambda: "$argon2id$v=19$m=8,t=1,p=1$c29tZXNhbHQ$c29tZWhhc2g",
            "name": self._text,
            "ttl_ms": lambda: rng.choice((1_000, 5_000, 315_360_000_000)),
            "version": lambda: rng.choice((1, 1, 1, 0, 2)),
            "role": lambda: rng.choice(tuple(Role)).value,
            "session": lambda: f"{rng.randrange(4):016x}",
            "epoch": lambda: rng.choice(INTEGERS),
        }

    def know(self, tokens: Sequence[str | None]) -> None:
        """Use these tokens from now on."""
        self._tokens = [_pack(token) for token in tokens]

    def message(self) -> list[bytes]:
        """Make the frames of one message."""
        shape = self._rng.random()
        if shape < 0.75:
            return [self.frame()]
        if shape < 0.99:
            return [self.frame() for _ in range(self._rng.randrange(2, 9))]
        count = self._rng.choice((0, 100, FRAMES_PER_MESSAGE_MAX, FRAMES_PER_MESSAGE_MAX + 1))
        return [self.request(), self.frame()] * (count // 2) + [b"\x90"] * (count % 2)

    def frame(self) -> bytes:
        """Make one frame: a request, an array of them, or something else."""
        rng = self._rng
        shape = rng.random()
        if shape < 0.8:
            return self.request()
        if shape < 0.93:
            return self._array([self.request() for _ in range(rng.randrange(1, 7))])
        if shape < 0.97:
            return self.request() + rng.choice(ODD)
        if shape < 0.98:
            return self._array([self.request()] * rng.choice((0, 2, ARRAY_ITEMS_MAX)))
        return rng.choice(ODD)

    def request(self) -> bytes:
        """Make one request, as a rule one of four parts."""
        rng = self._rng
        self._ids += 1
        command = rng.choice(self._commands)
        parts = [
            self._or_odd(_pack(self._ids if rng.random() < 0.95 else rng.choice(INTEGERS))),
            self._or_odd(_pack(command if rng.random() < 0.97 else self._length())),
            self._or_odd(rng.choice(self._tokens)),
            self._or_odd(self.args(command)),
        ]
        if rng.random() < self._oddity / 4:
            at = rng.randrange(5)
            parts[at : at + rng.randrange(2)] = [rng.choice(ODD)] * rng.randrange(2)
        return self._array(parts)

    def args(self, command: str) -> bytes:
        """Make the arguments of a command: most or all of its fields, rarely others."""
        rng = self._rng
        pairs = [
            _pack(name) + self._or_odd(self._field(name, kind))
            for name, kind in fields_of(command).items()
            if rng.random() < (0.5 if "None" in kind else 0.97)
        ]
        if rng.random() < self._oddity:
            pairs.append(self._or_odd(_pack(self._length())) + rng.choice(ODD))
        if pairs and rng.random() < self._oddity / 4:
            pairs.append(rng.choice(pairs))
        header = bytes((0x80 | len(pairs),)) if len(pairs) < MAP_PAIRS_MAX else b"\xde\x00\x10"
        return header + b"".join(pairs)

    def _array(self, parts: Sequence[bytes]) -> bytes:
        if len(parts) < 16 and self._rng.random() < 0.95:
            return bytes((0x90 | len(parts),)) + b"".join(parts)
        return b"\xdc" + len(parts).to_bytes(2, "big") + b"".join(parts)

    def _or_odd(self, part: bytes) -> bytes:
        return part if self._rng.random() >= self._oddity / 3 else self._rng.choice(ODD)

    def _field(self, name: str, kind: str) -> bytes:
        rng = self._rng
        if rng.random() < self._oddity / 2:
            return _pack(rng.choice(INTEGERS) if "int" in kind else self._length())
        if "bool" in kind:
            return _pack(rng.random() < 0.5)
        made = self._made.get(name)
        if "int" in kind:
            return _pack(made() if made else self._integer())
        return _pack(made() if made else rng.choice(self._users))

    def _integer(self) -> int:
        rng = self._rng
        return rng.randrange(1_500) if rng.random() < 0.9 else rng.choice(INTEGERS)

    def _text(self) -> str:
        rng = self._rng
        return rng.choice(_TEXTS) if rng.random() < 0.98 else self._length()

    def _length(self) -> str:
        """Make a text whose length lies around some limit, in characters or in bytes."""
        rng = self._rng
        length = rng.choice(_LENGTHS if rng.random() < 0.98 else _LONG)
        letter = rng.choice(_LETTERS)
        return letter * (length if rng.random() < 0.7 else length // len(letter.encode()))


def reply(rng: Random) -> bytes:
    """Make what a broker answers, or nearly: for the clients' side of the wire."""
    number: Any = rng.choice((None, 1, 2**64 - 1, rng.choice(INTEGERS)))
    status: Any = rng.choice(("OK", "ERROR", "EVENT", "ok", 1, None))
    codes = ("bad_request", "internal", "of_tomorrow", 1, None)
    error = {"code": rng.choice(codes), "message": rng.choice(_TEXTS)}
    if rng.random() < 0.5:
        error["retry_after_ms"] = rng.choice(INTEGERS)
    body: Any = rng.choice((error, error, {}, {"seq": 1, "durability": "fsync"}, [], "x"))
    whole = _pack((number, status, body))
    shape = rng.random()
    if shape < 0.7:
        return whole
    if shape < 0.8:
        return b"\x93" + _pack(number) + _pack(status) + rng.choice(ODD)
    count = rng.randrange(4)
    return bytes((0x90 | count,)) + whole * count if shape < 0.95 else whole + rng.choice(ODD)
