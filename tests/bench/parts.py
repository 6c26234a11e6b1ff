"""The parts that client processes play through the client library: send, read, be there."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack
from math import inf
from typing import Final, NamedTuple

import zmq

from broker.wire.envelope import decode_reply, encode_request, encoder
from clients.client import Client
from clients.errors import RequestError
from tests.bench.crew import Shift
from tests.load.plan import PASSWORD, Plan

#: An answer that takes longer is a fault, not a figure.
TIMEOUT_MS: Final = 60_000


class Role(NamedTuple):
    """Who a process is: the door it goes to, and its number among the plan's senders or readers."""

    address: str
    plan: Plan
    number: int


class Limit(NamedTuple):
    """When a sender ends: whichever comes first."""

    seconds: float = inf
    messages: float = inf


def send(shift: Shift, role: Role, limit: Limit) -> None:
    """Send by the plan up to a limit.

    A latency counts from handing a message to the library, which may wait to fill a batch.
    """
    plan, number = role.plan, role.number
    # One round of recipients, made beforehand: the clients' CPU shall be the library's.
    boxes = [plan.recipient(number, i) for i in range(plan.mailboxes)]
    letters = (boxes, "x" * plan.size_bytes)
    with Client(role.address, timeout_ms=TIMEOUT_MS) as client:
        client.login(plan.sender(number), PASSWORD)
        began = shift.begin()
        until = limit._replace(seconds=began + limit.seconds)
        if plan.window == 1:
            _send_one_by_one(shift, client, letters, until)
        else:
            _send_many(shift, client, letters, until, plan.window)
        shift.end()


def _send_one_by_one(
    shift: Shift, client: Client, letters: tuple[list[str], str], until: Limit
) -> None:
    now, latency, send = time.monotonic, shift.latencies.append, client.send
    (boxes, text), i, ended = letters, 0, shift.began
    while i < until.messages and ended < until.seconds:
        began = ended
        send(boxes[i % len(boxes)], text)
        ended = now()
        latency(ended - began)
        i += 1
    shift.messages = i


def _send_many(
    shift: Shift, client: Client, letters: tuple[list[str], str], until: Limit, window: int
) -> None:
    now, latency = time.monotonic, shift.latencies.append
    boxes, text = letters
    begun: list[float] = []

    def messages() -> Iterator[tuple[str, str]]:
        i, many = 0, len(boxes)
        while i < until.messages and (began := now()) < until.seconds:
            begun.append(began)
            yield boxes[i % many], text
            i += 1

    for i, outcome in enumerate(client.send_many(messages(), window=window)):
        latency(now() - begun[i])
        if isinstance(outcome, RequestError):
            raise outcome
    shift.messages = len(begun)


def drain(shift: Shift, role: Role, page: int) -> None:
    """Read and acknowledge all that waits in a reader's mailboxes; a latency is that of a page."""
    with zmq.Context() as context, ExitStack() as stack:
        clients = []
        for user in role.plan.mailboxes_of(role.number):
            client = Client(role.address, context=context, timeout_ms=TIMEOUT_MS)
            clients.append(stack.enter_context(client))
            client.login(user, PASSWORD)
        shift.begin()
        for client in clients:
            began = time.monotonic()
            for found in client.pages(limit=page):
                shift.messages += len(found.messages)
                shift.latencies.append(time.monotonic() - began)
                began = time.monotonic()
        shift.end()


def be_there(shift: Shift, address: str, connections: int) -> None:
    """Hold connections that have said hello and say no more (ZeroMQ's heartbeats go on)."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, connections + 1)
    sockets = [context.socket(zmq.DEALER) for _ in range(connections)]
    hello = encode_request(encoder(), 1, "hello", None, {"version": 1})
    for socket in sockets:
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
        socket.connect(address)
        socket.send(hello)
    for socket in sockets:
        assert decode_reply(socket.recv()).error is None
    shift.begin()
    shift.end()
    context.destroy(linger=0)
