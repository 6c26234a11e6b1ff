"""How fast one user may send over several brokers: as over one, but for a few messages a broker."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from broker.core.rates import REFUSED_MS, SendLimits, SendRates
from broker.core.shared_rates import AHEAD_MAX, RESERVED_MAX, RESERVED_MS, SharedRates, rates_of
from broker.stores.memory import MemoryStore
from broker.wire.errors import WireError
from tests.core.shared import Shared, SharedStore

LIMITS = SendLimits(rate_max=100, burst_max=1_000)


class Brokers:
    """Some brokers, one user of theirs, and one clock."""

    def __init__(self, count: int, limits: SendLimits = LIMITS) -> None:
        self.shared = Shared()
        self.stores = [SharedStore(self.shared) for _ in range(count)]
        self.rates = [SharedRates(limits, store) for store in self.stores]
        self.passed = 0

    def send(self, broker: int, times: int = 1) -> int:
        """Send within a turn; return how many were let through."""
        before = self.passed
        for _ in range(times):
            try:
                self.rates[broker].spend("ann", self.shared.now_ms)
            except WireError:
                break
            self.passed += 1
        return self.passed - before

    def settle(self, broker: int) -> None:
        self.rates[broker].settle(self.shared.now_ms)

    def turn(self, broker: int, times: int = 1) -> int:
        sent = self.send(broker, times)
        self.settle(broker)
        return sent

    def idle(self) -> None:
        """Let every broker take a turn in which nobody sends, and one when that was long ago."""
        for broker, rates in enumerate(self.rates):
            self.settle(broker)
            rates.settle(self.shared.now_ms + RESERVED_MS)


# --- as one broker would -----------------------------------------------------------------------


@pytest.mark.parametrize("a_turn", [1, 3, 60])
@pytest.mark.parametrize("count", [1, 3])
def test_a_burst_that_is_spread_is_a_burst_and_a_few_messages(count: int, a_turn: int) -> None:
    brokers = Brokers(count)
    for number in range(2 * LIMITS.burst_max // a_turn):
        brokers.turn(number % count, a_turn)
        brokers.idle()  # nothing is set aside for who does not send
    assert 0 <= brokers.passed - LIMITS.burst_max <= (count - 1) * AHEAD_MAX


@pytest.mark.parametrize("every_ms", [10, 250, REFUSED_MS, 3_700])
@pytest.mark.parametrize("rate_max", [1, 7, 100])
def test_what_follows_comes_at_the_rate_also_where_all_are_asked_at_one_moment(
    rate_max: int, every_ms: int
) -> None:
    """None has heard of what the others let through; what was too much is paid back."""
    limits = SendLimits(rate_max=rate_max, burst_max=200)
    one, three = Brokers(1, limits), Brokers(3, limits)
    for brokers in (one, three):
        for _ in range(100_000 // every_ms):
            for broker in range(len(brokers.rates)):
                brokers.send(broker, 300)
            brokers.idle()
            brokers.shared.now_ms += every_ms
    refilled = three.shared.now_ms * rate_max / 1_000
    assert 0.95 * one.passed <= three.passed <= 200 + refilled + 2 * AHEAD_MAX


def test_the_slack_is_that_of_the_documents() -> None:
    brokers = Brokers(3, SendLimits(rate_max=1, burst_max=200))
    assert sum(brokers.send(broker, 1_000) for broker in range(3)) == 200 + 2 * AHEAD_MAX


steps = st.one_of(
    st.tuples(st.just("send"), st.integers(0, 2), st.integers(1, 40)),
    st.tuples(st.just("settle"), st.integers(0, 2), st.just(0)),
    st.tuples(st.just("pass"), st.just(0), st.sampled_from([1, 50, 400, 1_000, 5_000])),
)


@given(
    script=st.lists(steps, max_size=80),
    limits=st.builds(SendLimits, rate_max=st.integers(1, 50), burst_max=st.integers(1, 300)),
)
@settings(max_examples=300, deadline=None)
def test_however_sends_are_spread_the_slack_is_a_few_messages_a_broker(
    script: list[tuple[str, int, int]], limits: SendLimits
) -> None:
    brokers = Brokers(3, limits)
    for what, broker, number in script:
        if what == "send":
            brokers.send(broker, number)
        elif what == "settle":
            brokers.settle(broker)
        else:
            brokers.shared.now_ms += number
        refilled = brokers.shared.now_ms * limits.rate_max / 1_000
        assert brokers.passed <= limits.burst_max + refilled + 2 * AHEAD_MAX + 0.001


# --- what it costs -----------------------------------------------------------------------------


def test_a_few_messages_a_turn_cost_no_exchange() -> None:
    brokers = Brokers(2)
    for _ in range(100):
        assert brokers.turn(0, AHEAD_MAX) == AHEAD_MAX
    assert brokers.shared.asked == 0


def test_a_pipeline_costs_one_exchange_and_the_next_turn_s_none() -> None:
    brokers = Brokers(2)
    assert brokers.turn(0, 200) == 200
    assert brokers.shared.asked == 1
    assert brokers.turn(0, 200) == 200
    assert brokers.shared.asked == 1


def test_who_is_refused_is_not_asked_for_again_and_again() -> None:
    brokers = Brokers(2, SendLimits(rate_max=1, burst_max=1))
    brokers.turn(0, 2)
    asked = brokers.shared.asked
    for _ in range(100):
        assert brokers.turn(0) == 0
    assert brokers.shared.asked == asked


def test_two_pipelines_that_take_turns_cost_no_more() -> None:
    brokers = Brokers(1, SendLimits(rate_max=10_000, burst_max=10_000))
    for number in range(20):
        for _ in range(100):
            brokers.rates[0].spend(f"user-{number % 2}", brokers.shared.now_ms)
        brokers.settle(0)
        brokers.shared.now_ms += RESERVED_MS // 3
    assert brokers.shared.asked == 2


def test_what_was_reserved_and_not_used_is_put_back_soon() -> None:
    brokers = Brokers(2, SendLimits(rate_max=1, burst_max=1_000))
    brokers.turn(0, 200)
    for passed_ms, left in ((RESERVED_MS - 1, 600), (1, 800)):
        brokers.shared.now_ms += passed_ms
        brokers.settle(0)
        assert brokers.shared.buckets["ann"].tokens // 1_000 == left
    assert brokers.turn(1, 800) == 800


def test_a_clock_that_is_set_back_keeps_nothing_reserved() -> None:
    brokers = Brokers(2)
    brokers.turn(0, 200)
    brokers.rates[0].settle(-1)
    assert brokers.shared.buckets["ann"].tokens == 1_000 * 800


def test_no_more_than_a_part_of_the_burst_is_ever_set_aside() -> None:
    brokers = Brokers(2)
    brokers.turn(0, 600)
    assert brokers.shared.buckets["ann"].tokens == 1_000 * (400 - RESERVED_MAX)


# --- refusals, and a store that is gone -------------------------------------------------------


def test_who_was_refused_at_a_broker_is_refused_there_until_then() -> None:
    brokers = Brokers(2, SendLimits(rate_max=1_000, burst_max=1))
    rates = brokers.rates[0]
    rates.spend("ann", 0)
    with pytest.raises(WireError) as caught:
        rates.spend("ann", 0)
    assert caught.value.retry_after_ms == REFUSED_MS
    brokers.shared.now_ms = 400
    brokers.settle(0)
    with pytest.raises(WireError) as caught:
        rates.spend("ann", 400)
    assert caught.value.retry_after_ms == REFUSED_MS - 400
    brokers.shared.now_ms = REFUSED_MS
    assert brokers.send(0) == 1


def test_without_an_answer_a_broker_goes_by_its_own_bucket() -> None:
    brokers = Brokers(2)
    for store in brokers.stores:
        store.gone = True
    assert [brokers.turn(broker, 2_000) for broker in range(2)] == [1_000, 1_000]
    brokers.shared.now_ms += REFUSED_MS
    assert brokers.turn(0, 2_000) == LIMITS.rate_max
    for store in brokers.stores:
        store.gone = False
    brokers.shared.now_ms += 60_000
    sent = [brokers.turn(broker, 2_000) for broker in range(2)]
    assert sum(sent) <= 1_000 + AHEAD_MAX, "when it is back, it is one bucket again"


def test_a_broker_that_is_alone_and_one_without_limits_share_nothing() -> None:
    assert type(rates_of(LIMITS, MemoryStore())) is SendRates
    assert rates_of(SendLimits(), SharedStore(Shared())) is None
    assert type(rates_of(LIMITS, SharedStore(Shared()))) is SharedRates
