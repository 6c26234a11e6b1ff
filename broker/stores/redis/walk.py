"""What happens by itself: messages expire, and what is kept no longer is deleted.

``INDEX:due`` are zsets of mailboxes by when their next message expires (milliseconds, no expiry of
their own). An entry is written behind the append; the walk that tidies puts back what got lost.
"""

from __future__ import annotations

import math
from collections import deque
from typing import Final

from broker.core.mailboxes import EXPIRED_PER_STEP_MAX
from broker.core.model import Message
from broker.core.ports import StoreLimits
from broker.core.retention import STEP_ROWS
from broker.stores.redis.keys import Keys
from broker.stores.redis.link import Link, script
from broker.stores.redis.messages import without_text
from broker.stores.redis.records import Records
from broker.wire.limits import ROOM_MARK

#: Between looks at what other brokers may have made due, in milliseconds.
LOOK_MS: Final = 250
#: Mailboxes that one step looks after.
_STEP_MAILBOXES: Final = 50


class Expiry:
    """Which mailboxes have something that is late."""

    def __init__(self, link: Link, keys: Keys, limits: StoreLimits) -> None:
        self._link = link
        self._keys = keys
        self._limits = limits
        #: The earliest that this broker knows of, and when it looks at the others'.
        self._due_ms = -math.inf
        self._look_ms = -math.inf

    def schedule(self, name: str, expires_ms: float) -> None:
        """Have a mailbox looked after when the time has come."""
        self._due_ms = min(self._due_ms, expires_ms)
        self._link.tell(("ZADD", self._keys.index("due", name), "LT", expires_ms, name))

    def expire(self, now_ms: int) -> list[Message]:
        """Take out what is late, `EXPIRED_PER_STEP_MAX` at most."""
        if now_ms < self._due_ms and now_ms < self._look_ms:
            return []
        self._look_ms = now_ms + LOOK_MS
        found: list[Message] = []
        for name in self._late(now_ms):
            if len(found) >= EXPIRED_PER_STEP_MAX:
                self._due_ms = now_ms
                break
            found += self._expire_in(name, now_ms, EXPIRED_PER_STEP_MAX - len(found))
        return sorted(found)

    def _late(self, now_ms: int) -> list[str]:
        """Return mailboxes that have something late, and note when the next will."""
        shards = self._keys.shards("due")
        parts = self._link.ask(
            [
                call
                for shard in shards
                for call in (
                    ("ZRANGEBYSCORE", shard, "-inf", now_ms, "LIMIT", 0, _STEP_MAILBOXES),
                    ("ZRANGEBYSCORE", shard, f"({now_ms}", "+inf", "WITHSCORES", "LIMIT", 0, 1),
                )
            ]
        )
        self._due_ms = min((float(part[1]) for part in parts[1::2] if part), default=math.inf)
        return [name.decode() for part in parts[::2] for name in part]

    def _expire_in(self, name: str, now_ms: int, limit: int) -> list[Message]:
        # Out of the index first: what an append puts there meanwhile is put back, or stays.
        place, kept_ms = self._keys.place(name), self._limits.retention_read_ms
        _, (due_ms, rows) = self._link.ask(
            [
                ("ZREM", self._keys.index("due", name), name),
                script("expire", place, now_ms, limit, kept_ms),
            ]
        )
        if due_ms:
            self.schedule(name, float(due_ms))
        return [without_text(row, name) for row in rows]


class Walk:
    """Goes through all mailboxes, a few a step, and begins anew."""

    def __init__(
        self, link: Link, keys: Keys, records: Records, expiry: Expiry, limits: StoreLimits
    ) -> None:
        self._link = link
        self._keys = keys
        self._records = records
        self._expiry = expiry
        self._limits = limits
        # Mailboxes to look after, each with the sequence that the step before came to.
        self._waiting: deque[tuple[str, str]] = deque()
        self._ahead = ["users", "rooms"]
        self._after = ""

    def step(self, now_ms: int) -> bool:
        """Delete a few messages; tell whether the walk goes on."""
        while len(self._waiting) < _STEP_MAILBOXES and self._ahead:
            self._turn_page()
        waiting, self._waiting = self._waiting, deque()
        calls = [self._tidy(name, came_to, now_ms) for name, came_to in waiting]
        for (name, _), (came_to, due_ms) in zip(waiting, self._link.ask(calls), strict=True):
            if due_ms:
                self._expiry.schedule(name, float(due_ms))
            if came_to:
                self._waiting.append((name, came_to.decode()))
        if self._waiting or self._ahead:
            return True
        self._ahead = ["users", "rooms"]
        return False

    def _turn_page(self) -> None:
        room = _STEP_MAILBOXES - len(self._waiting)
        names = self._records.names(self._ahead[0], after=self._after, limit=room)
        self._waiting += [(name.decode(), "0") for name in names]
        self._after = names[-1].decode() if names else ""
        if len(names) < room:
            self._after = ""
            self._ahead.pop(0)

    def _tidy(self, name: str, came_to: str, now_ms: int) -> tuple[object, ...]:
        limits = self._limits
        return script(
            "tidy",
            self._keys.place(name),
            now_ms,
            limits.retention_read_ms,
            limits.retention_unread_ms,
            limits.retention_room_ms,
            limits.retention_bytes_max,
            STEP_ROWS,
            "1" if name.startswith(ROOM_MARK) else "",
            came_to,
        )
