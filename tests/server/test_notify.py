"""What a service manager is told, over a datagram socket like its own."""

from __future__ import annotations

import logging
import re
import signal
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from broker.server.notify import READY, RELOADING, STOPPING, notify
from tests.e2e.program import PATIENCE_S, Program

_READY_LINE = re.compile(r"^ready ", re.MULTILINE)


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(PATIENCE_S)
        listening.bind(str(tmp_path / "notify"))
        yield listening


@pytest.mark.parametrize("name", ["{}/notify", "@kotak-test-{}"])
def test_the_state_is_one_datagram_to_the_socket_that_the_variable_names(
    name: str, tmp_path: Path
) -> None:
    address = name.format(tmp_path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.settimeout(PATIENCE_S)
        listening.bind("\0" + address[1:] if address.startswith("@") else address)
        notify(READY, {"NOTIFY_SOCKET": address})
        assert listening.recv(100) == b"READY=1"


def test_without_a_service_manager_nothing_is_sent(
    manager: socket.socket, caplog: pytest.LogCaptureFixture
) -> None:
    notify(READY, {})
    notify(READY, {"NOTIFY_SOCKET": ""})
    manager.setblocking(False)
    with pytest.raises(BlockingIOError):
        manager.recv(100)
    assert caplog.records == []


def test_a_service_manager_that_is_gone_is_told_of_and_stops_nobody(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        notify(STOPPING, {"NOTIFY_SOCKET": str(tmp_path / "nobody")})
    assert [record.getMessage() for record in caplog.records] == [
        "the service manager was not told: STOPPING=1"
    ]


def test_a_broker_says_when_it_is_ready_when_it_reloads_and_when_it_stops(
    manager: socket.socket, tmp_path: Path
) -> None:
    doors = ("--zmq", "tcp://127.0.0.1:0", "--text", "off", "--http", "off")
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    with Program("serve", "--data", str(tmp_path / "data"), *doors, env=variables) as broker:
        assert manager.recv(100).decode() == READY
        broker.wait_for(_READY_LINE)
        broker.signal(signal.SIGHUP)
        assert [manager.recv(100).decode() for _ in range(2)] == [RELOADING, READY]
        broker.signal(signal.SIGTERM)
        assert manager.recv(100).decode() == STOPPING
        assert broker.end().code == 0


def test_a_text_gateway_says_that_it_is_ready(manager: socket.socket, tmp_path: Path) -> None:
    variables = {"NOTIFY_SOCKET": str(tmp_path / "notify")}
    words = ("gateway", "text", "--broker", "tcp://127.0.0.1:1", "--text", "127.0.0.1:0")
    with Program(*words, env=variables):
        assert manager.recv(100).decode() == READY
