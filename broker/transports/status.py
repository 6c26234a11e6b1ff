"""The HTTP door: metrics and health for the operator's tools, and nothing else.

It runs in a thread of its own and can be slow, full or attacked without the broker noticing: a few
requests at a time, a few seconds for each, GET and HEAD only, and one request a connection.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from socketserver import TCPServer, ThreadingMixIn
from typing import Any, Final

#: Requests at a time: a scraper or two, a probe and a person. More are turned away with a 503.
REQUESTS_MAX: Final = 16
#: From accept to the last byte of the answer, however slowly the peer reads or writes.
REQUEST_MS: Final = 5_000
#: A request line; a longer one is no path of ours.
LINE_BYTES_MAX: Final = 2_048
#: How often overdue connections are looked for, and how long `Status.stop` may have to wait.
_POLL_S: Final = 0.1

_TEXT: Final = "text/plain; charset=utf-8"
_INDEX: Final = b"Kotak, a mailbox broker.\n\n/metrics\n/healthz\n/readyz\n"
_BUSY: Final = b"HTTP/1.0 503 Service Unavailable\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"

Exposition = Callable[[], tuple[bytes, str]]
Ready = Callable[[], bool]
Page = tuple[HTTPStatus, bytes, str]


class Status:
    """The door. ``exposition`` gives the metrics page, ``ready`` is False while draining.

    ``degraded`` is True while the broker lives and cannot serve: to end it would not help. All are
    called from request threads. `start` and `stop` belong to one thread.
    """

    def __init__(
        self, *, exposition: Exposition, ready: Ready, degraded: Ready = lambda: False
    ) -> None:
        self._pages: dict[str, Callable[[], Page]] = {
            "/": lambda: (HTTPStatus.OK, _INDEX, _TEXT),
            "/healthz": lambda: (HTTPStatus.OK, b"degraded\n" if degraded() else b"alive\n", _TEXT),
            "/readyz": lambda: _readiness(ready()),
            "/metrics": lambda: (HTTPStatus.OK, *exposition()),
        }
        self._server: _Server | None = None
        self._thread: threading.Thread | None = None

    def start(self, host: str, port: int) -> tuple[str, int]:
        """Listen, and return the address taken (port 0 picks one). Errors: OSError."""
        self._server = _Server(host, port, self.page)
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(_POLL_S,), name="kotak-status", daemon=True
        )
        self._thread.start()
        address = self._server.server_address
        return str(address[0]), int(address[1])

    def stop(self) -> None:
        """Stop listening and cut what is under way; calling it again does nothing."""
        if self._server is None or self._thread is None:
            return
        self._server.shutdown()
        self._thread.join()
        self._server.cut(before=float("inf"))
        self._server.server_close()
        self._server = self._thread = None

    def page(self, method: str, target: str) -> Page:
        """Answer one request, whoever asks: status, body, content type."""
        make = self._pages.get(target.partition("?")[0])
        if make is None:
            return HTTPStatus.NOT_FOUND, b"not found; / lists what there is\n", _TEXT
        if method not in ("GET", "HEAD"):
            return HTTPStatus.METHOD_NOT_ALLOWED, b"GET and HEAD only\n", _TEXT
        try:
            return make()
        except Exception:  # noqa: BLE001 - the page fails, the door stays; nothing of it is told to strangers
            return HTTPStatus.INTERNAL_SERVER_ERROR, b"this page failed\n", _TEXT


def _readiness(ready: bool) -> Page:  # noqa: FBT001 - private, and named at its only call
    if ready:
        return HTTPStatus.OK, b"ready\n", _TEXT
    return HTTPStatus.SERVICE_UNAVAILABLE, b"draining\n", _TEXT


class _Handler(BaseHTTPRequestHandler):
    """One request, one answer, HTTP/1.0: the connection closes behind it."""

    server: _Server
    timeout = REQUEST_MS / 1_000

    def handle_one_request(self) -> None:
        self.close_connection = True
        self.raw_requestline = self.rfile.readline(LINE_BYTES_MAX + 1)
        if len(self.raw_requestline) > LINE_BYTES_MAX:
            self.requestline = self.request_version = self.command = ""
            self.send_error(HTTPStatus.REQUEST_URI_TOO_LONG)
        elif self.raw_requestline and self.parse_request():
            self._answer(*self.server.page(self.command, self.path))

    def _answer(self, status: HTTPStatus, body: bytes, content_type: str) -> None:
        self.send_response(status)
        self.send_header("Content-Type", content_type)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        if status == HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Say what the status says, and quote nothing: proxies and clients keep what they get."""
        del message, explain
        super().send_error(code)

    def version_string(self) -> str:
        return "kotak"

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        """Log nothing: a probe a second would drown the broker's own lines."""


class _Server(ThreadingMixIn, TCPServer):
    allow_reuse_address = True
    daemon_threads = True
    block_on_close = False  # a request thread lives REQUEST_MS at most, and holds nothing

    def __init__(self, host: str, port: int, page: Callable[[str, str], Page]) -> None:
        self.page = page
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._due: dict[socket.socket, float] = {}
        self._lock = threading.Lock()
        super().__init__((host, port), _Handler)

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            return super().get_request()
        except OSError:
            time.sleep(_POLL_S)  # no file can be opened: whoever waits will do so for a while
            raise

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Take the connection if there is room for it; called in the accepting thread."""
        del client_address
        with self._lock:
            if len(self._due) < REQUESTS_MAX:
                self._due[request] = time.monotonic() + REQUEST_MS / 1_000
                return True
        request.setblocking(False)
        with contextlib.suppress(OSError):  # a peer that is gone, or full, needs no explanation
            request.send(_BUSY)
        return False

    def shutdown_request(self, request: Any) -> None:
        with self._lock:
            self._due.pop(request, None)
            super().shutdown_request(request)

    def service_actions(self) -> None:
        self.cut(before=time.monotonic())

    def cut(self, *, before: float) -> None:
        """Break the connections whose time is up; their threads then end by themselves."""
        with self._lock:
            for request, due in self._due.items():
                if due < before:
                    _break(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing: what fails here is a peer that went away."""


def _break(request: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it broke before we did
        request.shutdown(socket.SHUT_RDWR)
