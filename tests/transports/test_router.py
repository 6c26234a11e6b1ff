"""The ROUTER over real sockets: what it takes in a turn, and that no peer can hold it up."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
import zmq

from broker.transports import router as router_module
from broker.transports.router import Arrival, Router
from broker.wire.limits import FRAME_BYTES_MAX, FRAMES_PER_MESSAGE_MAX

WAIT_MS = 10_000

Context = zmq.Context[zmq.Socket[bytes]]

#: Sockets of the test under way; a forgotten one is closed when it ends, not when it is collected.
PEERS: list[zmq.Socket[bytes]] = []


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    while PEERS:
        PEERS.pop().close(linger=0)
    context.destroy(linger=0)  # a test that failed may have left a router open


@pytest.fixture
def router(context: Context) -> Iterator[Router]:
    router = Router(context)
    yield router
    router._socket.linger = 0
    router.close()


def dealer(context: Context, address: str) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    PEERS.append(socket)
    socket.setsockopt(zmq.RCVTIMEO, WAIT_MS)
    socket.connect(address)
    return socket


def drain_until(router: Router, messages: int) -> list[Arrival]:
    """Drain until that many messages have come (or the test's time is up)."""
    arrivals: list[Arrival] = []
    while len(arrivals) < messages:
        router.wait(WAIT_MS)
        arrivals += router.drain()
    return arrivals


def test_the_number_that_libzmq_gives_the_first_connection_cannot_be_foreseen() -> None:
    """Else its next one could be taken beforehand, and the connection that gets it would crash."""
    program = (
        "import zmq; from broker.transports.router import Router\n"
        "context = zmq.Context(); router = Router(context); router.bind('inproc://here')\n"
        "peer = context.socket(zmq.DEALER); peer.connect('inproc://here'); peer.send(b'')\n"
        "router.wait(10_000); print(router.drain()[0][0].hex())\n"
        "peer.close(0); router.close(); context.term()"
    )
    ids = {
        subprocess.run(
            [sys.executable, "-c", program], check=True, capture_output=True, timeout=60
        ).stdout
        for _ in range(2)
    }
    assert len(ids) == 2


def test_a_message_may_carry_several_requests_and_replies_share_one_message(
    context: Context, router: Router
) -> None:
    peer = dealer(context, router.bind("tcp://127.0.0.1:0"))
    peer.send_multipart([b"one", b"two"])
    [(route, frames)] = drain_until(router, 1)
    assert frames == [b"one", b"two"]
    router.send({route: [b"1", b"2", b"3"]})
    assert peer.recv_multipart() == [b"1", b"2", b"3"]


def test_more_replies_than_a_message_may_carry_are_split_in_order(
    context: Context, router: Router
) -> None:
    peer = dealer(context, router.bind("tcp://127.0.0.1:0"))
    peer.send(b"hello")
    [(route, _)] = drain_until(router, 1)
    replies = [str(number).encode() for number in range(FRAMES_PER_MESSAGE_MAX + 1)]
    router.send({route: list(replies)})
    first, second = peer.recv_multipart(), peer.recv_multipart()
    assert len(first) == FRAMES_PER_MESSAGE_MAX
    assert first + second == replies


def test_a_message_with_too_many_frames_is_reported_and_the_next_one_is_whole(
    context: Context, router: Router
) -> None:
    peer = dealer(context, router.bind("tcp://127.0.0.1:0"))
    peer.send_multipart([b"x"] * (FRAMES_PER_MESSAGE_MAX + 3))
    peer.send_multipart([b"y"] * FRAMES_PER_MESSAGE_MAX)
    (_, bomb), (_, good) = drain_until(router, 2)
    assert bomb is None
    assert good == [b"y"] * FRAMES_PER_MESSAGE_MAX


def test_a_turn_takes_a_bounded_number_of_requests(
    context: Context, router: Router, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(router_module, "REQUESTS_PER_TURN_MAX", 4)
    peer = dealer(context, router.bind("inproc://turn"))
    for _ in range(5):
        peer.send_multipart([b"a", b"b", b"c"])
    assert [len(router.drain()) for _ in range(3)] == [2, 2, 1]


def test_a_reply_to_a_peer_that_has_gone_is_counted_and_dropped(
    context: Context, router: Router
) -> None:
    router.bind("tcp://127.0.0.1:0")
    router.send({b"nobody": [b"1", b"2"]})
    assert router.dropped == {"peer_gone": 2}


def test_a_peer_that_does_not_read_loses_replies_and_holds_up_nobody(
    context: Context, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = {**router_module._OPTIONS, zmq.SNDHWM: 10}
    monkeypatch.setattr(router_module, "_OPTIONS", options)
    router = Router(context)
    address = router.bind("inproc://slow")
    slow, quick = context.socket(zmq.DEALER), dealer(context, address)
    PEERS.append(slow)
    slow.setsockopt(zmq.RCVHWM, 10)
    slow.connect(address)
    slow.send(b"slow")
    quick.send(b"quick")
    routes = {(frames or [b""])[0]: route for route, frames in drain_until(router, 2)}
    for _ in range(1_000):
        router.send({routes[b"slow"]: [b"never read"]})
    router.send({routes[b"quick"]: [b"read"]})
    assert quick.recv() == b"read"
    assert 900 < router.dropped["slow_peer"] < 1_000
    router._socket.linger = 0
    router.close()


def test_an_oversized_frame_cuts_its_sender_only(context: Context, router: Router) -> None:
    address = router.bind("tcp://127.0.0.1:0")
    hostile, honest = dealer(context, address), dealer(context, address)
    hostile.send(b"x" * (FRAME_BYTES_MAX + 1))
    honest.send(b"x" * FRAME_BYTES_MAX)
    [(_, frames)] = drain_until(router, 1)
    assert frames == [b"x" * FRAME_BYTES_MAX]


def test_a_stolen_routing_id_does_not_get_the_victims_replies(
    context: Context, router: Router
) -> None:
    address = router.bind("tcp://127.0.0.1:0")
    victim, thief = context.socket(zmq.DEALER), context.socket(zmq.DEALER)
    PEERS.extend((victim, thief))
    for socket in (victim, thief):
        socket.setsockopt(zmq.ROUTING_ID, b"alice")
    victim.setsockopt(zmq.RCVTIMEO, WAIT_MS)
    victim.connect(address)
    victim.send(b"first")
    drain_until(router, 1)
    thief.connect(address)
    thief.send(b"me too")
    victim.send(b"second")
    [(route, frames)] = drain_until(router, 1)
    assert frames == [b"second"]
    router.send({route: [b"secret"]})
    assert victim.recv() == b"secret"
    assert not thief.poll(100)


def test_the_bell_ends_a_wait_from_another_thread(router: Router) -> None:
    router.bind("tcp://127.0.0.1:0")
    threads = [threading.Thread(target=router.wake) for _ in range(20)]
    for thread in threads:
        thread.start()
    router.wait(WAIT_MS)  # the test's own time limit tells when it does not end
    for thread in threads:
        thread.join()
    assert router.drain() == []
