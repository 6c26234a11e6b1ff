"""A ZeroMQ peer that is a bare TCP socket: it greets as libzmq does, and then sends what it likes.

Source: ZeroMQ RFC 23 (ZMTP 3.1), mechanism NULL.
"""

from __future__ import annotations

import socket
import struct
from typing import Final, Self

#: Signature, version 3.1, the mechanism in 20 bytes, as-server, filler.
GREETING: Final = b"\xff" + b"\0" * 8 + b"\x7f\x03\x01" + b"NULL".ljust(20, b"\0") + b"\0" * 32
#: The command READY of a DEALER without a routing id.
_READY: Final = b"\x05READY\x0bSocket-Type" + struct.pack(">I", 6) + b"DEALER"
_MORE: Final = 1
_LONG: Final = 2
_COMMAND: Final = 4
_TIMEOUT_S: Final = 60


class Zmtp:
    """One connection, greeted and ready, whose frames are the caller's; a context manager."""

    def __init__(self, address: str) -> None:
        host, _, port = address.removeprefix("tcp://").rpartition(":")
        self.socket = socket.create_connection((host, int(port)), _TIMEOUT_S)
        self.socket.sendall(GREETING + bytes([_COMMAND, len(_READY)]) + _READY)
        self._received(len(GREETING))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def send(self, *frames: bytes) -> None:
        """Send frames of which each says that another follows."""
        self.socket.sendall(b"".join(map(unfinished, frames)))

    def _received(self, count: int) -> bytes:
        received = b""
        while len(received) < count:
            some = self.socket.recv(count - len(received))
            assert some, "the broker hung up during the greeting"
            received += some
        return received


def unfinished(body: bytes) -> bytes:
    """Return the bytes of a frame behind which another is to come."""
    if len(body) < 256:
        return bytes([_MORE, len(body)]) + body
    return bytes([_MORE | _LONG]) + struct.pack(">Q", len(body)) + body
