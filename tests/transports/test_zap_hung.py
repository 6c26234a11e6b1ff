"""A ZAP handler that hangs: nobody new comes in, whoever was there stays, and it is told."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import pytest
import zmq

from broker.transports.curve import Pair
from broker.transports.router import Router
from broker.transports.zap import Knock, ZapHandler, knock

WAIT_MS: Final = 10_000
#: A client's patience; nothing is to happen in it.
SILENCE_MS: Final = 300

SERVER, CLIENT = Pair.make(), Pair.make()

Context = zmq.Context[zmq.Socket[bytes]]


class Hanging:
    """A look-up of keys that can be held."""

    def __init__(self) -> None:
        self.free = threading.Event()
        self.free.set()
        self.asked = threading.Semaphore(0)

    def __call__(self, key: bytes) -> bool:
        self.asked.release()
        self.free.wait()
        return True


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    context.destroy(linger=0)


@pytest.fixture
def lookup(context: Context) -> Iterator[Hanging]:
    lookup = Hanging()
    handler = ZapHandler(context, lookup)
    handler.start()
    yield lookup
    lookup.free.set()
    handler.stop()


@pytest.fixture
def router(context: Context, lookup: Hanging) -> Iterator[Router]:
    router = Router(context, curve_secret=SERVER.secret)
    yield router
    router._socket.linger = 0
    router.close()


@contextmanager
def client(context: Context, address: str) -> Iterator[zmq.Socket[bytes]]:
    dealer = context.socket(zmq.DEALER)
    dealer.setsockopt(zmq.RCVTIMEO, WAIT_MS)
    dealer.setsockopt(zmq.CURVE_SERVERKEY, SERVER.public.encode())
    dealer.setsockopt(zmq.CURVE_PUBLICKEY, CLIENT.public.encode())
    dealer.setsockopt(zmq.CURVE_SECRETKEY, CLIENT.secret.encode())
    dealer.connect(address)
    try:
        yield dealer
    finally:
        dealer.close(linger=0)


def is_served(router: Router, dealer: zmq.Socket[bytes], words: bytes) -> None:
    dealer.send(words)
    router.wait(WAIT_MS)
    ((route, frames),) = router.drain()
    assert frames == [words]
    router.send({route: [b"yes"]})
    assert dealer.recv() == b"yes"


def test_nobody_comes_in_while_it_hangs_and_everybody_afterwards(
    context: Context, router: Router, lookup: Hanging
) -> None:
    address = router.bind("tcp://127.0.0.1:0")
    with client(context, address) as before:
        is_served(router, before, b"before")
        lookup.free.clear()
        pair = Pair.make()
        held = knock(context, address, server=SERVER.public, pair=pair, timeout_ms=SILENCE_MS)
        assert held is Knock.SILENCE  # which the broker's own look at its door tells as a fault
        is_served(router, before, b"meanwhile")
    lookup.free.set()
    with client(context, address) as after:
        is_served(router, after, b"afterwards")


def test_what_a_newcomer_says_while_it_hangs_is_not_heard(
    context: Context, router: Router, lookup: Hanging
) -> None:
    address = router.bind("tcp://127.0.0.1:0")
    lookup.free.clear()
    with client(context, address) as stranger:
        stranger.send(b"let me in")
        assert lookup.asked.acquire(timeout=WAIT_MS / 1_000)
        router.wait(SILENCE_MS)
        assert router.drain() == []
