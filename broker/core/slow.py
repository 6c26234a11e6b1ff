"""Slow requests: who may leave one behind, and what came of those that try a password.

Source: docs/PROTOCOL.md, "login", "register", "passwd".
"""

from __future__ import annotations

from typing import NamedTuple

from broker.core.attempts import Attempt, AttemptLimits, Attempts, network, refusal_of
from broker.core.handlers import Deferred
from broker.core.places import Places
from broker.core.ports import Store
from broker.core.replies import Outcome
from broker.core.shared_limits import Claim, SharedLimits, Tried
from broker.core.shared_limits import Outcome as Came
from broker.wire.errors import Code, WireError


class Ticket(NamedTuple):
    """The place that a slow request holds, and its attempt at a password (None: it tries none).

    ``claim``: what all brokers together say to the attempt, once the batch has ended.
    """

    holder: str
    attempt: Attempt | None
    claim: Claim | None = None


class SlowRequests:
    """Those that wait or run; their number is the length."""

    def __init__(self, limits: AttemptLimits, store: Store, *, places_max: int) -> None:
        self._places = Places(places_max)
        self._limits = limits
        self._attempts = Attempts(limits)
        #: None for a broker that is alone.
        self._shared: SharedLimits | None = store if store.shared else None

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
        attempt = claim = None
        try:
            if deferred.tries is not None:
                attempt = self._attempts.begin(deferred.tries, holder, now_ms)
                claim = self._claim(attempt)
            elif deferred.registers:
                self._attempts.register(holder, now_ms)
                if self._shared is not None:
                    self._shared.end_attempt(Tried("", holder, Came.OPENED))
        except WireError:
            self._places.leave(holder)
            raise
        return Ticket(holder, attempt, claim)

    def refused(self, ticket: Ticket, now_ms: int) -> WireError | None:
        """Return what a request is refused with after all, now that its batch has ended."""
        refusal = refusal_of(ticket.claim) if ticket.claim is not None else None
        if refusal is not None:
            self.leave(ticket, now_ms)
        return refusal

    def hear(self, now_ms: int) -> None:
        """Count what the other brokers have told."""
        if self._shared is not None:
            for tried in self._shared.tried():
                self._attempts.hear(tried, now_ms)

    def settle(self, ticket: Ticket, outcome: Outcome, now_ms: int) -> None:
        """Count what came of a request; a second time, as after a batch rolled back, nothing."""
        attempt = ticket.attempt
        if attempt is None or not attempt.open:
            return
        right: bool | None = True
        if isinstance(outcome, WireError):
            # A full disk, or a fault, says nothing about the password.
            right = False if outcome.code is Code.BAD_CREDENTIALS else None
        self._attempts.end(attempt, right=right, now_ms=now_ms)
        if self._shared is not None:
            self._shared.end_attempt(Tried(*attempt.key, _came(attempt, right=right)))

    def leave(self, ticket: Ticket, now_ms: int) -> None:
        """Give the place back; an attempt that was not settled was none."""
        self._attempts.end(ticket.attempt, right=None, now_ms=now_ms)
        self._places.leave(ticket.holder)

    def _claim(self, attempt: Attempt | None) -> Claim | None:
        if self._shared is None or attempt is None:
            return None
        return self._shared.claim_attempt(
            *attempt.key, at_home=attempt.at_home, failures_max=self._limits.failures_max
        )


def _came(attempt: Attempt, *, right: bool | None) -> Came:
    if right is None:
        return Came.NONE
    if right:
        return Came.RIGHT
    return Came.WRONG_AT_HOME if attempt.at_home else Came.WRONG
