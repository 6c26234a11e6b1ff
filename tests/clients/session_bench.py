"""A session without a socket: a fake clock, and frames passed by hand."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from broker.wire.envelope import decode_request, encode_error, encode_event, encode_ok, encoder
from broker.wire.errors import Code, WireError
from clients.request import Call
from clients.session import Session

RETRY_MS = 1_000
TIMEOUT_MS = 30_000
_encode = encoder()


class Bench:
    """A session, its clock, and the connection that a real client would hold for it."""

    def __init__(self, *, random: float = 1.0, connect: bool = True) -> None:
        self.now: float = 1_000_000
        self.session = Session("tcp://fake:1", retry_ms=RETRY_MS, random=lambda: random)
        self._connect = connect

    def chat(self, text: str = "hi", *, timeout_ms: float = TIMEOUT_MS) -> Call:
        return self.session.chat(
            "fadly",
            text,
            message_id=f"id-{text}",
            token="t",
            now_ms=self.now,
            timeout_ms=timeout_ms,
        )

    def call(self, command: str = "ack", *, timeout_ms: float = TIMEOUT_MS) -> Call:
        return self.session.start(command, "t", {}, self.now, timeout_ms)

    def turn(self, advance_ms: float = 0) -> list[tuple[str, int]]:
        """Let time pass; connect where wanted; return (command, request id) of what was sent."""
        self.now += advance_ms
        before = self.session.wanted
        self.session.tick(self.now)
        if self._connect and self.session.wanted and self.session.wanted != before:
            self.session.connected(self.now)
        sent = []
        while frames := self.session.take():
            requests = [decode_request(frame) for frame in frames]
            sent += [(request[1], request[0]) for request in requests]
        return sent

    def ids(self, advance_ms: float = 0) -> list[int]:
        return [request_id for _, request_id in self.turn(advance_ms)]

    def wait_for_send(self, *, at_most_ms: float) -> tuple[float, list[tuple[str, int]]]:
        """Go from timer to timer until something is sent; return after how long, and what."""
        begin = self.now
        while self.now - begin <= at_most_ms:
            sent = self.turn(max(self.session.due_ms - self.now, 0))
            if sent:
                return self.now - begin, sent
        raise AssertionError("nothing was sent")

    def ok(self, request_id: int, result: Mapping[str, Any] | None = None) -> None:
        self.raw(encode_ok(_encode, request_id, result or {}))

    def error(self, call: Call, code: Code, retry_after_ms: int | None = None) -> None:
        error = WireError(code, "because", retry_after_ms)
        self.raw(encode_error(_encode, call.request_id, error))

    def event(self, subscription: int, kind: str, **fields: Any) -> None:
        self.raw(encode_event(_encode, subscription, kind, fields))

    def raw(self, *frames: bytes) -> None:
        self.session.received(frames, self.now)
