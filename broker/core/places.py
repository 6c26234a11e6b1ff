"""Who holds the places of a queue that everybody shares: nobody holds all of them.

Source: docs/PROTOCOL.md, "Errors", ``busy``.
"""

from __future__ import annotations

from typing import Final

from broker.wire.errors import Code, WireError

#: When to come back after ``busy``, in milliseconds: by then half a queue of hashes is done.
RETRY_AFTER_MS: Final = 1_000


class Places:
    """A queue's places, each held by somebody (an address).

    A holder may have as many as are left free: one that comes alone gets half of them, the next
    one half of the rest, and whoever holds none finds one until all are taken.
    """

    def __init__(self, places_max: int) -> None:
        self._places_max = places_max
        self._taken = 0
        self._held: dict[str, int] = {}

    @property
    def taken(self) -> int:
        """How many places are held."""
        return self._taken

    @property
    def full(self) -> bool:
        """Tell whether nobody finds a place."""
        return self._taken >= self._places_max

    def take(self, holder: str) -> None:
        """Take a place. Errors: ``busy``."""
        held = self._held.get(holder, 0)
        if held >= self._places_max - self._taken:
            raise too_busy()
        self._held[holder] = held + 1
        self._taken += 1

    def leave(self, holder: str) -> None:
        """Give a place back."""
        self._taken -= 1
        left = self._held[holder] - 1
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]


def too_busy() -> WireError:
    """Return the refusal of one who finds no place."""
    return WireError(Code.BUSY, "too many logins are waiting: try again", RETRY_AFTER_MS)
