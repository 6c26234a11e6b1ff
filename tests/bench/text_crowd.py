"""Many connections to the text door from one process, each with one line under way."""

from __future__ import annotations

import selectors
import socket
import time
from contextlib import ExitStack
from typing import Final

from broker.wire.text import REPLY_END, chat_reply
from clients.text_connection import TextConnection
from tests.bench.crew import Shift
from tests.bench.parts import Role
from tests.load.plan import PASSWORD

_RECEIVE_BYTES: Final = 4_096
#: With no reply for so long the door has failed.
_SILENCE_SECONDS_MAX: Final = 60.0
_SENT: Final = chat_reply()


class TextCrowdError(Exception):
    """The text door did not do what was asked; the text is its reply."""


class Talker:
    """One connection: its line is sent again as soon as the reply to the last one is whole."""

    __slots__ = ("began", "line", "received", "socket")

    def __init__(self, socket_: socket.socket, line: bytes) -> None:
        self.socket = socket_
        self.line = line
        self.received = b""
        self.began = 0.0

    def talk(self, now: float) -> None:
        self.began = now
        self.socket.sendall(self.line)

    def listen(self) -> bool:
        """Take in what has come; True when the reply is whole. Errors: `TextCrowdError`."""
        some = self.socket.recv(_RECEIVE_BYTES)
        self.received += some
        if not self.received.endswith(REPLY_END):
            if not some:
                raise TextCrowdError("the text door closed the connection")
            return False
        if self.received != _SENT:
            raise TextCrowdError(self.received.decode("ascii", "replace").strip())
        self.received = b""
        return True


def talk(shift: Shift, role: Role, connections: int, seconds: float) -> None:
    """Send lines through ``connections`` connections, one under way on each, for ``seconds``."""
    plan, number = role.plan, role.number
    host, _, port = role.address.rpartition(":")
    with ExitStack() as stack:
        door = stack.enter_context(TextConnection(host, int(port)))
        token = door.login(plan.sender(number), PASSWORD)["tokenid"]
        text = "x" * plan.size_bytes
        selector = stack.enter_context(selectors.DefaultSelector())
        talkers = []
        for i in range(connections):
            connection = stack.enter_context(socket.create_connection((host, int(port))))
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            line = f"chat {token} {plan.recipient(number, i)}  {text} \r\n".encode()
            talkers.append(Talker(connection, line))
            selector.register(connection, selectors.EVENT_READ, talkers[-1])
        until = shift.begin() + seconds
        converse(shift, selector, talkers, until)
        shift.end()


def converse(
    shift: Shift, selector: selectors.BaseSelector, talkers: list[Talker], until: float
) -> None:
    """Keep one line under way on each connection until then, and wait for the last replies."""
    now, latency = time.monotonic, shift.latencies.append
    for talker in talkers:
        talker.talk(now())
    waiting = len(talkers)
    while waiting:
        ready = selector.select(_SILENCE_SECONDS_MAX)
        if not ready:
            raise TextCrowdError("the text door has fallen silent")
        for key, _ in ready:
            talker = key.data
            if not talker.listen():
                continue
            ended = now()
            latency(ended - talker.began)
            shift.messages += 1
            if ended < until:
                talker.talk(ended)
            else:
                waiting -= 1
