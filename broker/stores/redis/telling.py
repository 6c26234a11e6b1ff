"""What this broker tells the others: whose account has changed, whom it has heard, what it makes.

In the slots of the indexes (see `broker.stores.redis.keys`) and of names:

* ``INDEX:changes``: a stream of users whose account, sessions or rooms have changed, about
  `CHANGES_KEPT` long, no expiry. The sharded channel of the same name gets each of them as well.
* ``INDEX:seen``: a zset of users by when they were heard last, in milliseconds; older ones than
  `SEEN_KEPT_MS` are taken out, no expiry.
* ``PLACE:claim``: a string, which broker is making that user or room; expires after `CLAIM_MS`.
"""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Final

from broker.stores.redis.keys import SHARDS, Keys
from broker.stores.redis.link import Call, Link

#: Of one index: more than change between two looks of a broker. Who finds that something is missing
#: forgets all that it remembers.
CHANGES_KEPT: Final = 1_000
#: By then the session itself was written down again.
SEEN_KEPT_MS: Final = 2 * 3_600_000
#: Longer than any batch takes.
CLAIM_MS: Final = 30_000
#: Between taking out who was not heard for long, of one part of the index each time.
_SWEEP_MS: Final = 60_000


class Teller:
    """The publishing side; see `broker.stores.redis.news` for the other."""

    def __init__(self, link: Link, keys: Keys) -> None:
        self._link = link
        self._keys = keys
        #: What this broker calls itself.
        self.own = secrets.token_hex(8)
        self._changed: dict[str, None] = {}
        self._sweep_at_ms = 0
        self._swept = 0

    def changed(self, user: str) -> None:
        """Note that something of a user has changed, or is about to in this batch."""
        self._changed[user] = None

    def publish(self) -> None:
        """Tell the others what has changed: after the changes, or they would look too early.

        What could not be told is told with the next batch. Errors: as `Link.ask`.
        """
        if not self._changed:
            return
        users = list(self._changed)
        calls: list[Call] = []
        for user in users:
            key = self._keys.index("changes", user)
            calls.append(("XADD", key, "MAXLEN", "~", CHANGES_KEPT, "*", "user", user))
            calls.append(("SPUBLISH", key, user))
        self._link.ask(calls)
        for user in users:
            del self._changed[user]

    def hear(self, user: str, now_ms: int) -> None:
        """Write down that a user was heard, with what is sent next."""
        self._link.tell(("ZADD", self._keys.index("seen", user), "GT", now_ms, user))
        if now_ms >= self._sweep_at_ms:
            self._sweep_at_ms = now_ms + _SWEEP_MS
            shard = self._keys.shards("seen")[self._swept]
            self._swept = (self._swept + 1) % SHARDS
            self._link.tell(("ZREMRANGEBYSCORE", shard, "-inf", now_ms - SEEN_KEPT_MS))

    def heard(self, users: Collection[str]) -> Mapping[str, int]:
        """Return when users were heard last, by any broker."""
        calls: list[Call] = [("ZSCORE", self._keys.index("seen", user), user) for user in users]
        replies = self._link.ask(calls)
        return {
            user: int(float(score))
            for user, score in zip(users, replies, strict=True)
            if score is not None
        }

    def claim(self, name: str) -> bool:
        """Be the one that makes a user or a room; again is the same."""
        key = self._keys.of(name, "claim")
        before = self._link.one(("SET", key, self.own, "NX", "GET", "PX", CLAIM_MS))
        return before in (None, self.own.encode())
