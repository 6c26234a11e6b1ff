"""A slice of the network's faults, and that the proxy does what it says."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from tests.load.broker_process import BrokerProcess
from tests.proof.disk.running import scratch
from tests.proof.network.faults import FAULTS, Fault
from tests.proof.network.proxy import CALM, Proxy, Weather
from tests.proof.network.trial import at_text_door, at_zmq_door, serving

WAIT_S = 10.0
FAULT_S = 0.3
BY_NAME = {fault.name: fault for fault in FAULTS}


@pytest.fixture(scope="module")
def served() -> Iterator[tuple[BrokerProcess, dict[str, str]]]:
    with scratch() as place, serving(place) as both:
        yield both


def faults(*names: str) -> list[object]:
    """All of them, of which those that are not named are slow."""
    return [
        pytest.param(fault, id=fault.name, marks=() if fault.name in names else pytest.mark.slow)
        for fault in FAULTS
    ]


@pytest.mark.parametrize("fault", faults("single bytes", "a hole towards the client", "a reset"))
def test_the_zmq_door_keeps_its_promises_and_is_back(
    served: tuple[BrokerProcess, dict[str, str]], fault: Fault
) -> None:
    trial = at_zmq_door(*served, fault, FAULT_S, 1 + FAULTS.index(fault))
    assert not trial.breaches, "\n".join(trial.breaches)
    assert trial.sends > 20


@pytest.mark.parametrize("fault", faults("a partition", "the client's half closed"))
def test_the_text_door_keeps_its_promises_and_is_back(
    served: tuple[BrokerProcess, dict[str, str]], fault: Fault
) -> None:
    trial = at_text_door(*served, fault, FAULT_S, 1 + FAULTS.index(fault))
    assert not trial.breaches, "\n".join(trial.breaches)
    assert trial.sends > 20


class Echo:
    """A server that says what it hears, until it hears no more."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.address: tuple[str, int] = self._listener.getsockname()
        self.heard = bytearray()
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        connection, _ = self._listener.accept()
        with connection:
            try:
                while received := connection.recv(65_536):
                    self.heard += received
                    connection.sendall(received)
            except ConnectionError:
                return

    def close(self) -> None:
        self._thread.join(WAIT_S)
        self._listener.close()


@pytest.fixture
def echo() -> Iterator[Echo]:
    server = Echo()
    yield server
    server.close()


@pytest.fixture
def proxy(echo: Echo) -> Iterator[Proxy]:
    with Proxy(*echo.address) as proxy:
        yield proxy


@pytest.fixture
def peer(proxy: Proxy) -> Iterator[socket.socket]:
    with socket.create_connection(proxy.address, WAIT_S) as peer:
        yield peer


def receive(peer: socket.socket, size: int) -> bytes:
    received = b""
    while len(received) < size:
        received += peer.recv(65_536)
    return received


@pytest.mark.parametrize(
    "weather",
    [
        CALM,
        Weather(latency_ms=5, jitter_ms=20),
        Weather(bytes_per_s=200_000),
        Weather(slice_bytes=1),
    ],
)
def test_what_is_slowed_or_cut_into_slices_arrives_whole_and_in_order(
    proxy: Proxy, peer: socket.socket, weather: Weather
) -> None:
    proxy.weather = weather
    sent = bytes(range(256)) * 8
    for start in range(0, len(sent), 100):
        peer.sendall(sent[start : start + 100])
    assert receive(peer, len(sent)) == sent


@pytest.mark.parametrize(
    ("weather", "heard"), [(Weather(hole_up=True), b""), (Weather(hole_down=True), b"hai")]
)
def test_a_hole_holds_one_direction_and_lets_it_through_when_it_closes(
    proxy: Proxy, peer: socket.socket, echo: Echo, weather: Weather, heard: bytes
) -> None:
    proxy.weather = weather
    peer.sendall(b"hai")
    peer.settimeout(0.2)
    with pytest.raises(TimeoutError):
        peer.recv(1)
    assert bytes(echo.heard) == heard
    proxy.weather = CALM
    peer.settimeout(WAIT_S)
    assert receive(peer, 3) == b"hai"


def test_a_reset_breaks_both_ends(proxy: Proxy, peer: socket.socket) -> None:
    peer.sendall(b"hai")
    receive(peer, 3)
    proxy.reset()
    with pytest.raises(ConnectionResetError):
        peer.recv(1)


def test_a_half_close_ends_one_direction_after_all_that_was_said(
    proxy: Proxy, peer: socket.socket
) -> None:
    peer.sendall(b"hai")
    receive(peer, 3)
    proxy.half_close(up=True)  # the echo hears the end, and ends the other direction
    assert peer.recv(1) == b""


def test_an_unreachable_door_resets_newcomers(proxy: Proxy, peer: socket.socket) -> None:
    peer.sendall(b"hai")
    receive(peer, 3)
    proxy.weather = Weather(refuses=True)
    with (
        pytest.raises(ConnectionResetError),  # at once, or at the first word
        socket.create_connection(proxy.address, WAIT_S) as second,
    ):
        second.recv(1)
    assert proxy.connections == 2


def test_a_slow_way_is_slow(proxy: Proxy, peer: socket.socket) -> None:
    proxy.weather = Weather(latency_ms=100)
    began = time.monotonic()
    peer.sendall(b"hai")
    receive(peer, 3)
    assert time.monotonic() - began >= 0.2  # there and back
