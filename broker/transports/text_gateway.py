"""The text door: TCP lines of the 2020 clients in, requests to the broker out, one reply a line.

A connection is a small object and a socket: no thread, no task, no buffer of its own. What a line
asks of the broker stands in `broker.transports.text_commands`. Lines that arrive in one turn of the
loop leave together, and a reply is written as soon as the broker's answer is taken in.
Source: docs/PROTOCOL.md, "The text door".
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, Protocol, cast

from broker.transports.deadlines import Deadlines
from broker.transports.text_commands import Answer, Commands
from broker.wire import text
from broker.wire.errors import Code, WireError

#: Taken from a socket at once, and so the most that waits behind a line that is being answered.
RECEIVE_BYTES_MAX: Final = 16_384
#: Connections taken in before the loop turns to those that are there.
ACCEPTED_AT_ONCE_MAX: Final = 8
#: Connections that wait to be taken in: the clients of a whole course come in the same second.
BACKLOG_CONNECTIONS: Final = 1_024
#: A reply in full before the ERROR of a stop follows: clients that read a reply's last bytes
#: together with the next frame cannot parse either.
SETTLE_MS: Final = 100
#: A peer that is gone without a word is noticed within 60 + 4 * 15 seconds.
_KEEPALIVE: Final = {"TCP_KEEPIDLE": 60, "TCP_KEEPINTVL": 15, "TCP_KEEPCNT": 4}
#: The peer has ended its side (Linux); elsewhere poll() tells of it by POLLHUP alone, and later.
_PEER_ENDED: Final[int] = getattr(select, "POLLRDHUP", 0)

_STOPPING: Final = WireError(Code.UNAVAILABLE, "the broker is stopping: connect again in a moment")
_FULL: Final = WireError(Code.UNAVAILABLE, "too many connections: try again in a moment")
_UNFINISHED: Final = WireError(Code.BAD_REQUEST, "the line did not end in time")
_INTERNAL: Final = WireError(Code.INTERNAL, "a fault of the broker; its log says more")

_log = logging.getLogger("kotak.text")

#: Puts a protocol between each socket and its connection; see `broker.transports.tls.TlsDoor`.
Guard = Callable[[Callable[[], asyncio.BufferedProtocol]], Callable[[], asyncio.BaseProtocol]]


class Asked(Protocol):
    """A request that was answered."""

    def value(self) -> dict[str, Any]:
        """Return the result. Errors: `WireError`, ``unavailable`` where no answer came."""
        ...


#: Hears of an answer.
Heard = Callable[[Asked], None]


class Broker(Protocol):
    """What the door needs of a client of the broker."""

    def begin(
        self, command: str, args: Mapping[str, Any], *, token: str | None, done: Heard
    ) -> Callable[[], object]:
        """Send a request; call ``done`` once it is answered, later. Return what forgets it.

        Errors: `WireError`, where it cannot be sent.
        """
        ...


class TextGateway:
    """The listener, its connections, and what each line asks of the broker.

    ``message_id`` makes a fresh id for each ``chat``. ``token_for`` makes what a ``login`` is sent
    with, from its peer's IP address: so the broker may tell the door's peers apart, and one who
    guesses passwords does not slow down the others. A line must end within ``line_timeout_ms``; a
    peer that takes nothing of its reply for ``write_timeout_ms`` is cut off. The counters
    ``connections``, ``lines``, ``refused`` (connections over the limit), ``unread`` (peers cut
    off), ``untaken`` (inbox replies sent that were not acknowledged) and ``faults`` are for the
    metrics page.
    """

    def __init__(
        self,
        broker: Broker,
        *,
        message_id: Callable[[], str],
        connections_max: int = 10_000,
        line_timeout_ms: int = 10_000,
        write_timeout_ms: int = 10_000,
        token_for: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        self.lines = 0
        self.refused = 0
        self.unread = 0
        self.untaken = 0
        self.faults = 0
        #: Whose line has begun, and must end in time.
        self.unfinished = Deadlines[_Connection](line_timeout_ms / 1_000, _give_up_waiting)
        self.write_timeout_s = write_timeout_ms / 1_000
        # One for all connections: each read is copied out before the loop turns to the next.
        self.received = memoryview(bytearray(RECEIVE_BYTES_MAX))
        #: `Broker.begin`.
        self.begin = broker.begin
        self.steps = Commands(message_id, token_for).steps
        self._connections_max = connections_max
        self._connections: set[_Connection] = set()
        self._stopping = False
        self._server: asyncio.Server | None = None

    @property
    def connections(self) -> int:
        return len(self._connections)

    async def start(self, host: str, port: int, *, guard: Guard | None = None) -> tuple[str, int]:
        """Listen, and return the address bound (port 0 picks one). ``guard`` encrypts.

        Errors: `OSError`.
        """
        loop = asyncio.get_running_loop()

        def connection() -> _Connection:
            return _Connection(self)

        make = guard(connection) if guard else connection
        # A few at a time: where no file can be opened any more, asyncio tries as often as that.
        self._server = await loop.create_server(make, host, port, backlog=ACCEPTED_AT_ONCE_MAX)
        for listening in self._server.sockets:
            with listening.dup() as same:
                same.listen(BACKLOG_CONNECTIONS)
        bound = self._server.sockets[0].getsockname()
        return bound[0], bound[1]

    async def stop(self, *, grace_ms: int = 3_000) -> None:
        """Stop accepting, let each connection finish its line, answer an ERROR, close.

        Lines read meanwhile are answered ERROR. Takes twice ``grace_ms`` and a little at most.
        """
        if self._server is None:
            return
        self._server.close()
        self._stopping = True
        if busy := [peer.at_rest() for peer in self._connections if peer.line]:
            await asyncio.wait(busy, timeout=grace_ms / 1_000)
        if self._connections:
            await asyncio.sleep(SETTLE_MS / 1_000)
        for peer in list(self._connections):
            peer.hang_up(_STOPPING)
        if closing := [peer.closed for peer in self._connections]:
            await asyncio.wait(closing, timeout=grace_ms / 1_000)
        for peer in list(self._connections):
            peer.abort()
            await peer.closed
        await self._server.wait_closed()
        self._server = None

    # --- for the connections -----------------------------------------------------------------

    def admit(self, peer: _Connection) -> WireError | None:
        """Take a new connection in, or say why not."""
        if self._stopping:
            return _STOPPING
        if len(self._connections) >= self._connections_max:
            self.refused += 1
            return _FULL
        self._connections.add(peer)
        return None

    def forget(self, peer: _Connection) -> None:
        self._connections.discard(peer)

    def begun(self, line: text.Line | bytes) -> bytes | None:
        """Count a line; return its reply where the broker is not to be asked."""
        self.lines += 1
        if isinstance(line, bytes):
            return line
        return text.error_reply(_STOPPING) if self._stopping else None

    def refusal(self, error: Exception, line: text.Line) -> Answer:
        """Return the answer to a line that failed; a fault of ours is counted and logged."""
        if isinstance(error, WireError):
            return Answer(text.error_reply(error))
        self._report(error, line)
        return Answer(text.error_reply(_INTERNAL))

    def not_taken(self, error: Exception | None, line: text.Line) -> None:
        """Note that an inbox reply was not acknowledged (None: nor was it tried)."""
        self.untaken += 1
        if error is not None and not isinstance(error, WireError):
            self._report(error, line)

    def _report(self, error: Exception, line: text.Line) -> None:
        self.faults += 1
        fields = {"door": "text", "command": line.command}
        _log.error("line failed", extra={"fields": fields}, exc_info=error)


class _Connection(asyncio.BufferedProtocol):
    """One peer: its unfinished line, the line that is being answered, the reply not yet sent.

    A line goes through `_begin`, through `_advance` with each answer of the broker, then `_reply`,
    `_sent` and `_go_on`.
    """

    __slots__ = (
        "_door",
        "_draining",
        "_ended",
        "_forget",
        "_lines",
        "_owed",
        "_paused",
        "_resting",
        "_steps",
        "_taken",
        "_timer",
        "_transport",
        "_unfinished",
        "closed",
        "line",
    )

    def __init__(self, door: TextGateway) -> None:
        self._door = door
        self._lines = text.LineSplitter()
        self._timer: asyncio.TimerHandle | None = None
        self._draining = False  # the operating system has not taken all of a reply
        self._ended = False  # the peer will send no more
        self._owed = False  # a line has been taken and its reply not written yet
        self._paused = False  # more has come meanwhile than the line that is being answered
        self._unfinished = False  # a line has begun, and must end in time
        self._taken: int | None = None  # to be acknowledged once the reply is out
        self._forget: Callable[[], object] | None = None  # what the broker was asked last
        self._resting: asyncio.Future[None] | None = None
        #: What is being answered, or the reply that refuses it.
        self.line: text.Line | bytes | None = None
        self.closed = asyncio.get_running_loop().create_future()

    # --- what the event loop calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # 0: a write is finished when the operating system has all of it (see `_reply`).
        self._transport.set_write_buffer_limits(high=0)
        _keep_alive(transport.get_extra_info("socket"))
        if refusal := self._door.admit(self):
            self.hang_up(refusal)

    def get_buffer(self, sizehint: int) -> memoryview:  # noqa: ARG002 - the loop's signature
        return self._door.received

    def buffer_updated(self, nbytes: int) -> None:
        self._lines.feed(self._door.received[:nbytes])
        if self.line is None:
            self._next()
        else:
            self._paused = True
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self.line is None:
            self._next()
        return True  # closing is `_rest`'s business: replies may be owed

    def resume_writing(self) -> None:
        if self._draining:
            # Asked here and not later: a client may well close as soon as it has its reply. What
            # follows waits for the transport to have finished its own turn.
            self._drained(stands=self._peer_stands())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's signature
        self._disarm()
        self._door.forget(self)
        if self._draining:
            self._drained(stands=False)
        if not self.closed.done():
            self.closed.set_result(None)

    # --- one line at a time ------------------------------------------------------------------

    def _next(self) -> None:
        if (line := self._take()) is None:
            self._rest()
        else:
            if self._unfinished:
                self._disarm()
            self._owed = True
            self.line = line
            self._begin()

    def _take(self) -> text.Line | bytes | None:
        """Return the next line that wants a reply, or the reply that refuses it.

        Not the error: that holds the steps it came through, and those would hold it.
        """
        while (line := self._lines.pop()) is not None:
            try:
                parsed = text.parse_line(line)
            except WireError as error:
                return text.error_reply(error)
            if parsed is not None:
                return parsed
        return None

    def _begin(self) -> None:
        assert self.line is not None
        if self._transport.is_closing():
            self._go_on()
        elif refusal := self._door.begun(self.line):
            self._reply(Answer(refusal))
        else:
            self._advance(None)

    def _advance(self, asked: Asked | None) -> None:
        """Take the line a step further: to the next request, or to its reply.

        Called by the client of the broker, hence nothing may be raised.
        """
        self._forget = None  # it leads back here: no cycles for the collector
        if self._transport.is_closing():
            self._go_on()
            return
        line, door = self.line, self._door
        assert isinstance(line, text.Line)
        try:
            if asked is None:
                self._steps = door.steps(line, self._address)
                command, args, token = next(self._steps)
            else:
                command, args, token = self._steps.send(asked.value())
            self._forget = door.begin(command, args, token=token, done=self._advance)
        except StopIteration as last:
            answer = last.value
        except Exception as error:  # noqa: BLE001 - the client waits for a reply, whatever happened
            answer = door.refusal(error, line)
        else:
            return
        self._reply(answer)

    def _reply(self, answer: Answer) -> None:
        """Write a reply, and go on when the operating system has all of it."""
        self._owed = False
        self._taken = answer.taken
        # Asked before the write: a client may well close as soon as it has its reply.
        stands = answer.taken is not None and self._peer_stands()
        self._transport.write(answer.frame)
        if self._transport.get_write_buffer_size():
            self._draining = True
            self._watch_drain()
        else:
            self._sent(stands=stands)

    def _watch_drain(self) -> None:
        left = self._transport.get_write_buffer_size()
        later = asyncio.get_running_loop().call_later
        self._timer = later(self._door.write_timeout_s, self._look_at_drain, left)

    def _look_at_drain(self, before: int) -> None:
        """Cut off a peer that took nothing of its reply since there were ``before`` bytes."""
        if self._transport.get_write_buffer_size() >= before:
            self._door.unread += 1
            self.abort()
        else:
            self._watch_drain()

    def _drained(self, *, stands: bool) -> None:
        self._draining = False
        self._disarm()
        asyncio.get_running_loop().call_soon(lambda: self._sent(stands=stands))

    def _sent(self, *, stands: bool) -> None:
        """Acknowledge what the peer has taken; ``stands``: it was there when its system had all."""
        if self._taken is None:
            self._go_on()
            return
        error = None
        if stands and not self._transport.is_closing():
            try:
                # Before the next line, which may read again, and must not find these messages.
                args, token = {"seq": self._taken}, cast("text.Line", self.line).token
                done = self._acknowledged
                self._forget = self._door.begin("ack", args, token=token, done=done)
            except Exception as refused:  # noqa: BLE001 - as in `_acknowledged`
                error = refused
            else:
                return
        self._not_taken(error)

    def _acknowledged(self, asked: Asked) -> None:
        self._forget = None
        try:
            asked.value()
        except Exception as error:  # noqa: BLE001 - the reply is out: nobody is left to tell
            self._not_taken(error)
        else:
            self._go_on()

    def _not_taken(self, error: Exception | None) -> None:
        """Count messages that come again, since they were not acknowledged."""
        self._door.not_taken(error, cast("text.Line", self.line))
        self._go_on()

    def _go_on(self) -> None:
        """Turn to the next line, or listen again; the other connections come in between."""
        closing = self._transport.is_closing()
        self.line = line = None if closing else self._take()
        if line is not None:
            self._owed = True
            asyncio.get_running_loop().call_soon(self._begin)
            return
        if self._resting is not None and not self._resting.done():
            self._resting.set_result(None)
        if not closing:
            self._rest()

    def at_rest(self) -> asyncio.Future[None]:
        """Return what is done once no line is being answered."""
        self._resting = asyncio.get_running_loop().create_future()
        return self._resting

    def _address(self) -> str:
        """Return the peer's IP address; empty where it was gone before it was accepted."""
        peer = self._transport.get_extra_info("peername")
        return str(peer[0]) if peer else ""

    def _peer_stands(self) -> bool:
        """Ask the operating system, since an end that waits behind unread lines is not seen."""
        if self._ended or self._transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self._transport.get_extra_info("socket"), _PEER_ENDED)
        return not poll.poll(0)

    def _rest(self) -> None:
        """No whole line is left: listen, with a deadline where one has begun; close at the end."""
        if self._ended:
            if self._lines.partial:
                self.hang_up(_UNFINISHED)
            else:
                self._transport.close()
            return
        if self._paused:
            self._paused = False
            self._transport.resume_reading()
        if self._lines.partial:  # armed by the line's first byte, and not again by the others
            self._unfinished = True
            self._door.unfinished.arm(self)
        elif self._unfinished:
            self._disarm()

    # --- the end -----------------------------------------------------------------------------

    def hang_up(self, error: WireError) -> None:
        """Answer an ERROR, then close: a client that gets no whole reply spins for ever."""
        if self._transport.is_closing():
            return
        self._disarm()
        # Behind a reply that the peer has not read, an ERROR would spoil the reply.
        if self._owed or not self._transport.get_write_buffer_size():
            self._transport.write(text.error_reply(error))
        if self._forget is not None:
            self._forget()
        self._draining = False
        self._transport.close()
        later = asyncio.get_running_loop().call_later
        self._timer = later(self._door.write_timeout_s, self.abort)

    def abort(self) -> None:
        self._transport.abort()

    def _disarm(self) -> None:
        if self._unfinished:
            self._unfinished = False
            self._door.unfinished.disarm(self)
        if self._timer:
            self._timer.cancel()
            self._timer = None


def _give_up_waiting(peer: _Connection) -> None:
    peer.hang_up(_UNFINISHED)


def _keep_alive(connection: socket.socket) -> None:
    """Notice peers that are gone without a word (asyncio itself sets TCP_NODELAY)."""
    with suppress(OSError):  # the peer may have reset it already
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        for name, value in _KEEPALIVE.items():
            if hasattr(socket, name):  # not on every system
                connection.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)
