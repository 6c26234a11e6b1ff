"""A TCP proxy whose weather can be changed at any moment, and whose connections can be broken."""

from __future__ import annotations

import asyncio
import random
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from types import TracebackType
from typing import Final, Self

_CHUNK_BYTES: Final = 16_384
#: Chunks under way in one direction; the peer is not read meanwhile, so that it meets backpressure.
_CHUNKS_MAX: Final = 64
_LOOK_S: Final = 0.005
#: A socket that is closed with this sends a reset.
_RESET: Final = struct.pack("ii", 1, 0)


@dataclass(frozen=True)
class Weather:
    """What happens to bytes on their way; 0: nothing. ``up`` is from the client to the broker."""

    latency_ms: int = 0
    jitter_ms: int = 0
    bytes_per_s: int = 0
    slice_bytes: int = 0
    hole_up: bool = False
    hole_down: bool = False
    #: New connections are reset.
    refuses: bool = False


CALM: Final = Weather()


class Proxy:
    """Listens on a port of its own in front of a door; a context manager. From any thread."""

    def __init__(self, host: str, port: int, *, seed: int = 0) -> None:
        self._target = (host, port)
        self._rng = random.Random(seed)
        self.weather = CALM
        #: Connections ever made.
        self.connections = 0
        self._links: set[_Link] = set()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="proxy")

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = self._ask(self._listen)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def address(self) -> tuple[str, int]:
        host, port = self._server.sockets[0].getsockname()[:2]
        return host, port

    def reset(self) -> None:
        """Break all connections, both ends at once."""
        self._loop.call_soon_threadsafe(self._for_all, _Link.reset)

    def half_close(self, *, up: bool) -> None:
        """End one direction of all connections, as a peer does that has said all."""
        self._loop.call_soon_threadsafe(self._for_all, partial(_Link.half_close, up=up))

    def _for_all(self, act: Callable[[_Link], None]) -> None:
        for link in list(self._links):
            act(link)

    def _ask(self, work: Callable[[], asyncio.Future[asyncio.Server]]) -> asyncio.Server:
        async def run() -> asyncio.Server:
            return await work()

        return asyncio.run_coroutine_threadsafe(run(), self._loop).result()

    def _listen(self) -> asyncio.Future[asyncio.Server]:
        return asyncio.ensure_future(asyncio.start_server(self._accept, "127.0.0.1", 0))

    async def _accept(self, near: asyncio.StreamReader, back: asyncio.StreamWriter) -> None:
        self.connections += 1
        if self.weather.refuses:
            _abort(back)
            return
        try:
            far, forth = await asyncio.open_connection(*self._target)
        except OSError:
            _abort(back)
            return
        link = _Link(self, (near, forth), (far, back))
        self._links.add(link)
        try:
            await link.run()
        finally:
            self._links.discard(link)

    async def _close(self) -> None:
        self._server.close()
        self._for_all(_Link.reset)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    def delay_s(self) -> float:
        """Return how long a chunk that comes now takes."""
        weather = self.weather
        return (weather.latency_ms + self._rng.random() * weather.jitter_ms) / 1_000

    def slices(self, chunk: bytes) -> list[bytes]:
        """Cut a chunk as the weather has it, a little shorter than that now and then."""
        most = self.weather.slice_bytes
        if not most:
            return [chunk]
        pieces, start = [], 0
        while start < len(chunk):
            size = self._rng.randint(1, most)
            pieces.append(chunk[start : start + size])
            start += size
        return pieces


Stream = tuple[asyncio.StreamReader, asyncio.StreamWriter]


class _Link:
    """One connection of a client, and ours to the door."""

    def __init__(self, proxy: Proxy, up: Stream, down: Stream) -> None:
        self._proxy = proxy
        self._ways = (_Way(proxy, *up, up=True), _Way(proxy, *down, up=False))

    async def run(self) -> None:
        """Carry bytes both ways until both have ended, or one broke."""
        try:
            async with asyncio.TaskGroup() as group:
                for way in self._ways:
                    group.create_task(way.read())
                    group.create_task(way.write())
        except* (OSError, asyncio.CancelledError):
            pass
        finally:
            self.reset()

    def reset(self) -> None:
        for way in self._ways:
            _abort(way.writer)

    def half_close(self, *, up: bool) -> None:
        way = self._ways[0 if up else 1]
        with suppress(OSError):
            way.writer.write_eof()


class _Way:
    """One direction: what is read now is written when it is due, in the same order."""

    def __init__(
        self, proxy: Proxy, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, up: bool
    ) -> None:
        self.writer = writer
        self._proxy, self._reader, self._up = proxy, reader, up
        self._chunks: asyncio.Queue[tuple[float, bytes]] = asyncio.Queue(_CHUNKS_MAX)
        writer.get_extra_info("socket").setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    async def read(self) -> None:
        loop = asyncio.get_running_loop()
        while chunk := await self._reader.read(_CHUNK_BYTES):
            await self._chunks.put((loop.time() + self._proxy.delay_s(), chunk))
        await self._chunks.put((loop.time(), b""))

    async def write(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            due, chunk = await self._chunks.get()
            await asyncio.sleep(max(0.0, due - loop.time()))
            if not chunk:
                await self._wait_for_no_hole()
                if self.writer.can_write_eof() and not self.writer.transport.is_closing():
                    self.writer.write_eof()
                return
            for piece in self._proxy.slices(chunk):
                await self._wait_for_no_hole()
                await self._put(piece)

    async def _put(self, piece: bytes) -> None:
        if self.writer.transport.is_closing():
            raise ConnectionResetError
        self.writer.write(piece)
        await self.writer.drain()
        weather = self._proxy.weather
        if weather.bytes_per_s:
            await asyncio.sleep(len(piece) / weather.bytes_per_s)
        elif weather.slice_bytes:
            await asyncio.sleep(0)  # each piece on a way of its own

    async def _wait_for_no_hole(self) -> None:
        while self._proxy.weather.hole_up if self._up else self._proxy.weather.hole_down:
            if self.writer.transport.is_closing():
                raise ConnectionResetError
            await asyncio.sleep(_LOOK_S)


def _abort(writer: asyncio.StreamWriter) -> None:
    """Close at once, by a reset; what has not left is gone."""
    with suppress(OSError):
        writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    writer.transport.abort()
