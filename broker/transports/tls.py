"""TLS before the text door: a protocol between asyncio's socket and the door's own connections.

Not asyncio's TLS transport: that one hides what the operating system has not taken yet (so that a
reply would count as handed over, and its messages as read, that never left), ends both directions
when the peer ends one, and holds 256 KiB for each connection. Source: docs/SECURITY.md, "TLS".
"""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, cast

from broker.transports.private_file import SecretFileError, read_public, read_secret
from broker.wire.errors import Code, WireError
from broker.wire.text import error_reply

#: From accept to the end of the handshake.
HANDSHAKE_MS: Final = 5_000
#: Handshakes under way: beyond, newcomers are cut off, and the others keep their time.
HANDSHAKES_MAX: Final = 1_000
#: Taken from a socket at once; a TLS record has 16 KiB and its envelope.
RECEIVE_BYTES_MAX: Final = 32_768
#: Beyond the longest reply: what a peer does not read of it, and of answers to its key updates.
UNREAD_BYTES_MAX: Final = 8_388_608
#: A certificate with its chain, a key: a page or two.
_PEM_BYTES_MAX: Final = 1_048_576
#: The first byte of every TLS connection.
_HANDSHAKE_RECORD: Final = 0x16
_PLAIN: Final = error_reply(WireError(Code.FORBIDDEN, "this door speaks TLS"))


class TlsDoor:
    """Certificate, key and limits; `guard` puts them before a factory of protocols.

    Errors, also of `reload`: `SecretFileError`.
    """

    def __init__(
        self,
        certificate: Path,
        key: Path,
        *,
        handshake_ms: int = HANDSHAKE_MS,
        handshakes_max: int = HANDSHAKES_MAX,
    ) -> None:
        self._files = certificate, key
        self.handshake_s = handshake_ms / 1_000
        self._handshakes_max = handshakes_max
        self._handshakes: set[_TlsConnection] = set()
        self._stopping = False
        #: Handshakes that came to nothing, for the metrics page.
        self.failed = 0
        # One for all connections: each read is copied out before the loop turns to the next.
        self.received = memoryview(bytearray(RECEIVE_BYTES_MAX))
        self.context = _context(certificate, key)

    def reload(self) -> None:
        """Read the files again, for the connections to come; where that fails nothing changes."""
        self.context = _context(*self._files)

    def guard(
        self, make: Callable[[], asyncio.BufferedProtocol]
    ) -> Callable[[], asyncio.BaseProtocol]:
        """Return a factory whose protocols shake hands before ``make`` is asked for one.

        What ``make`` returns is given a transport as TCP's, half-closed connections included.
        """
        return lambda: _TlsConnection(self, make)

    def stop(self) -> None:
        """Cut off the handshakes under way, and whoever still comes."""
        self._stopping = True
        for connection in list(self._handshakes):
            connection.abort()

    # --- for the connections -----------------------------------------------------------------

    def begin(self, connection: _TlsConnection) -> bool:
        """Count a handshake; False where there are too many."""
        if self._stopping or len(self._handshakes) >= self._handshakes_max:
            self.failed += 1
            return False
        self._handshakes.add(connection)
        return True

    def end(self, connection: _TlsConnection, *, failed: bool) -> None:
        """Count a handshake no more; the second time does nothing."""
        if connection in self._handshakes:
            self._handshakes.remove(connection)
            self.failed += failed


def _context(certificate: Path, key: Path) -> ssl.SSLContext:
    read_public(certificate, bytes_max=_PEM_BYTES_MAX)
    read_secret(key, bytes_max=_PEM_BYTES_MAX)
    # Not create_default_context: it writes the sessions' keys where SSLKEYLOGFILE says.
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION
    try:
        # A password, though wrong: without one OpenSSL asks at the terminal.
        context.load_cert_chain(certificate, key, password=lambda: "")
    except ssl.SSLError as error:
        reason = (error.reason or "no PEM").replace("_", " ").lower()
        raise SecretFileError(
            f"{certificate} and {key} are no certificate and its unencrypted key ({reason})"
        ) from None
    return context


class _TlsConnection(asyncio.BufferedProtocol, asyncio.Transport):
    """One peer: a protocol for the socket's transport, a transport for the door's protocol."""

    __slots__ = (
        "_app",
        "_door",
        "_end_told",
        "_ended",
        "_heard",
        "_incoming",
        "_make",
        "_outgoing",
        "_paused",
        "_raw",
        "_timer",
        "_tls",
    )

    def __init__(self, door: TlsDoor, make: Callable[[], asyncio.BufferedProtocol]) -> None:
        super().__init__()
        self._door = door
        self._make = make
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._tls = door.context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._app: asyncio.BufferedProtocol | None = None  # the handshake is under way
        self._timer: asyncio.TimerHandle | None = None
        self._paused = False
        self._ended = False  # the socket will give no more
        self._end_told = False
        self._heard = False  # anything at all

    # --- what the socket's transport calls ---------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._raw = cast("asyncio.Transport", transport)
        if not self._door.begin(self):
            self._raw.abort()
            return
        later = asyncio.get_running_loop().call_later
        self._timer = later(self._door.handshake_s, self._raw.abort)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's signature
        return self._door.received

    def buffer_updated(self, nbytes: int) -> None:
        received = self._door.received
        if not self._heard and received[0] != _HANDSHAKE_RECORD:
            # A client of 2020 waits for ever where no whole reply comes.
            self._raw.write(_PLAIN)
            self._raw.close()
            return
        self._heard = True
        self._incoming.write(received[:nbytes])
        self._advance()

    def eof_received(self) -> bool:
        # Not told to OpenSSL, to which an end without a goodbye is a fault that ends both sides.
        self._ended = True
        self._advance()
        return True  # closing is the door's business: replies may be owed

    def resume_writing(self) -> None:
        if self._app is not None:
            self._app.resume_writing()

    def connection_lost(self, exc: Exception | None) -> None:
        self._shaken(failed=True)
        if self._app is not None:
            self._app.connection_lost(exc)

    # --- TLS -----------------------------------------------------------------------------------

    def _advance(self) -> None:
        """Take in what has come as far as it goes; send what that calls for."""
        if self._raw.is_closing():
            return
        try:
            if self._app is None:
                self._tls.do_handshake()
                self._shaken(failed=False)
                self._app = self._make()
                self._app.connection_made(self)
            self._read(self._app)
        except ssl.SSLWantReadError:
            if self._ended:
                self._end()
        except ssl.SSLError:  # what is sent now is the alert that says so
            self._send()
            self._raw.close() if self._app is None else self._raw.abort()
        self._send()
        if self._raw.get_write_buffer_size() > UNREAD_BYTES_MAX:
            self._raw.abort()

    def _read(self, app: asyncio.BufferedProtocol) -> None:
        while not (self._paused or self._end_told or self._raw.is_closing()):
            buffer = cast("memoryview", app.get_buffer(-1))
            count = cast("int", self._tls.read(len(buffer), cast("bytearray", buffer)))
            if not count:
                self._end()
                return
            app.buffer_updated(count)

    def _end(self) -> None:
        """Note that the peer will send no more."""
        if self._app is None:
            self._raw.abort()
        elif not self._end_told:
            self._end_told = True
            self._app.eof_received()

    def _send(self) -> None:
        if (encrypted := self._outgoing.read()) and not self._raw.is_closing():
            self._raw.write(encrypted)

    def _shaken(self, *, failed: bool) -> None:
        self._door.end(self, failed=failed)
        if self._timer:
            self._timer.cancel()
            self._timer = None

    # --- what the door's protocol calls --------------------------------------------------------

    def write(self, data: Any) -> None:
        rest = memoryview(data)
        try:
            while rest:
                rest = rest[self._tls.write(rest) :]
        except ssl.SSLError:
            self._raw.abort()
        self._send()

    def get_write_buffer_size(self) -> int:
        return self._raw.get_write_buffer_size()

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        self._raw.set_write_buffer_limits(high, low)

    def pause_reading(self) -> None:
        self._paused = True
        self._raw.pause_reading()

    def resume_reading(self) -> None:
        if self._paused:
            self._paused = False
            self._raw.resume_reading()
            # What was decrypted or received meanwhile waits here, and the socket may say no more.
            asyncio.get_running_loop().call_soon(self._advance)

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._tls if name == "ssl_object" else self._raw.get_extra_info(name, default)

    def is_closing(self) -> bool:
        return self._raw.is_closing()

    def close(self) -> None:
        if not self._raw.is_closing():
            with suppress(ssl.SSLError):  # the peer's own goodbye is not waited for
                self._tls.unwrap()
            self._send()
            self._raw.close()

    def abort(self) -> None:
        self._raw.abort()
