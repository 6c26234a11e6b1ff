"""Canaries: secrets made to be looked for, and the search for them in whatever a program wrote.

A canary is found as it is, in hexadecimal, in base64 (both alphabets, wherever it begins) and in
UTF-16; a letter with an accent in its middle would be escaped, so each half is looked for by
itself. A cut one is found as well, as long as half of it is there.
"""

from __future__ import annotations

import re
import secrets
import string
from base64 import b64encode, urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

_LETTERS: Final = string.ascii_letters + string.digits
#: Of each half of a canary: what all of one run have in common, and what is its own.
_COMMON_CHARS: Final = 8
_OWN_CHARS: Final = 8
#: What an encoded canary can stand in: the rest of a database need not be looked at so often.
_ENCODED: Final = re.compile(rb"[A-Za-z0-9+/_=-]{12,}")
#: What nothing can stand in.
_NOTHING: Final = bytes(64)


class Kind(StrEnum):
    """What a secret is: each has places where it belongs, and must not be anywhere else."""

    PASSWORD = "password"
    TOKEN = "token"
    KEY = "key"
    BODY = "body"
    HASH = "hash"


@dataclass(frozen=True)
class Canary:
    """One secret. ``name`` says where it was used; only that is ever printed."""

    name: str
    kind: Kind
    text: bytes = field(repr=False)

    @property
    def halves(self) -> tuple[bytes, bytes]:
        middle = len(self.text) // 2
        return self.text[: middle - 1], self.text[middle + 1 :]


class Canaries:
    """Those of one run: made by `make`, or told by `know` where somebody else made the secret."""

    def __init__(self) -> None:
        self._common = "".join(secrets.choice(_LETTERS) for _ in range(_COMMON_CHARS))
        self._made: list[Canary] = []
        self._known: dict[bytes, Canary] = {}
        self._spelled: dict[bytes, tuple[list[bytes], list[bytes]]] = {}

    def make(self, kind: Kind, name: str) -> str:
        """Return a new canary of 33 characters, one of them an é."""
        text = "\N{LATIN SMALL LETTER E WITH ACUTE}".join(self._half() for _ in range(2))
        self._made.append(Canary(name, kind, text.encode()))
        return text

    def know(self, kind: Kind, name: str, secret: str | bytes) -> None:
        """Look for this secret, too: 16 bytes at least."""
        text = secret.encode() if isinstance(secret, str) else secret
        assert len(text) >= 16, "so short a secret is found everywhere"
        self._known.setdefault(text, Canary(name, kind, text))

    def all(self) -> list[Canary]:
        return [*self._made, *self._known.values()]

    def found_in(self, data: bytes) -> list[Canary]:
        """Return those that stand in ``data``, whole or by half, in whatever spelling."""
        data = data.replace(_NOTHING, b"\0")  # most of a log that was made at its full length
        encoded = b"\n".join(_ENCODED.findall(data))
        # All that were made have this in common: mostly one look tells that there is none.
        made = self._made if self._stands(self._common.encode(), data, encoded) else []
        found = [
            canary
            for canary in (*made, *self._known.values())
            if any(self._stands(half, data, encoded) for half in canary.halves)
        ]
        if made and not any(canary in made for canary in found):
            found.append(Canary("one that was cut short", Kind.PASSWORD, self._common.encode()))
        return found

    def _half(self) -> str:
        return self._common + "".join(secrets.choice(_LETTERS) for _ in range(_OWN_CHARS))

    def _stands(self, part: bytes, data: bytes, encoded: bytes) -> bool:
        if part not in self._spelled:
            self._spelled[part] = [part, *_wide(part)], sorted(_encoded(part))
        plain, others = self._spelled[part]
        return any(each in data for each in plain) or any(each in encoded for each in others)


def _wide(part: bytes) -> Iterable[bytes]:
    yield b"\0".join(bytes((byte,)) for byte in part)  # UTF-16, either way round


def _encoded(part: bytes) -> set[bytes]:
    found = {part.hex().encode(), part.hex().upper().encode()}
    for skipped in range(3):  # base64 writes three bytes at a time, wherever the secret begins
        whole = part[skipped : skipped + (len(part) - skipped) // 3 * 3]
        found |= {b64encode(whole), urlsafe_b64encode(whole)}
    return found
