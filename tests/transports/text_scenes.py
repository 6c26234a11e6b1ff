"""A text door over real TCP, before an in-memory broker, and raw peers: what its tests share."""

from __future__ import annotations

import asyncio
import functools
import json
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

from broker.transports.text_gateway import TextGateway
from tests.transports.fake_broker import FakeBroker

DEADLINE_S = 30


def scenario(test: Callable[..., Awaitable[None]]) -> Callable[..., None]:
    """Run an async test in a loop of its own; pytest still sees its fixtures."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        async def bounded() -> None:
            async with asyncio.timeout(DEADLINE_S):
                await test(*args, **kwargs)

        asyncio.run(bounded())

    return run


class Peer:
    """A raw client: sends bytes, reads whole replies."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer = reader, writer

    def send(self, *pieces: bytes) -> None:
        self.writer.write(b"".join(pieces))

    async def reply(self) -> dict[str, Any]:
        frame = await self.reader.readuntil(b"\r\n\r\n")
        assert frame.isascii()
        reply: dict[str, Any] = json.loads(frame)
        return reply

    async def ask(self, line: bytes) -> dict[str, Any]:
        self.send(line)
        return await self.reply()

    async def login(self, user: bytes = b"fadly", password: bytes = b"prp") -> bytes:
        reply = await self.ask(b"login %b %b \r\n" % (user, password))
        token: str = reply["tokenid"]
        return token.encode()

    def reset(self) -> None:
        """Vanish with a TCP reset."""
        connection = self.writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()

    async def close(self) -> None:
        self.writer.close()
        with suppress(OSError):
            await self.writer.wait_closed()


class Door:
    """A running gateway, its broker, and the peers to close at the end."""

    def __init__(self, gateway: TextGateway, broker: FakeBroker, address: tuple[str, int]) -> None:
        self.gateway, self.broker, self.address = gateway, broker, address
        self.peers: list[Peer] = []

    async def connect(self, *, limit: int = 2**20) -> Peer:
        """``limit``: a peer that does not ask for its replies takes twice these bytes and stops."""
        peer = Peer(*await asyncio.open_connection(*self.address, limit=limit))
        self.peers.append(peer)
        return peer


@asynccontextmanager
async def door(**options: Any) -> AsyncIterator[Door]:
    broker = FakeBroker()
    ids = count()
    gateway = TextGateway(broker, message_id=lambda: f"id-{next(ids)}", **options)
    opened = Door(gateway, broker, await gateway.start("127.0.0.1", 0))
    try:
        yield opened
    finally:
        for peer in opened.peers:
            await peer.close()
        await gateway.stop()
        assert gateway.connections == 0


async def until(reached: Callable[[], bool]) -> None:
    """Poll: the scenario's own deadline ends it."""
    while not reached():  # noqa: ASYNC110 - what is waited for happens in code that knows no event
        await asyncio.sleep(0.002)
