"""Peers that begin and do not go on, on every door: each is cut off, and nobody else notices."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import cycle
from pathlib import Path

import pytest

from broker.wire.errors import Code
from clients.text_connection import TextConnection
from tests.e2e.program import Serving, connect, eventually
from tests.e2e.raw_peer import RawPeer
from tests.e2e.zmtp import GREETING

TIMEOUT_S = 60
CROWD = 300
LINE_MS = 500


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Serving]:
    options = ("--demo", "--store", "memory:", "--text-line-ms", str(LINE_MS))
    with Serving(tmp_path / "data", *options) as broker:
        yield broker
        ended = broker.stop()
        assert ended.code == 0
        assert "Traceback" not in ended.err


def door(broker: Serving, name: str) -> tuple[str, int]:
    address = broker.text if name == "text" else broker.zmq.removeprefix("tcp://")
    host, _, port = address.rpartition(":")
    return host, int(port)


def open_files(broker: Serving) -> int:
    return len(list(Path(f"/proc/{broker.process.pid}/fd").iterdir()))


def ends(peer: socket.socket) -> bytes:
    """Wait for the end of a connection and return what was said before it."""
    said = b""
    try:
        while some := peer.recv(65_536):
            said += some
    except ConnectionResetError:
        pass
    return said


# --- the ZeroMQ door -----------------------------------------------------------------------------


def test_a_handshake_that_does_not_go_on_is_cut_off_and_leaves_nothing(broker: Serving) -> None:
    """After the five seconds of HANDSHAKE_MS; libzmq's own patience would be thirty."""
    with connect(broker) as honest, ExitStack() as crowd:
        before = open_files(broker)
        began = time.monotonic()
        peers = [
            crowd.enter_context(socket.create_connection(door(broker, "zmq"), TIMEOUT_S))
            for _ in range(CROWD)
        ]
        beginnings = cycle((b"", GREETING[:1], GREETING[:11], GREETING))
        for peer, beginning in zip(peers, beginnings, strict=False):
            peer.sendall(beginning)
        eventually(lambda: open_files(broker) >= before + CROWD)
        assert honest.send("fadly", "hai").seq
        for peer in peers:
            ends(peer)
        assert time.monotonic() - began < 25
        eventually(lambda: open_files(broker) <= before)
        assert honest.send("fadly", "hai").seq


def test_a_peer_that_asks_for_pages_and_reads_none_costs_bounded_memory(broker: Serving) -> None:
    """Pages of a megabyte are asked for, one a turn; what finds no room is dropped and counted."""
    with connect(broker) as client, RawPeer(broker.zmq, RCVHWM=1) as peer:
        for _ in range(18):
            client.send("shafwa", "x" * 60_000)
        before = broker.memory_mib()
        for _ in range(600):
            peer.send([peer.request("kotakmasuk", client.token, limit=1_000)])
            client.ping()
        assert broker.memory_mib() - before < 300  # 200 a connection, by SNDHWM
        assert broker.metric('kotak_replies_dropped_total{reason="slow_peer"}') > 0
        assert client.send("shafwa", "still here").seq


# --- the text door -------------------------------------------------------------------------------


@pytest.mark.parametrize("line", [b"login sha", b"login shafwa mk", b"chat x", b"x"])
def test_a_line_that_drips_is_cut_off_with_an_error(broker: Serving, line: bytes) -> None:
    """A byte now and then does not prolong it, and half a login is none."""
    with TextConnection(*broker.text_address) as honest:
        honest.login("fadly", "prp")
        with socket.create_connection(broker.text_address, TIMEOUT_S) as peer:
            peer.sendall(line)
            peer.settimeout(LINE_MS / 10_000)
            deadline = time.monotonic() + TIMEOUT_S
            said = b""
            while not said.endswith(b"\r\n\r\n"):
                assert time.monotonic() < deadline
                try:
                    said += peer.recv(65_536)
                except TimeoutError:
                    peer.sendall(b"y")
            assert b"ERROR" in said
            assert b"tokenid" not in said
        assert honest.login("fadly", "prp")["status"] == "OK"


def test_hundreds_of_dripping_lines_leave_room_for_others_and_all_are_cut_off(
    broker: Serving,
) -> None:
    with TextConnection(*broker.text_address) as honest, ExitStack() as crowd:
        token = honest.login("fadly", "prp")["tokenid"]
        before = broker.metric("kotak_text_connections")
        peers = [
            crowd.enter_context(socket.create_connection(broker.text_address, TIMEOUT_S))
            for _ in range(CROWD)
        ]
        for peer in peers:
            peer.sendall(b"l")
        assert honest.chat(token, "fadly", "hai")["status"] == "OK"
        assert all(b"ERROR" in ends(peer) for peer in peers)
        eventually(lambda: broker.metric("kotak_text_connections") == before)


def test_a_text_client_that_reads_nothing_stops_being_read_itself(broker: Serving) -> None:
    """One line is answered at a time, so what it has not read bounds what is done for it."""
    with socket.create_connection(broker.text_address, TIMEOUT_S) as peer:
        peer.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        before = broker.memory_mib()
        peer.settimeout(1)
        with pytest.raises(TimeoutError):
            peer.sendall(b"foo\r\n" * 20_000_000)
        assert broker.memory_mib() - before < 30
        with RawPeer(broker.zmq) as other:
            assert other.refusal(other.request("kotakmasuk")) == Code.UNAUTHORIZED


def test_everybody_stalling_at_once_uses_no_processor(broker: Serving) -> None:
    """Waiting costs nothing: no door polls those that are silent."""
    with ExitStack() as crowd:
        for name in ("zmq", "text"):
            for _ in range(CROWD):
                crowd.enter_context(socket.create_connection(door(broker, name), TIMEOUT_S))
        eventually(lambda: broker.metric("kotak_text_connections") == CROWD)
        began, before = time.monotonic(), cpu_seconds(broker)
        eventually(lambda: time.monotonic() - began > 2)
        assert cpu_seconds(broker) - before < 0.5


def cpu_seconds(broker: Serving) -> float:
    fields = Path(f"/proc/{broker.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
