"""The network between clients and broker: connections, each an ordered pair of streams.

As over TCP with ZeroMQ: within a connection nothing is reordered, doubled or left out, but it may
break at any point with whatever is on the way, fall silent without either side being told, and, as
`late frames`, bring to the broker what a client had already given up together with the connection.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from random import Random
from typing import Protocol

from broker.wire.envelope import join
from tests.simulator.plan import SECOND
from tests.simulator.scheduler import Scheduler

#: When both ends notice a connection that has fallen silent (ZeroMQ's heartbeats).
_SILENT_US = 30 * SECOND


class Peer(Protocol):
    """A client's end."""

    name: str
    user: str
    device: str
    #: When each message was pushed to it, by sequence.
    pushed_at: dict[int, int]

    def connected(self, link: Link) -> None: ...
    def broken(self, link: Link, reason: str) -> None: ...
    def arrived(self, link: Link, frames: Sequence[bytes]) -> None: ...


class Link:
    """One connection. ``route`` is the broker's name for it."""

    def __init__(self, peer: Peer, route: bytes, number: int) -> None:
        self.peer = peer
        self.route = route
        #: The session's name for it.
        self.number = number
        #: Does the client's end stand, and the broker's?
        self.open_here = True
        self.open_there = False
        #: Neither end is told that nothing passes.
        self.silent = False
        #: Until then the client reads nothing, and the broker has no room for it.
        self.stalled_until = 0
        # When the last message on the way arrives, in each direction.
        self.there_at = 0
        self.here_at = 0


class Network:
    """All connections. ``deliver`` is the broker's door."""

    def __init__(
        self, time: Scheduler, luck: Random, *, latency_us: int, late_frames: bool
    ) -> None:
        self.broker_up = False
        self.deliver: Callable[[Link, Sequence[bytes]], None] = lambda _, __: None
        self.links: dict[bytes, Link] = {}
        #: Whose each connection is or was.
        self.peers: dict[bytes, Peer] = {}
        self._time = time
        self._luck = luck
        self._latency_us = latency_us
        self._late_frames = late_frames
        self._cut_off: dict[str, int] = {}
        #: Both ways of sending several requests at once are right.
        self._joins = luck.random() < 0.8

    def open(self, peer: Peer, number: int) -> Link:
        """Begin to connect; the peer is told how it ended, if anything comes of it."""
        link = Link(peer, self._luck.randbytes(5), number)
        self.links[link.route] = link
        self.peers[link.route] = peer
        self._time.after(self._delay() * 3, lambda: self._establish(link))
        return link

    def _establish(self, link: Link) -> None:
        if not link.open_here or self._is_cut_off(link.peer):
            return
        if not self.broker_up:
            self._tell(link, "the connection was refused")
            return
        link.open_there = True
        link.peer.connected(link)

    def hang_up(self, link: Link) -> None:
        """Close the client's end. What it has sent may still arrive, where that is simulated."""
        link.open_here = False
        if not self._late_frames:
            self._forget(link)
        else:
            self._time.after(self._luck.uniform(0, 5 * SECOND), lambda: self._forget(link))

    def cut(self, link: Link) -> None:
        """Break a connection with whatever is on the way; each end notices in its own time."""
        self._forget(link)
        self._time.after(self._delay(), lambda: self._tell(link, "the connection broke"))

    def fall_silent(self, link: Link) -> None:
        """Let nothing pass any more, and tell nobody for a while."""
        link.silent = True
        self._time.after(_SILENT_US * self._luck.uniform(0.8, 2), lambda: self.cut(link))

    def cut_off(self, peer: Peer, until: int) -> None:
        """Let nothing pass between a client and the broker for a time."""
        self._cut_off[peer.name] = until
        for link in list(self.links.values()):
            if link.peer is peer:
                self.fall_silent(link)

    def heal(self) -> None:
        """End all faults but those of connections that are silent already."""
        self._cut_off.clear()
        for link in self.links.values():
            link.stalled_until = 0

    def broker_gone(self) -> None:
        """The broker's process is gone, and all connections with it."""
        self.broker_up = False
        for link in list(self.links.values()):
            if link.open_there:
                self.cut(link)

    def to_broker(self, link: Link, frames: Sequence[bytes]) -> bool:
        """Take a message from a client; False where there is no room for it."""
        if link.stalled_until > self._time.now:
            return False
        if len(frames) > 1 and self._joins:  # as `clients.link` does
            frames = [join(frames)]
        link.there_at = max(link.there_at + 1, self._time.now + self._delay())
        self._time.at(link.there_at, lambda: self._arrive_there(link, frames))
        return True

    def _arrive_there(self, link: Link, frames: Sequence[bytes]) -> None:
        if link.open_there and not link.silent:
            self.deliver(link, frames)

    def to_clients(self, replies: Mapping[bytes, list[bytes]]) -> dict[bytes, bool]:
        """As `broker.transports.router.Router.send`."""
        lost: dict[bytes, bool] = {}
        # In an order of our own: where several are due at once, the broker's depends on addresses.
        for route in sorted(replies):
            link = self.links.get(route)
            if link is None or not link.open_there or not link.open_here:
                lost[route] = True
            elif link.stalled_until > self._time.now:
                lost[route] = False
            else:
                self._send_here(link, replies[route])
        return lost

    def _send_here(self, link: Link, frames: list[bytes]) -> None:
        link.here_at = max(link.here_at + 1, self._time.now + self._delay())
        self._time.at(link.here_at, lambda: self._arrive_here(link, frames))

    def _arrive_here(self, link: Link, frames: list[bytes]) -> None:
        if link.open_here and link.open_there and not link.silent:
            link.peer.arrived(link, frames)

    def _forget(self, link: Link) -> None:
        link.open_there = False
        self.links.pop(link.route, None)

    def _tell(self, link: Link, reason: str) -> None:
        self._forget(link)
        if link.open_here:
            link.open_here = False
            link.peer.broken(link, reason)

    def _is_cut_off(self, peer: Peer) -> bool:
        return self._cut_off.get(peer.name, 0) > self._time.now

    def _delay(self) -> int:
        return int(self._latency_us * (0.5 + self._luck.random() ** 3 * 3))
