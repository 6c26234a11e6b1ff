"""What leaves the log: messages that were acknowledged, once the time to keep them is over.

The log is walked in its order, a few rows a step, and what may go is deleted in ranges; what is
still waiting is stepped over. Freed pages are used again, and given back to the disk where they
become many. Source: docs/DURABILITY.md, "What is deleted, and when".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from broker.core.mailboxes import Mailbox

#: Rows that one step looks at: one to three milliseconds.
STEP_ROWS: Final = 500
#: Free pages that are kept for what comes next; above it each step gives some back to the disk.
FREE_PAGES_KEPT: Final = 2_048
_PAGES_GIVEN_BACK: Final = 256
#: What `PRAGMA auto_vacuum` says of a file that can become shorter.
_INCREMENTAL: Final = 2

Run = Callable[[str, Sequence[Any]], list[Any]]


class Retention:
    """A walk along the log. ``run`` runs one statement; ``boxes`` are the mailboxes by key."""

    def __init__(self, run: Run, boxes: Mapping[int, Mailbox], *, read_ms: int) -> None:
        self._run = run
        self._boxes = boxes
        self._read_ms = read_ms
        self._position = 0

    def step(self, now_ms: int) -> bool:
        """Look at the next rows and delete what may go; False when the walk has come to its end."""
        rows = self._run(
            "SELECT seq, mailbox, stored_ms FROM messages WHERE seq > ? ORDER BY seq LIMIT ?",
            (self._position, STEP_ROWS),
        )
        newest_ms = now_ms - self._read_ms
        old = [(seq, mailbox) for seq, mailbox, stored_ms in rows if stored_ms < newest_ms]
        for first, last in self._ranges(old):
            self._run("DELETE FROM messages WHERE seq BETWEEN ? AND ?", (first, last))
        gave_back = self._give_back()
        walked = len(old) == STEP_ROWS
        self._position = old[-1][0] if walked else 0
        return walked or gave_back

    def _ranges(self, rows: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
        """Return the runs of neighbouring rows that nobody waits for."""
        ranges: list[tuple[int, int]] = []
        first = last = 0
        for seq, mailbox in rows:
            box = self._boxes.get(mailbox)
            if box is None or seq <= box.cursor:
                first, last = first or seq, seq
            elif first:
                ranges.append((first, last))
                first = 0
        if first:
            ranges.append((first, last))
        return ranges

    def _give_back(self) -> bool:
        """Shorten the file by a few pages where many are free; tell whether there are more."""
        ((mode,),) = self._run("PRAGMA auto_vacuum", ())
        ((free,),) = self._run("PRAGMA freelist_count", ())
        surplus: int = free - FREE_PAGES_KEPT
        if mode != _INCREMENTAL or surplus <= 0:
            return False
        self._run(f"PRAGMA incremental_vacuum({min(surplus, _PAGES_GIVEN_BACK)})", ())
        return surplus > _PAGES_GIVEN_BACK
