"""broker.transports.status: what each path answers, and that nobody can hold the door open."""

from __future__ import annotations

import contextlib
import http.client
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

import pytest

from broker.transports import status
from broker.transports.status import Status

TIMEOUT_S = 20.0


@dataclass
class Door:
    """A started door, and the switches behind it."""

    ready: bool = True
    fail: bool = False
    gate: threading.Event = field(default_factory=threading.Event)
    address: tuple[str, int] = ("", 0)

    def exposition(self) -> tuple[bytes, str]:
        self.gate.wait(TIMEOUT_S)
        if self.fail:
            raise RuntimeError("secret")
        return b"kotak_up 1\n", "text/plain; version=0.0.4"

    def ask(self, method: str, path: str) -> tuple[int, bytes, dict[str, str]]:
        connection = http.client.HTTPConnection(*self.address, timeout=TIMEOUT_S)
        with contextlib.closing(connection):
            connection.request(method, path)
            answer = connection.getresponse()
            return answer.status, answer.read(), dict(answer.getheaders())

    def connect(self) -> socket.socket:
        return socket.create_connection(self.address, timeout=TIMEOUT_S)


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    made.gate.set()
    running = Status(exposition=made.exposition, ready=lambda: made.ready)
    made.address = running.start("127.0.0.1", 0)
    yield made
    made.gate.set()
    running.stop()


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def read_all(connection: socket.socket) -> bytes:
    received = b""
    with contextlib.suppress(ConnectionResetError):
        while chunk := connection.recv(65_536):
            received += chunk
    return received


def test_the_metrics_page_comes_with_its_own_content_type(door: Door) -> None:
    code, body, headers = door.ask("GET", "/metrics?name[]=x")
    assert (code, body) == (200, b"kotak_up 1\n")
    assert headers["Content-Type"] == "text/plain; version=0.0.4"
    assert headers["Cache-Control"] == "no-store"
    assert headers["Server"] == "kotak"


def test_draining_is_not_ready_and_still_alive(door: Door) -> None:
    assert door.ask("GET", "/readyz")[:2] == (200, b"ready\n")
    door.ready = False
    assert door.ask("GET", "/readyz")[:2] == (503, b"draining\n")
    assert door.ask("GET", "/healthz")[:2] == (200, b"alive\n")


def test_the_index_lists_every_page_that_there_is(door: Door) -> None:
    code, body, _ = door.ask("GET", "/")
    assert code == 200
    for path in (line for line in body.decode().splitlines() if line.startswith("/")):
        assert door.ask("GET", path)[0] == 200


@pytest.mark.parametrize("path", ["/nothing", "/metrics/", "/../etc/passwd", "/debug", "*"])
def test_anything_else_is_not_found(door: Door, path: str) -> None:
    assert door.ask("GET", path)[0] == 404


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "BREW"])
def test_other_methods_are_refused_with_those_that_are_not(door: Door, method: str) -> None:
    code, _, headers = door.ask(method, "/metrics")
    assert (code, headers["Allow"]) == (405, "GET, HEAD")


def test_head_says_the_length_and_sends_no_body(door: Door) -> None:
    code, body, headers = door.ask("HEAD", "/metrics")
    assert (code, body, headers["Content-Length"]) == (200, b"", "11")


def test_a_page_that_fails_tells_strangers_nothing_and_the_next_one_works(door: Door) -> None:
    door.fail = True
    code, body, _ = door.ask("GET", "/metrics")
    assert code == 500
    assert b"secret" not in body
    door.fail = False
    assert door.ask("GET", "/metrics")[0] == 200


@pytest.mark.parametrize(
    "request_bytes",
    [b"\r\n\r\n", b"nonsense\r\n\r\n", b"GET / HTTP/9.9\r\n\r\n", b"\x16\x03\x01\x02\x00\r\n\r\n"],
)
def test_what_is_not_http_gets_an_error_or_the_end(door: Door, request_bytes: bytes) -> None:
    with door.connect() as connection:
        connection.sendall(request_bytes)
        answer = read_all(connection)
    assert b" 200 " not in answer
    assert door.ask("GET", "/healthz")[0] == 200


def test_an_endless_request_line_is_refused(door: Door) -> None:
    with door.connect() as connection:
        connection.sendall(b"GET /" + b"x" * status.LINE_BYTES_MAX)
        assert b" 414 " in read_all(connection).split(b"\r\n")[0]


def test_nothing_is_written_to_stderr(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    door.ask("GET", "/nothing")
    door.fail = True
    door.ask("GET", "/metrics")
    with door.connect() as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        read_all(connection)
    assert capfd.readouterr() == ("", "")


def test_more_requests_than_allowed_are_turned_away_and_the_door_recovers(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "REQUESTS_MAX", 2)
    door.gate.clear()
    with contextlib.ExitStack() as stack:
        waiting = [stack.enter_context(door.connect()) for _ in range(2)]
        for connection in waiting:
            connection.sendall(b"GET /metrics HTTP/1.0\r\n\r\n")
        # Accepted in the order of connecting: the third finds the room taken.
        third = stack.enter_context(door.connect())
        assert read_all(third).startswith(b"HTTP/1.0 503 ")
        door.gate.set()
        for connection in waiting:
            assert read_all(connection).startswith(b"HTTP/1.0 200 ")
    eventually(lambda: door.ask("GET", "/healthz")[0] == 200)


def test_a_peer_that_sends_drop_by_drop_is_cut_when_its_time_is_up(
    door: Door, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(status, "REQUEST_MS", 300)
    with door.connect() as connection:

        def cut() -> bool:
            # Each byte would restart a timeout that counts silence only.
            try:
                connection.sendall(b"x")
            except OSError:
                return True
            return False

        connection.sendall(b"GET /healthz HTTP/1.0\r\nX: ")
        eventually(cut)


def test_stop_cuts_what_is_under_way_frees_the_port_and_may_be_called_twice() -> None:
    running = Status(exposition=lambda: (b"", "text/plain"), ready=lambda: True)
    address = running.start("127.0.0.1", 0)
    with socket.create_connection(address, timeout=TIMEOUT_S) as silent:
        running.stop()
        assert read_all(silent) == b""
    running.stop()
    again = Status(exposition=lambda: (b"", "text/plain"), ready=lambda: True)
    assert again.start(*address) == address
    again.stop()


def test_an_address_in_use_is_the_callers_business(door: Door) -> None:
    other = Status(exposition=door.exposition, ready=lambda: True)
    with pytest.raises(OSError, match="in use"):
        other.start(*door.address)
    other.stop()


def test_ipv6_is_served_too() -> None:
    running = Status(exposition=lambda: (b"", "text/plain"), ready=lambda: True)
    try:
        host, port = running.start("::1", 0)
    except OSError:
        pytest.skip("this machine has no IPv6")
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as connection:
        connection.sendall(b"GET /healthz HTTP/1.0\r\n\r\n")
        assert b"alive" in read_all(connection)
    running.stop()
