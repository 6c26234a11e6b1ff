"""Clients of a whole broker, in threads: they send, read and acknowledge, and record it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from typing import Final

from clients.client import Client
from clients.errors import ConnectionFailed, RequestError, RequestTimeout
from tests.proof.disk.course import USERS
from tests.proof.disk.store_calls import text_of
from tests.proof.history import OK, Ack, Read, Seen, Send, digest

Operation = Send | Read | Ack

#: The broker is killed under them; this is how long they go on asking.
_TIMEOUT_MS: Final = 1_000
_WINDOW: Final = 8
_TEXT_BYTES: Final = 200


class Crowd:
    """A sender and a reader for each user. ``tokens`` are those of sessions by user."""

    def __init__(self, address: str, tokens: dict[str, str], *, life: int) -> None:
        self._address = address
        self._life = life
        self._enough = threading.Event()
        self._records: list[list[Operation]] = []
        #: What no client may meet, in sentences.
        self.faults: list[str] = []
        self._threads = [
            threading.Thread(target=self._guarded, args=(part, user, tokens[user]))
            for user in USERS
            for part in (self._send, self._read)
        ]
        for thread in self._threads:
            thread.start()

    def answered(self) -> int:
        """Count the operations that have an answer."""
        return sum(len(records) for records in list(self._records))

    def stop(self) -> list[Operation]:
        """Let everybody give up, and return all they saw."""
        self._enough.set()
        for thread in self._threads:
            thread.join()
        return [record for records in self._records for record in records]

    def _guarded(
        self, part: Callable[[Client, str, list[Operation]], None], user: str, token: str
    ) -> None:
        records: list[Operation] = []
        self._records.append(records)
        with Client(self._address, token=token, timeout_ms=_TIMEOUT_MS) as client:
            while not self._enough.is_set():
                try:
                    part(client, user, records)
                except (RequestTimeout, ConnectionFailed):
                    continue  # killed, or only slow
                except RequestError as error:
                    self.faults.append(f"{user}: {error.code}: {error}")
                    return

    def _send(self, client: Client, user: str, records: list[Operation]) -> None:
        """Send a few under way together; those without an answer are kept as such."""
        window: list[Send] = []
        for place in range(_WINDOW):
            order = len(records) + place + self._life * 1_000_000
            message_id = f"{user}.{order}-{_TEXT_BYTES}"
            text = digest(text_of(message_id))
            to = USERS[order % len(USERS)]
            window.append(Send(user, to, message_id, order, text, time.monotonic_ns()))
        answered = 0
        try:
            waiting = [client.submit(s.to, text_of(s.id), message_id=s.id) for s in window]
            for send, pending in zip(window, waiting, strict=True):
                seq = pending.result().seq
                records.append(send._replace(t1=time.monotonic_ns(), answer=OK, seq=seq))
                answered += 1
        finally:
            records += window[answered:]

    @staticmethod
    def _read(client: Client, user: str, records: list[Operation]) -> None:
        """Read, and acknowledge half of it: the rest is read again."""
        began = time.monotonic_ns()
        messages = client.inbox(limit=40).messages
        seen = tuple(Seen(m.seq, m.sender, m.id, digest(m.text)) for m in messages)
        records.append(Read(user, began, time.monotonic_ns(), OK, messages=seen))
        if not messages:
            time.sleep(0.001)  # a mailbox that is empty is not asked as fast as the wire can
            return
        ack = Ack(user, messages[len(messages) // 2].seq, time.monotonic_ns())
        with suppress(RequestTimeout, ConnectionFailed):
            client.acknowledge(ack.seq)
            ack = ack._replace(t1=time.monotonic_ns(), answer=OK)
        records.append(ack)
