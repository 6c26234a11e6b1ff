"""An honest client on both doors: what each message took, and whether all were there and in order.

A process of its own, which tells what it has seen since it was asked last.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from multiprocessing.connection import Connection
from typing import Final

from clients import Client
from clients.errors import KotakError
from clients.text_connection import TextConnection, TextDoorError

#: Between two messages: a person's client, not a load.
_PAUSE_S: Final = 0.01
_TIMEOUT_MS: Final = 10_000
#: Messages on each door between two looks into the inboxes.
_LOOK_EVERY: Final = 50


@dataclass
class Seen:
    """Seconds that each message took, by door, and what went wrong."""

    zmq_s: list[float] = field(default_factory=list)
    text_s: list[float] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)
    cpu_s: float = 0.0


class Person:
    """Writes to itself, on each door under a name of its own."""

    def __init__(self, zmq: str, text: tuple[str, int]) -> None:
        self._client = Client(zmq, timeout_ms=_TIMEOUT_MS)
        self._client.login("shafwa", "mks")
        self._door = TextConnection(*text, timeout_ms=_TIMEOUT_MS)
        self._token = self._door.login("fadly", "prp")["tokenid"]
        self._sent: list[str] = []
        self._number = 0
        self.seen = Seen()

    def close(self) -> None:
        self._client.close()
        self._door.close()

    def step(self) -> None:
        """Send one message on each door; now and then see whether they are all there."""
        self._number += 1
        words = f"number {self._number}"
        self._sent.append(words)
        try:
            began = time.perf_counter()
            self._client.send("shafwa", words)
            sent = time.perf_counter()
            reply = self._door.chat(self._token, "fadly", words)
            ended = time.perf_counter()
            self.seen.zmq_s.append(sent - began)
            self.seen.text_s.append(ended - sent)
            if reply["status"] != "OK":
                self.seen.faults.append(f"text: {reply['message']}")
            if len(self._sent) == _LOOK_EVERY:
                self._look()
        except (KotakError, TextDoorError) as error:
            self.seen.faults.append(f"{type(error).__name__}: {error}")

    def _look(self) -> None:
        page = self._client.inbox(limit=1_000).messages
        if [message.text for message in page] != self._sent:
            self.seen.faults.append("zmq: the inbox is not what was sent")
        self._client.acknowledge(page[-1].seq)
        taken = self._door.kotakmasuk(self._token)["messages"]
        if [message["msg"] for message in taken] != self._sent:
            self.seen.faults.append("text: the inbox is not what was sent")
        self._sent = []


def write_and_read(orders: Connection, zmq: str, text: tuple[str, int]) -> None:
    """Send a `Seen` at each order; end after the order ``end``."""
    person = Person(zmq, text)
    with orders:
        order = ""
        while order != "end":
            if orders.poll(_PAUSE_S):
                order = orders.recv()
                person.seen.cpu_s = time.process_time()
                orders.send(person.seen)
                person.seen = Seen()
            person.step()
        person.close()
