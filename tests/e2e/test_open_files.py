"""No file can be opened any more, because strangers hold them all: who was there is served on."""

from __future__ import annotations

import os
import resource
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from clients import Client
from tests.e2e.program import Serving, connect, eventually

#: As few as leave a started broker some room, and so many that want to come in.
FILES_MAX = 64
CROWD = 200


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Serving]:
    with Serving(tmp_path / "data", "--demo") as broker:
        resource.prlimit(broker.process.pid, resource.RLIMIT_NOFILE, (FILES_MAX, FILES_MAX))
        yield broker
        ended = broker.stop()
        assert ended.code == 0
        assert "Traceback" not in ended.err
        # Neither a line a connection, nor one an attempt.
        assert len(ended.err.splitlines()) < 20, ended.err


def door(broker: Serving, name: str) -> tuple[str, int]:
    address = {"zmq": broker.zmq.removeprefix("tcp://"), "text": broker.text, "http": broker.http}
    host, _, port = address[name].rpartition(":")
    return host, int(port)


@contextmanager
def crowd(address: tuple[str, int], count: int) -> Iterator[None]:
    """Hold so many connections, or ask for them: not all are taken in."""
    peers = [socket.socket() for _ in range(count)]
    for peer in peers:
        peer.setblocking(False)
        peer.connect_ex(address)
    try:
        yield
    finally:
        for peer in peers:
            peer.close()


def is_full(broker: Serving) -> None:
    """Wait until not one file more can be opened, and the log tells of the crowd."""
    held = Path(f"/proc/{broker.process.pid}/fd")
    eventually(lambda: len(list(held.iterdir())) == FILES_MAX)
    eventually(lambda: f"of {FILES_MAX} files are open: newcomers" in broker.err)


def is_served(client: Client, words: str) -> None:
    """Send, read and take one message, by a connection that stands."""
    assert client.send("shafwa", words).durability == "fsync"
    page = client.inbox()
    assert [message.text for message in page.messages] == [words]
    client.acknowledge(page.messages[-1].seq)


@pytest.mark.parametrize("name", ["zmq", "text"])
def test_at_the_limit_who_is_connected_is_served_and_afterwards_everybody(
    broker: Serving, name: str
) -> None:
    with connect(broker) as client:
        with crowd(door(broker, name), CROWD):
            is_full(broker)
            for number in range(50):
                is_served(client, f"{number}")
        eventually(lambda: "there is room again" in broker.err)
        with Client(broker.zmq, timeout_ms=30_000) as newcomer:
            newcomer.login("fadly", "prp")
            newcomer.send("shafwa", "after")
        assert [message.text for message in client.inbox().messages] == ["after"]
    assert eventually(lambda: broker.page("/healthz")) == (200, "alive\n")


def test_at_the_limit_the_text_and_the_status_door_wait_without_using_the_processor(
    broker: Serving,
) -> None:
    """Each would otherwise try to take in who waits, in a loop, and hold up everybody."""
    with crowd(door(broker, "text"), CROWD):
        is_full(broker)
        with crowd(door(broker, "http"), 5):
            began, before = time.monotonic(), cpu_seconds(broker)
            eventually(lambda: time.monotonic() - began > 2)
            assert cpu_seconds(broker) - before < 0.5


def cpu_seconds(broker: Serving) -> float:
    fields = Path(f"/proc/{broker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
