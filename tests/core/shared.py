"""What brokers share, without a server: one bucket a user, claims, and what is told."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

from broker.core.rates import SendLimits
from broker.core.shared_limits import Claim, Grant, Tried
from tests.core.fakes import FEW, FaultyStore


class Bucket:
    """The bucket of `draw.lua`, in exact numbers: thousandths of a message."""

    def __init__(self, limits: SendLimits, now_ms: int) -> None:
        self._most = 1_000 * limits.burst_max
        self._rate = limits.rate_max
        self.tokens = self._most
        self._at_ms = now_ms

    def draw(self, used: int, wanted: int, now_ms: int) -> Grant:
        filled = min(self._most, self.tokens + (now_ms - self._at_ms) * self._rate)
        self.tokens, self._at_ms = min(self._most, filled - 1_000 * used), now_ms
        grant = Grant()
        grant.reserved = max(0, min(wanted, self.tokens // 1_000))
        self.tokens -= 1_000 * grant.reserved
        grant.left = self.tokens / 1_000
        return grant


class Shared:
    """The side of the store. ``asked`` counts exchanges that came on top of the batches'."""

    def __init__(self) -> None:
        self.now_ms = 0
        self.asked = 0
        self.buckets: dict[str, Bucket] = {}
        #: What claims are answered, by user; 0 otherwise.
        self.waits: dict[str, int] = {}
        self.claims: list[tuple[str, str, bool]] = []
        self.told: defaultdict[object, list[Tried]] = defaultdict(list)


class SharedStore(FaultyStore):
    """A store of one broker of several. While ``gone`` nothing is answered."""

    shared = True

    def __init__(self, shared: Shared) -> None:
        super().__init__(FEW)
        self.common = shared
        self.gone = False
        shared.told[self]  # is told from now on

    def draw(
        self, user: str, used: int, wanted: int, limits: SendLimits, *, at_once: bool = False
    ) -> Grant:
        common = self.common
        common.asked += at_once
        if self.gone:
            return Grant()
        if user not in common.buckets:
            common.buckets[user] = Bucket(limits, common.now_ms)
        return common.buckets[user].draw(used, wanted, common.now_ms)

    def claim_attempt(
        self,
        user: str,
        address: str,
        *,
        at_home: bool,
        failures_max: int,
    ) -> Claim:
        self.common.claims.append((user, address, at_home))
        claim = Claim()
        claim.wait_ms = self.common.waits.get(user, 0)
        return claim

    def end_attempt(self, tried: Tried) -> None:
        for store, told in self.common.told.items():
            if store is not self:
                told.append(tried)

    def tried(self) -> Sequence[Tried]:
        told, self.common.told[self] = self.common.told[self], []
        return told
