"""One TCP connection to a broker, as a DEALER socket that never reconnects by itself.

libzmq's own reconnect would send what it still holds after what the broken connection lost, and
so out of order (docs/PROTOCOL.md, "One connection, one order"). A `Link` therefore lives as long
as its connection; the session asks for a new one and repeats what was not answered.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import count
from typing import Final, NamedTuple

import zmq
from zmq.utils.monitor import parse_monitor_message

from broker.wire.envelope import join
from broker.wire.limits import FRAME_BYTES_MAX, REPLY_BYTES_MAX
from clients.curve_keys import Curve

# Plain integers: `zmq.SNDMORE | zmq.NOBLOCK` makes an enum member at each use, 1.3 us a frame.
_NOBLOCK: Final = int(zmq.NOBLOCK)
#: What `join` adds to the frames it joins, and a little more.
_JOINED_BYTES: Final = 16
_MORE: Final = int(zmq.SNDMORE | zmq.NOBLOCK)
_IN: Final = int(zmq.POLLIN)
_OUT: Final = int(zmq.POLLOUT)
_RCVMORE: Final = int(zmq.RCVMORE)

#: Messages waiting in libzmq for the network, and replies for us: more than may be in flight.
_SNDHWM_MESSAGES: Final = 1_000
_RCVHWM_MESSAGES: Final = 20_000
#: So long a reply is waited for alone, a third less work than a poller, which asks each socket
#: several times; whoever waits for longer looks at the connection, too.
REPLY_WAIT_MS: Final = 20
#: libzmq gives up on a TCP connect.
_CONNECT_TIMEOUT_MS: Final = 5_000
#: ZMTP heartbeats find a dead peer while nobody asks anything.
_HEARTBEAT_MS: Final = 10_000
_HEARTBEAT_TIMEOUT_MS: Final = 30_000

#: Why a connection ended, in words that help.
_ENDS: Final[dict[int, str]] = {
    zmq.EVENT_DISCONNECTED: "the broker closed the connection",
    zmq.EVENT_CLOSED: "the connection was refused or timed out",
    # A broker that encrypts may have closed before its greeting was read, which would tell.
    zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL: (
        "the peer broke off the handshake: it asks for encryption (--curve with its public key), "
        "or does not speak ZeroMQ"
    ),
    zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL: "the peer does not speak this ZeroMQ",
    zmq.EVENT_HANDSHAKE_FAILED_AUTH: "the broker could not judge the connection's key",
}
_EVENTS: Final = int(zmq.EVENT_HANDSHAKE_SUCCEEDED) | sum(_ENDS)
#: What a broker answers that does not know the client's key (ZeroMQ RFC 27).
_KEY_REFUSED: Final = 400


class End(NamedTuple):
    """Why a connection ended. ``final``: so will the next one, until somebody changes the keys."""

    reason: str
    final: bool = False


_NOT_ADMITTED: Final = End(
    "the broker does not admit this client's key: have its public key enrolled there", final=True
)
_NOT_ENCRYPTED: Final = End(
    "keys were given, but the broker does not encrypt: connect without them (--curve off), or set "
    "its curve_key",
    final=True,
)
_ENCRYPTED: Final = End("the broker asks for encryption: give its public key (--curve)", final=True)
#: A broker that cannot decrypt the first message closes the connection without a word.
_BROKEN_OFF: Final = End("the broker broke off the handshake: is the key given the broker's own?")

# The monitor's inproc name must not repeat: libzmq frees one only some time after the close.
_monitor_numbers: Final = count(1)


class Link:
    """One connection. ``number`` is the session's name for it; `close` is all that ends it."""

    def __init__(
        self,
        context: zmq.Context[zmq.Socket[bytes]],
        address: str,
        number: int,
        curve: Curve | None = None,
    ) -> None:
        self.number = number
        self.socket = _dealer(context)
        self._encrypted = curve is not None
        self.monitor: zmq.Socket[bytes] | None = None
        try:
            # inproc has no monitor events: it is connected at once and never breaks.
            if not address.startswith("inproc:"):
                name = f"inproc://kotak.client.{next(_monitor_numbers)}"
                self.monitor = self.socket.get_monitor_socket(_EVENTS, name)
                self.monitor.linger = 0
            if curve is not None:
                curve.apply(self.socket)
            # Only where it is asked for: with IPv6 on, a name is looked for there first.
            self.socket.setsockopt(zmq.IPV6, int("[" in address))
            self.socket.connect(address)
        except BaseException:
            self.close()
            raise
        # Without pyzmq's Python layer, which costs 0.45 us a frame.
        self._send = super(zmq.Socket, self.socket).send

    def send(self, frames: Sequence[bytes]) -> bool:
        """Send one message; False, and nothing is sent, when there is no room.

        Several requests go in one frame where they fit, which is cheaper on both sides. Else libzmq
        counts whole messages, so that only the first frame can meet a full queue.
        """
        send = self._send
        if len(frames) > 1 and sum(map(len, frames)) < FRAME_BYTES_MAX - _JOINED_BYTES:
            frames = [join(frames)]
        last = len(frames) - 1
        try:
            for frame in frames[:last]:
                send(frame, _MORE)
            send(frames[last], _NOBLOCK)
        except zmq.Again:
            return False
        return True

    # Whole messages are received: libzmq aborts the process where a connection is lost while half
    # of a message is read (`Assertion failed: !_more`).

    def reply(self) -> list[bytes]:
        """Wait for replies, `REPLY_WAIT_MS` at most: one message's frames, none where none came."""
        recv, more, frames = self.socket.recv, self.socket.get, []
        try:
            frames.append(recv())
            while more(_RCVMORE):
                frames.append(recv())
        except zmq.Again:  # in front of the first one only
            pass
        return frames

    def frames(self, limit: int) -> Iterator[bytes]:
        """Yield the reply frames that are there, ``limit`` and the rest of a message at most."""
        recv, more = self.socket.recv, self.socket.get
        try:
            for _ in range(limit):
                yield recv(_NOBLOCK)
            while more(_RCVMORE):
                yield recv(_NOBLOCK)
        except zmq.Again:
            return

    def events(self) -> Iterator[End | None]:
        """Yield what happened since the last call: None for established, a reason for ended."""
        monitor = self.monitor
        while monitor is not None:
            try:
                told = parse_monitor_message(monitor.recv_multipart(_NOBLOCK))
            except zmq.Again:
                return
            event, value = int(told["event"]), int(told["value"])
            yield None if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else self._end(event, value)

    def _end(self, event: int, value: int) -> End:
        if event == zmq.EVENT_HANDSHAKE_FAILED_AUTH and value == _KEY_REFUSED:
            return _NOT_ADMITTED
        if value == zmq.PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH:
            return _NOT_ENCRYPTED if self._encrypted else _ENCRYPTED
        if event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL and self._encrypted:
            return _BROKEN_OFF
        return End(_ENDS[event])

    def ready(self) -> tuple[bool, bool]:
        """Return (readable, writable). The descriptor is edge-triggered: ask after each use."""
        events = int(self.socket.getsockopt(zmq.EVENTS))
        return bool(events & _IN), bool(events & _OUT)

    def close(self) -> None:
        """End the connection and drop what was not sent. Idempotent."""
        if not self.socket.closed:
            if self.monitor is not None:
                self.socket.disable_monitor()
                self.monitor.close(linger=0)
            self.socket.close(linger=0)


def _dealer(context: zmq.Context[zmq.Socket[bytes]]) -> zmq.Socket[bytes]:
    socket = context.socket(zmq.DEALER)
    for option, value in (
        (zmq.RECONNECT_IVL, -1),
        (zmq.LINGER, 0),
        (zmq.MAXMSGSIZE, REPLY_BYTES_MAX),
        (zmq.SNDHWM, _SNDHWM_MESSAGES),
        (zmq.RCVHWM, _RCVHWM_MESSAGES),
        (zmq.RCVTIMEO, REPLY_WAIT_MS),
        (zmq.CONNECT_TIMEOUT, _CONNECT_TIMEOUT_MS),
        (zmq.HEARTBEAT_IVL, _HEARTBEAT_MS),
        (zmq.HEARTBEAT_TIMEOUT, _HEARTBEAT_TIMEOUT_MS),
        (zmq.HEARTBEAT_TTL, _HEARTBEAT_TIMEOUT_MS),
        (zmq.TCP_KEEPALIVE, 1),
    ):
        socket.setsockopt(option, value)
    return socket
