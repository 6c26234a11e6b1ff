"""Who may try a password, and when: by user, by address, and over all of them."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core import attempts as module
from broker.core.attempts import (
    ADDRESS_REFILL_MS,
    ALL_FAILURES_MAX,
    DELAY_MS,
    DELAY_MS_MAX,
    FORGET_MS,
    HOME_MS,
    REGISTRATION_REFILL_MS,
    REGISTRATIONS_MAX,
    TURN_KEPT_MS,
    TURN_MS,
    UNDER_WAY_MS,
    USER_FAILURES_MAX,
    Attempt,
    AttemptLimits,
    Attempts,
    network,
)
from broker.wire.errors import Code, WireError

FREE = AttemptLimits().failures_max
HERE_MAX = AttemptLimits().address_failures_max


class Desk:
    """Attempts with a clock, and what was said to whom."""

    def __init__(self, limits: AttemptLimits | None = None) -> None:
        self.attempts = Attempts(limits or AttemptLimits())
        self.now_ms = 1_000_000
        #: The refusals that `ask` has met.
        self.said: set[Code] = set()

    def begin(self, user: str = "ann", address: str = "1.1.1.1") -> Attempt | None:
        return self.attempts.begin(user, address, self.now_ms)

    def ask(self, user: str = "ann", address: str = "1.1.1.1") -> tuple[Attempt | None, int]:
        """Begin an attempt, or return how long to wait with it."""
        try:
            return self.begin(user, address), 0
        except WireError as error:
            self.said.add(error.code)
            return None, error.retry_after_ms or 0

    def end(self, attempt: Attempt | None, *, right: bool | None) -> None:
        self.attempts.end(attempt, right=right, now_ms=self.now_ms)

    def fail(self, user: str = "ann", address: str = "1.1.1.1") -> None:
        self.end(self.begin(user, address), right=False)

    def succeed(self, user: str = "ann", address: str = "1.1.1.1") -> None:
        self.end(self.begin(user, address), right=True)

    def refusal(self, user: str = "ann", address: str = "1.1.1.1") -> tuple[Code, int]:
        with pytest.raises(WireError) as caught:
            self.begin(user, address)
        assert caught.value.retry_after_ms is not None
        return caught.value.code, caught.value.retry_after_ms

    def wait_ms(self, user: str = "ann", address: str = "1.1.1.1") -> int:
        code, wait_ms = self.refusal(user, address)
        assert code == Code.RATE_LIMITED
        return wait_ms

    def crowd(self, user: str = "ann") -> None:
        """Have many addresses guess one user's password until newcomers have to wait."""
        with suppress(WireError):
            for number in range(USER_FAILURES_MAX + 1):
                self.fail(user, f"9.9.9.{number}")


@pytest.fixture
def desk() -> Desk:
    return Desk()


# --- a user at an address --------------------------------------------------------------------


def test_each_failure_beyond_the_free_ones_doubles_the_delay_up_to_a_minute(desk: Desk) -> None:
    for _ in range(FREE):
        desk.fail()
    delays = []
    for _ in range(8):
        delays.append(desk.wait_ms())
        desk.now_ms += delays[-1]
        desk.fail()
    assert delays == [1_000, 2_000, 4_000, 8_000, 16_000, 32_000, 60_000, 60_000]


def test_a_refusal_is_no_attempt_and_makes_nobody_wait_longer(desk: Desk) -> None:
    for _ in range(FREE):
        desk.fail()
    for _ in range(100):
        desk.wait_ms()
    desk.now_ms += DELAY_MS
    desk.succeed()


def test_the_sentence_says_how_long_to_wait_and_names_nobody(desk: Desk) -> None:
    for _ in range(FREE):
        desk.fail()
    with pytest.raises(WireError, match="too many wrong passwords: wait 1 s, then try again"):
        desk.begin()


def test_a_delay_concerns_one_user_at_one_address(desk: Desk) -> None:
    for _ in range(FREE):
        desk.fail()
    desk.succeed("bob", "1.1.1.1")
    desk.succeed("ann", "2.2.2.2")


def test_the_right_password_ends_the_delays(desk: Desk) -> None:
    for _ in range(FREE):
        desk.fail()
    desk.now_ms += DELAY_MS
    desk.succeed()
    for _ in range(FREE):
        desk.fail()
    assert desk.wait_ms() == DELAY_MS


def test_failures_are_forgotten_after_a_while(desk: Desk) -> None:
    for _ in range(FREE):
        desk.fail()
    desk.now_ms += FORGET_MS
    for _ in range(FREE):
        desk.fail()
    assert desk.wait_ms() == DELAY_MS


def test_of_guesses_made_at_once_no_more_pass_than_are_free(desk: Desk) -> None:
    begun = [desk.begin() for _ in range(FREE)]
    assert {desk.refusal() for _ in range(64)} == {(Code.BUSY, UNDER_WAY_MS)}
    for attempt in begun:
        desk.end(attempt, right=False)
    assert desk.wait_ms() == DELAY_MS


def test_after_the_free_ones_there_is_one_guess_at_a_time(desk: Desk) -> None:
    for _ in range(FREE):
        desk.fail()
    desk.now_ms += DELAY_MS
    desk.begin()
    assert desk.refusal() == (Code.BUSY, UNDER_WAY_MS)


def test_programs_with_the_right_password_are_never_slowed(desk: Desk) -> None:
    for number in range(1_000):
        desk.succeed(f"user{number % 300}")
    many = [desk.begin("user7") for _ in range(500)]
    for attempt in many:
        desk.end(attempt, right=True)
    desk.succeed("user7")


def test_an_attempt_without_an_outcome_is_as_if_it_had_not_been(desk: Desk) -> None:
    for _ in range(1_000):
        desk.end(desk.begin(), right=None)
    assert len(desk.attempts._pairs) == 0


def test_an_attempt_is_counted_once(desk: Desk) -> None:
    attempt = desk.begin()
    desk.end(attempt, right=False)
    for _ in range(100):
        desk.end(attempt, right=False)
        desk.end(attempt, right=None)
    for _ in range(FREE - 1):
        desk.fail()
    assert desk.wait_ms() == DELAY_MS


def test_without_a_limit_nothing_is_refused() -> None:
    desk = Desk(AttemptLimits(failures_max=0))
    for _ in range(3 * USER_FAILURES_MAX):
        desk.fail()
        desk.attempts.register("1.1.1.1", desk.now_ms)


# --- an address ------------------------------------------------------------------------------


def test_an_address_that_guesses_at_many_users_gets_one_guess_each_three_seconds(
    desk: Desk,
) -> None:
    for number in range(HERE_MAX):
        desk.fail(f"user{number}")
    assert desk.wait_ms("bob") == ADDRESS_REFILL_MS
    desk.succeed("bob", "2.2.2.2")
    desk.now_ms += ADDRESS_REFILL_MS
    desk.fail("bob")
    assert desk.wait_ms("cas") == ADDRESS_REFILL_MS


def test_who_has_logged_in_from_an_address_may_do_so_again_whatever_others_there_do(
    desk: Desk,
) -> None:
    desk.succeed("ann")
    for number in range(HERE_MAX):
        desk.fail(f"user{number}")
    desk.succeed("ann")
    desk.now_ms += HOME_MS
    for number in range(HERE_MAX):
        desk.fail(f"user{number}")
    desk.wait_ms("ann")


def test_guesses_under_way_count_against_their_address(desk: Desk) -> None:
    begun = [desk.begin(f"user{number}") for number in range(HERE_MAX)]
    assert desk.refusal("bob") == (Code.BUSY, UNDER_WAY_MS)
    for attempt in begun:
        desk.end(attempt, right=True)
    desk.succeed("bob")


def test_an_address_that_is_refused_leaves_no_entry_behind(desk: Desk) -> None:
    """Else it could push out the entries of others, and its own failures, for free."""
    for number in range(HERE_MAX):
        desk.fail(f"user{number}")
    before = len(desk.attempts._pairs), len(desk.attempts._users)
    for number in range(1_000):
        desk.wait_ms(f"other{number}")
    assert (len(desk.attempts._pairs), len(desk.attempts._users)) == before


# --- a user over all addresses ---------------------------------------------------------------


def test_one_address_cannot_make_its_victim_wait_elsewhere(desk: Desk) -> None:
    """Its delays let fewer failures pass than the user gets back."""
    for _ in range(1_000):
        attempt, wait_ms = desk.ask()
        desk.end(attempt, right=False)
        desk.now_ms += wait_ms
    desk.succeed("ann", "2.2.2.2")


def test_where_many_addresses_guess_a_newcomer_waits_once_and_is_let_through(desk: Desk) -> None:
    desk.crowd()
    assert desk.wait_ms() == TURN_MS
    desk.now_ms += TURN_MS - 1
    assert desk.wait_ms() == 1
    desk.now_ms += 1
    desk.fail("ann", "7.7.7.7")  # takes what has come free meanwhile
    assert desk.wait_ms("ann", "8.8.8.8") == TURN_MS
    desk.succeed()


def test_who_guessed_wrong_in_his_turn_waits_for_another(desk: Desk) -> None:
    desk.crowd()
    desk.wait_ms()
    desk.now_ms += TURN_MS
    desk.fail("ann", "7.7.7.7")  # takes what has come free meanwhile
    desk.fail()
    assert desk.wait_ms() == TURN_MS


def test_a_turn_without_an_outcome_is_still_there(desk: Desk) -> None:
    desk.crowd()
    desk.wait_ms()
    desk.now_ms += TURN_MS
    desk.end(desk.begin(), right=None)
    desk.fail("ann", "7.7.7.7")
    desk.succeed()


def test_a_turn_that_is_not_taken_passes(desk: Desk) -> None:
    desk.crowd()
    desk.wait_ms()
    desk.now_ms += TURN_MS + TURN_KEPT_MS
    desk.crowd()
    assert desk.wait_ms() == TURN_MS


def test_who_has_failed_and_waited_as_long_as_a_turn_takes_needs_none(desk: Desk) -> None:
    """So delay and turn do not add up to more than a minute."""
    for _ in range(FREE + 5):
        desk.now_ms += DELAY_MS_MAX
        desk.fail()
    desk.crowd()
    assert desk.wait_ms() == 32_000
    desk.now_ms += 32_000
    desk.fail("ann", "7.7.7.7")  # takes what has come free meanwhile
    desk.succeed()


def test_the_owner_at_home_does_not_notice_that_many_addresses_guess(desk: Desk) -> None:
    desk.succeed()
    desk.crowd()
    desk.succeed()


def test_where_many_addresses_guess_at_many_users_newcomers_wait_and_others_do_not() -> None:
    desk = Desk(AttemptLimits(address_failures_max=ALL_FAILURES_MAX))
    desk.succeed("ann")
    for number in range(ALL_FAILURES_MAX):
        desk.fail(f"user{number}", f"3.3.3.{number % 100}")
    assert desk.wait_ms("bob", "2.2.2.2") == TURN_MS
    desk.succeed("ann")


def test_known_and_unknown_names_are_judged_alike(desk: Desk) -> None:
    """There is nothing here that knows who has an account: the same steps, the same answers."""
    told: dict[str, list[tuple[Code, int]]] = {"ann": [], "nobody": []}
    for user, answers in told.items():
        other = Desk()
        for _ in range(FREE):
            other.fail(user)
        answers.append(other.refusal(user))
        other.crowd(user)
        answers.append(other.refusal(user, "2.2.2.2"))
    assert told["ann"] == told["nobody"]


# --- registering -----------------------------------------------------------------------------


def test_an_address_may_open_so_many_accounts_at_once_and_then_one_each_ten_seconds(
    desk: Desk,
) -> None:
    for _ in range(REGISTRATIONS_MAX):
        desk.attempts.register("1.1.1.1", desk.now_ms)
    with pytest.raises(WireError, match="from your address: wait 10 s") as caught:
        desk.attempts.register("1.1.1.1", desk.now_ms)
    assert caught.value.code == Code.RATE_LIMITED
    desk.attempts.register("2.2.2.2", desk.now_ms)
    desk.now_ms += REGISTRATION_REFILL_MS
    desk.attempts.register("1.1.1.1", desk.now_ms)


# --- what holds whatever comes ---------------------------------------------------------------

_STEPS = st.lists(
    st.tuples(
        st.sampled_from(["ann", "bob", "cas"]),
        st.sampled_from([f"1.1.1.{number}" for number in range(8)]),
        st.sampled_from([True, False, False, False, None]),
        st.sampled_from([0, 0, 0, 10, 1_000, 30_000]),
    ),
    max_size=400,
)


@settings(max_examples=60, deadline=None)
@given(steps=_STEPS, open_max=st.integers(1, 8))
def test_nobody_is_told_to_wait_longer_than_a_minute_and_who_waited_is_let_through(
    steps: list[tuple[str, str, bool | None, int]], open_max: int
) -> None:
    """As far as others at his address, and what is under way, leave him alone meanwhile."""
    desk = Desk(AttemptLimits(address_failures_max=10))
    begun: list[tuple[Attempt | None, bool | None]] = []
    for user, address, right, pause_ms in steps:
        desk.now_ms += pause_ms
        attempt, wait_ms = desk.ask(user, address)
        assert (wait_ms == 0) == (attempt is not None)
        assert wait_ms <= DELAY_MS_MAX
        begun.append((attempt, right))
        while len(begun) >= open_max:
            attempt, outcome = begun.pop(0)
            desk.end(attempt, right=outcome)
    for attempt, outcome in begun:
        desk.end(attempt, right=outcome)
    for user in ("ann", "bob", "cas", "dee"):
        for address in ("1.1.1.0", "2.2.2.2"):
            waited_ms = 0
            while waited_ms <= 2 * DELAY_MS_MAX:
                attempt, wait_ms = desk.ask(user, address)
                desk.end(attempt, right=True)
                if attempt is not None:
                    break
                waited_ms += wait_ms
                desk.now_ms += wait_ms
            assert waited_ms <= DELAY_MS_MAX + 2 * ADDRESS_REFILL_MS
    assert desk.said <= {Code.RATE_LIMITED, Code.BUSY}


@settings(max_examples=60, deadline=None)
@given(
    steps=st.lists(
        st.tuples(st.integers(0, 30), st.sampled_from([0, 0, 0, 100, 3_000])), max_size=300
    )
)
def test_an_address_never_fails_more_often_than_its_budget_allows(
    steps: list[tuple[int, int]],
) -> None:
    burst = 10
    desk = Desk(AttemptLimits(address_failures_max=burst))
    began_ms = desk.now_ms
    failures: Counter[str] = Counter()
    for user, pause_ms in steps:
        desk.now_ms += pause_ms
        try:
            attempt = desk.begin(f"user{user}")
        except WireError:
            continue
        desk.end(attempt, right=False)
        failures["all"] += 1
        failures[f"user{user}"] += 1
        budget = burst + (desk.now_ms - began_ms) / ADDRESS_REFILL_MS
        assert failures["all"] <= budget + 1e-6


def test_the_tables_are_bounded_and_the_entry_unused_for_longest_goes_first(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 10)
    desk = Desk()
    for number in range(100):
        desk.fail(f"user{number}", f"5.5.5.{number}")
        desk.succeed(f"good{number}", f"5.5.5.{number}")
        desk.attempts.register(f"5.5.5.{number}", desk.now_ms)
    tables = ("_pairs", "_homes", "_addresses", "_users", "_registrations")
    assert all(9 <= len(getattr(desk.attempts, table)) <= 10 for table in tables)
    assert desk.attempts._homes.find(("good99", "5.5.5.99"))
    assert not desk.attempts._homes.find(("good0", "5.5.5.0"))


def test_failures_of_attempts_whose_entry_was_pushed_out_meanwhile_count_all_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "ENTRIES_MAX", 1)
    desk = Desk()
    begun = [desk.begin() for _ in range(FREE)]
    desk.begin("bob")
    for attempt in begun:
        desk.end(attempt, right=False)
    assert desk.wait_ms() == DELAY_MS


# --- who counts as one -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("address", "one"),
    [
        ("192.0.2.7", "192.0.2.7"),
        ("::ffff:192.0.2.7", "192.0.2.7"),
        ("2001:db8:1:2:3:4:5:6", "2001:db8:1:2::/64"),
        ("2001:db8:1:2::ffff", "2001:db8:1:2::/64"),
        ("fe80::1%eth0", "fe80::/64"),
        ("::1", "::/64"),
        ("", ""),
        ("x" * 100, "x" * 64),
    ],
)
def test_an_address_is_judged_as_itself_and_one_of_ipv6_as_its_network(
    address: str, one: str
) -> None:
    assert network(address) == one
