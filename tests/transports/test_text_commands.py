"""broker.transports.text_commands: what lines ask of the broker, and what its answers become."""

from __future__ import annotations

import asyncio
import logging
from typing import Any

import pytest

from broker.wire.errors import Code, WireError
from tests.transports.text_scenes import door, scenario, until


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


@scenario
async def test_lines_that_cannot_be_sent_on_are_answered_however_many_come_together() -> None:
    async with door() as d:
        d.broker.refuse["user_on"] = WireError(Code.BUSY, "too much is unanswered")
        peer = await d.connect()
        peer.send(b"user_on token \r\n" * 3_000)  # more than calls may lie one in another
        for _ in range(3_000):
            assert (await peer.reply())["message"] == "too much is unanswered"


@scenario
async def test_pages_are_not_asked_for_once_the_peer_is_gone() -> None:
    async with door() as d:
        d.broker.users_page_max = 1
        peer = await d.connect()
        for user, password in ((b"shafwa", b"mks"), (b"fadly", b"prp")):
            token = await peer.login(user, password)
        d.broker.hold["user_on"] = asyncio.Event()
        peer.send(b"user_on %b \r\n" % token)
        await until(lambda: "user_on" in d.broker.commands())
        peer.reset()
        await until(lambda: d.gateway.connections == 0)
        d.broker.hold["user_on"].set()
        await other_turns()
        assert d.broker.commands().count("user_on") == 1


async def other_turns() -> None:
    """Let the loop do whatever has become due, and what follows from it."""
    for _ in range(20):
        await asyncio.sleep(0)
