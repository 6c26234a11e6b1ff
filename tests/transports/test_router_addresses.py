"""Where the ROUTER's messages come from: told of the connection, and not of its id."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from broker.transports.router import Router

WAIT_MS = 10_000

Context = zmq.Context[zmq.Socket[bytes]]

PEERS: list[zmq.Socket[bytes]] = []


@pytest.fixture
def router() -> Iterator[Router]:
    context: Context = zmq.Context()
    router = Router(context)
    router._socket.linger = 0
    yield router
    while PEERS:
        PEERS.pop().close(linger=0)
    router.close()
    context.term()


def peer(router: Router, address: str, *, source: str = "", routing_id: bytes = b"") -> None:
    """Send a message from a connection of one's own."""
    socket = router._socket.context.socket(zmq.DEALER)
    PEERS.append(socket)
    socket.setsockopt(zmq.IPV6, int("[" in address))
    if routing_id:
        socket.setsockopt(zmq.ROUTING_ID, routing_id)
    at = address.removeprefix("tcp://")
    socket.connect(f"tcp://{source}:0;{at}" if source else address)
    socket.send(b"hello")


def next_route(router: Router) -> bytes:
    while not (arrivals := router.drain()):
        router.wait(WAIT_MS)
    [(route, _)] = arrivals
    return route


def test_a_message_comes_from_the_ip_address_of_its_connection(router: Router) -> None:
    address = router.bind("tcp://127.0.0.1:0")
    for source in ("127.0.0.1", "127.0.0.2"):
        peer(router, address, source=source)
        assert router.address_of(next_route(router)) == source


def test_an_ipv6_address_is_told_as_such(router: Router) -> None:
    try:
        address = router.bind("tcp://[::1]:0")
    except zmq.ZMQError:
        pytest.skip("this machine has no IPv6")
    peer(router, address)
    assert router.address_of(next_route(router)) == "::1"


def test_an_inproc_connection_has_no_address(router: Router) -> None:
    router.bind("inproc://inside")
    peer(router, "inproc://inside")
    assert router.address_of(next_route(router)) is None


def test_who_takes_the_routing_id_of_one_that_has_left_is_told_apart_from_him(
    router: Router,
) -> None:
    address = router.bind("tcp://127.0.0.1:0")
    peer(router, address, source="127.0.0.2", routing_id=b"mine")
    route = next_route(router)
    assert router.address_of(route) == "127.0.0.2"
    PEERS.pop().close(linger=0)
    # Until libzmq has noticed that it left, who brings its id is turned away: he comes again.
    for _ in range(20):
        peer(router, address, source="127.0.0.3", routing_id=b"mine")
        router.wait(1_000)
        if arrivals := router.drain():
            break
        PEERS.pop().close(linger=0)
    assert [taken for taken, _ in arrivals] == [route]
    assert router.address_of(route) == "127.0.0.3"


def test_what_was_said_in_an_earlier_turn_comes_from_nowhere(router: Router) -> None:
    """Else a routing id that has passed on would still be taken for where it was."""
    address = router.bind("tcp://127.0.0.1:0")
    peer(router, address)
    route = next_route(router)
    router.drain()
    assert router.address_of(route) is None
    assert router.address_of(b"nobody") is None
