"""The least that a ROUTER in Python costs: what comes goes back, frame by frame, nothing is done.

It is a program that is started as a broker is (`tests.load.broker_process`, ``program``), and the
part that its clients play: DEALER sockets without a client library. `tests.bench.check` measures
the broker against it.
"""

from __future__ import annotations

import argparse
import time
from typing import Final, NamedTuple

import zmq

from tests.bench.crew import Shift
from tests.bench.parts import TIMEOUT_MS

PROGRAM: Final = __name__
#: Of one turn; a message has two: from whom, and the body.
_FRAMES_MAX: Final = 1_024


class Shouting(NamedTuple):
    """What a client sends: for how long, and how much is under way at once."""

    seconds: float
    window: int = 100
    size_bytes: int = 100


def turn(router: zmq.Socket[bytes]) -> int:
    """Send back all that is there, within a limit; return how many messages that were.

    A message has come whole or not at all, so only the limit could part one, and it is even.
    """
    frames: list[bytes] = []
    receive, send = router.recv, router.send
    try:
        while len(frames) < _FRAMES_MAX:
            frames.append(receive(zmq.NOBLOCK))
    except zmq.Again:
        pass
    for i in range(0, len(frames), 2):
        send(frames[i], zmq.SNDMORE)
        send(frames[i + 1])
    return len(frames) // 2


def shout(shift: Shift, address: str, shouting: Shouting) -> None:
    """Send and receive for a time, with a window of messages under way. Latencies are not taken."""
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, TIMEOUT_MS)
        dealer.connect(address)
        dealer.send(b"")
        dealer.recv()  # connected before anybody begins
        until = shift.begin() + shouting.seconds
        shift.messages = _shout_until(dealer, until, shouting)
        shift.end()


def _shout_until(dealer: zmq.Socket[bytes], until: float, shouting: Shouting) -> int:
    now, send, receive = time.monotonic, dealer.send, dealer.recv
    body, window = b"x" * shouting.size_bytes, shouting.window
    sent = returned = 0
    while now() < until:
        while sent - returned < window:
            send(body)
            sent += 1
        receive()
        returned += 1
        try:
            while returned < sent:
                receive(zmq.NOBLOCK)
                returned += 1
        except zmq.Again:
            pass
    for _ in range(returned, sent):
        receive()
    return sent


def main() -> None:
    """Take a broker's command line, say which door is open, and echo until killed."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--zmq", default="tcp://127.0.0.1:0")
    address = parser.parse_known_args()[0].zmq
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        for limit in (zmq.LINGER, zmq.RCVHWM, zmq.SNDHWM):  # nothing is dropped
            router.setsockopt(limit, 0)
        router.bind(address)
        door = router.getsockopt_string(zmq.LAST_ENDPOINT)
        print(f"ready zmq={door} text=none", flush=True)  # noqa: T201 - how a broker says it
        while True:
            router.poll()
            turn(router)


if __name__ == "__main__":
    main()
