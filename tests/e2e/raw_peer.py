"""A peer on the ZeroMQ door without the client library: it sends what it likes, once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import count
from typing import Any, Final, Self

import zmq

from broker.wire.envelope import Reply, decode_reply, encode_request, encoder
from broker.wire.errors import Code

_REPLY_MS: Final = 30_000

_context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()


class RawPeer:
    """One DEALER, connected; a context manager. Options are set before it connects."""

    def __init__(self, address: str, **options: Any) -> None:
        self.socket = _context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, 0)
        for name, value in options.items():
            self.socket.setsockopt(getattr(zmq, name), value)
        self.socket.connect(address)
        self._encode = encoder()
        self._ids = count(1)
        self._replies: list[bytes] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.socket.close()

    def request(self, command: str, token: str | None = None, **args: Any) -> bytes:
        """Encode one request with an id of its own."""
        return encode_request(self._encode, next(self._ids), command, token, args)

    def send(self, frames: Sequence[bytes]) -> None:
        self.socket.send_multipart(frames)

    def reply(self) -> Reply:
        """Wait for the next reply frame."""
        if not self._replies:
            assert self.socket.poll(_REPLY_MS), "no reply"
            self._replies = self.socket.recv_multipart()
        return decode_reply(self._replies.pop(0))

    def silent(self, ms: int) -> bool:
        """Tell whether nothing comes for so long."""
        return not self._replies and not self.socket.poll(ms)

    def ask(self, frame: bytes) -> Reply:
        """Send one frame and wait for one reply."""
        self.send([frame])
        return self.reply()

    def refusal(self, frame: bytes) -> Code:
        """Send one frame that must be refused; return the code."""
        reply = self.ask(frame)
        assert reply.error, f"it was not refused: {reply.result}"
        assert reply.error.message, "a refusal says what to do"
        return reply.error.code

    def login(self, user: str, password: str) -> str:
        """Return the token of a new session."""
        result: Mapping[str, str] = self.ask(
            self.request("login", user=user, password=password)
        ).result
        return result["token"]
