"""The ZeroMQ door: a ROUTER socket that is drained, answered and never blocks on a peer.

Whoever holds the baton of `broker.workers` owns it; only `wake` may be called from elsewhere.
Source: docs/PROTOCOL.md, "Transport".
"""

from __future__ import annotations

import ctypes
import secrets
import threading
from collections import Counter
from collections.abc import Mapping
from contextlib import suppress
from typing import Final

import zmq

from broker.transports.zap import DOMAIN
from broker.wire.envelope import requests_in
from broker.wire.keyfile import KEY_CHARS
from broker.wire.limits import FRAME_BYTES_MAX, FRAMES_PER_MESSAGE_MAX

#: Messages taken in one turn at most: bounds the time to the first reply and the commit's size.
MESSAGES_PER_TURN_MAX: Final = 512
#: Request frames in one turn at most (the message that crosses it is still taken whole).
REQUESTS_PER_TURN_MAX: Final = 2_048
#: Messages queued by libzmq from a peer that floods: then TCP slows it down.
INCOMING_MESSAGES_MAX: Final = 1_000
#: ... and for one that does not read, beside what TCP holds: a message is that of a turn, of a few
#: kilobytes of receipts as a rule, and of megabytes where pages are asked for.
OUTGOING_MESSAGES_MAX: Final = 100
#: Milliseconds for a peer to complete ZeroMQ's handshake; libzmq waits 30 s by default.
HANDSHAKE_MS: Final = 5_000
#: Milliseconds between heartbeats to silent peers, and until one counts as gone.
HEARTBEAT_MS: Final = 10_000
HEARTBEAT_TIMEOUT_MS: Final = 30_000
#: Milliseconds that replies may take to leave when the broker stops.
LINGER_MS: Final = 1_000
#: Connections waiting to be accepted.
BACKLOG_CONNECTIONS: Final = 1_024

_NOBLOCK: Final = int(zmq.NOBLOCK)
_NOBLOCK_MORE: Final = int(zmq.NOBLOCK | zmq.SNDMORE)

#: Where a connection at an encrypted door has no key: our own, by inproc.
_NO_KEY: Final = bytes(KEY_CHARS)

_OPTIONS: Final[Mapping[int, int]] = {
    zmq.ROUTER_MANDATORY: 1,  # tell us about a peer that is gone or does not read
    zmq.ROUTER_HANDOVER: 0,  # nobody may take over a living peer's routing id
    zmq.MAXMSGSIZE: FRAME_BYTES_MAX,
    zmq.HANDSHAKE_IVL: HANDSHAKE_MS,
    zmq.HEARTBEAT_IVL: HEARTBEAT_MS,
    zmq.HEARTBEAT_TIMEOUT: HEARTBEAT_TIMEOUT_MS,
    zmq.HEARTBEAT_TTL: HEARTBEAT_TIMEOUT_MS,
    zmq.TCP_KEEPALIVE: 1,
    zmq.SNDHWM: OUTGOING_MESSAGES_MAX,
    zmq.RCVHWM: INCOMING_MESSAGES_MAX,
    zmq.LINGER: LINGER_MS,
    zmq.BACKLOG: BACKLOG_CONNECTIONS,
}

#: One message: the peer's routing id and its frames; None in their place where there were too many.
Arrival = tuple[bytes, list[bytes] | None]


class Router:
    """The ROUTER socket and the bell that wakes the one who waits on it.

    With ``curve_secret`` (40 characters of Z85) it takes encrypted connections only, those that the
    context's ZAP handler admits; ``inproc`` ones are not touched by that. What is called a route
    then begins with the connection's key: a routing id may pass to another connection, with another
    key, and what was known of the one must not be said of the other.
    """

    def __init__(
        self, context: zmq.Context[zmq.Socket[bytes]], *, curve_secret: str | None = None
    ) -> None:
        _shuffle_numbers()
        self._socket = context.socket(zmq.ROUTER)
        for option, value in _OPTIONS.items():
            self._socket.setsockopt(option, value)
        #: Of the key that a route begins with.
        self._key_bytes = 0 if curve_secret is None else KEY_CHARS
        if curve_secret is not None:
            self._encrypt(curve_secret)
        self._bell = context.socket(zmq.PAIR)
        self._bell_rope = context.socket(zmq.PAIR)
        for end in (self._bell, self._bell_rope):
            end.setsockopt(zmq.LINGER, 0)
        name = f"inproc://kotak-bell-{id(self)}"
        self._bell.bind(name)
        self._bell_rope.connect(name)
        self._bell_rope_lock = threading.Lock()
        self._watched = [(self._socket, zmq.POLLIN), (self._bell, zmq.POLLIN)]
        #: The last frame of this turn with each route, for `address_of`.
        self._heard: dict[bytes, zmq.Frame] = {}
        #: Replies that could not be handed over, by reason, for the metrics page.
        self.dropped: Counter[str] = Counter()

    def _encrypt(self, secret: str) -> None:
        self._socket.setsockopt(zmq.CURVE_SERVER, 1)
        self._socket.setsockopt(zmq.CURVE_SECRETKEY, secret.encode())
        # Both, or libzmq admits any key where no handler answers.
        self._socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
        self._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)

    def bind(self, address: str) -> str:
        """Open a door; return its address, with the port that was picked for port 0.

        Errors: `zmq.ZMQError` (the address is taken, or is none).
        """
        # Only where it is asked for: with IPv6 on, an IPv4 door calls itself [::ffff:127.0.0.1].
        self._socket.setsockopt(zmq.IPV6, int("[" in address))
        self._socket.bind(address)
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def drain(self) -> list[Arrival]:
        """Take what has arrived, up to the limits of a turn, without waiting.

        Hot path, hence frame by frame: `recv_multipart` costs four times as much. A frame that is
        not copied knows whether another follows; asking the socket would cost 1 us a frame.
        """
        recv, has_key = self._socket.recv, self._key_bytes > 0
        arrivals: list[Arrival] = []
        self._heard = heard = {}
        room = REQUESTS_PER_TURN_MAX
        with suppress(zmq.Again):
            while room > 0 and len(arrivals) < MESSAGES_PER_TURN_MAX:
                frame = recv(_NOBLOCK, False)
                route = _with_key(frame) if has_key else frame.bytes
                heard[route] = frame  # 0.03 us; asking it for the address would cost 0.3
                frames: list[bytes] = []
                while frame.more:
                    frame = recv(_NOBLOCK, False)
                    frames.append(frame.bytes)
                    if len(frames) > FRAMES_PER_MESSAGE_MAX:
                        while frame.more:  # keeping nothing: 0.5 us a frame, and nobody else's turn
                            frame = recv(_NOBLOCK, False)
                        arrivals.append((route, None))
                        break
                else:
                    arrivals.append((route, frames))
                room -= requests_in(frames[0]) if len(frames) == 1 else len(frames)
        return arrivals

    def wait(self, timeout_ms: int) -> None:
        """Wait until something arrives, the bell rings, or time is up."""
        for socket, _ in zmq.zmq_poll(self._watched, timeout_ms):
            if socket is self._bell:
                self._silence_bell()

    def wake(self) -> None:
        """End a `wait`. From any thread."""
        with self._bell_rope_lock, suppress(zmq.Again):  # it rings already
            self._bell_rope.send(b"", _NOBLOCK)

    def send(self, replies: Mapping[bytes, list[bytes]]) -> dict[bytes, bool]:
        """Hand each peer its replies, several to a message; nothing here ever waits.

        Return the peers that some could not be handed to: True for one that is gone, False for one
        that does not read. What the replies spoke of is in the store, and the client asks again.
        """
        lost: dict[bytes, bool] = {}
        for route, frames in replies.items():
            for start in range(0, len(frames), FRAMES_PER_MESSAGE_MAX):
                part = frames[start : start + FRAMES_PER_MESSAGE_MAX]
                try:
                    self._send_message(route, part)
                except zmq.ZMQError as error:
                    if error.errno not in (zmq.EAGAIN, zmq.EHOSTUNREACH):
                        raise
                    lost[route] = gone = error.errno == zmq.EHOSTUNREACH
                    self.dropped["peer_gone" if gone else "slow_peer"] += len(part)
        return lost

    def _send_message(self, route: bytes, frames: list[bytes]) -> None:
        # pyzmq's own send, without the checks of the Python layer over it (0.2 us a frame).
        send = super(zmq.Socket, self._socket).send
        last = len(frames) - 1
        send(route[self._key_bytes :], _NOBLOCK_MORE)
        for frame in frames[:last]:
            send(frame, _NOBLOCK_MORE)
        send(frames[last], _NOBLOCK)

    def key_of(self, route: bytes) -> str | None:
        """Return the public key that a connection has proved to be its own; None for no key."""
        key = route[: self._key_bytes]
        return key.decode() if key not in (b"", _NO_KEY) else None

    def address_of(self, route: bytes) -> str | None:
        """Return the IP address that this turn's last message of a route came from.

        None where libzmq knows none: an inproc connection, and one that was gone when it was
        accepted, so that proves nothing. Two messages of one turn may have come through two
        connections, where the second has taken the routing id of the first; then it is that of the
        second: whoever gives an id away, or takes one, may answer for what the other has sent.
        """
        frame = self._heard.get(route)
        try:
            return None if frame is None else str(frame.get("Peer-Address"))
        except zmq.ZMQError:
            return None

    def close(self) -> None:
        """Close the door; replies under way have ``LINGER_MS`` to leave."""
        for socket in (self._socket, self._bell, self._bell_rope):
            socket.close()

    def _silence_bell(self) -> None:
        with suppress(zmq.Again):
            while True:
                self._bell.recv(_NOBLOCK)


def _shuffle_numbers() -> None:
    """Let libzmq number the connections of the next ROUTER from where nobody can foresee.

    It takes the first number from rand() without seeding it, and ends the process where a client
    has named itself by the number that comes next: so the second client could stop any broker.
    """
    with suppress(OSError, AttributeError, TypeError):  # no such libc: Windows
        ctypes.CDLL(None).srand(secrets.randbits(32))


def _with_key(frame: zmq.Frame) -> bytes:
    """Return the routing id behind the key, which the ZAP handler told as the user id (0.6 us)."""
    try:
        key = str(frame.get("User-Id")).encode()
    except zmq.ZMQError:
        key = _NO_KEY
    return key + frame.bytes
