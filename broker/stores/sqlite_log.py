"""The log in SQLite: rows of messages in order of sequence, put in, looked up and deleted in bulk.

INSERTs of a few fixed sizes, each prepared once: `executemany` would step row by row and give the
GIL away each time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from broker.core.model import Message

Run = Callable[[str, Sequence[Any]], list[Any]]

#: Rows of one INSERT, largest first.
_INSERT_ROWS: Final = (128, 16, 1)
#: Rows of one SELECT by sequence, at most: a page of the usual size. More of them, with the
#: longest texts, would be read from the disk to be left out of a page that they do not fit into.
_SELECT_ROWS: Final = 100
_COLUMNS: Final = 6
#: Free pages that are kept for what comes next; above it each step gives some back to the disk.
FREE_PAGES_KEPT: Final = 2_048
_PAGES_GIVEN_BACK: Final = 256
#: What `PRAGMA auto_vacuum` says of a file that can become shorter.
_INCREMENTAL: Final = 2

# ruff: noqa: S608 - only question marks and constants are put into the statements
_INSERTS: Final = {
    rows: "INSERT INTO messages (seq, mailbox, sender, message_id, stored_ms, text) VALUES "
    + ", ".join(["(?, ?, ?, ?, ?, ?)"] * rows)
    for rows in _INSERT_ROWS
}
# One statement for any number of sequences, given as a list in JSON.
_SELECT, _SELECT_BARE = (
    f"SELECT seq, stored_ms, sender, message_id, {text}, mailbox FROM messages"
    " WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq"
    for text in ("text", "''")
)


class MessageLog:
    """The table of messages. ``names`` are those of the mailboxes, by key."""

    def __init__(self, run: Run, names: dict[int, str]) -> None:
        self._run = run
        self._names = names

    def insert(self, staged: Sequence[Any]) -> None:
        """Store rows, given column after column: as few statements as the sizes allow."""
        run = self._run
        start, rows = 0, len(staged) // _COLUMNS
        for size in _INSERT_ROWS:
            step = size * _COLUMNS
            while rows >= size:
                run(_INSERTS[size], staged[start : start + step])
                start += step
                rows -= size

    def messages(self, seqs: Sequence[int]) -> Iterator[Message]:
        """Return the messages of sequences in order."""
        new, names = tuple.__new__, self._names
        for rows in self._rows(_SELECT, seqs):
            # Hot path: half the time of Message(...), which looks at each argument.
            yield from [new(Message, (a, b, c, d, e, names[key])) for a, b, c, d, e, key in rows]

    def without_texts(self, seqs: Sequence[int]) -> Iterator[Message]:
        """Return the messages of sequences in order, each with an empty text."""
        for rows in self._rows(_SELECT_BARE, seqs):
            for *fields, key in rows:
                yield Message._make([*fields, self._names[key]])

    def first(self, seq: int) -> tuple[int, str] | None:
        """Return the mailbox's key and the text of one message, if it is kept."""
        rows = self._run("SELECT mailbox, text FROM messages WHERE seq = ?", (seq,))
        return rows[0] if rows else None

    def newest_first(self, seqs: Sequence[int]) -> Iterator[Message]:
        """Return the messages of sequences, which are in order, from the last to the first."""
        for rows in self._rows(_SELECT, seqs[::-1]):
            for *fields, key in reversed(rows):
                yield Message._make([*fields, self._names[key]])

    def after(self, seq: int, limit: int) -> list[tuple[int, int, int, str]]:
        """Return rows of (sequence, mailbox's key, time, sender), for a walk."""
        return self._run(
            "SELECT seq, mailbox, stored_ms, sender FROM messages WHERE seq > ?"
            " ORDER BY seq LIMIT ?",
            (seq, limit),
        )

    def delete(self, seqs: Sequence[int]) -> None:
        """Delete rows by sequence, in order, at least one: neighbours as one range."""
        for first, last in _ranges(seqs):
            self._run("DELETE FROM messages WHERE seq BETWEEN ? AND ?", (first, last))
            self._run("DELETE FROM expiries WHERE seq BETWEEN ? AND ?", (first, last))

    def give_back(self) -> bool:
        """Shorten the file by a few pages where many are free; tell whether there are more."""
        ((mode,),) = self._run("PRAGMA auto_vacuum", ())
        ((free,),) = self._run("PRAGMA freelist_count", ())
        surplus: int = free - FREE_PAGES_KEPT
        if mode != _INCREMENTAL or surplus <= 0:
            return False
        self._run(f"PRAGMA incremental_vacuum({min(surplus, _PAGES_GIVEN_BACK)})", ())
        return surplus > _PAGES_GIVEN_BACK

    def _rows(self, select: str, seqs: Sequence[int]) -> Iterator[list[Any]]:
        for start in range(0, len(seqs), _SELECT_ROWS):
            yield self._run(select, (str([*seqs[start : start + _SELECT_ROWS]]),))


def _ranges(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Return the runs of adjoining sequences."""
    ordered = list(seqs)
    starts = [0, *(index for index, (a, b) in enumerate(pairwise(ordered), 1) if b != a + 1)]
    for start, end in pairwise([*starts, len(ordered)]):
        yield ordered[start], ordered[end - 1]
