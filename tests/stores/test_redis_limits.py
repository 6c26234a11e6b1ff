"""Limits over all brokers of one Redis: together they let through what one would."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count

import pytest

from broker.core.attempts import DELAY_MS, DELAY_MS_MAX, FORGET_MS, AttemptLimits
from broker.core.handlers import Policy
from broker.core.rates import REFUSED_MS, SendLimits
from broker.core.shared_limits import UNDECIDED, Grant, Outcome, Tried
from broker.core.shared_rates import AHEAD_MAX, RESERVED_MS
from broker.stores.redis import RedisStore
from broker.stores.redis.limits import ATTEMPT_MS_MAX
from broker.wire.errors import Code
from tests.core.fakes import ADMIN, World
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import DEADLINE_S, KEEPING, Server

NUMBERS = count(1)
FREE = AttemptLimits().failures_max
HERE = "192.0.2.1"
#: So slow that nothing comes back during a test, by a clock that is the server's.
SENDS = SendLimits(rate_max=0.001, burst_max=600)  # type: ignore[arg-type]  # as above
SLACK = 2 * AHEAD_MAX


@pytest.fixture(autouse=True)
def redis() -> None:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")


@pytest.fixture(params=["server", "cluster"])
def stores(request: pytest.FixtureRequest) -> Iterator[list[RedisStore]]:
    shared = redis_server.shared_cluster if request.param == "cluster" else None
    place = (shared or redis_server.shared_server)()
    url = f"{place.url}?prefix=limits{next(NUMBERS)}"
    stores = [RedisStore(url) for _ in range(3)]
    yield stores
    for store in stores:
        store.close()


@pytest.fixture
def store(stores: list[RedisStore]) -> RedisStore:
    return stores[0]


def eventually(holds: Callable[[], object]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it never holds"
        time.sleep(0.002)


# --- the bucket of what a user may send ---------------------------------------------------------


def draw(
    store: RedisStore, used: int, wanted: int = 0, *, limits: SendLimits = SENDS
) -> tuple[int, int]:
    """Return what was reserved, and whole messages that are left."""
    with store.batch():
        grant = store.draw("ann", used, wanted, limits)
    assert grant.left is not None
    return grant.reserved, int(grant.left // 1)


def bucket(store: RedisStore) -> str:
    return store._keys.of("ann", "sends")


def test_what_one_takes_the_others_lack(stores: list[RedisStore]) -> None:
    a, b, _ = stores
    assert draw(a, 100) == (0, 500)
    assert draw(b, 0, 300) == (300, 200)
    assert draw(a, 50, 300) == (150, 0)
    assert draw(b, 0, 10) == (0, 0)
    assert draw(b, 7) == (0, -7), "what was let through ahead of asking is owed"
    assert draw(b, -300) == (0, 293)


def test_what_is_put_back_never_makes_more_than_a_burst(store: RedisStore) -> None:
    draw(store, 10)
    assert draw(store, -400, 600) == (600, 0)


def test_a_bucket_is_gone_when_it_is_full(store: RedisStore) -> None:
    limits = SendLimits(rate_max=1, burst_max=600)
    draw(store, 100, limits=limits)
    assert 100_000 - 1_000 * DEADLINE_S < store._link.one(("PTTL", bucket(store))) <= 100_000
    draw(store, -100, limits=limits)
    assert store._link.one(("EXISTS", bucket(store))) == 0


def test_it_fills_by_the_server_s_clock(store: RedisStore) -> None:
    fast = SendLimits(rate_max=1_000, burst_max=50)
    draw(store, 50, limits=fast)
    eventually(lambda: draw(store, 0, limits=fast)[1] >= 20)
    eventually(lambda: draw(store, 0, limits=fast)[1] == 50)


def test_a_clock_that_is_behind_takes_nothing_away(store: RedisStore) -> None:
    """That of a server which took over."""
    ahead_ms = time.time_ns() // 1_000_000 + 3_600_000
    store._link.one(("SET", bucket(store), f"5.500000 {ahead_ms}"))
    assert draw(store, 1) == (0, 4)


def test_at_once_means_that_the_answer_is_there_with_all_that_was_told(store: RedisStore) -> None:
    with store.batch():
        told = store.draw("ann", 1, 0, SENDS)
        asked = store.draw("ann", 1, 0, SENDS, at_once=True)
        assert (told.left is not None, asked.left is not None) == (True, True)


# --- claims -----------------------------------------------------------------------------------


def begin(store: RedisStore, *, at_home: bool = False, user: str = "ann") -> int:
    with store.batch():
        claim = store.claim_attempt(user, HERE, at_home=at_home, failures_max=FREE)
    return claim.wait_ms


def end(store: RedisStore, outcome: Outcome, user: str = "ann") -> None:
    with store.batch():
        store.end_attempt(Tried(user, HERE, outcome))


def set_back(store: RedisStore, field: str, ms: int) -> None:
    """Have something happened so long ago."""
    key = store._keys.of("ann", f"tried:{HERE}")
    at_ms = int(store._link.one(("HGET", key, field)))
    store._link.one(("HSET", key, field, at_ms - ms))


def fail(stores: Sequence[RedisStore], times: int) -> None:
    for number in range(times):
        assert begin(stores[number % 3]) == 0
        end(stores[(number + 1) % 3], Outcome.WRONG)


def test_as_many_begin_at_once_as_are_free_at_all_brokers_together(
    stores: list[RedisStore],
) -> None:
    assert [begin(stores[number % 3]) for number in range(FREE)] == [0] * FREE
    assert [begin(store) for store in stores] == [UNDECIDED] * 3
    assert begin(stores[0], user="ben") == 0
    end(stores[2], Outcome.NONE)
    assert [begin(store) for store in stores] == [0, UNDECIDED, UNDECIDED]


def test_each_further_one_waits_and_one_at_a_time_begins(stores: list[RedisStore]) -> None:
    fail(stores, FREE)
    for delay_ms in (DELAY_MS, 2 * DELAY_MS, 4 * DELAY_MS):
        assert all(0 < begin(store) <= delay_ms for store in stores)
        set_back(stores[0], "at", delay_ms)
        assert [begin(store) for store in stores] == [0, UNDECIDED, UNDECIDED]
        end(stores[0], Outcome.WRONG)


def test_nobody_waits_for_more_than_a_minute_whatever_clocks_do(stores: list[RedisStore]) -> None:
    fail(stores, FREE)
    for _ in range(20):
        set_back(stores[0], "at", DELAY_MS_MAX)
        assert begin(stores[0]) == 0
        end(stores[0], Outcome.WRONG)
    assert DELAY_MS_MAX - DELAY_MS < begin(stores[1]) <= DELAY_MS_MAX
    set_back(stores[0], "at", -FORGET_MS)
    assert begin(stores[1]) == DELAY_MS_MAX


def test_a_right_one_forgets_and_leaves_nothing_behind(stores: list[RedisStore]) -> None:
    fail(stores, FREE - 1)
    assert begin(stores[0]) == 0
    end(stores[0], Outcome.RIGHT)
    assert stores[0]._link.one(("EXISTS", stores[0]._keys.of("ann", f"tried:{HERE}"))) == 0


def test_failures_are_forgotten_after_a_while(stores: list[RedisStore]) -> None:
    fail(stores, FREE)
    key = stores[0]._keys.of("ann", f"tried:{HERE}")
    assert 0 < stores[0]._link.one(("PTTL", key)) <= FORGET_MS
    set_back(stores[0], "at", FORGET_MS)
    assert [begin(stores[number % 3]) for number in range(FREE)] == [0] * FREE


def test_who_is_at_home_may_log_in_many_times_at_once(stores: list[RedisStore]) -> None:
    assert [begin(stores[number % 3], at_home=True) for number in range(20)] == [0] * 20
    end(stores[0], Outcome.WRONG_AT_HOME)
    assert begin(stores[1], at_home=True) == UNDECIDED


def test_an_attempt_of_a_broker_that_ended_is_over_after_a_while(stores: list[RedisStore]) -> None:
    for number in range(FREE):
        begin(stores[number % 3])
    set_back(stores[0], "since", ATTEMPT_MS_MAX)
    assert begin(stores[1]) == 0


def test_what_came_of_it_is_told_to_the_others_and_only_to_them(stores: list[RedisStore]) -> None:
    heard: list[list[Tried]] = [[], [], []]

    def hears() -> bool:
        for store, found in zip(stores, heard, strict=True):
            store.news()
            found.extend(store.tried())
        end(stores[0], Outcome.NONE)
        end(stores[0], Outcome.RIGHT, user="the first")
        return all(found for found in heard[1:])

    eventually(hears)  # all listen by now
    for found in heard:
        found.clear()
    with stores[0].batch():
        stores[0].end_attempt(Tried("", HERE, Outcome.OPENED))
        stores[0].end_attempt(Tried("müller", HERE, Outcome.WRONG))

    def told() -> bool:
        for store, found in zip(stores, heard, strict=True):
            found.extend(each for each in store.tried() if each.user != "the first")
        return all(len(found) == 2 for found in heard[1:])

    eventually(told)
    wanted = {Tried("", HERE, Outcome.OPENED), Tried("müller", HERE, Outcome.WRONG)}
    assert [set(found) for found in heard] == [set(), wanted, wanted]


# --- through services ----------------------------------------------------------------------------


class Brokers:
    """Three services, each with a store of its own over the same place."""

    def __init__(self, stores: Sequence[RedisStore], sends: SendLimits = SENDS) -> None:
        policy = Policy(sends=sends)
        self.worlds = [World(policy, engine=store) for store in stores]
        now_ms, tokens = time.time_ns() // 1_000_000, itertools.count(1)
        for world in self.worlds:
            world.now_ms = now_ms
            world.addresses[b"r"] = HERE
            world._tokens = (f"token-{number}" for number in tokens)
            world.turn()

    def send(self, token: str, broker: int, times: int) -> int:
        """Send a pipeline; return how many were taken."""
        world = self.worlds[broker]
        ids = [str(next(NUMBERS)) for _ in range(times)]
        frames = [world.frame("chat", token, to="ann", text="hi", id=each) for each in ids]
        errors = [each.error.code for each in world.batch(*frames) if each.error]
        assert set(errors) <= {Code.RATE_LIMITED}
        return times - len(errors)

    def guess(self, broker: int, password: str = "wrong") -> Code | None:
        error = self.worlds[broker].call("login", user="ann", password=password).error
        return error.code if error else None


def test_a_turn_is_taken_out_of_the_bucket_with_its_batch_and_no_more_than_that(
    stores: list[RedisStore],
) -> None:
    brokers = Brokers(stores)
    world = brokers.worlds[0]
    ann = world.user("ann")
    assert brokers.send(ann, 0, 3) == 3
    assert draw(stores[1], 0)[1] == SENDS.burst_max - 3
    assert brokers.send(ann, 0, 90) == 90
    assert draw(stores[1], 0)[1] == SENDS.burst_max - 93 - 90, "as many for the next turn"
    world.now_ms += RESERVED_MS
    world.turn()
    assert draw(stores[1], 0)[1] == SENDS.burst_max - 93


@pytest.mark.parametrize("a_turn", [2, 90])
def test_sends_that_are_spread_get_what_one_broker_gives(
    stores: list[RedisStore], a_turn: int
) -> None:
    brokers = Brokers(stores)
    ann = brokers.worlds[0].user("ann")
    taken = 0
    for number in range(3 * SENDS.burst_max // a_turn):
        taken += brokers.send(ann, number % 3, a_turn)
        for world in brokers.worlds:
            world.now_ms += RESERVED_MS
            world.turn()
    assert SENDS.burst_max <= taken <= SENDS.burst_max + SLACK


def test_pipelines_at_all_brokers_at_once_get_what_one_broker_gives(
    stores: list[RedisStore],
) -> None:
    brokers = Brokers(stores)
    ann = brokers.worlds[0].user("ann")
    taken = sum(brokers.send(ann, broker, SENDS.burst_max) for broker in (0, 1, 2) * 3)
    assert SENDS.burst_max - 150 <= taken <= SENDS.burst_max + SLACK


def test_who_was_refused_goes_on_after_a_second_at_any_broker(stores: list[RedisStore]) -> None:
    brokers = Brokers(stores, SendLimits(rate_max=500, burst_max=10))
    ann = brokers.worlds[0].user("ann")
    while brokers.send(ann, 0, 100) == 100:
        pass
    for world in brokers.worlds:
        world.now_ms += REFUSED_MS
    for broker in range(3):
        eventually(partial(brokers.send, ann, broker, 1))


def test_who_guesses_in_turn_is_slowed_as_by_one(stores: list[RedisStore]) -> None:
    brokers = Brokers(stores)
    brokers.worlds[0].ok("user_add", ADMIN, user="ann", password="password")
    codes = [brokers.guess(number % 3) for number in range(12)]
    assert codes == [Code.BAD_CREDENTIALS] * FREE + [Code.RATE_LIMITED] * (12 - FREE)


def test_who_guesses_at_all_at_the_same_moment_is_slowed_as_by_one(
    stores: list[RedisStore],
) -> None:
    brokers = Brokers(stores)
    brokers.worlds[0].ok("user_add", ADMIN, user="ann", password="password")
    for world in brokers.worlds:
        frames = [world.frame("login", user="ann", password=f"guess {n}") for n in range(10)]
        assert all(each.error and each.error.code is Code.BUSY for each in world.batch(*frames))
    assert [len(world.jobs) for world in brokers.worlds] == [FREE, 0, 0]
    for world in brokers.worlds:
        world.turn(finished=world.work())
        assert not world.service.busy
    assert [brokers.guess(broker) for broker in range(3)] == [Code.RATE_LIMITED] * 3


def test_failures_over_all_users_of_an_address_are_counted_over_all_brokers(
    stores: list[RedisStore],
) -> None:
    brokers = Brokers(stores)
    most = AttemptLimits().address_failures_max
    for world in brokers.worlds:
        world.turn()

    def refused(world: World) -> bool:
        reply = world.call("login", user=f"u{next(NUMBERS)}", password="wrong")
        return reply.error is not None and reply.error.code is Code.RATE_LIMITED

    def heard() -> bool:
        return [refused(world) for world in brokers.worlds].count(True) > 0

    tried = next(NUMBERS)
    eventually(heard)
    assert next(NUMBERS) - tried <= 2 * most, "three apart would have let through three times that"


def test_while_redis_is_gone_it_is_unavailable_and_nobody_is_locked_out_afterwards() -> None:
    server = Server(*KEEPING)
    try:
        stores = [RedisStore(f"{server.url}?timeout_ms=500") for _ in range(3)]
        brokers = Brokers(stores)
        a = brokers.worlds[0]
        ann = a.user("ann")
        assert brokers.send(ann, 0, 10) == 10
        server.kill()
        assert a.code("chat", ann, to="ann", text="x", id="x") is Code.UNAVAILABLE
        assert brokers.guess(0) is Code.UNAVAILABLE
        server.start()
        a.now_ms += 2 * REFUSED_MS
        eventually(lambda: brokers.guess(0, "password") is None)
        assert brokers.send(ann, 0, 10) == 10
        for store in stores:
            store.close()
    finally:
        server.stop()


def test_a_grant_that_no_answer_came_for_is_not_known() -> None:
    assert (Grant().left, Grant().reserved) == (None, 0)
