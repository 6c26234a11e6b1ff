"""Coming and going: ``hello``, ``login``, ``user_on``, and commands without arguments.

Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from typing import NamedTuple

from broker.wire.commands.fields import Fields, boolean, device, integer, name_of, only, string
from broker.wire.limits import CLIENT_CHARS_MAX, PASSWORD_BYTES_MAX, USER_CHARS_MAX


class NoArgs(NamedTuple):
    """``ping``, ``logout``, ``unsubscribe``, ``rooms`` and others."""

    @classmethod
    def parse(cls, fields: Fields) -> NoArgs:
        only(fields)
        return cls()


class HelloArgs(NamedTuple):
    """``hello``: the protocol version wanted, and what the client calls itself."""

    version: int
    client: str | None

    @classmethod
    def parse(cls, fields: Fields) -> HelloArgs:
        only(fields, "version", "client")
        return cls(
            integer(fields, "version", 0, 2**31),
            name_of(fields, "client", CLIENT_CHARS_MAX, None),
        )


class LoginArgs(NamedTuple):
    """``login``: a user name, its password, and which device this is (empty: it does not say).

    None for ``password``: the connection's key is to be enough.
    """

    user: str
    password: str | None
    device: str

    @classmethod
    def parse(cls, fields: Fields) -> LoginArgs:
        only(fields, "user", "password", "device")
        return cls(
            name_of(fields, "user", USER_CHARS_MAX),
            string(fields, "password", PASSWORD_BYTES_MAX, None),
            device(fields),
        )


class PresenceArgs(NamedTuple):
    """``user_on``: where the page begins (None: at the first), and whether to tell more of each."""

    after: str | None
    detail: bool

    @classmethod
    def parse(cls, fields: Fields) -> PresenceArgs:
        only(fields, "after", "detail")
        return cls(name_of(fields, "after", USER_CHARS_MAX, None), boolean(fields, "detail"))
