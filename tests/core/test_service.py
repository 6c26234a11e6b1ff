"""Every command and every refusal through `Service.turn`, as any door sees them."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.handlers import Policy
from broker.core.model import Account
from broker.core.refusals import RETRY_AFTER_MS
from broker.core.service import SLOW_REQUESTS_MAX
from broker.core.sessions import SessionLimits
from broker.wire.commands import ALIASES, PARSERS
from broker.wire.errors import Code
from broker.wire.limits import PROTOCOL_VERSION, USERS_PAGE_MAX, as_hello
from tests.core.fakes import ADMIN, LIMITS, START_MS, World

# --- hello, ping -----------------------------------------------------------------------------


def test_hello_tells_version_durability_and_limits(world: World) -> None:
    assert world.ok("hello", version=PROTOCOL_VERSION, client="test") == {
        "version": PROTOCOL_VERSION,
        "server": "kotak test",
        "durability": "memory",
        "limits": as_hello(),
    }
    assert world.code("hello", version=2) is Code.UNSUPPORTED_VERSION


def test_ping_needs_no_token_but_a_given_one_must_be_good(world: World) -> None:
    assert world.ok("ping") == {"now_ms": START_MS}
    assert world.ok("ping", world.user("ann")) == {"now_ms": START_MS}
    assert world.ok("ping", ADMIN) == {"now_ms": START_MS}
    assert world.code("ping", "made up") is Code.UNAUTHORIZED


def test_a_command_that_is_not_there(world: World) -> None:
    assert world.code("LOGIN", user="ann", password="password") is Code.UNKNOWN_COMMAND


def test_bad_fields_are_refused_before_anything_is_done(world: World) -> None:
    ann = world.user("ann")
    assert world.code("chat", ann, to="ann", text="hi") is Code.BAD_REQUEST
    assert world.code("chat", ann, to="ann", text="x" * 65_537, id="m") is Code.TOO_LARGE
    assert world.ok("inbox", ann)["messages"] == []


# --- messages --------------------------------------------------------------------------------


def test_a_message_goes_from_one_user_to_another(world: World) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    world.now_ms += 5
    receipt = world.ok("chat", ann, to="bob", text="hi", id="m1")
    assert receipt == {"seq": 1, "durability": "memory"}
    assert world.ok("chat", ann, to="bob", text="hi", id="m1") == receipt
    message = {
        "seq": 1, "at_ms": START_MS + 5, "from": "ann", "name": "ann", "id": "m1", "text": "hi",
    }  # fmt: skip
    page = {
        "user": "bob", "name": "bob", "messages": [message], "more": False, "cursor": 0,
        "epoch": world.store.epoch.number,
    }  # fmt: skip
    assert world.ok("kotakmasuk", bob) == page
    assert world.ok("ack", bob, seq=1) == {"cursor": 1}
    assert world.ok("kotakmasuk", bob) == page | {"messages": [], "cursor": 1}


def test_the_refusals_of_chat(world: World) -> None:
    ann = world.user("ann")
    assert world.code("chat", ann, to="bob", text="hi", id="m1") is Code.NO_SUCH_USER
    for number in range(3):
        world.ok("chat", ann, to="ann", text="hi", id=f"m{number}")
    assert world.code("chat", ann, to="ann", text="ho", id="m1") is Code.CONFLICT
    assert world.code("chat", ann, to="ann", text="hi", id="new") is Code.MAILBOX_FULL


def test_limit_and_after_choose_a_page(world: World) -> None:
    ann = world.user("ann")
    for number in range(3):
        world.ok("chat", ann, to="ann", text="hi", id=f"m{number}")
    page = world.ok("inbox", ann, limit=1, after=1)
    assert [each["id"] for each in page["messages"]] == ["m1"]
    assert page["more"] is True


def test_display_names_are_shown_as_they_are_now(world: World) -> None:
    world.ok("user_add", ADMIN, user="ann", password="password", name="Ann")
    ann, bob = world.login("ann"), world.user("bob")
    world.ok("chat", ann, to="bob", text="hi", id="m1")
    assert world.ok("inbox", bob)["messages"][0]["name"] == "Ann"
    world.ok("user_remove", ADMIN, user="ann")
    assert world.ok("inbox", bob)["messages"][0]["name"] == "ann", "gone: the user name"
    world.ok("user_add", ADMIN, user="ann", password="password", name="Another")
    assert world.ok("inbox", bob)["messages"][0]["name"] == "Another"


@pytest.mark.parametrize(("alias", "name"), list(ALIASES.items()))
def test_an_alias_is_the_same_command(world: World, alias: str, name: str) -> None:
    assert world.call(alias).error is not None
    assert world.call(alias).error.args == world.call(name).error.args  # type: ignore[union-attr]


# --- who may do what -------------------------------------------------------------------------

USERS = (
    "logout", "chat", "kotakmasuk", "ack", "subscribe", "unsubscribe", "history", "status",
    "block", "unblock", "blocks", "rooms",
    "room_create", "room_invite", "room_join", "room_leave", "room_members", "user_on", "passwd",
)  # fmt: skip
KEYS = ("key_add", "key_list", "key_remove")
ADMINS = (
    "user_add", "user_list", "user_passwd", "user_role", "user_remove", *KEYS, "session_list",
    "session_revoke", "session_revoke_all", "mailbox_list", "mailbox_depth", "broker_status",
    "broker_drain", "broker_reload", "broker_backup",
)  # fmt: skip


@pytest.mark.parametrize("command", USERS + ADMINS)
def test_without_a_good_token_a_command_is_unauthorized(world: World, command: str) -> None:
    assert world.code(command) is Code.UNAUTHORIZED
    assert world.code(command, "made up") is Code.UNAUTHORIZED
    assert world.code(command, "") is Code.UNAUTHORIZED


@pytest.mark.parametrize("command", ADMINS)
def test_a_user_is_no_administrator(world: World, command: str) -> None:
    assert world.code(command, world.user("ann")) is Code.FORBIDDEN


@pytest.mark.parametrize("command", USERS)
def test_the_administrator_is_no_user(world: World, command: str) -> None:
    assert world.code(command, ADMIN) is Code.FORBIDDEN


def test_every_command_is_in_one_of_the_groups_of_these_tests() -> None:
    assert set(PARSERS) == {*USERS, *ADMINS, "hello", "ping", "login", "register"}


# --- sessions --------------------------------------------------------------------------------


def test_login_opens_a_session_and_logout_ends_this_one_only(world: World) -> None:
    ann = world.user("ann")
    result = world.ok("login", user="ann", password="password")
    assert result == {
        "token": "token-2", "user": "ann", "name": "ann",
        "expires_at_ms": START_MS + LIMITS.max_ms,
    }  # fmt: skip
    assert world.ok("logout", ann) == {}
    assert world.code("logout", ann) is Code.UNAUTHORIZED
    assert world.ok("ping", result["token"])


def test_one_more_session_than_a_user_may_have_ends_the_oldest() -> None:
    world = World(Policy(sessions=SessionLimits(per_user_max=2)))
    first, bob = world.user("ann"), world.user("bob")
    second = world.login("ann")
    assert world.ok("ping", first)
    third = world.login("ann", device="phone")
    assert world.code("ping", first) is Code.UNAUTHORIZED
    assert all(world.ok("ping", each) for each in (second, third, bob))


def test_unknown_user_and_wrong_password_are_one_answer(world: World) -> None:
    world.user("ann")
    wrong = world.call("login", user="ann", password="wrong")
    nobody = world.call("login", user="nobody", password="nobody has this password")
    assert wrong.error is not None
    assert nobody.error is not None
    assert wrong.error.args == nobody.error.args
    assert wrong.error.code is Code.BAD_CREDENTIALS


def test_a_session_ends_by_idleness_and_is_kept_by_any_command(world: World) -> None:
    ann = world.user("ann")
    for _ in range(4):
        world.now_ms += LIMITS.idle_ms - 1
        world.ok("ping", ann)
    world.now_ms += LIMITS.idle_ms
    assert world.code("ping", ann) is Code.UNAUTHORIZED


def test_user_on_lists_each_user_once_in_order_of_login(world: World) -> None:
    bob, _ = world.user("bob"), world.user("ann")
    world.login("bob")
    names = [{"user": "bob", "name": "bob"}, {"user": "ann", "name": "ann"}]
    assert world.ok("user_on", bob) == {"users": names, "more": False}
    assert world.ok("user_on", bob, after="bob") == {"users": names[1:], "more": False}


def test_lists_of_users_come_in_pages(world: World) -> None:
    hashed: dict[str, Any] = {"password_hash": "v1:password"}
    users = sorted(f"user-{number}" for number in range(USERS_PAGE_MAX + 1))
    for user in users:
        world.ok("user_add", ADMIN, user=user, **hashed)
        world.batch(world.frame("login", user=user, password="password"))
        world.turn(finished=world.work())
    token = world.login(users[0])
    for command, who in (("user_on", token), ("user_list", ADMIN)):
        first = world.ok(command, who)
        assert [each["user"] for each in first["users"]] == users[:-1]
        assert first["more"] is True
        rest = world.ok(command, who, after=users[-2])
        assert [each["user"] for each in rest["users"]] == users[-1:]
        assert rest["more"] is False


# --- accounts --------------------------------------------------------------------------------


def test_registration_is_off_unless_the_administrator_allows_it(world: World) -> None:
    assert world.code("register", user="eve", password="password") is Code.FORBIDDEN
    world = World(Policy(register=True))
    named = world.ok("register", user="eve", password="password", name="Eve")
    assert named == {"user": "eve", "name": "Eve"}
    assert world.code("register", user="eve", password="password") is Code.USER_EXISTS
    assert world.code("register", user="mallory", password="short") is Code.BAD_REQUEST
    assert world.login("eve")


def test_two_registrations_of_one_name_at_once_make_one_account() -> None:
    world = World(Policy(register=True))
    both = [world.frame("register", user="eve", password=f"password-{n}") for n in (1, 2)]
    world.batch(*both)
    replies = world.turn(finished=world.work())[b"r"]
    assert [reply.error and reply.error.code for reply in replies] == [None, Code.USER_EXISTS]
    assert world.login("eve", "password-1")


def test_passwd_ends_every_other_session(world: World) -> None:
    ann, other, bob = world.user("ann"), world.login("ann"), world.user("bob")
    assert world.ok("passwd", ann, password="password", new_password="new password") == {}
    assert world.ok("ping", ann)
    assert world.ok("ping", bob)
    assert world.code("ping", other) is Code.UNAUTHORIZED
    assert world.code("login", user="ann", password="password") is Code.BAD_CREDENTIALS
    assert world.login("ann", "new password")


def test_the_refusals_of_passwd(world: World) -> None:
    ann = world.user("ann")
    refusals = {"wrong": "new password", "password": "short"}
    codes = [world.code("passwd", ann, password=p, new_password=n) for p, n in refusals.items()]
    assert codes == [Code.BAD_CREDENTIALS, Code.BAD_REQUEST]


def test_a_session_that_logged_out_during_its_passwd_stays_ended(world: World) -> None:
    ann = world.user("ann")
    change = world.frame("passwd", ann, password="password", new_password="new password")
    world.batch(change, world.frame("logout", ann))
    world.turn(finished=world.work())
    assert world.code("ping", ann) is Code.UNAUTHORIZED


def test_a_password_changed_while_a_login_was_being_checked_refuses_the_login(
    world: World,
) -> None:
    world.user("ann")
    world.batch(world.frame("login", user="ann", password="password"))
    late = world.work()
    world.ok("user_passwd", ADMIN, user="ann", password="x")
    (reply,) = world.turn(finished=late)[b"r"]
    assert reply.error is not None
    assert reply.error.code is Code.BAD_CREDENTIALS
    assert world.login("ann", "x")


def test_a_login_renews_a_hash_of_old_parameters(world: World) -> None:
    world.user("ann")
    world.hasher.version = "v2"
    world.login("ann")
    account = world.store.find(Account, "ann")
    assert account is not None
    assert account.password_hash == "v2:password"


def test_the_administrator_adds_lists_changes_and_removes(world: World) -> None:
    ready = world.ok("user_add", ADMIN, user="bob", password_hash="v1:x", name="Bob")
    assert ready == {"user": "bob", "name": "Bob"}
    listed = ready | {"role": "user"}
    assert world.ok("user_list", ADMIN) == {"users": [listed], "more": False}
    bob = world.login("bob", "x")
    world.ok("chat", bob, to="bob", text="hi", id="m1")
    assert world.ok("user_passwd", ADMIN, user="bob", password="y") == {}
    assert world.code("ping", bob) is Code.UNAUTHORIZED
    bob = world.login("bob", "y")
    assert world.ok("user_remove", ADMIN, user="bob") == {}
    assert world.code("ping", bob) is Code.UNAUTHORIZED
    world.ok("user_add", ADMIN, user="bob", password="y")
    assert world.ok("inbox", world.login("bob", "y"))["messages"] == []


def test_the_refusals_of_the_administrators_commands(world: World) -> None:
    world.user("ann")
    assert world.code("user_add", ADMIN, user="ann", password="x") is Code.USER_EXISTS
    assert world.code("user_add", ADMIN, user="ann", password_hash="v1:x") is Code.USER_EXISTS
    assert world.code("user_add", ADMIN, user="bob", password_hash="plain") is Code.BAD_REQUEST
    assert world.code("user_passwd", ADMIN, user="bob", password="x") is Code.NO_SUCH_USER
    assert world.code("user_remove", ADMIN, user="bob") is Code.NO_SUCH_USER


def test_a_user_removed_while_its_password_was_being_set_stays_removed(world: World) -> None:
    world.user("ann")
    world.batch(world.frame("user_passwd", ADMIN, user="ann", password="x"))
    late = world.work()
    world.ok("user_remove", ADMIN, user="ann")
    (reply,) = world.turn(finished=late)[b"r"]
    assert reply.error is not None
    assert reply.error.code is Code.NO_SUCH_USER


# --- slow work, draining ---------------------------------------------------------------------


def test_too_much_slow_work_is_refused_and_taken_again_when_some_is_done(world: World) -> None:
    world.user("ann")
    for number in range(SLOW_REQUESTS_MAX):
        route = b"%d" % number
        world.addresses[route] = f"192.0.2.{number}"
        login = world.frame("login", user=f"user{number}", password="x")
        assert world.turn((route, [login])) == {}
    assert world.service.busy
    (reply,) = world.batch(world.frame("login", user="ann", password="x"))
    assert reply.error is not None
    assert (reply.error.code, reply.error.retry_after_ms) == (Code.BUSY, RETRY_AFTER_MS)
    assert world.batch(world.frame("ping"))[0].error is None, "others are served meanwhile"
    world.turn(finished=world.work())
    assert not world.service.busy
    assert world.login("ann")


def test_while_draining_only_what_leaves_less_to_deliver_is_served(world: World) -> None:
    ann = world.user("ann")
    world.ok("chat", ann, to="ann", text="hi", id="m1")
    world.service.draining = True
    assert world.ok("ack", ann, seq=1)
    assert world.ok("ping", ann)
    assert world.ok("hello", version=1)
    refused = world.call("chat", ann, to="ann", text="hi", id="m2")
    assert refused.error is not None
    assert refused.error.code is Code.UNAVAILABLE
    assert refused.error.retry_after_ms == RETRY_AFTER_MS
    assert world.code("kotakmasuk", ann) is Code.UNAVAILABLE
    assert world.code("login", user="ann", password="password") is Code.UNAVAILABLE
    assert world.ok("logout", ann) == {}


def test_a_login_that_was_under_way_is_finished_while_draining(world: World) -> None:
    world.user("ann")
    world.batch(world.frame("login", user="ann", password="password"))
    world.service.draining = True
    (reply,) = world.turn(finished=world.work())[b"r"]
    assert reply.error is None


# --- replies ---------------------------------------------------------------------------------


def test_replies_come_in_order_of_the_requests_each_on_its_route(world: World) -> None:
    first, second, third = (world.frame("ping") for _ in range(3))
    replies = world.turn((b"a", [third, first]), (b"b", [second]), (b"a", [b"\xc1"]), (b"c", []))
    ids = {route: [reply.request_id for reply in each] for route, each in replies.items()}
    assert ids == {b"a": [3, 1, None], b"b": [2]}


def test_too_many_frames_are_answered_once_and_none_is_carried_out(world: World) -> None:
    (reply,) = world.turn((b"a", None))[b"a"]
    assert reply.request_id is None
    assert reply.error is not None
    assert reply.error.code is Code.BAD_REQUEST


def test_one_bad_request_harms_no_other(world: World) -> None:
    ann = world.user("ann")
    good = [world.frame("chat", ann, to="ann", text="hi", id=f"m{n}") for n in (1, 2)]
    replies = world.batch(good[0], b"junk", world.frame("nonsense"), good[1])
    codes = [reply.error and reply.error.code for reply in replies]
    assert codes == [None, Code.BAD_REQUEST, Code.UNKNOWN_COMMAND, None]


def test_requests_and_refusals_are_counted(world: World) -> None:
    world.call("ping")
    world.call("nonsense")
    assert world.service.requests["ping"] == 1
    assert world.service.errors["unknown_command"] == 1
    assert "nonsense" not in world.service.requests, "a peer must not name our counters"
