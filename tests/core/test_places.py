"""A queue that everybody shares, and that nobody holds alone."""

from __future__ import annotations

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.places import RETRY_AFTER_MS, Places
from broker.wire.errors import Code, WireError


def fill(places: Places, holder: str) -> int:
    """Take what a holder may have; return how many that are."""
    for number in range(1_000):
        try:
            places.take(holder)
        except WireError:
            return number
    raise AssertionError


def test_one_holder_gets_half_and_each_next_one_half_of_the_rest() -> None:
    places = Places(64)
    assert [fill(places, holder) for holder in "abcdefg"] == [32, 16, 8, 4, 2, 1, 1]
    assert places.full
    assert fill(places, "h") == 0


def test_a_place_given_back_may_be_taken_again() -> None:
    places = Places(4)
    assert fill(places, "a") == 2
    places.leave("a")
    assert (places.taken, places.full) == (1, False)
    places.take("a")
    places.take("b")
    places.leave("b")
    places.leave("a")
    places.leave("a")
    assert places.taken == 0
    assert fill(places, "b") == 2


def test_who_finds_none_is_told_when_to_come_again() -> None:
    with pytest.raises(WireError, match="try again") as caught:
        Places(0).take("a")
    assert (caught.value.code, caught.value.retry_after_ms) == (Code.BUSY, RETRY_AFTER_MS)


@given(holders=st.lists(st.sampled_from("abcd"), max_size=200), places_max=st.integers(1, 20))
def test_a_newcomer_finds_a_place_until_all_are_taken(holders: list[str], places_max: int) -> None:
    places = Places(places_max)
    held = dict.fromkeys("abcd", 0)
    for holder in holders:
        newcomer = not held[holder] and not places.full
        with suppress(WireError):
            places.take(holder)
            held[holder] += 1
        assert held[holder] or not newcomer
        assert places.taken == sum(held.values()) <= places_max
