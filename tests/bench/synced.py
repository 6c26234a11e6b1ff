"""An echo that syncs: what has arrived is written into a file, synced once, and sent back.

For `scripts/peer_bare.py`: ``python -m tests.bench.synced ADDRESS FILE``. The file has its full
length from the start, as a broker's journal has.
"""

from __future__ import annotations

import os
import sys
from typing import Final

import zmq

FILE_BYTES: Final = 16 * 2**20
_SECTOR_BYTES: Final = 512
#: Of one turn; a message has two: from whom, and the body.
_FRAMES_MAX: Final = 1_024


def turn(router: zmq.Socket[bytes], handle: int, at: int) -> int:
    """Wait for messages, write them at ``at``, sync, send them back; return where to go on."""
    frames = [router.recv()]
    try:
        while len(frames) < _FRAMES_MAX:
            frames.append(router.recv(zmq.NOBLOCK))
    except zmq.Again:
        pass
    body = b"".join(frames)
    start = at if at + len(body) <= FILE_BYTES else 0
    os.pwrite(handle, body, start)
    os.fdatasync(handle)
    for i in range(0, len(frames), 2):
        router.send(frames[i], zmq.SNDMORE)
        router.send(frames[i + 1])
    return start + -(-len(body) // _SECTOR_BYTES) * _SECTOR_BYTES


def main() -> None:
    """Answer until killed."""
    address, path = sys.argv[1:]
    handle = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.pwrite(handle, bytes(FILE_BYTES), 0)
    os.fsync(handle)
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        for limit in (zmq.LINGER, zmq.RCVHWM, zmq.SNDHWM):  # nothing is dropped
            router.setsockopt(limit, 0)
        router.bind(address)
        at = 0
        while True:
            at = turn(router, handle, at)


if __name__ == "__main__":
    main()
