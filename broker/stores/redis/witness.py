"""What this broker has answered for, so that a store which has less is noticed.

An answered write can be lost when a replica takes over that did not have it yet, or when an older
state is put back. The broker that answered knows better, for as long as it runs: it hands the
highest sequence that it gave along with the next append, and after a connection was lost it asks
about all mailboxes that it remembers. Where something is missing, the script leaves a mark by which
every reader is told (``history_lost``), and sequences go on above what was given. Acknowledgements
that were lost are simply made again.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Final

from broker.stores.redis.keys import Keys
from broker.stores.redis.link import Call, script
from broker.wire.limits import DEVICES_PER_USER_MAX

#: Mailboxes, and readers, that are remembered: the latest. 2 to 3 MB.
WITNESSED_MAX: Final = 10_000
#: What was lost is missed within seconds, not later than this.
_FRESH_MS_MAX: Final = 3_600_000


class Witness:
    """Of one broker; nothing of it is written down.

    ``retention_ms``: for so long at least a message is there that was stored, or it is known why
    not.
    """

    def __init__(
        self, keys: Keys, *, retention_ms: int, witnessed_max: int = WITNESSED_MAX
    ) -> None:
        self._keys = keys
        # Half: brokers that tidy may have clocks that are ahead.
        self._fresh_s = min(_FRESH_MS_MAX, retention_ms // 2) / 1_000
        self._max = witnessed_max
        # Oldest first: the highest sequence given in a mailbox, and when.
        self._given: dict[str, tuple[int, float]] = {}
        self._cursors: dict[tuple[str, str], int] = {}
        self._forgotten_at = 0.0

    def given(self, name: str) -> int:
        """Return the highest sequence that was given in a mailbox; 0: not remembered."""
        found = self._given.get(name)
        return found[0] if found else 0

    def saw(self, name: str, seq: int) -> None:
        """Remember a sequence that a sender is told."""
        known = self._given.pop(name, None)
        if known and known[0] > seq:
            seq = known[0]
        self._given[name] = (seq, time.monotonic())
        if len(self._given) > self._max:
            _, self._forgotten_at = self._given.pop(next(iter(self._given)))

    def acknowledged(self, user: str, device: str, cursor: int) -> None:
        """Remember a cursor that a reader is told."""
        self._cursors.pop((user, device), None)
        self._cursors[user, device] = cursor
        if len(self._cursors) > self._max:
            del self._cursors[next(iter(self._cursors))]

    def forget(self, name: str) -> None:
        """Expect nothing any more of a mailbox that is removed."""
        self._given.pop(name, None)
        for reader in [each for each in self._cursors if each[0] == name]:
            del self._cursors[reader]

    def remembers(self, since: float) -> bool:
        """Tell whether the questions are about all that was given since a monotonic time."""
        return since >= max(self._forgotten_at, time.monotonic() - self._fresh_s)

    def questions(self, since: int = 0) -> Iterator[Call]:
        """Ask whether all is there; an answer of 1 says that something was not.

        ``since``: nothing with that sequence, or a lower one, is lost; 0: nobody knows.
        """
        fresh_from = time.monotonic() - self._fresh_s
        for name, (seq, at) in self._given.items():
            yield self.question(name, seq, fresh=at > fresh_from, since=since)

    def question(self, name: str, seq: int, *, fresh: bool = False, since: int = 0) -> Call:
        return script("verify", self._keys.place(name), seq, "1" if fresh else "", since)

    def repetitions(self) -> Iterator[Call]:
        """Acknowledge again what was acknowledged: without effect where it is still known."""
        for (user, device), cursor in self._cursors.items():
            place = self._keys.place(user)
            yield script("acknowledge", place, device, cursor, DEVICES_PER_USER_MAX, "1", "1")
