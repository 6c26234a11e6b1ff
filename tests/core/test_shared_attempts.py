"""Wrong passwords over several brokers: each counts what the others tell, and claims decide."""

from __future__ import annotations

import pytest

from broker.core.attempts import (
    ADDRESS_REFILL_MS,
    ALL_FAILURES_MAX,
    DELAY_MS,
    DELAY_MS_MAX,
    FORGET_MS,
    OWED_MAX,
    REGISTRATION_REFILL_MS,
    REGISTRATIONS_MAX,
    TURN_MS,
    UNDER_WAY_MS,
    USER_FAILURES_MAX,
    AttemptLimits,
    Attempts,
)
from broker.core.handlers import Policy
from broker.core.ports import StoreUnavailableError
from broker.core.shared_limits import UNDECIDED, Outcome, Tried
from broker.wire.envelope import Reply
from broker.wire.errors import Code, WireError
from tests.core.fakes import ADMIN, LIMITS, START_MS, World
from tests.core.shared import Shared, SharedStore

FREE = AttemptLimits().failures_max
HERE_MAX = AttemptLimits().address_failures_max
HERE = "192.0.2.1"


# --- what is heard ------------------------------------------------------------------------------


@pytest.fixture
def attempts() -> Attempts:
    return Attempts(AttemptLimits())


def hear(attempts: Attempts, outcome: Outcome, times: int = 1, user: str = "ann") -> None:
    for _ in range(times):
        attempts.hear(Tried(user, HERE, outcome), START_MS)


def wait_ms(attempts: Attempts, now_ms: int = START_MS, user: str = "ann") -> int | None:
    try:
        attempts.end(attempts.begin(user, HERE, now_ms), right=None, now_ms=now_ms)
    except WireError as error:
        return error.retry_after_ms if error.code is Code.RATE_LIMITED else -1
    return None


def test_wrong_passwords_elsewhere_delay_the_next_one_here(attempts: Attempts) -> None:
    hear(attempts, Outcome.WRONG, FREE)
    assert wait_ms(attempts) == DELAY_MS
    hear(attempts, Outcome.WRONG, 30)
    assert wait_ms(attempts) == DELAY_MS_MAX, "nobody is locked out"
    assert wait_ms(attempts, START_MS + FORGET_MS) is None


def test_a_right_one_elsewhere_forgets_the_delay_and_is_at_home_here(attempts: Attempts) -> None:
    hear(attempts, Outcome.WRONG, FREE)
    hear(attempts, Outcome.RIGHT)
    assert wait_ms(attempts) is None
    hear(attempts, Outcome.WRONG, HERE_MAX - FREE, user="others")
    assert wait_ms(attempts) is None
    assert wait_ms(attempts, user="ben") == ADDRESS_REFILL_MS


def test_wrong_ones_at_home_elsewhere_cost_the_address_nothing(attempts: Attempts) -> None:
    hear(attempts, Outcome.WRONG_AT_HOME, HERE_MAX)
    assert wait_ms(attempts, user="ben") is None


def test_what_was_let_through_at_one_moment_is_paid_back_up_to_a_bound(attempts: Attempts) -> None:
    hear(attempts, Outcome.WRONG, HERE_MAX + 1, user="others")
    assert wait_ms(attempts) == 2 * ADDRESS_REFILL_MS
    hear(attempts, Outcome.WRONG, 10 * HERE_MAX, user="others")
    assert wait_ms(attempts) == (OWED_MAX + 1) * ADDRESS_REFILL_MS


def test_a_failure_here_does_not_pay_back_what_is_owed(attempts: Attempts) -> None:
    running = attempts.begin("ann", HERE, START_MS)
    hear(attempts, Outcome.WRONG, HERE_MAX + 1, user="others")
    attempts.end(running, right=False, now_ms=START_MS)
    assert wait_ms(attempts, user="ben") == 2 * ADDRESS_REFILL_MS


@pytest.mark.parametrize(("failures", "users"), [(USER_FAILURES_MAX, 1), (ALL_FAILURES_MAX, 2_000)])
def test_many_addresses_elsewhere_make_a_newcomer_wait_once(
    attempts: Attempts, failures: int, users: int
) -> None:
    for number in range(failures):
        user = "ann" if users == 1 else f"user-{number}"
        attempts.hear(Tried(user, f"9.9.{number // 250}.{number % 250}", Outcome.WRONG), START_MS)
    assert wait_ms(attempts) == TURN_MS
    assert wait_ms(attempts, START_MS + TURN_MS) is None


def test_accounts_that_are_opened_elsewhere_count_for_the_address(attempts: Attempts) -> None:
    for _ in range(REGISTRATIONS_MAX):
        attempts.hear(Tried("", HERE, Outcome.OPENED), START_MS)
    with pytest.raises(WireError) as caught:
        attempts.register(HERE, START_MS)
    assert caught.value.retry_after_ms == REGISTRATION_REFILL_MS
    assert wait_ms(attempts) is None


def test_where_nothing_is_limited_nothing_is_counted() -> None:
    attempts = Attempts(AttemptLimits(failures_max=0))
    hear(attempts, Outcome.WRONG, 1_000)
    assert wait_ms(attempts) is None
    assert len(attempts._pairs) == 0


# --- through services ---------------------------------------------------------------------------


class Brokers:
    """Three services whose brokers hear of each other; each has the same accounts."""

    def __init__(self) -> None:
        self.shared = Shared()
        policy = Policy(sessions=LIMITS, register=True)
        self.stores = [SharedStore(self.shared) for _ in range(3)]
        self.worlds = [World(policy, store=store) for store in self.stores]
        for world in self.worlds:
            for user in ("ann", "ben"):
                world.ok("user_add", ADMIN, user=user, password="password")
            world.addresses[b"r"] = HERE

    def login(self, broker: int, password: str = "wrong", user: str = "ann") -> Reply:
        return self.worlds[broker].call("login", user=user, password=password)

    def code(self, broker: int, password: str = "wrong", user: str = "ann") -> Code | None:
        error = self.login(broker, password, user).error
        return error.code if error else None


@pytest.fixture
def brokers() -> Brokers:
    return Brokers()


def test_who_guesses_at_one_broker_after_the_other_is_slowed_as_by_one(brokers: Brokers) -> None:
    codes = [brokers.code(number % 3) for number in range(30)]
    assert codes == [Code.BAD_CREDENTIALS] * FREE + [Code.RATE_LIMITED] * (30 - FREE)
    for world in brokers.worlds:
        world.now_ms += DELAY_MS
    codes = [brokers.code(number % 3) for number in range(3)]
    assert codes == [Code.BAD_CREDENTIALS, Code.RATE_LIMITED, Code.RATE_LIMITED]


def test_a_right_password_ends_the_delay_everywhere(brokers: Brokers) -> None:
    for number in range(FREE - 1):
        brokers.code(number % 3)
    assert brokers.code(0, "password") is None
    assert [brokers.code(number % 3) for number in range(FREE)] == [Code.BAD_CREDENTIALS] * FREE


def test_what_a_claim_refuses_is_answered_and_not_hashed(brokers: Brokers) -> None:
    world = brokers.worlds[0]
    brokers.shared.waits = {"ann": 700, "ben": UNDECIDED}
    frames = [world.frame("login", user=user, password="password") for user in ("ann", "ben")]
    replies = world.batch(*frames, world.frame("hello", version=1))
    errors = [
        (each.error.code, each.error.retry_after_ms, each.error.message)
        for each in replies
        if each.error
    ]
    assert errors == [
        (Code.RATE_LIMITED, 700, "too many wrong passwords: wait 1 s, then try again"),
        (Code.BUSY, UNDER_WAY_MS, "too many passwords are being tried at once: try again"),
    ]
    assert (len(replies), world.jobs, world.service.busy) == (3, [], False)
    brokers.shared.waits.clear()
    assert brokers.code(0, "password") is None


def test_a_claim_says_who_tries_from_where_and_whether_at_home_there(brokers: Brokers) -> None:
    assert brokers.code(0, "password") is None
    assert brokers.code(1) is Code.BAD_CREDENTIALS
    assert brokers.shared.claims == [("ann", HERE, False), ("ann", HERE, True)]
    assert brokers.shared.told[brokers.stores[2]] == [
        Tried("ann", HERE, Outcome.RIGHT),
        Tried("ann", HERE, Outcome.WRONG_AT_HOME),
    ]


def test_a_fault_is_told_as_an_attempt_whose_outcome_nobody_knows(brokers: Brokers) -> None:
    world = brokers.worlds[0]
    world.batch(world.frame("login", user="ann", password="wrong"))
    ((job, _),) = world.work()
    world.turn(finished=[(job, RuntimeError())])  # type: ignore[list-item]  # as a `Finished`
    assert [each.outcome for each in brokers.shared.told[brokers.stores[1]]] == [Outcome.NONE]


def test_registrations_are_told(brokers: Brokers) -> None:
    brokers.worlds[0].ok("register", user="new", password="password")
    assert brokers.shared.told[brokers.stores[1]] == [Tried("", HERE, Outcome.OPENED)]


def test_while_the_store_is_gone_attempts_are_unavailable_and_places_free(
    brokers: Brokers,
) -> None:
    world, store = brokers.worlds[0], brokers.stores[0]
    store.commit_faults = [StoreUnavailableError("gone")]
    assert brokers.code(0) is Code.UNAVAILABLE
    assert not world.service.busy
    world.now_ms += 1_000
    assert brokers.code(0, "password") is None
