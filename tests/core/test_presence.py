"""Who is there, and since when not: `user_on` with ``detail``."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.handlers import Policy
from tests.core.fakes import START_MS, World

PRESENCE_MS = 60_000


@pytest.fixture
def world() -> World:
    return World(Policy(presence_ms=PRESENCE_MS))


def seen(world: World, token: str) -> dict[str, tuple[bool, int]]:
    listed: list[dict[str, Any]] = world.ok("user_on", token, detail=True)["users"]
    return {each["user"]: (each["connected"], each["seen_ms"]) for each in listed}


def test_without_detail_only_names_are_told(world: World) -> None:
    ann = world.user("ann")
    assert world.ok("user_on", ann) == {"users": [{"user": "ann", "name": "ann"}], "more": False}
    assert world.ok("user_on", ann, detail=False) == world.ok("user_on", ann)


def test_a_user_is_connected_for_a_minute_after_it_was_heard(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.now_ms += 1_000
    world.ok("ping", ben)
    heard_ms = world.now_ms
    world.now_ms += PRESENCE_MS
    assert seen(world, ann)["ben"] == (True, heard_ms)
    world.now_ms += 1
    assert seen(world, ann) == {"ann": (True, world.now_ms), "ben": (False, heard_ms)}


def test_a_login_and_any_session_of_the_user_count(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.now_ms += 5_000
    other = world.login("ben", device="phone")
    assert seen(world, ann)["ben"] == (True, START_MS + 5_000)
    world.now_ms += 5_000
    world.ok("ping", other)
    world.ok("logout", other)
    world.now_ms += 5_000
    assert seen(world, ann)["ben"] == (True, START_MS + 10_000)
    assert ben


def test_what_is_pushed_to_a_user_is_no_sign_of_it(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("subscribe", ben)
    world.now_ms += 1_000
    world.send(ann, "ben", "hi")
    assert world.events
    assert seen(world, ann)["ben"] == (True, START_MS)


def test_after_a_restart_it_is_an_estimate_until_the_user_is_heard(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.now_ms += world.policy.sessions.idle_ms // 2
    world.ok("ping", ben)
    heard_ms = world.now_ms
    world.restart()
    world.now_ms += 1_000
    assert seen(world, ann)["ben"] == (True, heard_ms)
    world.ok("ping", ben)
    assert seen(world, ann)["ben"] == (True, world.now_ms)


def test_who_has_no_live_session_is_not_listed(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("logout", ben)
    assert set(seen(world, ann)) == {"ann"}
