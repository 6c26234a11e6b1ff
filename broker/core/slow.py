"""Slow requests: who may leave one behind, and what came of those that try a password.

Source: docs/PROTOCOL.md, "login", "register", "passwd".
"""

from __future__ import annotations

from typing import NamedTuple

from broker.core.attempts import Attempt, AttemptLimits, Attempts, network
from broker.core.handlers import Deferred
from broker.core.places import Places
from broker.core.replies import Outcome
from broker.wire.errors import Code, WireError


class Ticket(NamedTuple):
    """The place that a slow request holds, and its attempt at a password (None: it tries none)."""

    holder: str
    attempt: Attempt | None


class SlowRequests:
    """Those that wait or run; their number is the length."""

    def __init__(self, limits: AttemptLimits, *, places_max: int) -> None:
        self._places = Places(places_max)
        self._attempts = Attempts(limits)

    def __len__(self) -> int:
        return self._places.taken

    @property
    def full(self) -> bool:
        """Tell whether nobody finds a place."""
        return self._places.full

    def admit(self, deferred: Deferred, address: str | None, now_ms: int) -> Ticket:
        """Let a request wait for its turn. Errors: ``rate_limited``, ``busy``.

        Whoever has no known address shares one with all the others who have none.
        """
        holder = network(address or "")
        self._places.take(holder)
        try:
            attempt = None
            if deferred.tries is not None:
                attempt = self._attempts.begin(deferred.tries, holder, now_ms)
            elif deferred.registers:
                self._attempts.register(holder, now_ms)
        except WireError:
            self._places.leave(holder)
            raise
        return Ticket(holder, attempt)

    def settle(self, ticket: Ticket, outcome: Outcome, now_ms: int) -> None:
        """Count what came of a request; a second time, as after a batch rolled back, nothing."""
        right: bool | None = True
        if isinstance(outcome, WireError):
            # A full disk, or a fault, says nothing about the password.
            right = False if outcome.code is Code.BAD_CREDENTIALS else None
        self._attempts.end(ticket.attempt, right=right, now_ms=now_ms)

    def leave(self, ticket: Ticket, now_ms: int) -> None:
        """Give the place back; an attempt that was not settled was none."""
        self._attempts.end(ticket.attempt, right=None, now_ms=now_ms)
        self._places.leave(ticket.holder)
