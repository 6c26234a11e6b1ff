"""How fast one user may send, over all brokers of a store: their buckets follow the one in it.

A message costs no exchange with the store. A broker lets a few through ahead of asking, as far as
its own bucket holds them, and takes them out of the store's bucket with the batch that stores them;
the answer corrects its own. For more than a few it has some reserved, once for all that follow in
the turn. Who sent many in one turn has as many reserved for the next; what was not used is put back
a moment later.

So brokers together let through no more than one would, but for those few a broker: these are a
debt of the store's bucket, and sent slower afterwards.
"""

from __future__ import annotations

from itertools import takewhile
from typing import Final

from broker.core.ports import Store
from broker.core.rates import SendLimits, SendRates
from broker.core.shared_limits import Grant, SharedLimits

#: Messages of a user in one turn that a broker lets through before it asks: what people send. Each
#: further broker adds so many to a burst...
AHEAD_MAX: Final = 4
#: ... but no more than one in so many.
_AHEAD_OF_BURST: Final = 50
#: Messages that are reserved at once: a pipeline's of one turn...
RESERVED_MAX: Final = 250
#: ... but no more than one in so many of a burst, since other brokers lack them...
_RESERVED_OF_BURST: Final = 4
#: ... until the user has not sent here for so long, in milliseconds (and a turn, of which an idle
#: broker takes one a second): longer than two pipelines take turns.
RESERVED_MS: Final = 200


class _Share:
    """What a user did in one turn."""

    __slots__ = ("ahead", "reserved", "sent")

    def __init__(self) -> None:
        self.sent = 0
        #: Let through and not yet taken out of the store's bucket.
        self.ahead = 0
        #: Taken out of it, and not yet used.
        self.reserved = 0


class SharedRates:
    """As `broker.core.rates.SendRates`, over all brokers. `settle` ends each turn, in its batch."""

    def __init__(self, limits: SendLimits, store: SharedLimits) -> None:
        self._limits = limits
        self._store = store
        self._own = SendRates(limits)
        self._ahead_max = min(AHEAD_MAX, max(1, limits.burst_max // _AHEAD_OF_BURST))
        self._reserved_max = min(RESERVED_MAX, max(1, limits.burst_max // _RESERVED_OF_BURST))
        #: Of this turn, by user.
        self._shares: dict[str, _Share] = {}
        #: What users were granted who sent of late, and when they were; oldest first.
        self._granted: dict[str, tuple[Grant, int]] = {}

    def spend(self, user: str, now_ms: int) -> None:
        """Take a token for one message. Errors: ``rate_limited``; what ends a batch."""
        share = self._shares.get(user) or self._open(user)
        if not share.reserved:
            left = self._own.left(user, now_ms)
            # Before anybody is refused the store is asked: others may have put something back.
            if left is not None and (share.ahead >= self._ahead_max or left < 1):
                self._reserve(user, share, now_ms)
        self._own.spend(user, now_ms)
        share.sent += 1
        if share.reserved:
            share.reserved -= 1
        else:
            share.ahead += 1

    def settle(self, now_ms: int) -> None:
        """Tell the store what the turn came to. A step of its batch."""
        for user in tuple(takewhile(lambda user: self._is_over(user, now_ms), self._granted)):
            if reserved := self._take_over(user):
                self._store.draw(user, -reserved, 0, self._limits)
        for user, share in self._shares.items():
            used = share.ahead - share.reserved
            wanted = min(self._reserved_max, share.sent) if share.sent > self._ahead_max else 0
            if used or wanted:
                self._granted[user] = self._store.draw(user, used, wanted, self._limits), now_ms
        self._shares.clear()

    def _open(self, user: str) -> _Share:
        share = self._shares[user] = _Share()
        share.reserved = self._take_over(user)
        return share

    def _take_over(self, user: str) -> int:
        """Correct a user's bucket by what the store told; return what is reserved here."""
        grant, at_ms = self._granted.pop(user, (None, 0))
        if grant is None or grant.left is None:  # the batch failed
            return 0
        self._own.correct(user, grant.left + grant.reserved, at_ms)
        return grant.reserved

    def _is_over(self, user: str, now_ms: int) -> bool:
        # Also where the clock was set back.
        return not 0 <= now_ms - self._granted[user][1] < RESERVED_MS

    def _reserve(self, user: str, share: _Share, now_ms: int) -> None:
        wanted = self._reserved_max
        grant = self._store.draw(user, share.ahead, wanted, self._limits, at_once=True)
        share.ahead = 0
        if grant.left is not None:
            share.reserved = grant.reserved
            self._own.correct(user, grant.left + grant.reserved, now_ms)


def rates_of(limits: SendLimits, store: Store) -> SendRates | SharedRates | None:
    """Return what counts the messages of a broker over a store; None where nothing is limited."""
    if not limits.rate_max:
        return None
    return SharedRates(limits, store) if store.shared else SendRates(limits)
