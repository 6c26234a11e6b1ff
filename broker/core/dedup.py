"""Which message ids were stored lately: the memory behind "stored once".

Source: docs/PROTOCOL.md, "chat".
"""

from __future__ import annotations

from dataclasses import dataclass

_Ids = dict[str, int]


@dataclass(frozen=True, slots=True)
class DedupLimits:
    """How much is remembered at least; at most twice that is held."""

    #: Ids of one sender: more than its clients can have unanswered (a window is 1 000 or so).
    ids_per_sender: int = 10_000
    #: Ids of all senders: bounds the memory, about 200 bytes each.
    ids_max: int = 200_000
    #: Milliseconds an id is kept where the counts allow: a retry comes within minutes, not days.
    window_ms: int = 24 * 3_600_000


class DedupWindow:
    """(sender, message id) → sequence, for the last ids of each sender.

    Two generations, young and old: when the young one is full or has grown old it becomes the old
    one, and what was old is forgotten. A sender that sends a lot turns over its own generations, so
    that it cannot push out the ids of others. Each step is a few look-ups; nothing is scanned.
    """

    def __init__(self, limits: DedupLimits) -> None:
        self._limits = limits
        self._young: dict[str, _Ids] = {}
        self._old: dict[str, _Ids] = {}
        self._young_ids = 0
        self._young_since_ms = 0

    def find(self, sender: str, message_id: str) -> int | None:
        """Return the sequence under which this id was stored, if it is remembered."""
        ids = self._young.get(sender)
        if ids is not None and message_id in ids:
            return ids[message_id]
        ids = self._old.get(sender)
        return ids.get(message_id) if ids is not None else None

    def add(self, sender: str, message_id: str, seq: int, now_ms: int) -> None:
        """Remember an id that has just been stored."""
        ids = self._young.get(sender)
        if ids is None:
            ids = self._young[sender] = {}
        elif len(ids) >= self._limits.ids_per_sender:
            # Only this sender forgets its older half.
            self._old[sender] = ids
            self._young_ids -= len(ids)
            ids = self._young[sender] = {}
        ids[message_id] = seq
        self._young_ids += 1
        if (
            self._young_ids > self._limits.ids_max
            or now_ms - self._young_since_ms > self._limits.window_ms
        ):
            self._turn_over(now_ms)

    def discard(self, sender: str, message_id: str) -> None:
        """Forget an id whose message was rolled back."""
        for generation in (self._young, self._old):
            ids = generation.get(sender)
            if ids is not None and ids.pop(message_id, None) is not None:
                self._young_ids -= generation is self._young

    def _turn_over(self, now_ms: int) -> None:
        self._old = self._young
        self._young = {}
        self._young_ids = 0
        self._young_since_ms = now_ms
