"""CURVE keys as text: what stands in a key file, in a list of keys, and on a command line.

A key is 32 bytes, written as 40 characters of Z85. A key file is ZPL, which CZMQ and pyzmq read
too; beside the pair it may name the broker's public key. Source: ZeroMQ RFC 4 (ZPL), 32 (Z85).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import reduce
from typing import Final

#: A key file has a few lines, a list of keys one for each client.
KEY_TEXT_BYTES_MAX: Final = 1_048_576
KEY_CHARS: Final = 40
_Z85: Final = (
    "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"
)
_VALUES: Final = {char: value for value, char in enumerate(_Z85)}
_FIELD: Final = re.compile(
    r"""\s*(public-key|secret-key|server-key)\s*=\s*["']?([^"'\s]+)["']?\s*"""
)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeyFile:
    """What a key file holds, each key as its 40 characters; None is one that it does not name.

    ``server`` is the public key of the broker that the pair is used with.
    """

    public: str | None = None
    secret: str | None = field(default=None, repr=False)
    server: str | None = None


def is_key(text: str) -> bool:
    """Tell whether this is a key. A secret one looks like a public one."""
    if len(text) != KEY_CHARS or not set(text) <= set(_Z85):
        return False
    # Five characters stand for four bytes, and 85^5 is more than 2^32.
    return all(_number(text[start : start + 5]) < 2**32 for start in range(0, KEY_CHARS, 5))


def _number(digits: str) -> int:
    return reduce(lambda total, char: total * 85 + _VALUES[char], digits, 0)


def format_keys(keys: KeyFile, *, comment: str) -> str:
    """Write a key file. ``comment`` is one line."""
    named = (("public-key", keys.public), ("secret-key", keys.secret), ("server-key", keys.server))
    fields = [f'    {name} = "{key}"' for name, key in named if key is not None]
    return "\n".join([f"# {comment}", "metadata", "curve", *fields, ""])


def parse_keys(text: str) -> KeyFile:
    """Read a key file; other fields of the format are left alone.

    Errors: `ValueError` where a key is none, or nothing is named. No error quotes a key.
    """
    found: dict[str, str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        match = _FIELD.fullmatch(line)
        if match is not None:
            if not is_key(match[2]):
                raise ValueError(f"line {number}: a key has {KEY_CHARS} characters of Z85")
            found[match[1].removesuffix("-key")] = match[2]
    if not found:
        raise ValueError("it names no key")
    return KeyFile(**found)


def parse_public_keys(text: str) -> list[str]:
    """Read a key file's public key, or a list: a key a line, and behind it what helps a reader.

    In a list, blank lines and those that begin with ``#`` are left out.
    Errors: `ValueError` where a line is neither.
    """
    if any(_FIELD.fullmatch(line) for line in text.splitlines()):
        public = parse_keys(text).public
        return [] if public is None else [public]
    return list(_listed(text))


def _listed(text: str) -> Iterator[str]:
    for number, line in enumerate(text.splitlines(), 1):
        word = (line.split() or [""])[0]
        if is_key(word):
            yield word
        elif word and not word.startswith("#"):  # with which no key begins
            raise ValueError(f"line {number}: a key has {KEY_CHARS} characters of Z85")
