"""Reading the mailboxes back into memory when the file is opened, by walks along the log."""

from __future__ import annotations

import sqlite3
from bisect import bisect_right
from collections import defaultdict, deque
from collections.abc import Callable

from broker.core.mailbox import Mailbox
from broker.core.mailboxes import Mailboxes


class Rebuild:
    """One start: first `mailboxes`, then `ids`. ``add`` takes in a mailbox.

    Errors: `sqlite3.Error`.
    """

    def __init__(
        self, database: sqlite3.Connection, mailboxes: Mailboxes, add: Callable[[Mailbox], None]
    ) -> None:
        self._query = database.execute
        self._mailboxes = mailboxes
        self._add = add
        self._boxes: dict[int, Mailbox] = {}
        #: Since when those send who were not the first of their name.
        self._since: dict[str, int] = {}

    def mailboxes(self) -> int:
        """Read back all that is kept, and who reads it; return the highest sequence of a row."""
        self._accounts_and_rooms()
        self._readers()
        self._messages()
        self._expiries()
        highest: int = self._query(
            "SELECT max(coalesce((SELECT max(seq) FROM messages), 0),"
            " coalesce((SELECT max(seq) FROM readers), 0))"
        ).fetchone()[0]
        return highest

    def ids(self, ids_max: int) -> None:
        """Remember the ids of the last messages."""
        since, remember = self._since, self._mailboxes.remember
        (first,) = self._query(
            "SELECT min(seq) FROM (SELECT seq FROM messages ORDER BY seq DESC LIMIT ?)", (ids_max,)
        ).fetchone()
        for sender, message_id, seq, stored_ms in self._query(
            "SELECT sender, message_id, seq, stored_ms FROM messages WHERE seq >= ? ORDER BY seq",
            (first,),
        ):
            if sender not in since or seq > since[sender]:
                remember(sender, message_id, seq, stored_ms)

    def _accounts_and_rooms(self) -> None:
        for key, user, since in self._query("SELECT id, user, since FROM accounts"):
            self._take_in(Mailbox(user, key))
            if since:
                self._since[user] = since
        for key, room, history in self._query("SELECT -id, room, history FROM rooms"):
            self._take_in(Mailbox(room, key, history=bool(history)))

    def _take_in(self, box: Mailbox) -> None:
        self._boxes[box.key] = box
        self._add(box)

    def _readers(self) -> None:
        find = self._mailboxes.find
        for room, user, since in self._query("SELECT room, user, since FROM members WHERE joined"):
            self._mailboxes.join(find(user), find(room), since)
        for key, device, seq in self._query("SELECT mailbox, device, seq FROM readers"):
            self._mailboxes.restore_reader(self._boxes[key], device, seq)
        for key, seq in self._query("SELECT mailbox, seq FROM purged"):
            self._boxes[key].purged = seq

    def _messages(self) -> None:
        """Put every message into its mailbox, and into its sender's.

        The hot path of a start: a million messages take half a second in SQLite, and as little as
        may be here. What is rare (an account that took over a name, a message that expired) is
        taken out again behind the walk.
        """
        boxes = self._boxes.values()
        nowhere = deque[int](maxlen=0).append  # where a sender is gone
        seqs = {box.key: box.seqs.append for box in boxes}
        sizes = {box.key: box.sizes.append for box in boxes}
        sent = defaultdict(lambda: nowhere, {box.name: box.sent.append for box in boxes})
        for seq, key, sender, size in self._query(
            "SELECT seq, mailbox, sender, length(CAST(text AS BLOB)) FROM messages ORDER BY seq"
        ):
            if key in seqs:  # else of a room that was removed
                seqs[key](seq)
                sizes[key](size)
                sent[sender](seq)
        for box in boxes:
            box.last = box.seqs[-1] if box.seqs else 0
        for user, since in self._since.items():
            own = self._mailboxes.find(user)
            own.sent = own.sent[bisect_right(own.sent, since) :]

    def _expiries(self) -> None:
        """Take out what expired, and note what will."""
        self._mailboxes.expired |= dict(
            self._query("SELECT seq, expired_ms FROM expiries WHERE expired_ms IS NOT NULL")
        )
        gone: defaultdict[int, list[int]] = defaultdict(list)
        for key, seq, expires_ms, expired_ms in self._query(
            "SELECT mailbox, seq, expires_ms, expired_ms FROM expiries JOIN messages USING (seq)"
            " ORDER BY seq"
        ):
            if expired_ms is not None:
                gone[key].append(seq)
            elif key in self._boxes:
                self._mailboxes.expire_at(self._boxes[key], seq, expires_ms)
        for key, seqs in gone.items():
            if key in self._boxes:
                self._boxes[key].cut(seqs)
