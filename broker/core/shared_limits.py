"""Limits that hold over all brokers of one store: what they ask and tell each other of them.

Two kinds. How fast a user may *send* is one bucket in the store, of which brokers draw (`Grant`).
*Attempts at a password* are judged by each broker from what it has seen and was told by the others
(`Tried`); and that of the attempts for one user from one address no more are under way than a
single broker would let through, the store decides (`Claim`).

Source: docs/SECURITY.md, "Guessing passwords"; docs/decisions/0013.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import Final, NamedTuple, Protocol

from broker.core.rates import SendLimits

#: A claim that only the outcome of attempts under way elsewhere can decide.
UNDECIDED: Final = -1


class Grant:
    """What a user may send at this broker; known once the batch has ended."""

    __slots__ = ("left", "reserved")

    def __init__(self) -> None:
        #: Messages that were set aside for this broker: they count as sent until given back.
        self.reserved = 0
        #: What the bucket holds besides: below 0 where brokers were ahead. None: not known yet.
        self.left: float | None = None


class Claim:
    """Whether one more attempt for a user from an address may begin; known as a `Grant` is."""

    __slots__ = ("wait_ms",)

    def __init__(self) -> None:
        #: Milliseconds until it may, or `UNDECIDED`. 0: it may, and counts as under way.
        self.wait_ms = 0


class Outcome(StrEnum):
    """What came of an attempt."""

    RIGHT = "right"
    WRONG = "wrong"
    #: Wrong, of a user who has logged in from there before: the address does not pay for it.
    WRONG_AT_HOME = "wrong at home"
    #: Nobody will ever know; told to nobody.
    NONE = "none"
    #: No attempt, but an account that was opened from the address; the user is empty.
    OPENED = "opened"


class Tried(NamedTuple):
    """An attempt that has ended. ``address`` as `broker.core.attempts.network` writes it."""

    user: str
    address: str
    outcome: Outcome


class SharedLimits(Protocol):
    """All but `tried` are steps of a batch. Asked only where the store is `shared`.

    Where the store cannot be reached the batch fails, and with it what the limits are about; what
    a broker has counted itself holds meanwhile. A step that is repeated after a lost connection may
    count twice: these are limits, and no ledger.
    """

    def draw(
        self, user: str, used: int, wanted: int, limits: SendLimits, *, at_once: bool = False
    ) -> Grant:
        """Take ``used`` messages out of a user's bucket, whatever it holds; below 0: put back.

        And reserve up to ``wanted`` more, as far as it goes. ``at_once``: the answer is known on
        return; otherwise it costs no exchange of its own.
        """

    def claim_attempt(self, user: str, address: str, *, at_home: bool, failures_max: int) -> Claim:
        """Ask whether an attempt may begin. To be ended by `end_attempt`, or forgotten by itself.

        ``at_home``: who logs in from there anyway may do so many times at once.
        """

    def end_attempt(self, tried: Tried) -> None:
        """Count what came of an attempt, and tell the other brokers."""

    def tried(self) -> Sequence[Tried]:
        """Return what the others have told since it was asked last, without waiting.

        A hint: late by milliseconds, and lost where this broker was cut off.
        """
