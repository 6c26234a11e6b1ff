"""What batches change most: messages, when they expire, how far readers have read.

Such changes are gathered in memory, kept by the journal, and written into the database in bulk.
Everything else is changed in the database at once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

import msgpack

Run = Callable[[str, Sequence[Any]], list[Any]]

#: Columns of a message: seq, stored_ms, sender, message_id, text, mailbox.
COLUMNS: Final = 6
#: Rows of one INSERT, largest first. A few fixed sizes, each prepared once: `executemany` would
#: step row by row and give the GIL away each time.
_INSERT_ROWS: Final = (128, 16, 1)

# ruff: noqa: S608 - only question marks are put into the statements
_INSERTS: Final = {
    rows: "INSERT INTO messages (seq, stored_ms, sender, message_id, text, mailbox) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?)"] * rows)
    for rows in _INSERT_ROWS
}


class Changes:
    """Of one batch, or of several."""

    __slots__ = ("cursors", "expiring", "rows")

    def __init__(self) -> None:
        #: Messages, column after column, in order of sequence and without a gap.
        self.rows: list[Any] = []
        #: Sequence and time of each that expires, one after the other.
        self.expiring: list[int] = []
        #: Of (mailbox, device).
        self.cursors: dict[tuple[int, str], int] = {}

    def __len__(self) -> int:
        return len(self.rows) // COLUMNS + len(self.cursors)

    def find(self, seqs: Sequence[int]) -> list[Sequence[Any]]:
        """Return the messages of sequences from the first one here on, a row each."""
        rows = self.rows
        places = [(seq - rows[0]) * COLUMNS for seq in seqs]
        return [rows[place : place + COLUMNS] for place in places if place < len(rows)]

    def clear(self) -> None:
        """Forget all."""
        self.forget_rows()
        self.cursors.clear()

    def forget_rows(self) -> None:
        """Forget the messages, which the database has; the cursors stay."""
        self.rows.clear()
        self.expiring.clear()

    def take(self, other: Changes) -> None:
        """Take over what came later, and leave nothing there."""
        self.rows += other.rows
        self.expiring += other.expiring
        self.cursors.update(other.cursors)
        other.clear()

    def pack(self) -> bytes:
        """Return the body of a journal's record; the other way is `unpack`."""
        cursors = [(*reader, seq) for reader, seq in self.cursors.items()]
        packed: bytes = msgpack.packb((self.rows, self.expiring, cursors))
        return packed

    def unpack(self, body: bytes) -> None:
        """Take over what a record says, behind what is there."""
        rows, expiring, cursors = msgpack.unpackb(body)
        self.rows += rows
        self.expiring += expiring
        self.cursors.update({(mailbox, device): seq for mailbox, device, seq in cursors})

    def insert(self, run: Run) -> None:
        """Write the messages into the database."""
        rows = self.rows
        start, left = 0, len(rows) // COLUMNS
        for size in _INSERT_ROWS:
            step = size * COLUMNS
            while left >= size:
                run(_INSERTS[size], rows[start : start + step])
                start += step
                left -= size
        for at in range(0, len(self.expiring), 2):
            run("INSERT INTO expiries (seq, expires_ms) VALUES (?, ?)", self.expiring[at : at + 2])

    def move(self, run: Run) -> None:
        """Write the cursors into the database."""
        for (mailbox, device), seq in self.cursors.items():
            run(
                "INSERT INTO readers (mailbox, device, seq) VALUES (?, ?, ?)"
                " ON CONFLICT (mailbox, device) DO UPDATE SET seq = excluded.seq",
                (mailbox, device, seq),
            )
