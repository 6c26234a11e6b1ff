"""How fields are read and checked: what every command's parser is made of.

Each refuses with a sentence that names the field. Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

import re
from typing import Any, Final

from broker.wire.errors import Code, WireError
from broker.wire.limits import DEVICE_CHARS_MAX, ROOM_MARK, USER_CHARS_MAX

Fields = dict[str, Any]

_WORD: Final = re.compile(r"[a-z_]{1,32}")
_USER: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_MISSING: Final = object()


def refuse(message: str) -> WireError:
    return WireError(Code.BAD_REQUEST, message)


def string(fields: Fields, key: str, bytes_max: int, default: Any = _MISSING) -> Any:
    """Return a non-empty string of at most ``bytes_max`` bytes of UTF-8."""
    value = fields.get(key, default)
    if value is default and default is not _MISSING:
        return value
    if type(value) is not str:
        raise refuse(f"'{key}' must be a string" if key in fields else f"'{key}' is missing")
    # Four bytes is the longest character: most strings are judged without being encoded.
    if not value or (len(value) * 4 > bytes_max and len(value.encode()) > bytes_max):
        if not value:
            raise refuse(f"'{key}' must not be empty")
        raise WireError(Code.TOO_LARGE, f"'{key}' may have {bytes_max} bytes of UTF-8 at most")
    return value


def name_of(fields: Fields, key: str, chars_max: int, default: Any = _MISSING) -> Any:
    """Return a non-empty string of at most ``chars_max`` characters."""
    value = string(fields, key, 4 * chars_max, default)
    if value is not default and len(value) > chars_max:
        raise WireError(Code.TOO_LARGE, f"'{key}' may have {chars_max} characters at most")
    return value


def integer(fields: Fields, key: str, low: int, high: int, default: Any = _MISSING) -> Any:
    """Return a whole number from ``low`` to ``high``."""
    value = fields.get(key, default)
    if value is default and default is not _MISSING:
        return value
    if type(value) is not int:
        raise refuse(f"'{key}' must be an integer" if key in fields else f"'{key}' is missing")
    if not low <= value <= high:
        raise refuse(f"'{key}' must lie between {low} and {high}")
    return value


def boolean(fields: Fields, key: str) -> bool:
    value = fields.get(key, False)
    if type(value) is not bool:
        raise refuse(f"'{key}' must be true or false")
    return value


def new_user(fields: Fields) -> str:
    """Return a name that may be given to a new account (names to look up need no such check)."""
    user: str = name_of(fields, "user", USER_CHARS_MAX)
    if not _USER.fullmatch(user):
        raise refuse(
            "a user name has small letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return user


def device(fields: Fields) -> str:
    device: str = name_of(fields, "device", DEVICE_CHARS_MAX, None) or ""
    if device and not _USER.fullmatch(device):
        raise refuse(
            "a device has small letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return device


def new_room(fields: Fields) -> str:
    """Return a name that may be given to a new room."""
    room: str = name_of(fields, "room", USER_CHARS_MAX)
    if room[0] != ROOM_MARK or not _USER.fullmatch(room, 1):
        raise refuse(
            "a room's name is '#' and small letters, digits, '.', '_' and '-', a letter or digit "
            "first"
        )
    return room


def only(fields: Fields, *known: str) -> None:
    """Refuse unknown fields: a misspelt option must not be ignored in silence."""
    for key in fields:
        if key not in known:
            allowed = ", ".join(known) or "none"
            # What is no word may be a secret in the wrong place: clients log our sentences.
            word = isinstance(key, str) and _WORD.fullmatch(key)
            raise refuse(
                f"unknown field{f' {key!r}' if word else ''}; this command takes: {allowed}"
            )
