"""Limits over all brokers: the bucket of what a user may send, and attempts at passwords.

What is judged by one step lies in the slot of the user (``PLACE:sends``, see `draw.lua`, and
``PLACE:tried:ADDRESS``, see `attempt.lua`) and is gone when it says no more than nothing does. What
came of an attempt is told on the sharded channel ``INDEX:tried`` as well, for what each broker
counts itself: over an address, over a user, over all. It is kept nowhere.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from functools import partial
from typing import Any, Final

from broker.core.attempts import DELAY_MS, DELAY_MS_MAX, FORGET_MS
from broker.core.rates import SendLimits
from broker.core.shared_limits import Claim, Grant, Outcome, Tried
from broker.stores.redis.keys import Keys
from broker.stores.redis.link import Call, Link, script

#: An attempt whose outcome nobody told by then was one of a broker that has ended: longer than 64
#: of them wait for two cores, in milliseconds.
ATTEMPT_MS_MAX: Final = 10_000


class SharedLimits:
    """See `broker.core.shared_limits.SharedLimits`. ``own`` is what this broker calls itself."""

    def __init__(self, link: Link, keys: Keys, own: str) -> None:
        self._link = link
        self._keys = keys
        self._own = own

    def draw(
        self, user: str, used: int, wanted: int, limits: SendLimits, *, at_once: bool = False
    ) -> Grant:
        """Have the bucket asked; with all that was told before where it has to be ``at_once``."""
        grant = Grant()
        place = self._keys.place(user)
        call = script("draw", place, used, wanted, limits.rate_max, limits.burst_max)
        self._link.tell(call, partial(_granted, grant))
        if at_once:
            self._link.flush()
        return grant

    def claim_attempt(self, user: str, address: str, *, at_home: bool, failures_max: int) -> Claim:
        """Have an attempt begin, if it may."""
        claim = Claim()
        call = self._attempt(user, address, "", failures_max, "1" if at_home else "")
        self._link.tell(call, partial(setattr, claim, "wait_ms"))
        return claim

    def end_attempt(self, tried: Tried) -> None:
        """Count it, and tell it on."""
        user, address, outcome = tried
        if outcome is not Outcome.OPENED:
            self._link.tell(self._attempt(user, address, outcome.value, 0, ""))
        if outcome is not Outcome.NONE:
            channel = self._keys.index("tried", user or address)
            self._link.tell(("SPUBLISH", channel, json.dumps([self._own, *tried])))

    def _attempt(self, user: str, address: str, what: str, free: int, home: str) -> Call:
        times_ms = (DELAY_MS, DELAY_MS_MAX, FORGET_MS, ATTEMPT_MS_MAX)
        return script("attempt", self._keys.place(user), address, what, free, *times_ms, home)

    def heard(self, told: Iterable[bytes]) -> list[Tried]:
        """Return what the others have told, of all that was."""
        found = [json.loads(each) for each in told]
        return [
            Tried(user, address, Outcome(outcome))
            for by, user, address, outcome in found
            if by != self._own
        ]


def _granted(grant: Grant, reply: Any) -> None:
    grant.reserved, grant.left = reply[0], float(reply[1])
