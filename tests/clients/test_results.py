"""The results that both clients return, from the golden bytes of tests/wire/golden.json."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from broker.wire.codec import unpack_reply
from clients import exchanges
from clients.results import Inbox, Message, Room, Status, Subscribed, User, read

_GOLDEN = json.loads((Path(__file__).parents[1] / "wire" / "golden.json").read_text("utf-8"))
FRAMES: dict[str, bytes] = {row["name"]: bytes.fromhex(row["hex"]) for row in _GOLDEN["results"]}
#: What reads each result that a method of the clients returns.
PARSERS: dict[str, Callable[[Any], object]] = {
    exchange.command: exchange.parse
    for exchange in (
        exchanges.hello(None),
        exchanges.ping(),
        exchanges.login("u", "p", None),
        exchanges.logout(),
        exchanges.inbox(None, None, None),
        exchanges.acknowledge(1),
        exchanges.history("inbox", None, None, 1),
        exchanges.status("u", 1),
        exchanges.users_on(detail=True)(None),
        exchanges.rooms(),
        exchanges.room_create("#r", anybody=False, history=False),
        exchanges.room_invite("#r", "u"),
        exchanges.room_join("#r"),
        exchanges.room_leave("#r"),
        exchanges.room_members("#r")(None),
        exchanges.register("u", "p", None),
        exchanges.change_password("o", "n"),
    )
} | {"subscribe": Subscribed.parse}
HI = Message(
    42, 1_700_000_000_000, "shafwa", "Shafwa", "m1", "hai \N{OPEN MAILBOX WITH RAISED FLAG}"
)
LUNCH = Room("#lunch", "shafwa", open=True, history=False, members=2, joined=True)


def _read(name: str) -> Any:
    _, _, fields = unpack_reply(FRAMES[name])
    return read(PARSERS[name.partition(" ")[0]], fields)


@pytest.mark.parametrize("name", [name for name in FRAMES if name.split(" ")[0] in PARSERS])
def test_every_result_of_the_protocol_is_read(name: str) -> None:
    _read(name)


def test_an_inbox_of_three_kinds_of_messages() -> None:
    page: Inbox = _read("kotakmasuk with an epoch, a room and a redelivery")
    assert page.messages == [
        HI,
        HI._replace(seq=43, id="m2", room="#lunch"),
        HI._replace(seq=44, id="m3", redelivered=True),
    ]
    assert (page.epoch, page.history_lost) == (5, None)


def test_what_a_broker_without_epochs_says_is_read_as_none() -> None:
    assert (_read("kotakmasuk").epoch, _read("kotakmasuk").history_lost) == (0, None)
    assert _read("subscribe") == Subscribed(1, 41, None, None)


def test_lost_history_is_a_range() -> None:
    assert _read("kotakmasuk when history was lost").history_lost == (43, 1000)
    assert _read("subscribe when history was lost") == Subscribed(1, 41, 6, (43, 1000))


def test_history_names_the_recipient_and_of_what_was_sent_the_state() -> None:
    assert [message.to for message in _read("history").messages] == ["fadly", "#lunch"]
    (sent,) = _read("history of what was sent").messages
    assert sent == HI._replace(to="fadly", state="acknowledged")


def test_the_rest_of_them() -> None:
    assert _read("status") == Status("delivered", 1_700_000_000_000, "m1")
    assert _read("room_join") == LUNCH
    assert _read("room_create") == LUNCH._replace(members=1)
    assert [room.joined for room in _read("rooms")] == [True, False]
    assert _read("room_members") == ([User("fadly", "Fadly"), User("shafwa", "Shafwa")], False)
    detailed = User("shafwa", "Shafwa", connected=True, seen_ms=1_700_000_000_000)
    assert _read("user_on in detail") == ([detailed], False)
