"""broker.transports.text_gateway over real TCP, before an in-memory broker."""

from __future__ import annotations

import asyncio
import functools
import json
import logging
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from itertools import count
from typing import Any

import pytest

from broker.transports.text_gateway import TextGateway
from broker.wire.errors import Code, WireError
from broker.wire.limits import LINE_BYTES_MAX
from tests.transports.fake_broker import FakeBroker

DEADLINE_S = 30
BAD_LINE = {"status": "ERROR", "message": "--Protocol Tidak Benar"}
STOPPING = {"status": "ERROR", "message": "the broker is stopping: connect again in a moment"}


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


# --- kotakmasuk takes ------------------------------------------------------------------------


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


# --- what the broker says --------------------------------------------------------------------


@scenario
async def test_each_chat_has_a_fresh_message_id() -> None:
    async with door() as d:
        peer = await d.connect()
        token = await peer.login()
        for _ in range(2):
            await peer.ask(b"chat %b afif  hai \r\n" % token)
        chats = [args for command, args in d.broker.calls if command == "chat"]
        assert chats == [{"to": "afif", "text": "hai", "id": f"id-{n}"} for n in range(2)]


@scenario
async def test_user_on_follows_every_page() -> None:
    async with door() as d:
        d.broker.users_page_max = 1
        peer = await d.connect()
        for user, password in ((b"shafwa", b"mks"), (b"fadly", b"prp"), (b"afif", b"plp")):
            token = await peer.login(user, password)
        reply = await peer.ask(b"user_on %b \r\n" % token)
        assert reply["message"] == "shafwa, fadly, afif, "


@scenario
async def test_a_refusal_of_the_broker_travels_in_its_own_words() -> None:
    async with door() as d:
        peer = await d.connect()
        d.broker.fail["login"] = WireError(Code.BUSY, "too many logins: try again", 500)
        reply = await peer.ask(b"login fadly prp \r\n")
        assert reply == {"status": "ERROR", "message": "too many logins: try again"}


def test_a_fault_is_answered_and_logged_without_what_was_said(
    caplog: pytest.LogCaptureFixture,
) -> None:
    @scenario
    async def fault() -> None:
        async with door() as d:
            peer = await d.connect()
            d.broker.fail["login"] = KeyError("oops")
            reply = await peer.ask(b"login fadly canary \r\n")
            assert reply["message"] == "a fault of the broker; its log says more"
            assert d.gateway.faults == 1
            del d.broker.fail["login"]
            assert await peer.login()  # the connection goes on

    with caplog.at_level(logging.INFO):
        fault()
    (record,) = caplog.records
    assert record.name == "kotak.text"
    assert record.fields == {"door": "text", "command": "login"}  # type: ignore[attr-defined]
    assert "canary" not in caplog.text


@scenario
async def test_a_room_is_spoken_to_like_a_user_and_named_as_the_recipient() -> None:
    async with door() as d:
        d.broker.rooms["#team"] = ["fadly", "shafwa"]
        d.broker.put("fadly", "to you alone")
        peer = await d.connect()
        token = await peer.login()
        sent = await peer.ask(b"chat %b #team  hai  semua \r\n" % token)
        assert sent == {"status": "OK", "message": "Message Sent"}
        assert (await peer.ask(b"kotakmasuk %b \r\n" % token))["messages"] == [
            {"msg_from": "Shafwa", "msg_to": "Fadly", "msg": "to you alone"},
            {"msg_from": "Fadly", "msg_to": "#team", "msg": "hai  semua"},
        ]


@scenario
async def test_a_room_that_is_not_there_or_not_yours_is_a_user_that_was_not_found() -> None:
    async with door() as d:
        d.broker.rooms["#theirs"] = ["shafwa"]
        peer = await d.connect()
        token = await peer.login()
        for room in (b"#theirs", b"#nowhere"):
            reply = await peer.ask(b"chat %b %b  hai \r\n" % (token, room))
            assert reply == {"status": "ERROR", "message": "User Tidak Ditemukan"}


# --- stopping --------------------------------------------------------------------------------


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


# --- who logs in from where ------------------------------------------------------------------


@scenario
async def test_a_login_and_nothing_else_is_sent_with_the_address_of_its_peer() -> None:
    sent: list[tuple[str, str | None]] = []
    async with door(token_for="for {}".format) as d:
        request = d.broker.request

        async def watched(command: str, args: Any, *, token: str | None) -> dict[str, Any]:
            sent.append((command, token))
            return await request(command, args, token=token)

        d.broker.request = watched  # type: ignore[method-assign]
        peer = await d.connect()
        token = await peer.login()
        await peer.ask(b"user_on %b \r\n" % token)
    assert sent == [("login", "for 127.0.0.1"), ("user_on", token.decode())]
