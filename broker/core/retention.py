"""Which messages are kept no longer: by age, by whether they were read, and by how much is kept.

An engine walks along its log a few rows a step and asks here. Source: docs/DURABILITY.md, "What is
deleted, and when".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from broker.core.mailbox import Mailbox
from broker.core.mailboxes import Mailboxes
from broker.core.ports import StoreLimits

#: Rows that one step looks at: five milliseconds beside a million messages of one sender.
STEP_ROWS: Final = 300


class Row(NamedTuple):
    """One stored message: its mailbox (None: removed), when it was stored, and by whom."""

    seq: int
    box: Mailbox | None
    stored_ms: int
    sender: str


class Verdict(NamedTuple):
    """What a step leads to. ``looked_at`` is how many rows need no further look in this walk."""

    delete: list[Row]
    expire: list[Row]
    looked_at: int


class Retention:
    """The rules. A walk ends at the first row that is too young for any of them."""

    def __init__(self, limits: StoreLimits, mailboxes: Mailboxes) -> None:
        self._limits = limits
        self._mailboxes = mailboxes
        ages = [limits.retention_read_ms, limits.retention_room_ms]
        self._shortest_ms = min(*ages, limits.retention_unread_ms or ages[0])

    def judge(self, rows: Sequence[Row], now_ms: int) -> Verdict:
        """Judge neighbouring rows, oldest first."""
        delete: list[Row] = []
        expire: list[Row] = []
        looked_at = 0
        surplus = self._mailboxes.read_bytes - self._limits.retention_bytes_max
        # Ids are read back from the rows when the engine is opened: the youngest stay.
        protected = self._mailboxes.next_seq - self._limits.dedup.ids_max
        for row in rows:
            over = surplus > 0 and row.seq < protected
            if now_ms - row.stored_ms <= self._shortest_ms and not over:
                break
            looked_at += 1
            if self._goes(row, now_ms, over=over):
                delete.append(row)
                if surplus > 0 and row.box is not None and row.seq <= row.box.furthest:
                    surplus -= row.box.size(row.seq)
            elif self._expires(row, now_ms):
                expire.append(row)
        return Verdict(delete, expire, looked_at)

    def _goes(self, row: Row, now_ms: int, *, over: bool) -> bool:
        seq, box, stored_ms, _ = row
        since_ms = self._mailboxes.expired.get(seq)
        if since_ms is not None:  # counted from when it expired, so that its sender can ask
            return now_ms - since_ms > self._limits.retention_read_ms
        age_ms = now_ms - stored_ms
        if box is not None and box.room:
            return age_ms > self._limits.retention_room_ms
        return (box is None or seq <= box.furthest) and (
            over or age_ms > self._limits.retention_read_ms
        )

    def _expires(self, row: Row, now_ms: int) -> bool:
        limit_ms = self._limits.retention_unread_ms
        return (
            limit_ms > 0
            and row.box is not None
            and not row.box.room
            and row.seq > row.box.furthest
            and row.seq not in self._mailboxes.expired
            and now_ms - row.stored_ms > limit_ms
        )
