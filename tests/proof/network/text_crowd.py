"""Clients of the text door in threads: they send, and record what they were answered.

Nobody reads there: a reply that the network loses has taken its messages (docs/DURABILITY.md, "The
rule for readers"), and no promise says otherwise. A line has no id, so it is not repeated; sender
and id stand in the text.
"""

from __future__ import annotations

import threading
import time
from typing import Final

from clients.text_connection import TextConnection, TextDoorError
from tests.proof.disk.course import USERS
from tests.proof.history import OK, Seen, Send, digest

_TIMEOUT_MS: Final = 1_000
#: Between attempts of one client, where the door cannot be reached.
_REST_S: Final = 0.02


class TextCrowd:
    """A sender for each user. ``tokens`` are those of sessions by user."""

    def __init__(self, address: tuple[str, int], tokens: dict[str, str], *, life: int) -> None:
        self._address = address
        self._life = life
        self._enough = threading.Event()
        self.records: list[list[Send]] = [[] for _ in USERS]
        self.faults: list[str] = []
        self._threads = [
            threading.Thread(target=self._send_all, args=(user, tokens[user], records))
            for user, records in zip(USERS, self.records, strict=True)
        ]
        for thread in self._threads:
            thread.start()

    def stop(self) -> list[Send]:
        """Let everybody give up, and return all they saw."""
        self._enough.set()
        for thread in self._threads:
            thread.join()
        return [record for records in self.records for record in records]

    def _send_all(self, user: str, token: str, records: list[Send]) -> None:
        with TextConnection(*self._address, timeout_ms=_TIMEOUT_MS) as door:
            while not self._enough.is_set():
                order = self._life * 1_000_000 + len(records)
                to, message_id = USERS[order % len(USERS)], f"text-{order}"
                text = f"{user} {message_id} and a few words more"
                send = Send(user, to, message_id, order, digest(text), time.monotonic_ns())
                records.append(send)
                try:
                    reply = door.chat(token, to, text)
                except TextDoorError:
                    time.sleep(_REST_S)
                    continue
                answer = OK if reply["status"] == OK else str(reply["message"])
                if answer != OK:
                    self.faults.append(f"{user}: {answer}")
                records[-1] = send._replace(t1=time.monotonic_ns(), answer=answer)


def seen(seq: int, sender: str, text: str) -> Seen:
    """Return a message as its reader saw it, by the id that stands in its text."""
    words = text.split(" ", 2)
    return Seen(seq, sender, words[1] if len(words) > 1 else "", digest(text))
