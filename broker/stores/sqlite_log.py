"""The log of messages in order of sequence: looked up and deleted in bulk.

Most of it is a table. The newest may not have been written into it yet, and are found in memory.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import pairwise
from typing import Any, Final

from broker.core.model import Message
from broker.stores.sqlite_changes import Changes

Run = Callable[[str, Sequence[Any]], list[Any]]

#: Rows of one SELECT by sequence, at most: a page of the usual size. More of them, with the
#: longest texts, would be read from the disk to be left out of a page that they do not fit into.
_SELECT_ROWS: Final = 100
#: Free pages that are kept for what comes next; above it each step gives some back to the disk.
FREE_PAGES_KEPT: Final = 2_048
_PAGES_GIVEN_BACK: Final = 256
#: What `PRAGMA auto_vacuum` says of a file that can become shorter.
_INCREMENTAL: Final = 2

# ruff: noqa: S608 - only question marks and constants are put into the statements
# One statement for any number of sequences, given as a list in JSON.
_SELECT, _SELECT_BARE = (
    f"SELECT seq, stored_ms, sender, message_id, {text}, mailbox FROM messages"
    " WHERE seq IN (SELECT value FROM json_each(?)) ORDER BY seq"
    for text in ("text", "''")
)


class MessageLog:
    """The table of messages, and those that ``unwritten`` returns, the newest first.

    ``names`` are those of the mailboxes, by key.
    """

    def __init__(
        self, run: Run, names: dict[int, str], unwritten: Callable[[], Sequence[Changes]]
    ) -> None:
        self._run = run
        self._names = names
        self._unwritten = unwritten

    def messages(self, seqs: Sequence[int]) -> Iterator[Message]:
        """Return the messages of sequences in order."""
        new, names = tuple.__new__, self._names
        for rows in self._rows(_SELECT, seqs):
            # Hot path: half the time of Message(...), which looks at each argument.
            yield from [new(Message, (a, b, c, d, e, names[key])) for a, b, c, d, e, key in rows]

    def without_texts(self, seqs: Sequence[int]) -> Iterator[Message]:
        """Return the messages of sequences in order, each with an empty text."""
        for rows in self._rows(_SELECT_BARE, seqs):
            for *fields, _, key in rows:
                yield Message._make([*fields, "", self._names[key]])

    def first(self, seq: int) -> tuple[int, str] | None:
        """Return the mailbox's key and the text of one message, if it is kept."""
        for rows in self._rows(_SELECT, (seq,)):
            for *_, text, key in rows:
                return key, text
        return None

    def newest_first(self, seqs: Sequence[int]) -> Iterator[Message]:
        """Return the messages of sequences, which are in order, from the last to the first."""
        for end in range(len(seqs), 0, -_SELECT_ROWS):
            yield from reversed([*self.messages(seqs[max(0, end - _SELECT_ROWS) : end])])

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

    def _rows(self, select: str, seqs: Sequence[int]) -> Iterator[Sequence[Sequence[Any]]]:
        end = len(seqs)
        newest: list[list[Sequence[Any]]] = []
        for changes in self._unwritten():
            if end and changes.rows:
                start = bisect_left(seqs, changes.rows[0], 0, end)
                newest.append(changes.find(seqs[start:end]))
                end = start
        for start in range(0, end, _SELECT_ROWS):
            yield self._run(select, (str([*seqs[start : min(start + _SELECT_ROWS, end)]]),))
        yield from reversed(newest)


def _ranges(seqs: Iterable[int]) -> Iterator[tuple[int, int]]:
    """Return the runs of adjoining sequences."""
    ordered = list(seqs)
    starts = [0, *(index for index, (a, b) in enumerate(pairwise(ordered), 1) if b != a + 1)]
    for start, end in pairwise([*starts, len(ordered)]):
        yield ordered[start], ordered[end - 1]
