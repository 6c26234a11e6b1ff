"""Devices, rooms, history, receipts, presence, blocks: the library and a real broker."""

from __future__ import annotations

import asyncio
import json
import time
from contextlib import aclosing, closing
from itertools import islice

import pytest

from clients import (
    AsyncClient,
    BadRequest,
    Blocked,
    Client,
    Forbidden,
    NoSuchMessage,
    NoSuchRoom,
    NoSuchUser,
    Receipt,
    RoomExists,
)
from tests.conftest import Broker

PATIENT_MS = 30_000


def _client(broker: Broker, user: str, password: str, device: str | None = None) -> Client:
    client = Client(broker.zmq, timeout_ms=PATIENT_MS)
    client.login(user, password, device=device)
    return client


def test_a_room_from_its_making_to_its_end(demo_broker: Broker) -> None:
    with _client(demo_broker, "shafwa", "mks") as owner, _client(demo_broker, "fadly", "prp") as us:
        made = owner.rooms.create("#lunch", history=True)
        assert (made.owner, made.open, made.history, made.members) == ("shafwa", False, True, 1)
        with pytest.raises(RoomExists):
            owner.rooms.create("#lunch")
        with pytest.raises(NoSuchRoom):
            us.rooms.join("#lunch")
        owner.rooms.invite("#lunch", "fadly")
        assert [(room.room, room.joined) for room in us.rooms.list()] == [("#lunch", False)]
        owner.send("#lunch", "before")
        assert us.rooms.join("#lunch").members == 2
        owner.send("#lunch", "hai")
        assert [user.user for user in us.rooms.members("#lunch")] == ["fadly", "shafwa"]
        notice, said = us.inbox().messages
        assert (notice.sender, notice.room) == ("!kotak", None)
        assert (said.text, said.room, said.sender) == ("hai", "#lunch", "shafwa")
        assert [each.text for each in us.history("#lunch").messages] == ["before", "hai"]
        for client in (us, owner):
            client.rooms.leave("#lunch")
            client.rooms.leave("#lunch")
        assert owner.rooms.list() == []


def test_each_device_reads_all_and_is_told_what_comes_again(demo_broker: Broker) -> None:
    with (
        _client(demo_broker, "fadly", "prp", "phone") as phone,
        _client(demo_broker, "fadly", "prp", "desk") as desk,
    ):
        for text in ("a", "b"):
            phone.send("fadly", text)
        with closing(phone.messages()) as messages:
            assert [(each.text, each.redelivered) for each in islice(messages, 2)] == [
                ("a", False),
                ("b", False),
            ]
        # The loop was left in the body of "b".
        assert [(each.text, each.redelivered) for each in phone.inbox().messages] == [("b", True)]
        assert [(each.text, each.redelivered) for each in desk.inbox().messages] == [
            ("a", False),
            ("b", False),
        ]


def test_a_message_and_where_it_stands(demo_broker: Broker) -> None:
    with (
        _client(demo_broker, "shafwa", "mks") as sender,
        _client(demo_broker, "fadly", "prp") as us,
    ):
        seq = sender.send("fadly", "hai", message_id="m1").seq
        assert sender.status("fadly", seq)[::2] == ("stored", "m1")
        us.inbox()
        assert sender.status("fadly", seq).state == "delivered"
        us.acknowledge(seq)
        assert sender.status("fadly", seq).state == "acknowledged"
        with pytest.raises(NoSuchMessage):
            us.status("fadly", seq)
        (sent,) = sender.history("sent").messages
        assert (sent.to, sent.state, sent.text) == ("fadly", "acknowledged", "hai")


def test_what_expired_unread_is_not_read(demo_broker: Broker) -> None:
    with _client(demo_broker, "fadly", "prp") as us:
        seq = us.send("fadly", "soon gone", ttl_ms=1_000).seq
        us.send("fadly", "stays")
        deadline = time.monotonic() + 30
        while us.status("fadly", seq).state != "expired":
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert [message.text for message in us.inbox().messages] == ["stays"]


def test_history_goes_both_ways(demo_broker: Broker) -> None:
    with _client(demo_broker, "fadly", "prp") as us:
        seqs = [us.send("fadly", str(number)).seq for number in range(5)]
        newest = us.history(limit=2)
        assert ([each.text for each in newest.messages], newest.more) == (["3", "4"], True)
        before = us.history(before=seqs[3], limit=3)
        assert ([each.text for each in before.messages], before.more) == (["0", "1", "2"], False)
        after = us.history(after=seqs[0], limit=2)
        assert ([each.text for each in after.messages], after.more) == (["1", "2"], True)


def test_presence_tells_who_was_heard_and_when(demo_broker: Broker) -> None:
    with _client(demo_broker, "fadly", "prp") as us:
        now_ms = us.ping()
        (user,) = us.users_on(detail=True)
        assert user.connected
        assert user.seen_ms is not None
        assert abs(user.seen_ms - now_ms) < 60_000
        assert us.users_on()[0].connected is None


def test_the_asyncio_client_gets_what_is_said_in_a_room(demo_broker: Broker) -> None:
    async def main() -> None:
        async with (
            AsyncClient(demo_broker.zmq, timeout_ms=PATIENT_MS) as owner,
            AsyncClient(demo_broker.zmq, timeout_ms=PATIENT_MS) as us,
        ):
            await owner.login("shafwa", "mks")
            await us.login("fadly", "prp", device="phone")
            await owner.rooms.create("#open", open=True)
            await us.rooms.join("#open")
            async with aclosing(us.messages()) as messages:
                arriving = asyncio.ensure_future(anext(messages))
                await owner.send("#open", "hai")
                said = await arriving
                assert (said.text, said.room) == ("hai", "#open")
            assert [each.text for each in (await us.history("#open")).messages] == ["hai"]

    asyncio.run(asyncio.wait_for(main(), 60))


# --- who may write to whom ---------------------------------------------------------------------


def test_a_blocked_sender_is_refused_until_it_is_unblocked(demo_broker: Broker) -> None:
    with (
        _client(demo_broker, "shafwa", "mks") as sender,
        _client(demo_broker, "fadly", "prp") as us,
    ):
        first = sender.send("fadly", "before", message_id="m1")
        for _ in range(2):
            us.block("shafwa")
        assert us.blocked() == ["shafwa"]
        with pytest.raises(Blocked, match="that user takes no messages from you: nothing was"):
            sender.send("fadly", "refused", message_id="m2")
        assert sender.send("fadly", "before", message_id="m1") == first  # a retry's first answer
        refused, stored = sender.send_many([("fadly", "refused too"), ("afif", "hai")])
        assert isinstance(refused, Blocked)
        assert isinstance(stored, Receipt)
        for _ in range(2):
            us.unblock("shafwa")
        assert us.blocked() == []
        sender.send("fadly", "after", message_id="m2")  # a refusal uses no id up
        assert [each.text for each in us.inbox().messages] == ["before", "after"]


def test_a_block_keeps_invitations_away_and_leaves_rooms_as_they_are(demo_broker: Broker) -> None:
    with (
        _client(demo_broker, "shafwa", "mks") as owner,
        _client(demo_broker, "fadly", "prp") as us,
    ):
        owner.rooms.create("#open", open=True)
        owner.rooms.create("#closed")
        us.rooms.join("#open")
        us.block("shafwa")
        with pytest.raises(Blocked):
            owner.rooms.invite("#closed", "fadly")
        owner.send("#open", "to all")
        assert [each.text for each in us.inbox().messages] == ["to all"]


def test_who_cannot_be_blocked(demo_broker: Broker) -> None:
    with _client(demo_broker, "fadly", "prp") as us:
        with pytest.raises(NoSuchUser):
            us.block("nobody")
        with pytest.raises(BadRequest):
            us.block("fadly")
        assert us.blocked() == []


def test_the_asyncio_client_blocks_too(demo_broker: Broker) -> None:
    async def main() -> None:
        async with (
            AsyncClient(demo_broker.zmq, timeout_ms=PATIENT_MS) as sender,
            AsyncClient(demo_broker.zmq, timeout_ms=PATIENT_MS) as us,
        ):
            await sender.login("shafwa", "mks")
            await us.login("fadly", "prp")
            await us.block("shafwa")
            assert await us.blocked() == ["shafwa"]
            with pytest.raises(Blocked):
                await sender.send("fadly", "refused")
            await us.unblock("shafwa")
            await sender.send("fadly", "hai")

    asyncio.run(asyncio.wait_for(main(), 60))


def test_an_observer_reads_and_is_told_that_it_may_not_write(demo_broker: Broker) -> None:
    admin = json.loads((demo_broker.data / "admin.json").read_text())
    with (
        Client(demo_broker.zmq, token=admin["token"], timeout_ms=PATIENT_MS) as administrator,
        _client(demo_broker, "shafwa", "mks") as sender,
        _client(demo_broker, "fadly", "prp") as us,
    ):
        administrator.request("user_role", {"user": "fadly", "role": "observer"})
        sender.send("fadly", "hai")
        assert [each.text for each in us.inbox().messages] == ["hai"]
        with pytest.raises(Forbidden, match="an observer may read, and write to nobody"):
            us.send("shafwa", "hai")
        us.block("shafwa")
        with pytest.raises(Blocked):
            sender.send("fadly", "refused")
