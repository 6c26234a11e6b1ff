"""broker.transports.text_gateway: lines, their order, and the limits of a connection."""

from __future__ import annotations

import asyncio
import gc

from broker.transports.text_gateway import _Connection
from broker.wire.limits import LINE_BYTES_MAX
from tests.transports.text_scenes import Peer, door, scenario, until

BAD_LINE = {"status": "ERROR", "message": "--Protocol Tidak Benar"}


# --- framing and order -----------------------------------------------------------------------


@scenario
async def test_a_line_in_single_bytes_gets_one_reply() -> None:
    async with door() as d:
        peer = await d.connect()
        for byte in b"login fadly prp \r\n":
            peer.send(bytes([byte]))
            await peer.writer.drain()
            await asyncio.sleep(0)
        assert (await peer.reply())["status"] == "OK"
        assert d.gateway.lines == 1


@scenario
async def test_pipelined_lines_are_answered_one_each_and_in_order() -> None:
    async with door() as d:
        peer = await d.connect()
        token = await peer.login()
        for n in range(2_000):  # some reads' worth: reading stops and goes on in between
            peer.send(b"chat %b fadly  text number %d \r\n" % (token, n), b"foo\n" * (n % 7 == 0))
        peer.send(b"kotakmasuk %b\n" % token)
        replies = [(await peer.reply())["status"] for _ in range(2_000 + 286)]
        assert replies.count("ERROR") == 286
        taken = [each["msg"] for each in (await peer.reply())["messages"]]
        assert taken == [f"text number {n}" for n in range(1_000)]
        assert await peer.ask(b"user_on %b\n" % token) == {"status": "OK", "message": "fadly, "}


@scenario
async def test_one_line_is_carried_out_at_a_time_and_reading_stops_meanwhile() -> None:
    async with door() as d:
        peer = await d.connect()
        token = await peer.login()
        d.broker.hold["user_on"] = asyncio.Event()
        flood = asyncio.create_task(flooding(peer, b"user_on %b \r\n" % token, lines=200_000))
        await until(lambda: "user_on" in d.broker.commands())
        other = await d.connect()
        await other.login()  # the loop is free, and the flood has had its chance
        assert d.broker.commands().count("user_on") == 1
        assert max(len(each._lines._bytes) for each in d.gateway._connections) < 2**15
        assert not flood.done()
        flood.cancel()
        peer.reset()
        d.broker.hold["user_on"].set()


async def flooding(peer: Peer, line: bytes, lines: int) -> None:
    for _ in range(lines // 1_000):
        peer.send(line * 1_000)
        await peer.writer.drain()


@scenario
async def test_empty_lines_are_never_answered() -> None:
    async with door() as d:
        peer = await d.connect()
        peer.send(b"\r\n\n\r\nlogin fadly prp \r\n\r\n\r\nfoo\r\n\r\n")
        assert (await peer.reply())["status"] == "OK"
        assert (await peer.reply())["message"] == "**Protocol Tidak Benar"
        peer.writer.write_eof()
        assert await peer.reader.read() == b""


@scenario
async def test_bad_lines_get_an_error_and_the_connection_goes_on() -> None:
    async with door() as d:
        peer = await d.connect()
        for line in (
            b"login \xff\xfe x\r\n",
            b"chat a b \0\r\n",
            b"x" * LINE_BYTES_MAX * 3 + b"\n",
        ):
            assert await peer.ask(line) == BAD_LINE
        assert await peer.login()


@scenario
async def test_a_client_that_ends_its_side_still_gets_all_replies() -> None:
    async with door() as d:
        peer = await d.connect()
        peer.send(b"login fadly prp \r\nfoo\r\nlogin unfinished")
        peer.writer.write_eof()
        assert [(await peer.reply())["status"] for _ in range(3)] == ["OK", "ERROR", "ERROR"]
        assert await peer.reader.read() == b""


# --- limits ----------------------------------------------------------------------------------


@scenario
async def test_a_line_that_does_not_end_in_time_gets_an_error_and_the_end() -> None:
    async with door(line_timeout_ms=100) as d:
        idle, slow = await d.connect(), await d.connect()
        slow.send(b"login fad")
        assert await slow.reply() == BAD_LINE
        assert await slow.reader.read() == b""
        assert await idle.login()  # a connection without a begun line has no deadline


@scenario
async def test_dripping_bytes_does_not_prolong_a_line() -> None:
    async with door(line_timeout_ms=200) as d:
        slow = await d.connect()
        reply = asyncio.create_task(slow.reply())
        while not reply.done():
            slow.send(b"x")
            await asyncio.sleep(0.02)
        assert reply.result() == BAD_LINE


@scenario
async def test_one_connection_too_many_gets_an_error_and_the_end() -> None:
    async with door(connections_max=1) as d:
        first = await d.connect()
        await first.login()
        second = await d.connect()
        assert "too many connections" in (await second.reply())["message"]
        assert await second.reader.read() == b""
        assert (d.gateway.connections, d.gateway.refused) == (1, 1)
        await first.close()
        await until(lambda: d.gateway.connections == 0)
        assert await (await d.connect()).login()


@scenario
async def test_a_thousand_connections_are_served() -> None:
    async with door() as d:
        peers = [await d.connect() for _ in range(1_000)]
        for peer in peers:
            peer.send(b"login fadly prp \r\n")
        for peer in peers:
            assert (await peer.reply())["status"] == "OK"
        assert d.gateway.connections == 1_000


@scenario
async def test_a_client_that_never_reads_is_cut_off_and_nobody_else_notices() -> None:
    async with door(write_timeout_ms=200) as d:
        d.broker.put("fadly", "x" * 8_000_000)
        deaf = await d.connect(limit=1_024)  # its stream stops reading the socket at 2 KiB
        token = await deaf.login()
        deaf.send(b"kotakmasuk %b \r\n" % token)
        await until(lambda: "kotakmasuk" in d.broker.commands())
        other = await d.connect()
        assert await other.login()
        await until(lambda: d.gateway.unread == 1)
        assert "ack" not in d.broker.commands()
        assert len(d.broker.boxes["fadly"]) == 1
        assert await other.login()


@scenario
async def test_a_connection_that_ended_leaves_nothing_to_the_garbage_collector() -> None:
    async with door() as d:
        gc.collect()
        gc.disable()
        try:
            peer = await d.connect()
            token = await peer.login()
            await peer.ask(b"chat %b afif  hai \r\n" % token)
            await peer.close()
            await until(lambda: d.gateway.connections == 0)
            await until(lambda: not any(type(each) is _Connection for each in gc.get_objects()))
        finally:
            gc.enable()
