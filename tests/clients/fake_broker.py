"""A scripted broker: a ROUTER in a thread that answers as a test tells it to.

``answer(request)`` returns a result, an error, raw bytes, several of these for one request (a reply
and events), or None for silence. What arrived is kept
with the connection that it came on. `stop` and `start` break every connection and come back on
the same port; `freeze` leaves connections open and reads nothing.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import zmq

from broker.wire.envelope import (
    Request,
    check_request,
    decode_requests,
    encode_error,
    encode_ok,
    encoder,
)
from broker.wire.errors import WireError

One = Mapping[str, Any] | WireError | bytes
Answer = One | tuple[One, ...] | None

ROOM: dict[str, Any] = {
    "room": "#lunch",
    "owner": "shafwa",
    "open": True,
    "history": False,
    "members": 2,
    "joined": True,
}
READER: dict[str, Any] = {"user": "fadly", "name": "Fadly", "cursor": 0, "epoch": 5}
RESULTS: dict[str, dict[str, Any]] = {
    "hello": {"version": 1, "server": "fake 1", "durability": "memory", "limits": {}},
    "ping": {"now_ms": 1_700_000_000_000},
    "login": {"token": "kt_secret", "user": "shafwa", "name": "Shafwa", "expires_at_ms": 9},
    "chat": {"seq": 7, "durability": "fsync"},
    "ack": {"cursor": 3},
    "subscribe": {**READER, "subscription": 1, "window": 100},
    "kotakmasuk": {**READER, "messages": [], "more": False},
    "history": {"messages": [], "more": False},
    "status": {"state": "delivered", "at_ms": 6, "id": "m"},
    "register": {"user": "fadly", "name": "Fadly"},
    "user_on": {"users": [], "more": False},
    "blocks": {"users": ["afif", "mamang"]},
    "rooms": {"rooms": [ROOM]},
    "room_create": {"room": ROOM},
    "room_join": {"room": ROOM},
    "room_members": {"members": [{"user": "fadly", "name": "Fadly"}], "more": False},
}


def polite(request: Request) -> Answer:
    """Answer every command as if all were well."""
    return RESULTS.get(request[1], {})


class FakeBroker:
    """A context manager; ``answer`` may be replaced while it runs."""

    def __init__(
        self,
        answer: Callable[[Request], Answer] = polite,
        *,
        context: zmq.Context[zmq.Socket[bytes]] | None = None,
        endpoint: str = "tcp://127.0.0.1:*",
    ) -> None:
        self.answer = answer
        self.seen: dict[bytes, list[Request]] = defaultdict(list)
        self.requests_in_message: list[int] = []
        self.frozen = threading.Event()
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._encode = encoder()
        self._thread: threading.Thread | None = None
        self.address = endpoint
        self.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
        if self._own_context:
            self._context.term()

    def start(self) -> None:
        router = self._context.socket(zmq.ROUTER)
        router.linger = 0
        router.sndhwm = router.rcvhwm = 0
        self._bind(router)
        self.address = router.getsockopt_string(zmq.LAST_ENDPOINT)
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._serve, args=(router, self._stopping))
        self._thread.start()

    def _bind(self, router: zmq.Socket[bytes]) -> None:
        # libzmq frees the port of a closed socket a moment later, in its own thread.
        for _ in range(1000):
            try:
                router.bind(self.address)
            except zmq.ZMQError:
                time.sleep(0.01)
            else:
                return
        router.close(linger=0)
        raise AssertionError(f"{self.address} does not become free")

    def stop(self) -> None:
        """Go away at once: what is unanswered stays so."""
        if self._thread is not None:
            self._stopping.set()
            self._thread.join()
            self._thread = None

    def requests(self, command: str = "chat") -> list[Request]:
        """Return the requests of one command over all connections, in order of arrival."""
        return [r for seen in list(self.seen.values()) for r in list(seen) if r[1] == command]

    def _serve(self, router: zmq.Socket[bytes], stopping: threading.Event) -> None:
        try:
            while not stopping.is_set():
                if not self.frozen.is_set() and router.poll(5):
                    self._turn(router)
                elif self.frozen.is_set():
                    stopping.wait(0.005)
        finally:
            router.close(linger=0)

    def _turn(self, router: zmq.Socket[bytes]) -> None:
        peer, *frames = router.recv_multipart()
        requests = [check_request(each) for frame in frames for each in decode_requests(frame)[0]]
        self.requests_in_message.append(len(requests))
        replies = []
        for request in requests:
            self.seen[peer].append(request)
            answer = self.answer(request)
            if answer is not None:
                answers = answer if isinstance(answer, tuple) else (answer,)
                replies += [self._reply(request[0], each) for each in answers]
        if replies:
            router.send_multipart([peer, *replies])

    def _reply(self, request_id: int, answer: One) -> bytes:
        if isinstance(answer, bytes):
            return answer
        if isinstance(answer, WireError):
            return encode_error(self._encode, request_id, answer)
        return encode_ok(self._encode, request_id, answer)
