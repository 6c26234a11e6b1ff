"""Rooms through the service: who may come in, who reads what, and who is told."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import rooms as rooms_module
from broker.core.handlers import Policy
from broker.core.handlers import rooms as handlers_module
from broker.core.ports import DEFAULT_LIMITS, StoreFullError
from broker.wire.errors import Code
from broker.wire.limits import ROOMS_PER_USER_MAX
from tests.core.fakes import ADMIN, World


@pytest.fixture
def world() -> World:
    return World(Policy(), limits=DEFAULT_LIMITS)


def rooms(world: World, token: str) -> dict[str, bool]:
    """Return the rooms that a user is told of, and whether it has joined them."""
    return {each["room"]: each["joined"] for each in world.ok("rooms", token)["rooms"]}


def members(world: World, token: str, room: str) -> list[str]:
    return [each["user"] for each in world.ok("room_members", token, room=room)["members"]]


# --- coming and going ------------------------------------------------------------------------


def test_who_makes_a_room_owns_it_and_is_its_first_member(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    room = {
        "room": "#r", "owner": "ann", "open": False, "history": True, "members": 1, "joined": True,
    }  # fmt: skip
    assert world.ok("room_create", ann, room="#r", history=True) == {"room": room}
    assert world.ok("rooms", ann) == {"rooms": [room]}
    assert world.ok("rooms", ben) == {"rooms": []}


def test_a_room_is_made_once_and_repeating_that_is_ok(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#r", open=True)
    world.ok("room_join", ben, room="#r")
    again = world.ok("room_create", ann, room="#r", open=True)
    assert again["room"]["members"] == 2, "told as it is now"
    assert world.code("room_create", ann, room="#r") is Code.ROOM_EXISTS
    assert world.code("room_create", ben, room="#r", open=True) is Code.ROOM_EXISTS
    world.ok("room_leave", ann, room="#r")
    assert world.code("room_create", ann, room="#r", open=True) is Code.ROOM_EXISTS


def test_an_open_room_is_joined_by_anybody_and_twice_is_ok(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#r", open=True)
    for _ in range(2):
        assert world.ok("room_join", ben, room="#r")["room"]["members"] == 2
    assert members(world, ben, "#r") == ["ann", "ben"]


def test_a_closed_room_is_no_room_to_strangers(world: World) -> None:
    ann, eve = world.user("ann"), world.user("eve")
    world.ok("room_create", ann, room="#r")
    for command, args in {
        "room_join": {},
        "room_members": {},
        "room_invite": {"user": "eve"},
    }.items():
        closed = world.call(command, eve, room="#r", **args)
        missing = world.call(command, eve, room="#none", **args)
        assert closed.error is not None
        assert missing.error is not None
        assert closed.error.code is Code.NO_SUCH_ROOM
        assert closed.error.args == missing.error.args, "not even the sentence tells them apart"
    assert world.code("chat", eve, to="#r", text="x", id="m") is Code.NO_SUCH_ROOM
    assert world.ok("room_leave", eve, room="#r") == {}, "leaving is always OK"


def test_an_invited_user_is_told_and_may_come_in_but_does_not_read_yet(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#r")
    assert world.ok("room_invite", ann, room="#r", user="ben") == {}
    (notice,) = world.ok("inbox", ben)["messages"]
    assert (notice["from"], notice["name"], "room" in notice) == ("!kotak", "Kotak", False)
    assert "ann" in notice["text"]
    assert "#r" in notice["text"]
    assert rooms(world, ben) == {"#r": False}
    assert members(world, ann, "#r") == ["ann"]
    for command, args in {"room_members": {"room": "#r"}, "history": {"of": "#r"}}.items():
        assert world.code(command, ben, **args) is Code.NO_SUCH_ROOM
    assert world.code("chat", ben, to="#r", text="x", id="m") is Code.NO_SUCH_ROOM
    world.send(ann, "#r", "before")
    world.ok("room_join", ben, room="#r")
    world.send(ann, "#r", "after")
    assert world.texts(ben)[1:] == ["after"]


def test_inviting_twice_or_a_member_tells_nobody_again(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#r")
    for user in ("ben", "ben", "ann"):
        world.ok("room_invite", ann, room="#r", user=user)
    assert len(world.texts(ben)) == 1
    assert world.texts(ann) == []


def test_an_invitation_can_be_declined_and_made_again_by_another_in_one_batch(
    world: World,
) -> None:
    ann, ben, cat = world.user("ann"), world.user("ben"), world.user("cat")
    world.ok("room_create", ann, room="#r", open=True)
    world.ok("room_join", cat, room="#r")
    replies = world.batch(
        world.frame("room_invite", ann, room="#r", user="ben"),
        world.frame("room_leave", ben, room="#r"),
        world.frame("room_invite", cat, room="#r", user="ben"),
    )
    assert [reply.error for reply in replies] == [None] * 3
    assert ["ann" in text for text in world.texts(ben)] == [True, False]


def test_the_refusals_of_an_invitation(world: World) -> None:
    ann = world.user("ann")
    world.ok("room_create", ann, room="#r")
    assert world.code("room_invite", ann, room="#r", user="nobody") is Code.NO_SUCH_USER
    assert world.code("room_invite", ann, room="#r", user="!kotak") is Code.NO_SUCH_USER


def test_an_invitation_whose_notice_finds_no_room_is_none(world: World) -> None:
    world = World()  # three messages a mailbox
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#r")
    world.send(ann, "ben", "1", "2", "3")
    assert world.code("room_invite", ann, room="#r", user="ben") is Code.MAILBOX_FULL
    assert rooms(world, ben) == {}


def test_the_last_one_to_leave_takes_the_room_along(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#r", open=True)
    world.ok("room_join", ben, room="#r")
    world.send(ann, "#r", "old")
    for token in (ann, ann, ben):
        assert world.ok("room_leave", token, room="#r") == {}
    assert world.code("room_join", ben, room="#r") is Code.NO_SUCH_ROOM
    assert world.ok("room_create", ben, room="#r", history=True)["room"]["owner"] == "ben"
    assert world.ok("history", ben, of="#r")["messages"] == []


def test_an_account_that_is_removed_leaves_its_rooms(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("room_create", ann, room="#shared", open=True)
    world.ok("room_create", ann, room="#own", open=True)
    world.ok("room_join", ben, room="#shared")
    world.ok("user_remove", ADMIN, user="ann")
    assert members(world, ben, "#shared") == ["ben"]
    assert world.code("room_join", ben, room="#own") is Code.NO_SUCH_ROOM


def test_members_come_in_pages_of_joined_ones(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rooms_module, handlers_module):
        monkeypatch.setattr(module, "USERS_PAGE_MAX", 2)
    tokens = {user: world.user(user) for user in "abcdef"}
    world.ok("room_create", tokens["a"], room="#r", open=True)
    for user in "bcd":
        world.ok("room_invite", tokens["a"], room="#r", user=user)
    for user in "ef":
        world.ok("room_join", tokens[user], room="#r")
    first = world.ok("room_members", tokens["a"], room="#r")
    assert ([each["user"] for each in first["members"]], first["more"]) == (["a", "e"], True)
    rest = world.ok("room_members", tokens["a"], room="#r", after="e")
    assert ([each["user"] for each in rest["members"]], rest["more"]) == (["f"], False)


# --- limits ----------------------------------------------------------------------------------


def refused(world: World, command: str, token: str, **args: str) -> str:
    reply = world.call(command, token, **args)
    assert reply.error is not None
    assert reply.error.code is Code.TOO_MANY
    return reply.error.message


def test_a_user_is_in_a_hundred_rooms_at_most(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    for number in range(ROOMS_PER_USER_MAX):
        world.ok("room_create", ann, room=f"#r{number}")
    world.ok("room_create", ben, room="#b")
    world.ok("room_invite", ben, room="#b", user="ann")
    assert str(ROOMS_PER_USER_MAX) in refused(world, "room_create", ann, room="#more")
    assert str(ROOMS_PER_USER_MAX) in refused(world, "room_join", ann, room="#b")
    assert world.ok("room_join", ann, room="#r0"), "it is in there already"
    world.ok("room_leave", ann, room="#r0")
    assert world.ok("room_join", ann, room="#b")


def test_invitations_are_bounded_and_keep_nobody_out_of_rooms_of_its_own(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    eve = world.user("eve")
    for token, rooms in ((ben, 60), (eve, 41)):
        for number in range(rooms):
            room = f"#{'b' if token == ben else 'e'}{number}"
            world.ok("room_create", token, room=room)
            if room != "#e40":
                world.ok("room_invite", token, room=room, user="ann")
    assert "100" in refused(world, "room_invite", eve, room="#e40", user="ann")
    assert world.ok("room_create", ann, room="#own")
    assert world.ok("room_join", ann, room="#b0")
    world.ok("room_invite", eve, room="#e40", user="ann")


def test_without_room_on_the_disk_rooms_can_only_be_left(world: World) -> None:
    ann = world.user("ann")
    world.ok("room_create", ann, room="#r", open=True)
    args: dict[str, dict[str, Any]] = {
        "room_create": {"room": "#s"},
        "room_invite": {"room": "#r", "user": "ann"},
        "room_join": {"room": "#r"},
    }
    for command, each in args.items():
        world.store.commit_faults = [StoreFullError()]
        assert world.code(command, ann, **each) is Code.STORAGE_FULL
    world.store.commit_faults = [StoreFullError()]
    assert world.ok("room_leave", ann, room="#r") == {}
