"""Between session and socket: what both clients do in a turn, each waiting in its own way.

The `Pump` opens and closes connections as the session wants them, moves frames in both directions
and tells the session what becomes of the connection. It never waits.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import zmq

from clients.curve_keys import Curve
from clients.errors import ConnectionFailed
from clients.link import Link
from clients.session import Session

Context = zmq.Context[zmq.Socket[bytes]]


def monotonic_ms() -> float:
    """Return the session's clock."""
    return time.monotonic() * 1000


class Pump:
    """One session and at most one `Link`. ``opened`` and ``closing`` are told of each link."""

    def __init__(
        self,
        address: str,
        *,
        retry_ms: float,
        context: Context | None,
        replies_max: int,
        curve: Curve | None = None,
        opened: Callable[[Link], None],
        closing: Callable[[Link], None],
    ) -> None:
        # Jitter needs no secrecy.
        self.session = Session(address, retry_ms=retry_ms, random=random.random)
        self.link: Link | None = None
        self._own_context = context is None
        self._context = zmq.Context() if context is None else context
        self._replies_max = replies_max
        self._curve = curve
        self._opened = opened
        self._closing = closing

    def turn(self) -> bool:
        """Do what is due and send what there is; False when there was no room for all of it."""
        session, now_ms = self.session, monotonic_ms()
        if now_ms >= session.due_ms:
            # The caller may have been away for long: answers that are here already count first.
            self.receive()
            session.tick(now_ms)
        self._follow()
        return self.link is None or self._send(self.link)

    def receive(self) -> None:
        """Take in the replies that are here."""
        if self.link is not None:
            self.session.received(self.link.frames(self._replies_max), monotonic_ms())

    def note_events(self) -> None:
        """Take in what happened to the connection."""
        link = self.link
        if link is None:
            return
        for end in link.events():
            if end is not None:
                self.receive()  # what the broker answered before it went
                self.session.lost(monotonic_ms(), end.reason, final=end.final)
                if end.final:
                    self.session.fail_unsent(end.reason)
                return
            self.session.connected(monotonic_ms())

    def close(self) -> None:
        """Close everything; what is unanswered fails with `ClientClosed`. Idempotent."""
        self.session.close()
        self._follow()
        if self._own_context:
            self._context.term()

    def _send(self, link: Link) -> bool:
        session = self.session
        try:
            while frames := session.take():
                if not link.send(frames):
                    session.give_back()
                    return False
        except BaseException:
            # Half a message may be out: this connection cannot be used any further.
            session.lost(monotonic_ms(), "sending was interrupted")
            raise
        return True

    def _follow(self) -> None:
        """Bring the connection in line with ``session.wanted``."""
        link, wanted = self.link, self.session.wanted
        if link is not None and link.number != wanted:
            self._closing(link)
            link.close()
            self.link = link = None
        if wanted and link is None:
            self._open(wanted)

    def _open(self, number: int) -> None:
        address = self.session.address
        try:
            link = Link(self._context, address, number, self._curve)
        except zmq.ZMQError as error:
            # Nothing that time would heal: no address, or no more sockets.
            why = f"cannot connect to {address!r}: {error.strerror}"
            self.session.lost(monotonic_ms(), why)
            self.session.fail_all(lambda: ConnectionFailed(why))
            return
        self.link = link
        self._opened(link)
        if link.monitor is None:
            self.session.connected(monotonic_ms())
