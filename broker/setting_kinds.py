"""Kinds of value that a setting may have: what is accepted, as a sentence, and how it is read.

`broker.config` says which setting is of which kind.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, NamedTuple

_HOST_PORT: Final = re.compile(
    r"(?:\[(?P<six>[^\[\]]+)\]|(?P<host>[^\[\]:/\s@]+)):(?P<port>\d{1,5})"
)
#: The engine judges the rest of a URL itself.
_STORE: Final = re.compile(r"sqlite:|memory:|rediss?(?:\+cluster|\+sentinel)?://[^/?#\s]\S*")
_WORDS: Final[Mapping[str, bool]] = {
    **dict.fromkeys(("true", "1", "yes", "on"), True),
    **dict.fromkeys(("false", "0", "no", "off"), False),
}


class Address(NamedTuple):
    """Where a TCP door listens; port 0 lets the system pick one."""

    host: str
    port: int

    @property
    def is_loopback(self) -> bool:
        """True where nobody but this machine gets here; a name other than localhost may be all."""
        if self.host == "localhost":
            return True
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, slots=True)
class Kind:
    """How a value is read (ValueError: not allowed), what is allowed, its placeholder in --help."""

    read: Callable[[object], Any]
    allowed: str
    form: str


def integer(low: int, high: int) -> Kind:
    def read(value: object) -> int:
        if isinstance(value, str) and re.fullmatch(r"\d[\d_]{0,24}", value, re.ASCII):
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise ValueError
        return value

    return Kind(read, f"an integer from {low} to {high}", "N")


def _read_boolean(value: object) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value.lower() in _WORDS:
        return _WORDS[value.lower()]
    raise ValueError


def one_of(*words: str) -> Kind:
    def read(value: object) -> str:
        if value not in words:
            raise ValueError
        return str(value)

    return Kind(read, " or ".join(f"'{word}'" for word in words), "|".join(words))


def _read_store(value: object) -> str:
    if not isinstance(value, str) or not _STORE.fullmatch(value):
        raise ValueError
    return value


def _read_path(value: object) -> Path:
    if not isinstance(value, str) or not value or "\0" in value:
        raise ValueError
    try:
        return Path(value).expanduser().absolute()
    except RuntimeError:  # '~' of somebody who has no home
        raise ValueError from None


def _read_path_or(word: str) -> Callable[[object], Path | str | None]:
    def read(value: object) -> Path | str | None:
        if value == word:
            return None if word == "off" else word
        return _read_path(value)

    return read


def _read_address(value: object) -> Address | None:
    if value == "off":
        return None
    match = _HOST_PORT.fullmatch(value) if isinstance(value, str) else None
    if match is None or int(match["port"]) > 65_535:
        raise ValueError
    if match["six"]:
        ipaddress.IPv6Address(match["six"])
    return Address(match["six"] or match["host"], int(match["port"]))


def as_endpoint(value: object) -> str:
    """Return a ``tcp://`` endpoint as it is written. Errors: `ValueError`."""
    if not isinstance(value, str) or not value.startswith("tcp://"):
        raise ValueError
    return f"tcp://{endpoint_address(value)}"


def endpoint_address(endpoint: str) -> Address:
    """Return where a ``tcp://`` endpoint is. Errors: `ValueError`."""
    address = _read_address(endpoint.removeprefix("tcp://"))
    if address is None:
        raise ValueError
    return address


BOOLEAN: Final = Kind(_read_boolean, "true or false", "")
STORE: Final = Kind(
    _read_store,
    "'sqlite:', 'memory:', or redis:// (also redis+cluster://, redis+sentinel://; rediss with TLS)",
    "sqlite:|memory:|URL",
)
FOLDER: Final = Kind(_read_path, "the path of a folder", "FOLDER")
FILE: Final = Kind(_read_path_or("off"), "the path of a file, or 'off'", "FILE")
KEYS: Final = Kind(_read_path_or("any"), "the path of a folder or file, or 'any'", "FOLDER|FILE")
ADDRESS: Final = Kind(
    _read_address, "HOST:PORT, [IPV6]:PORT (port 0 to 65535) or 'off'", "HOST:PORT"
)
ENDPOINT: Final = Kind(as_endpoint, "tcp://HOST:PORT (port 0 to 65535)", "tcp://HOST:PORT")
