"""A crowd that does next to nothing, in processes of their own, as cheaply as can be.

Each function here is the life of one process. It keeps its connections up, by coming again where
it is cut off, until it is told to end, and then sends an `Account` of what it did.
"""

from __future__ import annotations

import errno
import os
import selectors
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection
from typing import Final, NamedTuple

import zmq

#: A slot is 10 ms: few wake-ups, and few connections at once.
_SLOTS_A_SECOND: Final = 100
_SLOT_S: Final = 1 / _SLOTS_A_SECOND
#: Loopback addresses that the connections come from: the ports of one would not be enough.
_SOURCES: Final = [f"127.0.0.{number}" for number in range(2, 10)]
_IP_BIND_ADDRESS_NO_PORT: Final = 24  # ip(7); Python has no name for it
#: Connections that one process opens in a slot: 2 000 a second, twice what is cut off.
_OPENED_A_SLOT_MAX: Final = 20
#: A crowd lives on machines of its own: here it takes what processor time nobody else wants.
_NICENESS: Final = 10
#: What a connection in the making, or one that has just been cut, says of a byte too many.
_NOT_NOW: Final = (errno.EAGAIN, errno.ENOTCONN, errno.EINPROGRESS)


class Account(NamedTuple):
    """What one process of the crowd did."""

    kind: str
    peers: int
    cut_off: int
    cpu_s: float


class Sockets:
    """Bare connections to one door, opened again where they are cut off.

    With ``drip`` each sends one byte a second, of a line that does not end.
    """

    def __init__(self, address: tuple[str, int], count: int, *, drip: bool) -> None:
        self._address = address
        self._drip = drip
        self._selector = selectors.DefaultSelector()
        self._slots: list[set[socket.socket]] = [set() for _ in range(_SLOTS_A_SECOND)]
        self._wanted = count
        self._opened = 0
        self.cut_off = 0

    def close(self) -> None:
        for peers in self._slots:
            for peer in peers:
                peer.close()
        self._selector.close()

    def step(self, slot: int) -> None:
        """Do what is to be done in one slot of time."""
        peers = self._slots[slot % _SLOTS_A_SECOND]
        for _ in range(min(self._wanted, _OPENED_A_SLOT_MAX)):
            self._open(peers)
        if self._drip:
            self._feed(peers)
        for key, _ in self._selector.select(0):
            self._hear(key.fileobj, key.data)  # type: ignore[arg-type]  # a socket of ours

    def _open(self, peers: set[socket.socket]) -> None:
        peer = socket.socket()
        peer.setblocking(False)
        peer.setsockopt(socket.IPPROTO_IP, _IP_BIND_ADDRESS_NO_PORT, 1)
        self._opened += 1
        peer.bind((_SOURCES[self._opened % len(_SOURCES)], 0))
        peer.connect_ex(self._address)
        self._selector.register(peer, selectors.EVENT_READ, peers)
        peers.add(peer)
        self._wanted -= 1

    def _feed(self, peers: set[socket.socket]) -> None:
        for peer in list(peers):
            try:
                peer.send(b"x")
            except OSError as error:
                if error.errno not in _NOT_NOW:
                    self._lose(peer, peers)

    def _hear(self, peer: socket.socket, peers: set[socket.socket]) -> None:
        """Take what the door says; after the end come again."""
        try:
            if peer.recv(4_096):
                return
        except BlockingIOError:
            return
        except OSError:
            pass
        self._lose(peer, peers)

    def _lose(self, peer: socket.socket, peers: set[socket.socket]) -> None:
        self._selector.unregister(peer)
        peer.close()
        peers.discard(peer)
        self.cut_off += 1
        self._wanted += 1


def slow_lines(orders: Connection, address: tuple[str, int], count: int) -> None:
    """Clients of the text door that send a byte a second each."""
    _live_on_sockets(orders, "slow text", Sockets(address, count, drip=True), count)


def silent_sockets(orders: Connection, address: tuple[str, int], count: int) -> None:
    """Connections to the ZeroMQ door that never greet."""
    _live_on_sockets(orders, "raw silent", Sockets(address, count, drip=False), count)


def _live_on_sockets(orders: Connection, kind: str, sockets: Sockets, count: int) -> None:
    os.nice(_NICENESS)
    slot, due = 0, time.monotonic()
    with orders:
        while not orders.poll(max(0.0, due - time.monotonic())):
            sockets.step(slot)
            slot += 1
            due = max(due + _SLOT_S, time.monotonic())  # what is late is not made up for at once
        sockets.close()
        orders.send(Account(kind, count, sockets.cut_off, time.process_time()))


def idle_peers(orders: Connection, address: str, count: int) -> None:
    """ZeroMQ clients that greet, answer heartbeats, and ask for nothing."""
    os.nice(_NICENESS)
    with orders, _context(count) as context:
        peers = []
        for _ in range(count):
            peer = context.socket(zmq.DEALER)
            peer.connect(address)
            peers.append(peer)
        orders.poll(None)
        orders.send(Account("idle zmq", count, 0, time.process_time()))
        for peer in peers:
            peer.close(linger=0)


@contextmanager
def _context(count: int) -> Iterator[zmq.Context[zmq.Socket[bytes]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    context.set(zmq.MAX_SOCKETS, count + 10)
    try:
        yield context
    finally:
        context.destroy(linger=0)
