"""Keys that log their users in: whose they are, and what a session that they open is good for."""

from __future__ import annotations

import pytest

from broker.core.model import LoginKey, SessionRecord
from broker.wire.errors import Code
from broker.wire.limits import KEYS_PER_USER_MAX
from tests.core.fakes import ADMIN, START_MS, World

KEY = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
OTHER = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"
HERE = b"r"


@pytest.fixture
def world() -> World:
    """Return a world where ann may log in by `KEY`, and whose connection has it."""
    world = World()
    world.user("ann")
    world.user("bob")
    world.ok("key_add", ADMIN, user="ann", key=KEY)
    world.keys[HERE] = KEY
    return world


def by_key(world: World, user: str = "ann", **args: str) -> str:
    token: str = world.ok("login", user=user, **args)["token"]
    return token


# --- login -----------------------------------------------------------------------------------


def test_a_key_logs_its_user_in_without_a_password_and_without_a_hash(world: World) -> None:
    result = world.ok("login", user="ann")
    assert (result["user"], result["name"]) == ("ann", "ann")
    assert not world.jobs
    assert world.ok("inbox", result["token"])["user"] == "ann"


def test_a_key_logs_in_nobody_but_its_user(world: World) -> None:
    for user in ("bob", "nobody"):
        assert world.code("login", user=user) is Code.BAD_CREDENTIALS
    world.keys[HERE] = OTHER
    assert world.code("login", user="ann") is Code.BAD_CREDENTIALS


def test_a_connection_without_a_key_needs_a_password(world: World) -> None:
    del world.keys[HERE]
    reply = world.call("login", user="ann")
    assert reply.error is not None
    assert reply.error.code is Code.BAD_REQUEST
    assert "'password' is missing" in reply.error.message


def test_a_key_may_log_in_devices(world: World) -> None:
    phone = by_key(world, device="phone")
    seq = world.send(phone, "ann", "m1")[0]
    world.ok("ack", phone, seq=seq)
    assert world.texts(by_key(world)) == ["m1"]
    assert world.texts(by_key(world, device="phone")) == []


# --- bound sessions --------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["inbox", "ping", "logout"])
@pytest.mark.parametrize("other", [OTHER, None])
def test_a_token_is_good_with_the_key_that_it_was_made_with_and_no_other(
    world: World, command: str, other: str | None
) -> None:
    token = by_key(world)
    for _ in range(2):  # the second time the session is known
        world.keys.pop(HERE)
        if other is not None:
            world.keys[HERE] = other
        assert world.code(command, token) is Code.UNAUTHORIZED
        world.keys[HERE] = KEY
        assert "now_ms" in world.ok("ping", token)
    world.ok(command, token)


def test_the_refusal_is_that_of_a_token_that_nobody_has(world: World) -> None:
    token = by_key(world)
    world.keys[HERE] = OTHER
    refused, unknown = world.call("inbox", token), world.call("inbox", "made up")
    assert refused.error is not None
    assert unknown.error is not None
    assert refused.error.args == unknown.error.args


def test_a_bound_session_stays_bound_over_a_restart_and_when_it_is_refreshed(world: World) -> None:
    token = by_key(world)
    world.restart()
    world.now_ms = START_MS + 5_000
    assert world.ok("ping", token)
    assert {each.key for each in world.store.find_all(SessionRecord, of="ann")} == {"", KEY}
    world.restart()
    world.keys[HERE] = OTHER
    assert world.code("inbox", token) is Code.UNAUTHORIZED


def test_a_password_binds_to_nothing_though_the_connection_has_a_key(world: World) -> None:
    token = world.login("ann")
    world.keys[HERE] = OTHER
    assert world.ok("ping", token)
    del world.keys[HERE]
    assert world.ok("ping", token)


# --- the administrator's ---------------------------------------------------------------------


def test_keys_are_added_listed_and_removed(world: World) -> None:
    assert world.ok("key_add", ADMIN, user="ann", key=OTHER) == {}
    assert world.ok("key_add", ADMIN, user="ann", key=OTHER) == {}
    assert world.ok("key_list", ADMIN, user="ann") == {"keys": sorted([KEY, OTHER])}
    assert world.ok("key_remove", ADMIN, user="ann", key=KEY) == {}
    assert world.ok("key_list", ADMIN, user="ann") == {"keys": [OTHER]}
    assert world.ok("key_list", ADMIN, user="bob") == {"keys": []}


def test_a_key_that_is_removed_logs_in_no_more_and_ends_its_sessions_alone(world: World) -> None:
    bound, plain = by_key(world), world.login("ann")
    world.ok("key_add", ADMIN, user="ann", key=OTHER)
    world.keys[HERE] = OTHER
    other = by_key(world)
    world.ok("key_remove", ADMIN, user="ann", key=KEY)
    assert world.ok("ping", plain)
    assert world.ok("ping", other)
    world.keys[HERE] = KEY
    assert world.code("ping", bound) is Code.UNAUTHORIZED
    assert world.code("login", user="ann") is Code.BAD_CREDENTIALS
    world.ok("key_add", ADMIN, user="ann", key=KEY)
    assert world.code("ping", bound) is Code.UNAUTHORIZED


def test_a_key_is_one_users(world: World) -> None:
    reply = world.call("key_add", ADMIN, user="bob", key=KEY)
    assert reply.error is not None
    assert reply.error.code is Code.BAD_REQUEST
    assert "the key is ann's" in reply.error.message
    assert world.code("key_remove", ADMIN, user="bob", key=KEY) is Code.BAD_REQUEST
    assert world.code("key_remove", ADMIN, user="ann", key=OTHER) is Code.BAD_REQUEST
    assert by_key(world)


@pytest.mark.parametrize("command", ["key_add", "key_remove", "key_list"])
def test_keys_are_of_users_who_exist(world: World, command: str) -> None:
    args = {"user": "nobody"} if command == "key_list" else {"user": "nobody", "key": OTHER}
    assert world.code(command, ADMIN, **args) is Code.NO_SUCH_USER


def test_a_user_has_so_many_keys_and_no_more(world: World) -> None:
    with world.store.batch():
        for number in range(KEYS_PER_USER_MAX - 1):
            world.store.put(LoginKey(f"{number:040}", "ann"))
    assert world.code("key_add", ADMIN, user="ann", key=OTHER) is Code.TOO_MANY
    assert world.ok("key_add", ADMIN, user="ann", key=KEY) == {}  # which she has
    assert world.ok("key_add", ADMIN, user="bob", key=OTHER) == {}


def test_a_user_that_is_removed_leaves_no_key_to_whoever_takes_the_name(world: World) -> None:
    world.ok("user_remove", ADMIN, user="ann")
    world.user("ann")
    assert world.ok("key_list", ADMIN, user="ann") == {"keys": []}
    assert world.code("login", user="ann") is Code.BAD_CREDENTIALS
