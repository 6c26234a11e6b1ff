"""The crowd of text connections, against a door of a few lines."""

from __future__ import annotations

import selectors
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from threading import Thread

import pytest

from broker.wire.errors import Code, WireError
from broker.wire.text import chat_reply, error_reply
from tests.bench.crew import Shift, _Gate
from tests.bench.text_crowd import Talker, TextCrowdError, converse

Answer = Callable[[socket.socket, bytes], None]


def in_full(peer: socket.socket, reply: bytes) -> None:
    peer.sendall(reply)


def in_two_pieces(peer: socket.socket, reply: bytes) -> None:
    peer.sendall(reply[:20])
    time.sleep(0.001)  # lets the first piece arrive alone; the claim holds in either case
    peer.sendall(reply[20:])


@contextmanager
def door(answer: Answer, reply: bytes) -> Iterator[Talker]:
    """Yield a talker whose peer answers each line so, until it is closed."""
    ours, theirs = socket.socketpair()

    def serve() -> None:
        with theirs:
            while theirs.recv(4_096):
                answer(theirs, reply)

    thread = Thread(target=serve)
    thread.start()
    try:
        with ours:
            yield Talker(ours, b"chat t u  hi \r\n")
    finally:
        thread.join(10)


def crowd(shift: Shift, talkers: list[Talker], seconds: float) -> None:
    with selectors.DefaultSelector() as selector:
        for talker in talkers:
            selector.register(talker.socket, selectors.EVENT_READ, talker)
        converse(shift, selector, talkers, time.monotonic() + seconds)


@pytest.mark.parametrize("answer", [in_full, in_two_pieces])
def test_every_line_that_was_sent_is_answered_and_timed(answer: Answer) -> None:
    shift = Shift(_Gate(1))
    with door(answer, chat_reply()) as one, door(answer, chat_reply()) as two:
        crowd(shift, [one, two], 0.05)
    assert shift.messages == len(shift.latencies) >= 2
    assert all(latency > 0 for latency in shift.latencies)


def test_a_refusal_ends_the_measurement_in_the_doors_words() -> None:
    refusal = error_reply(WireError(Code.NO_SUCH_USER, "nobody"))
    with (
        door(in_full, refusal) as talker,
        pytest.raises(TextCrowdError, match="User Tidak Ditemukan"),
    ):
        crowd(Shift(_Gate(1)), [talker], 0.05)


def test_a_door_that_closes_ends_the_measurement() -> None:
    def hang_up(peer: socket.socket, _: bytes) -> None:
        peer.shutdown(socket.SHUT_WR)

    with door(hang_up, b"") as talker, pytest.raises(TextCrowdError, match="closed"):
        crowd(Shift(_Gate(1)), [talker], 0.05)
