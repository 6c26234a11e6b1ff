"""Which message ids were stored lately: the memory behind "stored once".

Source: docs/PROTOCOL.md, "chat".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

_Ids = dict[str, int]


@dataclass(frozen=True, slots=True)
class DedupLimits:
    """How much is remembered at least; at most twice that is held, and what is added at once."""

    #: Ids of one sender: more than its clients can have unanswered (a window is 1 000 or so).
    ids_per_sender: int = 10_000
    #: Ids of all senders: bounds the memory, about 200 bytes each.
    ids_max: int = 200_000
    #: Milliseconds an id is kept where the counts allow: a retry comes within minutes, not days.
    window_ms: int = 24 * 3_600_000


class _Generation:
    """The ids since one turn-over; of each sender the latest ones and, apart, those before."""

    __slots__ = ("before", "count", "latest", "newest", "since_ms")

    def __init__(self, since_ms: int) -> None:
        self.latest: dict[str, _Ids] = {}
        self.before: dict[str, _Ids] = {}
        #: No id of the sender in here is greater.
        self.newest: dict[str, str] = {}
        self.count = 0
        self.since_ms = since_ms


class DedupWindow:
    """(sender, message id) → sequence, for the last ids of each sender.

    Two generations, young and old: when the young one is full or has grown old it becomes the old
    one, and what was old is forgotten. Within a generation a sender that sends a lot turns over
    its own ids, so that it cannot push out the ids of others. Each step is a few look-ups; nothing
    is scanned.
    """

    def __init__(self, limits: DedupLimits) -> None:
        self._limits = limits
        self._young = _Generation(0)
        self._old = _Generation(0)

    def __len__(self) -> int:
        return self._young.count + self._old.count

    def find(self, sender: str, message_id: str) -> int | None:
        """Return the sequence under which this id was stored, if it is remembered."""
        for generation in (self._young, self._old):
            for table in (generation.latest, generation.before):
                ids = table.get(sender)
                if ids is not None and message_id in ids:
                    return ids[message_id]
        return None

    def add(self, sender: str, stored: Mapping[str, int], now_ms: int) -> None:
        """Remember ids that have just been stored, at least one, each with its sequence."""
        ids, newest = self.begin(sender)
        ids.update(stored)
        self.added(sender, len(stored), max(newest, *stored), now_ms)

    def begin(self, sender: str) -> tuple[_Ids, str]:
        """Return where to put the ids that are stored next, each with its sequence: the hot path.

        And an id that none of the sender's is above: what is, is new. Ids that grow, as ULIDs do,
        are known to be new by this one comparison. When all are put, tell of them by `added`.
        """
        young = self._young
        ids = young.latest.get(sender)
        if ids is None:
            ids = young.latest[sender] = {}
        elif len(ids) >= self._limits.ids_per_sender:
            # Only this sender forgets, and never its last `ids_per_sender`.
            young.count -= len(young.before.get(sender, ()))
            young.before[sender] = ids
            ids = young.latest[sender] = {}
        newest, older = young.newest.get(sender, ""), self._old.newest.get(sender, "")
        return ids, max(older, newest)

    def added(self, sender: str, count: int, newest: str, now_ms: int) -> None:
        """Take note of so many ids that were put; none of the sender's is above ``newest``."""
        young = self._young
        young.count += count
        young.newest[sender] = newest
        if young.count > self._limits.ids_max or now_ms - young.since_ms > self._limits.window_ms:
            self._old = young
            self._young = _Generation(now_ms)

    def discard(self, sender: str, message_id: str) -> None:
        """Forget an id whose message was rolled back."""
        for generation in (self._young, self._old):
            for table in (generation.latest, generation.before):
                ids = table.get(sender)
                if ids is not None and ids.pop(message_id, None) is not None:
                    generation.count -= 1

    def forget(self, sender: str) -> Callable[[], None]:
        """Forget all ids of a sender; return the step that takes this back."""
        taken: list[tuple[_Generation, dict[str, _Ids], _Ids]] = []
        for generation in (self._young, self._old):
            for table in (generation.latest, generation.before):
                ids = table.pop(sender, None)
                if ids is not None:
                    generation.count -= len(ids)
                    taken.append((generation, table, ids))

        def undo() -> None:
            for generation, table, ids in taken:
                table[sender] = ids
                generation.count += len(ids)

        return undo
