"""Between session and socket: what both clients do in a turn, each waiting in its own way.

The `Pump` opens and closes connections as the session wants them, moves frames in both directions
and tells the session what becomes of the connection. Only `Pump.await_reply` waits, a moment.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import zmq

from clients.curve_keys import Curve
from clients.errors import ConnectionFailed
from clients.fleet import Addresses
from clients.link import Link
from clients.session import Session

Context = zmq.Context[zmq.Socket[bytes]]


def monotonic_ms() -> float:
    """Return the session's clock."""
    return time.monotonic() * 1000


class Pump:
    """One session and its `Link`. ``opened`` and ``closing`` are told of each link.

    For a moment there is a second link, to a broker that is tried out: nobody waits for it, it is
    looked at when the session is due.
    """

    def __init__(
        self,
        addresses: Addresses,
        *,
        key: str | None = None,
        retry_ms: float,
        context: Context | None,
        replies_max: int,
        curve: Curve | None = None,
        opened: Callable[[Link], None],
        closing: Callable[[Link], None],
    ) -> None:
        # Jitter needs no secrecy.
        self.session = Session(addresses, retry_ms=retry_ms, random=random.random, key=key)
        self.link: Link | None = None
        self._scout: Link | None = None
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
            if self._scout is not None:
                self._look_at(self._scout)
            session.tick(now_ms)
        self._follow()
        return self.link is None or self._send(self.link)

    def receive(self) -> None:
        """Take in the replies that are here."""
        if self.link is not None:
            self.session.received(self.link.frames(self._replies_max), monotonic_ms())

    def await_reply(self) -> bool:
        """Wait a moment for a reply and take in what has come; False where nothing did."""
        link, session = self.link, self.session
        frames = None if link is None else link.reply()
        if not frames:
            return False
        session.received(frames, monotonic_ms())
        # Asking a socket that has no more costs 5 us: not where everything is answered.
        if session.pending:
            self.receive()
        return True

    def note_events(self) -> None:
        """Take in what happened to the connection."""
        link = self.link
        if link is None:
            return
        for end in link.events():
            if end is not None:
                self.receive()  # what the broker answered before it went
                self.session.lost(monotonic_ms(), end.reason, final=end.final)
                if end.final and self.session.fleet.hopeless:
                    self.session.fail_unsent(self.session.fleet.account())
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
        """Bring the connections in line with ``session.wanted`` and ``way.scouting``."""
        link, way = self.link, self.session.way
        wanted = way.wanted
        if link is not None and link.number != wanted:
            self._closing(link)
            link.close()
            self.link = link = None
        if wanted and link is None:
            self._open(wanted)
        scout, scouting = self._scout, way.scouting
        if scout is not None and scout.number != scouting:
            scout.close()
            self._scout = scout = None
        if scouting and scout is None:
            self._try_out(scouting)

    def _open(self, number: int) -> None:
        scout = self._scout
        if scout is not None and scout.number == number:
            self._scout = None
            self.link = scout
            self._opened(scout)
            self.session.connected(monotonic_ms())  # or it would not have answered
            return
        address = self.session.address
        try:
            link = Link(self._context, address, number, self._curve)
        except zmq.ZMQError as error:
            self._refused(f"cannot connect to {address!r}: {error.strerror}")
            return
        self.link = link
        self._opened(link)
        if link.monitor is None:
            self.session.connected(monotonic_ms())

    def _refused(self, why: str) -> None:
        """Give up where libzmq refuses: nothing that time would heal, as no address, no sockets."""
        session = self.session
        session.lost(monotonic_ms(), why, final=session.fleet.many)
        if not session.fleet.many or session.fleet.hopeless:
            account = session.fleet.account()
            session.fail_all(lambda: ConnectionFailed(account))

    # --- trying out another broker -----------------------------------------------------------

    def _try_out(self, number: int) -> None:
        session = self.session
        try:
            self._scout = Link(self._context, session.way.scout_address, number, self._curve)
            self._scout.send([session.ping_frame()])
        except zmq.ZMQError:
            session.tried_out((), monotonic_ms())

    def _look_at(self, scout: Link) -> None:
        if frames := list(scout.frames(1)):
            self.session.tried_out(frames, monotonic_ms())
        elif any(end is not None for end in scout.events()):
            self.session.tried_out((), monotonic_ms())
