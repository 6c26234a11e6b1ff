"""The ZAP handler: libzmq asks it about every connection that wants to come in encrypted.

Without a handler CURVE admits any key, and with one that has died, whom the options let in: hence
the handler runs before the door opens, answers whatever it is asked, and `knock` shows from
outside that strangers are refused. Source: ZeroMQ RFC 27 (ZAP).
"""

from __future__ import annotations

import enum
import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from itertools import count
from typing import Final

import zmq
from zmq.utils import z85
from zmq.utils.monitor import parse_monitor_message

from broker.transports.curve import Pair

log = logging.getLogger("kotak.zap")

#: Where libzmq looks for the handler, once in a context.
ENDPOINT: Final = "inproc://zeromq.zap.01"
#: Without a domain (and ZAP_ENFORCE_DOMAIN) libzmq does not insist on being answered.
DOMAIN: Final = b"kotak"

_VERSION: Final = b"1.0"
_KEY_BYTES: Final = 32
#: version, request id, domain, address, routing id, mechanism, then the credentials: the key.
_FRAMES: Final = 7
_NOBLOCK: Final = int(zmq.NOBLOCK)

Context = zmq.Context[zmq.Socket[bytes]]
_bell_numbers: Final = count(1)


class Outcome(enum.StrEnum):
    """How a connection was judged. The status is ZAP's."""

    ADMITTED = "admitted"
    REFUSED = "refused"
    FAULT = "fault"

    @property
    def status(self) -> bytes:
        return {"admitted": b"200", "refused": b"400", "fault": b"500"}[self.value]


class ZapHandler:
    """Answers in a thread of its own. ``admits`` is asked with each client's 32-byte public key.

    A ROUTER and not the customary REP, which a fault between question and answer would leave in a
    state from which it never answers again. `start` before any socket is bound that is to be
    guarded; `stop` after they are closed. Errors: `zmq.ZMQError` (the context has a handler).
    """

    def __init__(self, context: Context, admits: Callable[[bytes], bool]) -> None:
        self._admits = admits
        #: How connections were judged, for the metrics page.
        self.judged: Counter[str] = Counter()
        self._socket = context.socket(zmq.ROUTER)
        self._bell, self._rope = context.socket(zmq.PAIR), context.socket(zmq.PAIR)
        name = f"inproc://kotak-zap-{next(_bell_numbers)}"
        try:
            for socket in (self._socket, self._bell, self._rope):
                socket.setsockopt(zmq.LINGER, 0)
            self._socket.setsockopt(zmq.MAXMSGSIZE, 4_096)
            self._socket.bind(ENDPOINT)
            self._bell.bind(name)
            self._rope.connect(name)
        except zmq.ZMQError:
            self._close()
            raise
        self._thread = threading.Thread(target=self._run, name="kotak-zap", daemon=True)

    def start(self) -> None:
        self._thread.start()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """End; connections that come in afterwards are refused."""
        if self.alive:
            self._rope.send(b"", _NOBLOCK)
            self._thread.join()
        with suppress(zmq.ZMQError):  # stopped before
            # Now, and not when libzmq gets to it: who asks meanwhile would wait for an answer.
            self._socket.unbind(ENDPOINT)
        self._close()

    def _close(self) -> None:
        for socket in (self._socket, self._bell, self._rope):
            socket.close()

    def _run(self) -> None:
        watched = [(self._socket, zmq.POLLIN), (self._bell, zmq.POLLIN)]
        while True:
            try:
                ready = [socket for socket, _ in zmq.zmq_poll(watched, -1)]
                if self._bell in ready:
                    return
                self._answer(self._socket.recv_multipart(_NOBLOCK))
            except zmq.ContextTerminated:
                return
            except Exception as error:  # noqa: BLE001 - who judges nobody any more locks all out
                self.judged[Outcome.FAULT] += 1
                log.error("a connection could not be judged: %s", type(error).__name__)  # noqa: TRY400 - what was asked must not come into the log

    def _answer(self, message: Sequence[bytes]) -> None:
        """Answer one question, whatever it is; one without an envelope has nobody to answer to."""
        edge = list(message).index(b"") + 1
        envelope, request = message[:edge], message[edge:]
        outcome, user = self._judge(request)
        self.judged[outcome] += 1
        request_id = request[1] if len(request) > 1 else b""
        answer = [_VERSION, request_id, outcome.status, outcome.value.encode(), user, b""]
        self._socket.send_multipart([*envelope, *answer], _NOBLOCK)

    def _judge(self, request: Sequence[bytes]) -> tuple[Outcome, bytes]:
        """Judge one question; return with it the user id, which is the key itself."""
        if len(request) != _FRAMES or request[0] != _VERSION:
            return Outcome.REFUSED, b""
        _, _, domain, _, _, mechanism, key = request
        if domain != DOMAIN or mechanism != b"CURVE" or len(key) != _KEY_BYTES:
            return Outcome.REFUSED, b""
        try:
            admitted = self._admits(key)
        except Exception as error:  # noqa: BLE001 - no answer would cost the client its patience
            log.error("a key could not be looked up: %s", type(error).__name__)  # noqa: TRY400 - as above
            return Outcome.FAULT, b""
        return (Outcome.ADMITTED, z85.encode(key)) if admitted else (Outcome.REFUSED, b"")


# --- From outside ------------------------------------------------------------------------------


class Knock(enum.Enum):
    """What became of an attempt to come in."""

    ADMITTED = enum.auto()
    REFUSED = enum.auto()
    SILENCE = enum.auto()


_REFUSALS: Final = (
    int(zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL)
    | int(zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL)
    | int(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
)


def knock(
    context: Context, address: str, *, server: str, pair: Pair | None, timeout_ms: int
) -> Knock:
    """Try a connection as a client would, with ``pair``, or unencrypted without one.

    ``server`` is the public key of the door at ``address``. Waits ``timeout_ms`` for the outcome.
    """
    socket = context.socket(zmq.DEALER)
    try:
        monitor = socket.get_monitor_socket(
            int(zmq.EVENT_HANDSHAKE_SUCCEEDED) | _REFUSALS,
            f"inproc://kotak-knock-{next(_bell_numbers)}",
        )
        try:
            socket.setsockopt(zmq.RECONNECT_IVL, -1)
            socket.setsockopt(zmq.IPV6, int("[" in address))
            if pair is not None:
                socket.setsockopt(zmq.CURVE_SERVERKEY, server.encode())
                socket.setsockopt(zmq.CURVE_PUBLICKEY, pair.public.encode())
                socket.setsockopt(zmq.CURVE_SECRETKEY, pair.secret.encode())
            socket.connect(address)
            if not monitor.poll(timeout_ms):
                return Knock.SILENCE
            event = parse_monitor_message(monitor.recv_multipart())["event"]
        finally:
            with suppress(zmq.ZMQError):
                socket.disable_monitor()
            monitor.close(linger=0)
    finally:
        socket.close(linger=0)
    return Knock.ADMITTED if event == zmq.EVENT_HANDSHAKE_SUCCEEDED else Knock.REFUSED
