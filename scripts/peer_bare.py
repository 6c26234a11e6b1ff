"""The least that a durable answer costs over ZeroMQ in Python, as a peer of the same driver.

The server is `tests.bench.synced`; a client is a DEALER that sends and receives. Nothing is
decoded, checked, stored by name or remembered: what Kotak costs more is its own work, and what this
costs more than another broker is the price of ZeroMQ. See `scripts/peer_kotak.py`.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Any

import zmq
from common import Peer, wait_port  # the driver's

ROOT = Path(__file__).resolve().parent.parent
#: As long as a chat with its envelope.
BODY = b"x" * 200


class Peer_(Peer):  # noqa: N801 - the driver's name for it
    """One such server in the driver's folder, on its port."""

    MODES = ("sync",)
    CLIENTS = ("lib",)
    drains = False

    def version(self) -> str:
        """Return ZeroMQ's versions."""
        return f"pyzmq {zmq.__version__}, libzmq {zmq.zmq_version()}"

    def start(self) -> None:
        address, file = f"tcp://127.0.0.1:{self.port}", str(Path(self.dir) / "synced")
        command = [sys.executable, "-m", "tests.bench.synced", address, file]
        wait_port(self.port, self.spawn(command, env={"PYTHONPATH": str(ROOT)}))

    def produce(self, i: int, n: int, window: int, m: int, ph: Any) -> None:  # noqa: ARG002 - the driver's arguments
        began, now, latencies = [0.0] * n, time.perf_counter, ph.lat
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.connect(f"tcp://127.0.0.1:{self.port}")
            send, receive = dealer.send, dealer.recv
            send(BODY)
            receive()  # connected before the clock starts
            ph.begin()
            sent = 0
            for answered in range(n):
                while sent < n and sent - answered < window:
                    began[sent] = now()
                    send(BODY)
                    sent += 1
                receive()
                latencies.append(now() - began[answered])
            ph.end()
