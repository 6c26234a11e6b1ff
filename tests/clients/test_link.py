"""One connection, against a ROUTER on the other side."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import zmq

from clients.link import Link

Socket = zmq.Socket[bytes]


@pytest.fixture
def ends() -> Iterator[tuple[Link, Socket]]:
    """Yield a link and its peer; the peer has sent a message of three frames and one of one."""
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        router.linger = 0
        port = router.bind_to_random_port("tcp://127.0.0.1")
        link = Link(context, f"tcp://127.0.0.1:{port}", 1)
        try:
            assert link.send([b"hello"])
            peer, _ = router.recv_multipart()
            router.send_multipart([peer, b"1", b"2", b"3"])
            router.send_multipart([peer, b"4"])
            yield link, router
        finally:
            link.close()


def test_a_wait_takes_one_message_whole(ends: tuple[Link, Socket]) -> None:
    link, _ = ends
    assert link.reply() == [b"1", b"2", b"3"]
    assert link.reply() == [b"4"]
    assert link.reply() == [], "and has an end"


def test_a_limit_of_frames_does_not_part_a_message(ends: tuple[Link, Socket]) -> None:
    """Where half a message is read as the connection ends, libzmq ends the process."""
    link, router = ends
    link.socket.poll()
    assert list(link.frames(2)) == [b"1", b"2", b"3"]
    router.close(linger=0)
    while not any(end is not None for end in link.events()):
        assert link.monitor is not None
        link.monitor.poll()
    assert list(link.frames(2)) in ([], [b"4"])
