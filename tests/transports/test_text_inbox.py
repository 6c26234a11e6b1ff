"""broker.transports.text_gateway: what `kotakmasuk` shows is taken once the peer has it."""

from __future__ import annotations

import asyncio

import pytest

from broker.wire.errors import Code, WireError
from tests.transports.text_scenes import door, scenario, until


@scenario
async def test_messages_are_acknowledged_after_the_reply_and_before_the_next_line() -> None:
    async with door() as d:
        peer = await d.connect()
        token = await peer.login()
        d.broker.put("fadly", "satu")
        d.broker.put("fadly", "dua", sender="afif")
        d.broker.hold["ack"] = asyncio.Event()
        line = b"kotakmasuk %b \r\n" % token
        assert await peer.ask(line + line) == {
            "status": "OK",
            "messages": [
                {"msg_from": "Shafwa", "msg_to": "Fadly", "msg": "satu"},
                {"msg_from": "Afif", "msg_to": "Fadly", "msg": "dua"},
            ],
        }
        await until(lambda: "ack" in d.broker.commands())  # the reply was here first
        assert d.broker.commands()[1:] == ["kotakmasuk", "ack"]
        d.broker.hold["ack"].set()
        assert await peer.reply() == {"status": "OK", "messages": []}
        assert d.broker.calls[1:] == [
            ("kotakmasuk", {"limit": 1_000}),
            ("ack", {"seq": 2}),
            ("kotakmasuk", {"limit": 1_000}),
        ]


@pytest.mark.parametrize("way", ["close", "reset"])
def test_messages_stay_when_the_peer_went_before_its_reply(way: str) -> None:
    @scenario
    async def went() -> None:
        async with door() as d:
            peer = await d.connect()
            token = await peer.login()
            d.broker.put("fadly", "satu")
            d.broker.hold["kotakmasuk"] = asyncio.Event()
            # The lines behind it make the gateway stop reading: it must not need to read an end.
            peer.send(b"kotakmasuk %b \r\n" % token)
            await until(lambda: "kotakmasuk" in d.broker.commands())
            peer.send(b"user_on %b \r\n" % token)
            if way == "close":
                await peer.close()
            else:
                peer.reset()
            d.broker.hold["kotakmasuk"].set()
            await until(lambda: d.gateway.connections == 0)
            assert "ack" not in d.broker.commands()
            assert [each["text"] for each in d.broker.boxes["fadly"]] == ["satu"]

    went()


@scenario
async def test_a_reply_larger_than_the_system_buffers_is_acknowledged_once_it_is_out() -> None:
    async with door() as d:
        d.broker.put("fadly", "x" * 8_000_000)
        peer = await d.connect(limit=1_024)
        token = await peer.login()
        peer.send(b"kotakmasuk %b \r\n" % token)
        await until(lambda: "kotakmasuk" in d.broker.commands())
        other = await d.connect()
        await other.login()
        assert "ack" not in d.broker.commands()  # most of the reply is still here
        size = 0
        while not d.broker.commands().count("ack"):
            size += len(await peer.reader.read(65_536))
        assert size > 1_000_000
        assert d.broker.boxes["fadly"] == []


@scenario
async def test_an_acknowledgement_that_cannot_be_sent_leaves_the_messages() -> None:
    async with door() as d:
        peer = await d.connect()
        token = await peer.login()
        d.broker.put("fadly", "satu")
        d.broker.refuse["ack"] = WireError(Code.BUSY, "too much is unanswered")
        first = await peer.ask(b"kotakmasuk %b \r\n" % token)
        assert await peer.ask(b"kotakmasuk %b \r\n" % token) == first
        assert d.gateway.untaken == 2


@pytest.mark.parametrize("fault", [WireError(Code.UNAVAILABLE, "no answer"), KeyError("boom")])
def test_when_the_acknowledgement_fails_the_messages_come_again(fault: Exception) -> None:
    @scenario
    async def again() -> None:
        async with door() as d:
            peer = await d.connect()
            token = await peer.login()
            d.broker.put("fadly", "satu")
            d.broker.fail["ack"] = fault
            first = await peer.ask(b"kotakmasuk %b \r\n" % token)
            await until(lambda: d.gateway.untaken == 1)
            assert await peer.ask(b"kotakmasuk %b \r\n" % token) == first

    again()
