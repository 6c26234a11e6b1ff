"""The text door: TCP lines of the 2020 clients in, requests to the broker out, one reply a line.

A connection is a small object and a socket: no thread, no buffer of its own, and a task only while
a line is being answered. Source: docs/PROTOCOL.md, "The text door".
"""

from __future__ import annotations

import asyncio
import logging
import select
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple, Protocol, cast

from broker.transports.deadlines import Deadlines
from broker.wire import text
from broker.wire.errors import Code, WireError
from broker.wire.limits import LINE_INBOX_MESSAGES_MAX

#: Taken from a socket at once, and so the most that waits behind a line that is being answered.
RECEIVE_BYTES_MAX: Final = 16_384
#: Connections taken in before the loop turns to those that are there.
ACCEPTED_AT_ONCE_MAX: Final = 8
#: Connections that wait to be taken in: the clients of a whole course come in the same second.
BACKLOG_CONNECTIONS: Final = 1_024
#: Pages of `user_on` in one reply (a page has 1000 names): bounds what one line may cost.
USER_PAGES_MAX: Final = 100
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


class Broker(Protocol):
    """What the door needs of a client of the broker."""

    async def request(
        self, command: str, args: Mapping[str, Any], *, token: str | None
    ) -> dict[str, Any]:
        """Return the result. Errors: `WireError`, ``unavailable`` where no answer came."""
        ...


class Answer(NamedTuple):
    """One reply, and the sequence to acknowledge once the peer's system has it (None: nothing)."""

    frame: bytes
    taken: int | None = None


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
        self._broker = broker
        self._message_id = message_id
        self._token_for = token_for
        self._connections_max = connections_max
        self._connections: set[_Connection] = set()
        self._stopping = False
        self._server: asyncio.Server | None = None
        self._handlers: Final[Mapping[str, Callable[[text.Line], Awaitable[Answer]]]] = {
            "chat": self._chat,
            "kotakmasuk": self._kotakmasuk,
            "user_on": self._user_on,
            "logout": self._logout,
        }

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

        Lines read meanwhile are answered ERROR. Takes three times ``grace_ms`` at the very most.
        """
        if self._server is None:
            return
        self._server.close()
        self._stopping = True
        if busy := [line for line in (peer.line for peer in self._connections) if line]:
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
        if busy:
            await asyncio.wait(busy, timeout=grace_ms / 1_000)
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

    async def answer(self, line: text.Line | WireError, address: Callable[[], str]) -> Answer:
        """Answer one line, or the fault that was found in it; raises nothing but cancellation.

        ``address`` tells where it came from.
        """
        self.lines += 1
        if isinstance(line, WireError):
            await asyncio.sleep(0)  # a flood of rubbish lets the other connections in between
            return Answer(text.error_reply(line))
        if self._stopping:
            return Answer(text.error_reply(_STOPPING))
        try:
            if line.command == "login":
                return await self._login(line, address())
            return await self._handlers[line.command](line)
        except WireError as error:
            return Answer(text.error_reply(error))
        except Exception as error:  # noqa: BLE001 - the client waits for a reply, whatever happened
            self._report(error, line)
            return Answer(text.error_reply(_INTERNAL))

    async def acknowledge(self, line: text.Line, seq: int | None) -> None:
        """Take what has been read (None: it was not). Where that fails, it comes again."""
        if seq is None:
            self.untaken += 1
            return
        try:
            await self._broker.request("ack", {"seq": seq}, token=line.token)
        except WireError:
            self.untaken += 1
        except Exception as error:  # noqa: BLE001 - the reply is out: nobody is left to tell
            self.untaken += 1
            self._report(error, line)

    # --- the commands ------------------------------------------------------------------------

    async def _login(self, line: text.Line, address: str) -> Answer:
        token = self._token_for(address)
        result = await self._broker.request("login", line.args, token=token)
        return Answer(text.login_reply(result["token"]))

    async def _chat(self, line: text.Line) -> Answer:
        args = {**line.args, "id": self._message_id()}
        await self._broker.request("chat", args, token=line.token)
        return Answer(text.chat_reply())

    async def _kotakmasuk(self, line: text.Line) -> Answer:
        limit = {"limit": LINE_INBOX_MESSAGES_MAX}
        result = await self._broker.request("kotakmasuk", limit, token=line.token)
        reader, messages = result["name"], result["messages"]
        frame = text.inbox_reply((m["name"], m.get("room", reader), m["text"]) for m in messages)
        return Answer(frame, taken=messages[-1]["seq"] if messages else None)

    async def _user_on(self, line: text.Line) -> Answer:
        # A dict, since a user who logs in again between two pages would be listed twice.
        users: dict[str, None] = {}
        args: dict[str, str] = {}
        for _ in range(USER_PAGES_MAX):
            result = await self._broker.request("user_on", args, token=line.token)
            users.update((each["user"], None) for each in result["users"])
            if not result["more"]:
                break
            args = {"after": result["users"][-1]["user"]}
        return Answer(text.users_reply(users))

    async def _logout(self, line: text.Line) -> Answer:
        await self._broker.request("logout", {}, token=line.token)
        return Answer(text.logout_reply())

    def _report(self, error: Exception, line: text.Line) -> None:
        self.faults += 1
        fields = {"door": "text", "command": line.command}
        _log.error("line failed", extra={"fields": fields}, exc_info=error)


class _Connection(asyncio.BufferedProtocol):
    """One peer: its unfinished line, the line that is being answered, the reply not yet sent."""

    __slots__ = (
        "_door",
        "_drained",
        "_ended",
        "_lines",
        "_owed",
        "_timer",
        "_transport",
        "closed",
        "line",
    )

    def __init__(self, door: TextGateway) -> None:
        self._door = door
        self._lines = text.LineSplitter()
        self._timer: asyncio.TimerHandle | None = None
        self._drained: asyncio.Future[bool] | None = None
        self._ended = False  # the peer will send no more
        self._owed = False  # a line has been taken and its reply not written yet
        self.line: asyncio.Task[None] | None = None
        self.closed = asyncio.get_running_loop().create_future()

    # --- what the event loop calls -----------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        # 0: a write is finished when the operating system has all of it (see `_send`).
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
            self._transport.pause_reading()

    def eof_received(self) -> bool:
        self._ended = True
        if self.line is None:
            self._next()
        return True  # closing is `_rest`'s business: replies may be owed

    def resume_writing(self) -> None:
        # Asked here and not later: a client may well close as soon as it has its reply.
        if self._drained and not self._drained.done():
            self._drained.set_result(self._peer_stands())

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the loop's signature
        self._disarm()
        self._door.forget(self)
        if self._drained and not self._drained.done():
            self._drained.set_result(False)
        if not self.closed.done():
            self.closed.set_result(None)

    # --- one line at a time ------------------------------------------------------------------

    def _next(self) -> None:
        if (line := self._take()) is None:
            self._rest()
        else:
            self._disarm()
            self.line = asyncio.get_running_loop().create_task(self._serve(line))

    def _take(self) -> text.Line | WireError | None:
        """Return the next line that wants a reply, or what is wrong with it."""
        while (line := self._lines.pop()) is not None:
            try:
                parsed = text.parse_line(line)
            except WireError as error:
                return error
            if parsed is not None:
                return parsed
        return None

    async def _serve(self, line: text.Line | WireError | None) -> None:
        """Answer the lines that are there, one after the other, then listen again."""
        while line is not None and not self._transport.is_closing():
            self._owed = True
            answer = await self._door.answer(line, self._address)
            if self._transport.is_closing():
                break
            self._owed = False
            handed_over = await self._send(answer.frame)
            if answer.taken is not None and isinstance(line, text.Line):
                # Before the next line, which may read again, and must not find these messages.
                await self._door.acknowledge(line, answer.taken if handed_over else None)
            line = self._take()
        self.line = None
        if not self._transport.is_closing():
            self._rest()

    async def _send(self, frame: bytes) -> bool:
        """Write a reply; True when the operating system has all of it and the peer stands."""
        # Asked before the write: a client may well close as soon as it has its reply.
        stands = self._peer_stands()
        self._transport.write(frame)
        while left := self._transport.get_write_buffer_size():
            self._drained = asyncio.get_running_loop().create_future()
            await asyncio.wait((self._drained,), timeout=self._door.write_timeout_s)
            if self._drained.done():
                stands = self._drained.result()
            elif self._transport.get_write_buffer_size() >= left:
                self._door.unread += 1
                self.abort()
                return False
        return stands and not self._transport.is_closing()

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
        self._transport.resume_reading()
        if not self._lines.partial:
            self._disarm()
        else:  # armed by the line's first byte, and not again by the others
            self._door.unfinished.arm(self)

    # --- the end -----------------------------------------------------------------------------

    def hang_up(self, error: WireError) -> None:
        """Answer an ERROR, then close: a client that gets no whole reply spins for ever."""
        if self._transport.is_closing():
            return
        self._disarm()
        # Behind a reply that the peer has not read, an ERROR would spoil the reply.
        if self._owed or not self._transport.get_write_buffer_size():
            self._transport.write(text.error_reply(error))
        if self.line:
            self.line.cancel()
        self._transport.close()
        later = asyncio.get_running_loop().call_later
        self._timer = later(self._door.write_timeout_s, self.abort)

    def abort(self) -> None:
        self._transport.abort()

    def _disarm(self) -> None:
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
