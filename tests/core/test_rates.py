"""How fast and how much one user may send: refusals that keep the order, and end in time."""

from __future__ import annotations

import pytest

from broker.core import rates as rates_module
from broker.core.handlers import Policy
from broker.core.ports import DEFAULT_LIMITS
from broker.core.rates import REFUSED_MS, SendLimits, SendRates
from broker.wire.envelope import Reply
from broker.wire.errors import Code, WireError
from broker.wire.limits import TEXT_BYTES_MAX
from tests.core.fakes import World

LIMITS = SendLimits(rate_max=2, burst_max=3)


@pytest.fixture
def rates() -> SendRates:
    return SendRates(LIMITS)


def refusal(rates: SendRates, now_ms: int, user: str = "ann") -> int | None:
    """Send one message; return after how long to come again, or None."""
    try:
        rates.spend(user, now_ms)
    except WireError as error:
        return error.retry_after_ms
    return None


def test_a_burst_passes_and_what_follows_comes_at_the_rate(rates: SendRates) -> None:
    assert [refusal(rates, 0) for _ in range(4)] == [None, None, None, REFUSED_MS]
    assert [refusal(rates, REFUSED_MS) for _ in range(3)] == [None, None, REFUSED_MS]


def test_users_are_counted_apart(rates: SendRates) -> None:
    for _ in range(4):
        refusal(rates, 0, "ann")
    assert refusal(rates, 0, "ben") is None


def test_who_was_refused_is_refused_until_then_although_there_are_tokens_again(
    rates: SendRates,
) -> None:
    for _ in range(4):
        refusal(rates, 0)
    assert refusal(rates, 999) == 1
    assert refusal(rates, 1_000) is None


def test_trying_again_too_early_does_not_put_it_off(rates: SendRates) -> None:
    """Else two clients of one user, or an impatient one, would shut it out for ever."""
    for _ in range(4):
        refusal(rates, 0)
    for now_ms in range(100, 1_000, 100):
        assert refusal(rates, now_ms) == 1_000 - now_ms
    assert refusal(rates, 1_000) is None


def test_a_clock_that_is_set_back_shuts_nobody_out(rates: SendRates) -> None:
    for _ in range(4):
        refusal(rates, 10_000_000)
    assert refusal(rates, 0) == REFUSED_MS
    assert refusal(rates, REFUSED_MS) is None


def test_long_silence_saves_up_one_burst_and_no_more(rates: SendRates) -> None:
    refusal(rates, 0)
    assert [refusal(rates, 10_000_000) for _ in range(4)] == [None, None, None, REFUSED_MS]


def test_full_buckets_are_forgotten_and_refused_users_are_not(
    rates: SendRates, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rates_module, "BUCKETS_MAX", 3)
    fast = SendRates(SendLimits(rate_max=10_000, burst_max=1))
    assert [refusal(fast, 0, "ann") for _ in range(2)] == [None, REFUSED_MS]
    for number in range(9):
        refusal(fast, 100 + number, f"user-{number}")
    assert len(fast._buckets) <= 4
    assert refusal(fast, 200, "ann") == 800


# --- through the service ---------------------------------------------------------------------


def limited(sends: SendLimits) -> World:
    return World(Policy(sends=sends), limits=DEFAULT_LIMITS)


def refused(replies: list[Reply]) -> list[tuple[Code, int | None] | None]:
    return [
        (reply.error.code, reply.error.retry_after_ms) if reply.error else None for reply in replies
    ]


def test_a_pipeline_is_repeated_from_the_refused_one_on_and_keeps_its_order() -> None:
    world = limited(SendLimits(rate_max=1_000, burst_max=2))
    ann = world.user("ann")
    chats = [{"to": "ann", "text": text, "id": text} for text in "abc"]
    again = (Code.RATE_LIMITED, REFUSED_MS)
    replies = world.batch(*(world.frame("chat", ann, **each) for each in chats))
    assert refused(replies) == [None, None, again]
    world.now_ms += 500  # there would be tokens again
    (late,) = world.batch(world.frame("chat", ann, to="ann", text="d", id="d"))
    assert refused([late]) == [(Code.RATE_LIMITED, 500)]
    world.now_ms += 500
    for text in "cd":
        world.ok("chat", ann, to="ann", text=text, id=text)
    assert world.texts(ann) == ["a", "b", "c", "d"]


def test_everything_but_chat_goes_on() -> None:
    world = limited(SendLimits(rate_max=1, burst_max=1))
    ann = world.user("ann")
    world.send(ann, "ann", "a")
    assert world.code("send", ann, to="ann", text="b", id="b") is Code.RATE_LIMITED
    assert world.texts(ann) == ["a"]
    assert world.ok("ack", ann, seq=1)


def test_a_message_that_is_refused_for_its_size_costs_nothing() -> None:
    world = limited(SendLimits(message_bytes_max=4, rate_max=1, burst_max=1))
    ann = world.user("ann")
    assert world.code("chat", ann, to="ann", text="12345", id="a") is Code.TOO_LARGE
    assert world.send(ann, "ann", "1234")


def test_the_size_of_a_message_is_counted_in_bytes_and_told_by_hello() -> None:
    world = limited(SendLimits(message_bytes_max=4))
    ann = world.user("ann")
    reply = world.call("chat", ann, to="ann", text="\u00e9\u00e9\u00e9", id="a")
    assert reply.error is not None
    assert (reply.error.code, "4" in reply.error.message) == (Code.TOO_LARGE, True)
    assert world.ok("chat", ann, to="ann", text="\u00e9\u00e9", id="a")
    assert world.ok("hello", version=1)["limits"]["text_bytes_max"] == 4


def test_without_limits_nobody_is_slowed_down() -> None:
    world = limited(SendLimits())
    ann = world.user("ann")
    world.send(ann, "ann", *(f"m{number}" for number in range(2_000)))
    assert world.ok("chat", ann, to="ann", text="x" * TEXT_BYTES_MAX, id="long")
