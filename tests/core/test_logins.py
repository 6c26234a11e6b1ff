"""Logins, changed passwords and registrations under the limits of `broker.core.attempts`."""

from __future__ import annotations

import pytest

from broker.core.attempts import DELAY_MS, REGISTRATION_REFILL_MS, REGISTRATIONS_MAX, AttemptLimits
from broker.core.handlers import Policy
from broker.core.origins import handed_on
from broker.core.ports import StoreFullError
from broker.core.service import SLOW_REQUESTS_MAX
from broker.wire.envelope import Reply
from broker.wire.errors import Code, WireError
from tests.core.fakes import ADMIN, LIMITS, FakeHasher, World

FREE = AttemptLimits().failures_max


class CountingHasher(FakeHasher):
    """Counts what was hashed or compared."""

    def __init__(self) -> None:
        self.hashed = 0

    def hash(self, password: str) -> str:
        self.hashed += 1
        return super().hash(password)

    def verify(self, password_hash: str, password: str) -> bool:
        self.hashed += 1
        return super().verify(password_hash, password)


@pytest.fixture
def world(monkeypatch: pytest.MonkeyPatch) -> World:
    monkeypatch.setattr("tests.core.fakes.FakeHasher", CountingHasher)
    world = World(Policy(sessions=LIMITS, register=True))
    world.ok("user_add", ADMIN, user="ann", password="password")
    world.ok("user_add", ADMIN, user="bob", password="password")
    return world


def hashed(world: World) -> int:
    assert isinstance(world.hasher, CountingHasher)
    return world.hasher.hashed


def ask(world: World, address: str, command: str, token: str | None = None, **args: str) -> Reply:
    """Send one request from an address and return its answer, slow or not."""
    route = address.encode()
    world.addresses[route] = address
    replies = world.turn((route, [world.frame(command, token, **args)]))
    if not replies.get(route):
        replies = world.turn(finished=world.work())
    (reply,) = replies[route]
    return reply


def error(reply: Reply) -> WireError:
    assert reply.error is not None, reply
    return reply.error


def fail(world: World, times: int, address: str = "192.0.2.1", user: str = "ann") -> None:
    for _ in range(times):
        reply = ask(world, address, "login", user=user, password="wrong")
        assert error(reply).code is Code.BAD_CREDENTIALS


@pytest.mark.parametrize("user", ["ann", "nobody"])
def test_after_five_wrong_passwords_the_next_is_refused_without_hashing(
    world: World, user: str
) -> None:
    fail(world, FREE, user=user)
    before = hashed(world)
    refused = error(ask(world, "192.0.2.1", "login", user=user, password="password"))
    assert (refused.code, refused.retry_after_ms) == (Code.RATE_LIMITED, DELAY_MS)
    assert refused.message == "too many wrong passwords: wait 1 s, then try again"
    assert hashed(world) == before
    assert not world.service.busy


def test_others_and_the_same_user_elsewhere_log_in_meanwhile(world: World) -> None:
    fail(world, FREE)
    assert ask(world, "192.0.2.1", "login", user="bob", password="password").error is None
    assert ask(world, "192.0.2.2", "login", user="ann", password="password").error is None


def test_the_right_password_is_taken_after_the_delay(world: World) -> None:
    fail(world, FREE)
    world.now_ms += DELAY_MS
    assert ask(world, "192.0.2.1", "login", user="ann", password="password").error is None


def test_guesses_in_one_pipeline_are_counted_before_the_first_is_hashed(world: World) -> None:
    guesses = [world.frame("login", user="ann", password=f"guess {n}") for n in range(64)]
    refused = world.batch(*guesses)
    assert len(world.jobs) == FREE
    assert [error(reply).code for reply in refused] == [Code.BUSY] * (64 - FREE)


def test_a_wrong_old_password_is_an_attempt_too(world: World) -> None:
    token = world.login("ann")
    args = {"password": "wrong", "new_password": "new password"}
    for _ in range(FREE):
        assert error(ask(world, "192.0.2.1", "passwd", token, **args)).code is Code.BAD_CREDENTIALS
    assert error(ask(world, "192.0.2.1", "passwd", token, **args)).code is Code.RATE_LIMITED
    refused = ask(world, "192.0.2.1", "login", user="ann", password="password")
    assert error(refused).code is Code.RATE_LIMITED


def test_an_address_may_register_so_many_and_another_goes_on(world: World) -> None:
    for number in range(REGISTRATIONS_MAX):
        reply = ask(world, "192.0.2.1", "register", user=f"new{number}", password="password")
        assert reply.error is None
    refused = error(ask(world, "192.0.2.1", "register", user="one-more", password="password"))
    assert (refused.code, refused.retry_after_ms) == (Code.RATE_LIMITED, REGISTRATION_REFILL_MS)
    assert ask(world, "192.0.2.2", "register", user="one-more", password="password").error is None


def test_the_administrator_is_not_limited(world: World) -> None:
    fail(world, FREE)
    for number in range(REGISTRATIONS_MAX + 1):
        world.ok("user_add", ADMIN, user=f"new{number}", password="password")
        world.ok("user_passwd", ADMIN, user="ann", password="other")


def test_one_address_does_not_hold_the_whole_queue(world: World) -> None:
    world.addresses |= {b"flood": "192.0.2.1", b"honest": "192.0.2.2"}
    flood = [
        world.frame("login", user=f"user{number}", password="x")
        for number in range(2 * SLOW_REQUESTS_MAX)
    ]
    refused = world.turn((b"flood", flood))[b"flood"]
    assert len(refused) == len(flood) - SLOW_REQUESTS_MAX // 2
    assert {error(reply).code for reply in refused} == {Code.BUSY}
    honest = world.frame("login", user="ann", password="password")
    assert world.turn((b"honest", [honest])) == {}
    (reply,) = world.turn(finished=world.work())[b"honest"]
    assert reply.error is None


def test_peers_of_the_text_door_are_told_apart_by_the_addresses_that_it_hands_on(
    world: World,
) -> None:
    world.service.trust_door("door-token")
    for password in ("wrong",) * FREE + ("password",):
        last = world.call(
            "login", handed_on("door-token", "192.0.2.1"), user="ann", password=password
        )
    assert error(last).code is Code.RATE_LIMITED
    assert world.ok("login", handed_on("door-token", "192.0.2.2"), user="ann", password="password")


def test_nobody_else_can_say_where_he_comes_from(world: World) -> None:
    world.service.trust_door("door-token")
    for number in range(FREE):
        token = handed_on("another-token", f"198.51.100.{number}")
        ask(world, "192.0.2.1", "login", token, user="ann", password="wrong")
    last = ask(world, "192.0.2.1", "login", "another-token@198.51.100.9", user="ann", password="x")
    assert error(last).code is Code.RATE_LIMITED


def test_an_attempt_whose_batch_was_rolled_back_is_made_again_and_counted_once(
    world: World,
) -> None:
    for _ in range(3 * FREE):
        world.store.commit_faults.append(StoreFullError())
        world.store.full = True
        world.batch(world.frame("login", user="ann", password="password"))
        world.store.full = False
    assert not world.service.busy
    fail(world, FREE)


def test_a_login_that_the_full_disk_refuses_says_nothing_about_the_password(world: World) -> None:
    for _ in range(3 * FREE):
        world.batch(world.frame("login", user="ann", password="password"))
        world.store.full = True
        (reply,) = world.turn(finished=world.work())[b"r"]
        assert error(reply).code is Code.STORAGE_FULL
        world.store.full = False
    assert not world.service.busy
    assert world.login("ann")


def test_without_limits_any_number_may_be_wrong() -> None:
    world = World(Policy(sessions=LIMITS, attempts=AttemptLimits(failures_max=0)))
    world.ok("user_add", ADMIN, user="ann", password="password")
    fail(world, 200)
    assert ask(world, "192.0.2.1", "login", user="ann", password="password").error is None
