"""Whose key a connection has: told of the connection, and never of whoever takes its routing id."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import pytest
import zmq

from broker.transports.curve import Pair
from broker.transports.router import Arrival, Router
from broker.transports.zap import ZapHandler

WAIT_MS: Final = 10_000
SERVER, ANN, EVE = Pair.make(), Pair.make(), Pair.make()

Context = zmq.Context[zmq.Socket[bytes]]

#: Sockets of the test under way; a forgotten one is closed when it ends, not when it is collected.
PEERS: list[zmq.Socket[bytes]] = []


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    while PEERS:
        PEERS.pop().close(linger=0)
    context.destroy(linger=0)


@pytest.fixture
def router(context: Context) -> Iterator[Router]:
    """Return an encrypted door that admits anybody."""
    judge = ZapHandler(context, lambda _: True)
    judge.start()
    router = Router(context, curve_secret=SERVER.secret)
    yield router
    router.close()
    judge.stop()


def peer_socket(context: Context) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    PEERS.append(socket)
    socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
    return socket


def dealer(
    context: Context, address: str, pair: Pair, routing_id: bytes = b""
) -> zmq.Socket[bytes]:
    socket = peer_socket(context)
    socket.setsockopt(zmq.CURVE_SERVERKEY, SERVER.public.encode())
    socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
    socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
    if routing_id:
        socket.setsockopt(zmq.ROUTING_ID, routing_id)
    socket.connect(address)
    return socket


def arrival(router: Router) -> Arrival:
    """Return the next message."""
    while not (arrivals := router.drain()):
        router.wait(WAIT_MS)
    (one,) = arrivals
    return one


def test_the_key_of_a_connection_is_told_with_each_of_its_messages(
    context: Context, router: Router
) -> None:
    address = router.bind("tcp://127.0.0.1:0")
    for pair in (ANN, EVE):
        peer = dealer(context, address, pair)
        for _ in range(2):
            peer.send(b"hello")
            route, frames = arrival(router)
            assert (router.key_of(route), frames) == (pair.public, [b"hello"])
            assert router.send({route: [b"hi", b"again"]}) == {}
            assert peer.recv_multipart() == [b"hi", b"again"]


@pytest.mark.parametrize("routing_id", [b"mine", b"\0same"])
def test_who_takes_the_routing_id_of_one_that_has_left_does_not_take_its_key(
    context: Context, router: Router, routing_id: bytes
) -> None:
    address = router.bind("tcp://127.0.0.1:0")
    ann = dealer(context, address, ANN, routing_id)
    ann.send(b"first")
    anns, _ = arrival(router)
    ann.close(linger=0)
    # Until the broker has noticed that she left, her id is not given away.
    for _ in range(1_000):
        if router.send({anns: [b"still there?"]}):
            break
        router.wait(10)
    eve = dealer(context, address, EVE, routing_id)
    eve.send(b"second")
    eves, frames = arrival(router)
    assert frames == [b"second"]
    assert router.key_of(eves) == EVE.public
    assert router.key_of(anns) == ANN.public
    assert eves != anns


def test_by_inproc_there_is_no_key(context: Context, router: Router) -> None:
    router.bind("inproc://inside")
    inside = peer_socket(context)
    inside.connect("inproc://inside")
    inside.send(b"hello")
    route, _ = arrival(router)
    assert router.key_of(route) is None
    router.send({route: [b"hi"]})
    assert inside.recv() == b"hi"


def test_a_door_that_does_not_encrypt_knows_no_keys(context: Context) -> None:
    router = Router(context)
    address = router.bind("tcp://127.0.0.1:0")
    peer = peer_socket(context)
    peer.setsockopt(zmq.ROUTING_ID, ANN.public.encode() + b"\0\0\0\0\0")
    peer.connect(address)
    peer.send(b"hello")
    route, _ = arrival(router)
    assert router.key_of(route) is None
    router.close()
