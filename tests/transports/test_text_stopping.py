"""broker.transports.text_gateway: how it stops."""

from __future__ import annotations

import asyncio

import pytest

from broker.transports.text_gateway import TextGateway
from tests.transports.text_scenes import door, scenario, until

STOPPING = {"status": "ERROR", "message": "the broker is stopping: connect again in a moment"}


@scenario
async def test_stop_finishes_the_line_in_hand_then_answers_an_error_and_closes() -> None:
    async with door() as d:
        idle, busy = await d.connect(), await d.connect()
        token = await busy.login()
        await idle.login()
        d.broker.hold["chat"] = asyncio.Event()
        line = b"chat %b afif  hai \r\n" % token
        busy.send(line, line)
        await until(lambda: "chat" in d.broker.commands())
        stopping = asyncio.create_task(d.gateway.stop())
        await asyncio.sleep(0)
        d.broker.hold["chat"].set()
        assert await busy.reply() == {"status": "OK", "message": "Message Sent"}
        assert await busy.reply() == STOPPING  # the reply of the second line, which was not begun
        for peer in (idle, busy):
            assert await peer.reply() == STOPPING
            assert await peer.reader.read() == b""
        await stopping
        assert len(d.broker.boxes["afif"]) == 1
        with pytest.raises(OSError, match=r"refused|Connect"):
            await d.connect()


@scenario
async def test_stop_does_not_wait_for_ever_for_a_line_that_hangs() -> None:
    async with door() as d:
        peer = await d.connect()
        d.broker.hold["login"] = asyncio.Event()
        peer.send(b"login fadly prp \r\n")
        await until(lambda: "login" in d.broker.commands())
        await d.gateway.stop(grace_ms=50)
        assert await peer.reply() == STOPPING
        assert await peer.reader.read() == b""
        d.broker.hold["login"].set()
        await asyncio.sleep(0)
        assert not d.broker.sessions  # who was told to come again must not have been heard


@scenario
async def test_stop_aborts_a_peer_that_does_not_read() -> None:
    async with door() as d:
        d.broker.put("fadly", "x" * 8_000_000)
        deaf = await d.connect(limit=1_024)
        token = await deaf.login()
        deaf.send(b"kotakmasuk %b \r\n" % token)
        await until(lambda: "kotakmasuk" in d.broker.commands())
        await d.gateway.stop(grace_ms=50)
        assert d.gateway.connections == 0
        assert len(d.broker.boxes["fadly"]) == 1


@scenario
async def test_an_address_in_use_is_an_os_error() -> None:
    async with door() as d:
        second = TextGateway(d.broker, message_id=str)
        with pytest.raises(OSError, match="in use"):
            await second.start(*d.address)
        await second.stop()
