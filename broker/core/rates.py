"""How fast one user may send: a bucket of tokens that refills with time.

Source: docs/PROTOCOL.md, "Errors", ``rate_limited``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from broker.wire.errors import Code, WireError
from broker.wire.limits import TEXT_BYTES_MAX

#: Buckets that are kept; above it those that are full again are dropped.
BUCKETS_MAX: Final = 10_000
#: Who was refused is refused until then, so that what follows in a pipeline cannot overtake it.
REFUSED_MS: Final = 1_000


@dataclass(frozen=True, slots=True, kw_only=True)
class SendLimits:
    """What one user may send."""

    #: Text of one message, in bytes of UTF-8.
    message_bytes_max: int = TEXT_BYTES_MAX
    #: Messages a second in the long run; 0: no limit.
    rate_max: int = 0
    #: Messages that may come at once.
    burst_max: int = 1_000


class _Bucket:
    __slots__ = ("at_ms", "refused_until_ms", "tokens")

    def __init__(self, tokens: float, now_ms: int) -> None:
        self.tokens = tokens
        self.at_ms = now_ms
        self.refused_until_ms = 0


class SendRates:
    """The buckets, by user."""

    def __init__(self, limits: SendLimits) -> None:
        self._rate = limits.rate_max / 1_000  # a millisecond
        self._burst = limits.burst_max
        self._buckets: dict[str, _Bucket] = {}

    def spend(self, user: str, now_ms: int) -> None:
        """Take a token for one message. Errors: ``rate_limited``."""
        bucket = self._buckets.get(user) or self._add(user, now_ms)
        refill = max(0, now_ms - bucket.at_ms) * self._rate
        bucket.tokens = min(self._burst, bucket.tokens + refill)
        bucket.at_ms = now_ms
        # A clock that was set back must not refuse for longer than it would have.
        left_ms = min(REFUSED_MS, bucket.refused_until_ms - now_ms)
        if left_ms <= 0 and bucket.tokens >= 1:
            bucket.tokens -= 1
            return
        # Who is refused already is so for no longer: trying again in the meantime costs nothing.
        bucket.refused_until_ms = now_ms + (left_ms if left_ms > 0 else REFUSED_MS)
        raise WireError(
            Code.RATE_LIMITED,
            "you send faster than this broker allows: go on with the same message, and its id, "
            "a little later",
            bucket.refused_until_ms - now_ms,
        )

    def left(self, user: str, now_ms: int) -> float | None:
        """Return how many messages a user may send now; None: the user is refused already."""
        bucket = self._buckets.get(user)
        if bucket is None:
            return self._burst
        if 0 < bucket.refused_until_ms - now_ms <= REFUSED_MS:
            return None
        return bucket.tokens + max(0, now_ms - bucket.at_ms) * self._rate

    def correct(self, user: str, tokens: float, at_ms: int) -> None:
        """Take over what a user's bucket held at a time; it may be less than nothing."""
        bucket = self._buckets.get(user) or self._add(user, at_ms)
        bucket.tokens, bucket.at_ms = tokens, at_ms

    def settle(self, now_ms: int) -> None:
        """End a turn: these buckets are nobody else's."""

    def _add(self, user: str, now_ms: int) -> _Bucket:
        if len(self._buckets) >= BUCKETS_MAX:
            self._buckets = {
                name: bucket
                for name, bucket in self._buckets.items()
                if bucket.tokens + (now_ms - bucket.at_ms) * self._rate < self._burst
                or now_ms < bucket.refused_until_ms
            }
        bucket = self._buckets[user] = _Bucket(self._burst, now_ms)
        return bucket
