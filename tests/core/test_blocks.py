"""Whom a user takes nothing from: what is refused, what stays, what a lost answer may not hide."""

from __future__ import annotations

import pytest

from broker.core.ports import StoreFullError
from broker.wire.errors import Code
from broker.wire.limits import BLOCKS_PER_USER_MAX
from tests.core.fakes import ADMIN, World


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def ann(world: World) -> str:
    return world.user("ann")


@pytest.fixture
def bob(world: World) -> str:
    """Return the token of bob, who has blocked ann."""
    world.user("ann")
    bob = world.user("bob")
    world.ok("block", bob, user="ann")
    return bob


def test_a_blocked_sender_is_refused_and_nothing_is_stored(world: World, bob: str) -> None:
    ann = world.login("ann")
    assert world.code("chat", ann, to="bob", text="hi", id="m1") is Code.BLOCKED
    assert world.texts(bob) == []
    assert world.ok("unblock", bob, user="ann") == {}
    world.send(ann, "bob", "m1")
    assert world.texts(bob) == ["m1"]


def test_a_block_is_of_one_sender_in_one_direction(world: World, bob: str) -> None:
    world.send(world.user("eve"), "bob", "m1")
    world.send(bob, "ann", "m2")
    assert world.texts(bob) == ["m1"]
    assert world.texts(world.login("ann")) == ["m2"]


def test_what_was_stored_before_stays_and_its_repetition_has_its_answer(
    world: World, ann: str
) -> None:
    bob = world.user("bob")
    (seq,) = world.send(ann, "bob", "m1")
    world.ok("block", bob, user="ann")
    assert world.texts(bob) == ["m1"]
    assert world.ok("chat", ann, to="bob", text="m1", id="m1")["seq"] == seq
    assert world.code("chat", ann, to="bob", text="other", id="m1") is Code.CONFLICT


def test_a_block_holds_after_a_restart_and_is_listed_by_name(world: World, bob: str) -> None:
    world.user("adi")
    world.ok("block", bob, user="adi")
    world.restart()
    assert world.ok("blocks", bob) == {"users": ["adi", "ann"]}
    assert world.code("chat", world.login("ann"), to="bob", text="hi", id="m1") is Code.BLOCKED


def test_a_block_that_was_rolled_back_blocks_nobody(world: World, ann: str) -> None:
    bob = world.user("bob")
    world.store.commit_faults = [StoreFullError(), StoreFullError()]
    assert world.code("block", bob, user="ann") is Code.STORAGE_FULL
    world.send(ann, "bob", "m1")
    assert world.ok("blocks", bob) == {"users": []}


def test_an_unblock_that_was_rolled_back_lets_nobody_in(world: World, bob: str) -> None:
    ann = world.login("ann")
    world.store.commit_faults = [StoreFullError(), StoreFullError()]
    assert world.code("unblock", bob, user="ann") is Code.STORAGE_FULL
    assert world.code("chat", ann, to="bob", text="hi", id="m1") is Code.BLOCKED


def test_blocking_and_unblocking_again_change_nothing(world: World, bob: str) -> None:
    assert world.ok("block", bob, user="ann") == {}
    assert world.ok("blocks", bob) == {"users": ["ann"]}
    for _ in range(2):
        assert world.ok("unblock", bob, user="ann") == {}
    assert world.ok("unblock", bob, user="nobody") == {}


def test_who_unblocks_one_goes_on_blocking_the_others(world: World, bob: str) -> None:
    eve = world.user("eve")
    world.ok("block", bob, user="eve")
    world.ok("unblock", bob, user="ann")
    assert world.ok("blocks", bob) == {"users": ["eve"]}
    assert world.code("chat", eve, to="bob", text="hi", id="m1") is Code.BLOCKED
    world.send(world.login("ann"), "bob", "m2")


def test_the_refusals_of_block(world: World, ann: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert world.code("block", ann, user="nobody") is Code.NO_SUCH_USER
    assert world.code("block", ann, user="ann") is Code.BAD_REQUEST
    assert BLOCKS_PER_USER_MAX == 1_000
    monkeypatch.setattr("broker.core.blocks.BLOCKS_PER_USER_MAX", 1)
    for user in ("bob", "eve"):
        world.user(user)
    world.ok("block", ann, user="bob")
    assert world.code("block", ann, user="eve") is Code.TOO_MANY


def test_a_blocked_user_invites_nobody_and_a_room_of_both_is_as_before(
    world: World, ann: str
) -> None:
    bob = world.user("bob")
    for token, step in ((ann, "room_create"), (bob, "room_join")):
        world.ok(step, token, room="#den", **({"open": True} if step == "room_create" else {}))
    world.ok("block", bob, user="ann")
    world.ok("room_create", ann, room="#trap")
    assert world.code("room_invite", ann, room="#trap", user="bob") is Code.BLOCKED
    world.send(ann, "#den", "m1")
    assert world.texts(bob) == ["m1"]


def test_blocks_go_with_the_account_that_made_them_and_not_with_the_other(
    world: World, bob: str
) -> None:
    world.ok("user_remove", ADMIN, user="ann")
    ann = world.user("ann")
    assert world.code("chat", ann, to="bob", text="hi", id="m1") is Code.BLOCKED, "it is the name's"
    world.ok("user_remove", ADMIN, user="bob")
    assert world.ok("blocks", world.user("bob")) == {"users": []}
    world.send(ann, "bob", "m2")
