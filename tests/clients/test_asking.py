"""Each command that is one request and one answer, by both clients: what is sent, what comes back.

Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.wire.commands import PARSERS
from broker.wire.envelope import Request
from broker.wire.errors import Code, WireError
from clients import (
    AsyncClient,
    Blocked,
    Client,
    Forbidden,
    History,
    Inbox,
    InternalError,
    Message,
    NoSuchMessage,
    NoSuchRoom,
    NoSuchUser,
    RequestError,
    Room,
    RoomExists,
    Status,
    TooMany,
    User,
)
from tests.clients.fake_broker import RESULTS, ROOM, Answer, FakeBroker

PATIENT_MS = 30_000
#: Does something with a client; what it returns is awaited where the client is asyncio's.
Act = Callable[[Any], Any]

WRITTEN = {"seq": 4, "at_ms": 5, "from": "afif", "name": "Afif", "id": "m", "text": "hi"}
READ = Message(4, 5, "afif", "Afif", "m", "hi")
LUNCH = Room("#lunch", "shafwa", open=True, history=False, members=2, joined=True)


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with FakeBroker() as fake:
        yield fake


def _blocking(broker: FakeBroker, act: Act) -> Any:
    with Client(broker.address, token="t", timeout_ms=PATIENT_MS, name="test") as client:
        return act(client)


def _asyncio(broker: FakeBroker, act: Act) -> Any:
    async def main() -> Any:
        async with AsyncClient(
            broker.address, token="t", timeout_ms=PATIENT_MS, name="test"
        ) as client:
            return await act(client)

    return asyncio.run(asyncio.wait_for(main(), 60))


both = pytest.mark.parametrize("use", [_blocking, _asyncio], ids=["blocking", "asyncio"])
Use = Callable[[FakeBroker, Act], Any]

#: What is done, the command that is sent, its arguments, and what is returned.
EXCHANGES: list[tuple[Act, str, dict[str, Any], object]] = [
    (lambda c: c.ping(), "ping", {}, 1_700_000_000_000),
    (lambda c: c.logout(), "logout", {}, None),
    (lambda c: c.acknowledge(3), "ack", {"seq": 3}, 3),
    (
        lambda c: c.inbox(),
        "kotakmasuk",
        {"limit": 100},
        Inbox("fadly", "Fadly", [], more=False, cursor=0, epoch=5),
    ),
    (lambda c: c.history(), "history", {"of": "inbox", "limit": 100}, History([], more=False)),
    (
        lambda c: c.history("#lunch", before=9, limit=7),
        "history",
        {"of": "#lunch", "before": 9, "limit": 7},
        History([], more=False),
    ),
    (
        lambda c: c.history("sent", after=0),
        "history",
        {"of": "sent", "after": 0, "limit": 100},
        History([], more=False),
    ),
    (
        lambda c: c.status("fadly", 7),
        "status",
        {"to": "fadly", "seq": 7},
        Status("delivered", 6, "m"),
    ),
    (lambda c: c.users_on(), "user_on", {}, []),
    (lambda c: c.users_on(detail=True), "user_on", {"detail": True}, []),
    (lambda c: c.change_password("o", "n"), "passwd", {"password": "o", "new_password": "n"}, None),
    (lambda c: c.block("afif"), "block", {"user": "afif"}, None),
    (lambda c: c.unblock("afif"), "unblock", {"user": "afif"}, None),
    (lambda c: c.blocked(), "blocks", {}, ["afif", "mamang"]),
    (lambda c: c.rooms.list(), "rooms", {}, [LUNCH]),
    (
        lambda c: c.rooms.create("#lunch"),
        "room_create",
        {"room": "#lunch", "open": False, "history": False},
        LUNCH,
    ),
    (
        lambda c: c.rooms.create("#lunch", open=True, history=True),
        "room_create",
        {"room": "#lunch", "open": True, "history": True},
        LUNCH,
    ),
    (
        lambda c: c.rooms.invite("#lunch", "fadly"),
        "room_invite",
        {"room": "#lunch", "user": "fadly"},
        None,
    ),
    (lambda c: c.rooms.join("#lunch"), "room_join", {"room": "#lunch"}, LUNCH),
    (lambda c: c.rooms.leave("#lunch"), "room_leave", {"room": "#lunch"}, None),
    (
        lambda c: c.rooms.members("#lunch"),
        "room_members",
        {"room": "#lunch"},
        [User("fadly", "Fadly")],
    ),
]


@both
@pytest.mark.parametrize("exchange", EXCHANGES, ids=lambda exchange: exchange[1])
def test_what_is_sent_and_what_comes_back(
    broker: FakeBroker, use: Use, exchange: tuple[Act, str, dict[str, Any], object]
) -> None:
    act, command, args, result = exchange
    assert use(broker, act) == result
    assert [request[1:] for request in broker.requests(command)] == [(command, "t", args)]
    PARSERS[command](args)  # a broker takes it


@both
@pytest.mark.parametrize(
    ("act", "command", "args"),
    [
        (lambda c: c.hello(), "hello", {"version": 1, "client": "test"}),
        (lambda c: c.login("a", "b"), "login", {"user": "a", "password": "b"}),
        (
            lambda c: c.login("a", "b", device="phone"),
            "login",
            {"user": "a", "password": "b", "device": "phone"},
        ),
        (lambda c: c.register("a", "b"), "register", {"user": "a", "password": "b"}),
    ],
)
def test_what_needs_no_session_carries_no_token(
    broker: FakeBroker, use: Use, act: Act, command: str, args: dict[str, Any]
) -> None:
    use(broker, act)
    assert [request[1:] for request in broker.requests(command)] == [(command, None, args)]
    PARSERS[command](args)


@both
def test_a_message_may_have_a_time_to_live(broker: FakeBroker, use: Use) -> None:
    use(broker, lambda client: client.send("#lunch", "hi", message_id="m", ttl_ms=60_000))
    args = {"to": "#lunch", "text": "hi", "id": "m"}
    assert broker.requests()[0][3] == {**args, "ttl_ms": 60_000}
    use(broker, lambda client: client.send("#lunch", "hi", message_id="m"))
    assert broker.requests()[1][3] == args


def test_a_submitted_message_may_have_a_time_to_live(broker: FakeBroker) -> None:
    _blocking(broker, lambda client: client.submit("fadly", "hi", ttl_ms=5_000).result())
    _asyncio(broker, lambda client: client.submit("fadly", "hi", ttl_ms=6_000))
    assert [request[3]["ttl_ms"] for request in broker.requests()] == [5_000, 6_000]


# --- results ---------------------------------------------------------------------------------


@both
def test_a_message_tells_its_room_and_that_it_comes_again(broker: FakeBroker, use: Use) -> None:
    said = WRITTEN | {"room": "#lunch", "redelivered": True}
    broker.answer = lambda _: RESULTS["kotakmasuk"] | {"messages": [WRITTEN, said]}
    plain, again = use(broker, lambda client: client.inbox()).messages
    assert plain == READ
    assert (plain.room, plain.redelivered) == (None, False)
    assert again == READ._replace(room="#lunch", redelivered=True)


@both
def test_history_tells_to_whom_and_where_it_stands(broker: FakeBroker, use: Use) -> None:
    sent = WRITTEN | {"to": "fadly", "state": "acknowledged"}
    broker.answer = lambda _: {"messages": [WRITTEN | {"to": "afif"}, sent], "more": True}
    page = use(broker, lambda client: client.history("sent"))
    assert page.more
    assert [(message.to, message.state) for message in page.messages] == [
        ("afif", None),
        ("fadly", "acknowledged"),
    ]


@both
def test_presence_in_detail(broker: FakeBroker, use: Use) -> None:
    user = {"user": "fadly", "name": "Fadly", "connected": False, "seen_ms": 17}
    broker.answer = lambda _: {"users": [user], "more": False}
    detailed = use(broker, lambda client: client.users_on(detail=True))
    assert detailed == [User("fadly", "Fadly", connected=False, seen_ms=17)]


@both
@pytest.mark.parametrize(
    ("act", "key", "rest"),
    [
        (lambda client: client.users_on(detail=True), "users", {"detail": True}),
        (lambda client: client.rooms.members("#lunch"), "members", {"room": "#lunch"}),
    ],
)
def test_every_page_is_asked_for_with_the_same_question(
    broker: FakeBroker, use: Use, act: Act, key: str, rest: dict[str, Any]
) -> None:
    names = ["a", "b", "c", "d", "e"]

    def pages(request: Request) -> Answer:
        after = request[3].get("after")
        begin = names.index(after) + 1 if after else 0
        users = [{"user": name, "name": name.upper()} for name in names[begin : begin + 2]]
        return {key: users, "more": begin + 2 < len(names)}

    broker.answer = pages
    assert use(broker, act) == [User(name, name.upper()) for name in names]
    (asked,) = broker.seen.values()
    assert [request[3].pop("after", None) for request in asked] == [None, "b", "d"]
    assert [request[3] for request in asked] == [rest] * 3


@both
def test_a_page_that_promises_more_and_is_empty_is_the_last(broker: FakeBroker, use: Use) -> None:
    broker.answer = lambda _: {"members": [], "more": True}
    assert use(broker, lambda client: client.rooms.members("#lunch")) == []


# --- errors ----------------------------------------------------------------------------------


@both
@pytest.mark.parametrize(
    ("code", "error", "act"),
    [
        (Code.NO_SUCH_ROOM, NoSuchRoom, lambda client: client.rooms.join("#lunch")),
        (Code.ROOM_EXISTS, RoomExists, lambda client: client.rooms.create("#lunch")),
        (Code.TOO_MANY, TooMany, lambda client: client.rooms.join("#lunch")),
        (Code.NO_SUCH_ROOM, NoSuchRoom, lambda client: client.rooms.leave("#lunch")),
        (Code.NO_SUCH_ROOM, NoSuchRoom, lambda client: client.history("#lunch")),
        (Code.NO_SUCH_MESSAGE, NoSuchMessage, lambda client: client.status("fadly", 1)),
        (Code.NO_SUCH_USER, NoSuchUser, lambda client: client.block("nobody")),
        (Code.TOO_MANY, TooMany, lambda client: client.block("afif")),
        (Code.BLOCKED, Blocked, lambda client: client.send("fadly", "hi")),
        (Code.BLOCKED, Blocked, lambda client: client.rooms.invite("#lunch", "fadly")),
        (Code.FORBIDDEN, Forbidden, lambda client: client.send("fadly", "hi")),
    ],
)
def test_a_refusal_is_raised_as_its_class_and_not_repeated(
    broker: FakeBroker, use: Use, code: Code, error: type[RequestError], act: Act
) -> None:
    broker.answer = lambda _: WireError(code, "because")
    with pytest.raises(error, match="because"):
        use(broker, act)
    assert len([request for seen in broker.seen.values() for request in seen]) == 1


@both
@pytest.mark.parametrize(
    ("act", "answer"),
    [
        (lambda client: client.rooms.create("#lunch"), {"room": "#lunch"}),
        (lambda client: client.rooms.join("#lunch"), {"room": {"room": "#lunch"}}),
        (lambda client: client.rooms.list(), {"rooms": [{}]}),
        (lambda client: client.rooms.members("#lunch"), {"users": [], "more": False}),
        (lambda client: client.history(), {"messages": []}),
        (lambda client: client.blocked(), {}),
        (lambda client: client.status("fadly", 1), {"state": "stored"}),
        (lambda client: client.inbox(), RESULTS["kotakmasuk"] | {"history_lost": {"last": 1}}),
    ],
)
def test_an_answer_without_its_fields_is_an_internal_error(
    broker: FakeBroker, use: Use, act: Act, answer: dict[str, Any]
) -> None:
    broker.answer = lambda _: answer
    with pytest.raises(InternalError, match="lacks"):
        use(broker, act)


@both
def test_fields_of_a_later_version_are_left_alone(broker: FakeBroker, use: Use) -> None:
    broker.answer = lambda _: {"room": ROOM | {"colour": "red"}, "new": 1}
    assert use(broker, lambda client: client.rooms.join("#lunch")) == LUNCH
