"""The arguments of the commands as both clients send them, and whose token goes along.

Source: docs/PROTOCOL.md, "Commands". An option that was not given is left out.
"""

from __future__ import annotations

from enum import Enum
from typing import Any, Final

from broker.wire.limits import PROTOCOL_VERSION

Args = dict[str, Any]

NONE: Final[Args] = {}


class Own(Enum):
    """Stands for "the client's own token" where None means that none is sent."""

    TOKEN = 1


def _given(**fields: Any) -> Args:
    return {name: value for name, value in fields.items() if value is not None}


def hello(client: str | None) -> Args:
    return _given(version=PROTOCOL_VERSION, client=client)


def login(user: str, password: str) -> Args:
    return {"user": user, "password": password}


def inbox(limit: int | None, after: int | None) -> Args:
    return _given(limit=limit, after=after)


def acknowledge(seq: int) -> Args:
    return {"seq": seq}


def page(after: str | None) -> Args:
    return _given(after=after)


def register(user: str, password: str, name: str | None) -> Args:
    return _given(user=user, password=password, name=name)


def change_password(old: str, new: str) -> Args:
    return {"password": old, "new_password": new}
