"""A reader with a subscription, and the broker that it talks to: a fake clock and no socket."""

from __future__ import annotations

from typing import Any

from broker.wire.envelope import Request, decode_request
from broker.wire.errors import Code
from clients.request import Call
from clients.subscription import Subscription
from tests.clients.session_bench import TIMEOUT_MS, Bench

WINDOW = 10


def written(seq: int) -> dict[str, Any]:
    return {"seq": seq, "at_ms": 1, "from": "shafwa", "name": "", "id": f"i{seq}", "text": "hi"}


class Desk:
    """A reader with a subscription, and the broker that it talks to."""

    def __init__(
        self, *, after: int | None = None, epoch: int | None = None, answer: bool = True
    ) -> None:
        self.bench = Bench()
        self.reports: list[bool] = []
        self.subscription = self.subscribe(after, epoch)
        self.subscription.on_connection = self.reports.append
        if answer:
            self.answer_subscribe()

    def subscribe(
        self, after: int | None = None, epoch: int | None = None, token: str = "t"
    ) -> Subscription:
        return self.bench.session.subscribe(
            token,
            window=WINDOW,
            after=after,
            epoch=epoch,
            now_ms=self.bench.now,
            timeout_ms=TIMEOUT_MS,
        )

    def sent(self, advance_ms: float = 0) -> list[Request]:
        """Let time pass; return the requests that were sent."""
        bench, sent = self.bench, []
        before = bench.session.wanted
        bench.now += advance_ms
        bench.session.tick(bench.now)
        if bench.session.wanted and bench.session.wanted != before:
            bench.session.connected(bench.now)
        while frames := bench.session.take():
            sent += [decode_request(frame) for frame in frames]
        return sent

    def the_one_sent(self, command: str, advance_ms: float = 0) -> Request:
        (request,) = self.sent(advance_ms)
        assert request[1] == command
        return request

    def answer_subscribe(self, number: int = 1, *, cursor: int = 0, **more: Any) -> Request:
        """Answer with the fields of a broker that tells no epoch, and with ``more``."""
        request = self.the_one_sent("subscribe")
        self.bench.ok(request[0], {"subscription": number, "cursor": cursor, **more})
        return request

    def push(self, *seqs: int, after: int, number: int = 1) -> None:
        messages = [written(seq) for seq in seqs]
        self.bench.event(number, "messages", after=after, messages=messages)

    def next(self) -> int:
        return self.subscription.next(self.bench.now).seq

    def read(self) -> list[int]:
        """Take out what is there, as a reader does that acknowledges nothing."""
        seqs = []
        while self.subscription.done:
            seqs.append(self.next())
        return seqs

    def work(self, messages: int) -> None:
        """Read, and be done with, so many messages."""
        for _ in range(messages):
            self.subscription.finish(self.next(), self.bench.now)

    def leave(self) -> list[Call]:
        return self.bench.session.unsubscribe(self.subscription, self.bench.now, 1_000)

    def break_connection(self) -> Request:
        """Break the connection and let the session make another; return the subscribe."""
        self.bench.session.lost(self.bench.now, "gone")
        for request in self.sent(10_000):
            if request[1] == "subscribe":
                return request
        raise AssertionError("nobody subscribed again")

    def refuse(self, request: Request, code: Code) -> None:
        self.bench.error(self.bench.session._pending[request[0]], code)  # the call's own id


def acks(requests: list[Request]) -> list[int]:
    return [request[3]["seq"] for request in requests if request[1] == "ack"]
