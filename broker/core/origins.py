"""Where a request comes from: its connection's address, or the one that a door has handed on.

The text door's logins come through one connection of the broker's own. The door sends them with a
token that it shares with the broker alone, and in it the address of the one who logs in.
"""

from __future__ import annotations

import hmac
from collections.abc import Callable
from typing import Final

from broker.core.model import Route
from broker.wire.limits import TOKEN_CHARS_MAX

#: Between a door's token and the address.
_MARK: Final = "@"
#: The longest address, of eight groups of four, without a zone.
_ADDRESS_CHARS_MAX: Final = 39
#: So that both fit into the token of a request.
DOOR_TOKEN_CHARS_MAX: Final = TOKEN_CHARS_MAX - len(_MARK) - _ADDRESS_CHARS_MAX
#: Random bytes of a door's token: 22 characters, 128 bits.
DOOR_TOKEN_BYTES: Final = 16


class Origins:
    """The addresses of requests; None where none is known."""

    def __init__(self, address_of: Callable[[Route], str | None]) -> None:
        self._address_of = address_of
        self._door_token: bytes | None = None

    def trust(self, door_token: str) -> None:
        """Believe what comes with this token, of `DOOR_TOKEN_CHARS_MAX` at most."""
        self._door_token = door_token.encode()

    def of(self, route: Route, token: str | None) -> str | None:
        """Return where a request of this connection comes from, within the turn that it came in."""
        if token is not None and self._door_token is not None:
            claimed, mark, address = token.partition(_MARK)
            if mark and hmac.compare_digest(claimed.encode(), self._door_token):
                return address or None
        return self._address_of(route)


def handed_on(door_token: str, address: str) -> str:
    """Return the token that hands an address on to the broker."""
    return f"{door_token}{_MARK}{address.partition('%')[0][:_ADDRESS_CHARS_MAX]}"
