r"""One connection to the text door: a line out, one reply in, as parsed JSON.

The words of the door are not judged here: a reply is returned with its ``status``, ``OK`` or
``ERROR``. Source: docs/PROTOCOL.md, "The text door".
"""

from __future__ import annotations

import json
import socket
import ssl
import time
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_REPLY_END: Final = b"\r\n\r\n"
#: A reply of 1 MiB of text whose every byte is escaped takes 6 MiB; the broker sends no larger one.
REPLY_BYTES_MAX: Final = 16 * 1_048_576
_RECEIVE_BYTES: Final = 65_536


class TextDoorError(Exception):
    """The door could not be asked: the sentence says why. The connection is closed.

    Whether the broker has carried out the line is not known, since this protocol has no message
    ids: a ``chat`` is not repeated by itself.
    """


class TextConnection:
    """A client of the text door. Connects at the first request, and again after a failure.

    ``tls`` where the door encrypts (`verifying` makes one). Not for two threads at once. Every
    method but `close` may raise `TextDoorError`, also where ``timeout_ms`` have passed without the
    whole reply.
    """

    def __init__(
        self,
        host: str,
        port: int,
        *,
        timeout_ms: int = 30_000,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._address = (host, port)
        self._tls = tls
        self._timeout_s = timeout_ms / 1_000
        self._socket: socket.socket | None = None
        self._received = bytearray()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        self._received.clear()
        if self._socket:
            self._socket.close()
            self._socket = None

    def login(self, user: str, password: str) -> dict[str, Any]:
        """Open a session: an OK reply holds its token as ``tokenid``."""
        return self._command("login", _word("user", user), _word("password", password))

    def chat(self, token: str, to: str, text: str) -> dict[str, Any]:
        return self._command("chat", _word("token", token), _word("user", to), f" {text}")

    def kotakmasuk(self, token: str) -> dict[str, Any]:
        """Take the waiting messages: maps of ``msg_from``, ``msg_to``, ``msg``."""
        return self._command("kotakmasuk", _word("token", token))

    def user_on(self, token: str) -> dict[str, Any]:
        return self._command("user_on", _word("token", token))

    def logout(self, token: str) -> dict[str, Any]:
        return self._command("logout", _word("token", token))

    def request(self, line: str) -> dict[str, Any]:
        """Send one line (without its end) and return its reply."""
        if not line.strip(" "):
            raise TextDoorError("an empty line gets no reply: write a command")
        if any(c in line for c in "\r\n\0"):
            raise TextDoorError("a line cannot hold a line break or a NUL: send two messages")
        if any("\ud800" <= c <= "\udfff" for c in line):
            raise TextDoorError("this is no valid UTF-8: write it again")
        deadline = time.monotonic() + self._timeout_s
        try:
            self._send(line.encode() + b"\r\n")
            return _parsed(self._receive(deadline))
        except TimeoutError:
            self.close()
            raise TextDoorError(
                f"no reply within {self._timeout_s:g} s: the broker may have done it all the same"
            ) from None
        except BaseException:
            self.close()  # a reply may still come, and must not answer the next line
            raise

    def _command(self, *words: str) -> dict[str, Any]:
        # The blank before the end is part of the protocol's frame: it keeps a text's own last one.
        return self.request(" ".join(words) + " ")

    def _send(self, line: bytes) -> None:
        connection = self._connected()
        connection.settimeout(self._timeout_s)
        # A door that stops has left an ERROR before it closed: that is the reply to this line.
        with suppress(BrokenPipeError, ConnectionResetError, ssl.SSLError):
            connection.sendall(line)

    def _connected(self) -> socket.socket:
        if self._socket is None:
            host, port = self._address
            try:
                self._socket = self._connect()
            except TimeoutError:
                raise TextDoorError(
                    f"no answer from {host}:{port}: is the address right?"
                ) from None
            except ssl.SSLError as error:
                raise TextDoorError(f"{host}:{port}: {_tls_fault(error)}") from None
            except (OSError, OverflowError, UnicodeError) as error:
                raise TextDoorError(
                    f"cannot connect to {host}:{port} ({_reason(error)}): is the broker running?"
                ) from None
        return self._socket

    def _connect(self) -> socket.socket:
        connection = socket.create_connection(self._address, self._timeout_s)
        try:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._tls is None:
                return connection
            # The socket's timeout is one for each read; nobody gains by stretching the handshake.
            return self._tls.wrap_socket(connection, server_hostname=self._address[0])
        except BaseException:
            connection.close()
            raise

    def _receive(self, deadline: float) -> bytes:
        """Return one frame, without its end; what comes behind it is kept for the next request."""
        connection, searched = self._connected(), 0
        while (end := self._received.find(_REPLY_END, searched)) < 0:
            if len(self._received) > REPLY_BYTES_MAX:
                raise TextDoorError("the reply does not end: is this the text door?")
            searched = max(0, len(self._received) - len(_REPLY_END))
            connection.settimeout(max(0.001, deadline - time.monotonic()))
            self._received += _some(connection)
        frame = bytes(self._received[:end])
        del self._received[: end + len(_REPLY_END)]
        return frame


def verifying(authority: Path | None = None) -> ssl.SSLContext:
    """Return what `TextConnection` asks certificates to hold: TLS 1.2 or later, the host's name.

    They must be of an authority that this machine trusts, or of the one in the file ``authority``
    (PEM; a certificate that nobody else signed is its own). Errors: `TextDoorError`.
    """
    try:
        context = ssl.create_default_context(cafile=authority)
    except (OSError, ValueError) as error:
        reason = "it holds no certificate" if isinstance(error, ssl.SSLError) else _reason(error)
        raise TextDoorError(f"cannot trust {authority}: {reason}") from None
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    return context


def _tls_fault(error: ssl.SSLError) -> str:
    if isinstance(error, ssl.SSLCertVerificationError):
        return (
            f"its certificate is not trusted ({error.verify_message}): give the file of its "
            "authority with --ca, and the name that it was made for as the host"
        )
    return "it does not speak TLS: is this an encrypted text door?"


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


def _word(name: str, value: str) -> str:
    if not value or " " in value:
        raise TextDoorError(f"a {name} must be one word here; the ZeroMQ door takes any")
    return value


def _some(connection: socket.socket) -> bytes:
    try:
        received = connection.recv(_RECEIVE_BYTES)
    except TimeoutError:
        raise
    except OSError:
        received = b""
    if not received:
        raise TextDoorError(
            "the broker closed the connection without a reply: it may have done it all the same"
        )
    return received


def _parsed(frame: bytes) -> dict[str, Any]:
    try:
        reply = json.loads(frame)
    except (ValueError, RecursionError):
        reply = None
    if not isinstance(reply, dict) or reply.get("status") not in ("OK", "ERROR"):
        raise TextDoorError("the reply is not Kotak's: is this the text door (port 8889)?")
    return reply
