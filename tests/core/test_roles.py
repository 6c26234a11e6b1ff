"""Who may do what: users, observers, administrators, and the administrator of the broker's run.

Source: docs/PROTOCOL.md, "Roles"; its table of commands is what these tests go by.
"""

from __future__ import annotations

import pytest

from broker.core.ports import StoreFullError
from broker.wire.errors import Code
from broker.wire.roles import Role
from tests.core.fakes import ADMIN, World
from tests.wire.test_commands import GOOD
from tests.wire.test_protocol_document import COMMANDS

#: What each column of the table says, of whoever has a role. None: it needs no token at all.
MAY = {
    "no": None,
    "optional": None,
    "yes": {Role.USER, Role.OBSERVER, Role.ADMIN},
    "user": {Role.USER, Role.ADMIN},
    "observer": {Role.OBSERVER, Role.ADMIN},
    "admin": {Role.ADMIN},
}
CASES = [
    (command, role, role in may)
    for command, row in COMMANDS.items()
    if (may := MAY[row[2]]) is not None
    for role in Role
]


@pytest.fixture
def world() -> World:
    return World()


def with_role(world: World, role: str) -> str:
    token = world.user("bob")
    assert world.ok("user_role", ADMIN, user="bob", role=role) == {}
    return token


@pytest.mark.parametrize(("command", "role", "may"), CASES)
def test_the_table_of_commands_says_who_may(
    world: World, command: str, role: str, *, may: bool
) -> None:
    reply = world.call(command, with_role(world, role), **GOOD[command])
    code = None if reply.error is None else reply.error.code
    assert (code is not Code.FORBIDDEN) is may


def test_the_administrator_of_the_run_may_do_what_administrators_may_but_has_no_mailbox(
    world: World,
) -> None:
    for command, row in COMMANDS.items():
        if row[2] in ("yes", "user"):
            assert world.code(command, ADMIN, **GOOD[command]) is Code.FORBIDDEN
    assert world.ok("user_list", ADMIN) == {"users": [], "more": False}


def test_a_role_counts_from_the_next_command_on_and_stays(world: World) -> None:
    bob = with_role(world, "admin")
    world.ok("user_add", bob, user="eve", password="password")
    world.restart()
    assert world.ok("user_list", bob)["users"][0] == {"user": "bob", "name": "bob", "role": "admin"}
    world.ok("user_role", bob, user="bob", role="user")
    assert world.code("user_list", bob) is Code.FORBIDDEN


def test_a_password_that_is_changed_leaves_the_role(world: World) -> None:
    bob = with_role(world, "observer")
    world.ok("passwd", bob, password="password", new_password="another password")
    world.ok("user_passwd", ADMIN, user="bob", password="a third password")
    assert world.ok("user_list", ADMIN)["users"][0]["role"] == "observer"


def test_a_role_that_was_rolled_back_counts_for_nothing(world: World) -> None:
    bob = world.user("bob")
    world.store.commit_faults = [StoreFullError(), StoreFullError()]
    world.batch(
        world.frame("user_role", ADMIN, user="bob", role="admin"), world.frame("user_list", bob)
    )
    assert world.code("user_list", bob) is Code.FORBIDDEN


def test_the_refusals_of_user_role(world: World) -> None:
    assert world.code("user_role", ADMIN, user="nobody", role="user") is Code.NO_SUCH_USER
    world.user("bob")
    reply = world.call("user_role", ADMIN, user="bob", role="king")
    assert reply.error is not None
    assert reply.error.message == "'role' must be one of: user, admin, observer"


def test_the_sender_is_the_sessions_whatever_a_request_says(world: World) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    assert world.code("chat", ann, to="bob", text="hi", id="m1", **{"from": "eve"}) is (
        Code.BAD_REQUEST
    )
    world.send(ann, "bob", "m1")
    assert [each["from"] for each in world.ok("inbox", bob)["messages"]] == ["ann"]
