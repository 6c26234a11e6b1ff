"""Kotak as a peer of the brokers that a user would pick instead, for a driver of the same workload.

The driver brings ``common.py`` (the class `Peer`, the workload, the accounting) and puts its folder
on the path: ``python peers.py --module scripts/peer_kotak.py --producers 2 --window 100``. With a
window of 1 the client sends one by one, else through `Client.send_many`, a true sliding window.
A drain reads pages of 100 (client ``lib``) or of 1000, the protocol's largest (``lib1000``), and
acknowledges each one. Client ``text`` sends lines through the text door, as minimal clients of the
driver do, and drains nothing. Sessions are opened before the clock starts.
"""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from argon2 import PasswordHasher  # noqa: E402 - the project is on the path from here on
from common import (  # noqa: E402 - the driver's
    BODY,
    Peer,
    box_of,
    connect,
    free_port,
    wait_port,
    window_loop,
)

from broker.wire.text import REPLY_END, chat_reply  # noqa: E402 - as above
from clients.text_connection import TextConnection  # noqa: E402 - as above

#: Guards nothing: the accounts live as long as the run.
PASSWORD = "bench-only"  # noqa: S105 - see above
SENDERS_MAX = 64


class Peer_(Peer):  # noqa: N801 - the driver's name for it
    """One broker in the driver's folder, on its port."""

    MODES = ("sqlite", "memory")
    CLIENTS = ("lib", "lib1000", "text")

    def version(self) -> str:
        """Return the version and the commit."""
        command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty"]
        commit = subprocess.run(  # noqa: S603 - the command is ours
            command, capture_output=True, text=True, check=False
        ).stdout
        from importlib.metadata import version

        return f"{version('kotak')} {commit.strip()}"

    def start(self) -> None:
        self.batch = 1_000 if self.client == "lib1000" else 100
        self.drains = self.client != "text"
        self.text_port = free_port()
        broker = self.spawn(
            [sys.executable, "-m", "broker.cli", "serve", "--data", f"{self.dir}/data",
             "--store", f"{self.mode}:", "--zmq", f"tcp://127.0.0.1:{self.port}",
             "--text", f"127.0.0.1:{self.text_port}", "--http", "off"],
            env={"PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        wait_port(self.port, broker)

    def setup(self, m: int) -> None:
        # Hashed once and cheaply: messages are measured, not logins.
        cheap = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1).hash(PASSWORD)
        users = [f"user{j}" for j in range(m)] + [f"sender{i}" for i in range(SENDERS_MAX)]
        subprocess.run(  # noqa: S603 - the command is ours
            [sys.executable, "-m", "broker.cli", "user", "import", "-",
             "--data", f"{self.dir}/data"],
            input="".join(f"{user}:{cheap}\n" for user in users),
            cwd=ROOT, text=True, check=True, stdout=subprocess.DEVNULL,
        )  # fmt: skip
        if self.client == "text":  # a thousand logins at once would be a measurement of their own
            with TextConnection("127.0.0.1", self.text_port) as door:
                self.tokens = [
                    door.login(f"sender{i}", PASSWORD)["tokenid"] for i in range(SENDERS_MAX)
                ]

    def produce(self, i: int, n: int, window: int, m: int, ph: Any) -> None:
        if self.client == "text":
            said = f"chat {self.tokens[i % SENDERS_MAX]} user%d  {BODY} \r\n"
            lines = [(said % box_of(i, k, m)).encode() for k in range(m)]
            _lines(self.text_port, lines, n, window, ph)
            return
        from clients.client import Client

        boxes = [f"user{j}" for j in range(m)]
        with Client(f"tcp://127.0.0.1:{self.port}") as client:
            client.login(f"sender{i}", PASSWORD)
            ph.begin()
            if window == 1:
                _one_by_one(client, [boxes[box_of(i, k, m)] for k in range(m)], n, ph.lat)
            else:
                _pipelined(client, [boxes[box_of(i, k, m)] for k in range(m)], n, window, ph.lat)
            ph.end()

    def consume(self, boxes: list[tuple[int, int]], ph: Any) -> int:
        import zmq

        from clients.client import Client

        read = 0
        with zmq.Context() as context:
            clients = []
            for j, _ in boxes:
                client = Client(f"tcp://127.0.0.1:{self.port}", context=context)
                client.login(f"user{j}", PASSWORD)
                clients.append(client)
            ph.begin()
            for client in clients:
                while messages := client.inbox(limit=self.batch).messages:
                    client.acknowledge(messages[-1].seq)
                    read += len(messages)
            ph.end()
            for client in clients:
                client.close()
        return read


def _one_by_one(client: Any, boxes: list[str], n: int, latencies: Any) -> None:
    now, send, m = time.perf_counter, client.send, len(boxes)
    for k in range(n):
        began = now()
        send(boxes[k % m], BODY)
        latencies.append(now() - began)


def _pipelined(client: Any, boxes: list[str], n: int, window: int, latencies: Any) -> None:
    """Latencies count from handing over to the library, its batching included."""
    now, m = time.perf_counter, len(boxes)
    began = [0.0] * n

    def letters() -> Any:
        for k in range(n):
            began[k] = now()
            yield boxes[k % m], BODY

    for k, outcome in enumerate(client.send_many(letters(), window=window)):
        latencies.append(now() - began[k])
        if isinstance(outcome, Exception):
            raise outcome


def _lines(port: int, lines: list[bytes], n: int, window: int, ph: Any) -> None:
    """Send ``n`` lines by the driver's minimal loop, which knows sockets and nothing else."""
    sent, rest, answered = chat_reply(), b"", 0

    def feed(received: bytes) -> range:
        nonlocal rest, answered
        *replies, rest = (rest + received).split(REPLY_END)
        for reply in replies:
            if reply + REPLY_END != sent:
                raise RuntimeError(reply.decode("ascii", "replace"))
        answered += len(replies)
        return range(answered - len(replies), answered)

    with connect(port) as socket:
        ph.begin()
        window_loop(socket, n, window, lambda k: lines[k % len(lines)], feed, ph)
        ph.end()
