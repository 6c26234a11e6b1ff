"""Which broker a user asks first, and next: nothing but arithmetic and a fake clock."""

from __future__ import annotations

from collections import Counter

import pytest

from broker.wire.errors import Code, WireError
from clients.errors import BadRequest, Unavailable
from clients.fleet import (
    AGAIN_MS,
    BROKERS_MAX,
    FORGOTTEN_MS,
    RETURN_MS,
    Fleet,
    parse_addresses,
    ranked,
)

A, B, C = (f"tcp://10.0.0.{number}:8890" for number in (1, 2, 3))
USERS = [f"user{number}" for number in range(3_000)]


def fleet(*addresses: str, key: str | None = "shafwa", random: float = 0.5) -> Fleet:
    return Fleet(addresses, key=key, random=lambda: random)


def no_lot() -> float:
    raise AssertionError("nothing is left to chance here")


# --- addresses ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (A, (A,)),
        ("", ("",)),
        (" tcp://odd ", (" tcp://odd ",)),
        (f"{A},{B}", (A, B)),
        (f" {A} , {B},", (A, B)),
        (f"{A},{A}", (A,)),
        ([A, B], (A, B)),
        ((f"{A},{B}",), (f"{A},{B}",)),
    ],
)
def test_addresses_are_a_string_with_commas_or_a_sequence(
    given: str | list[str], expected: tuple[str, ...]
) -> None:
    assert parse_addresses(given) == expected


@pytest.mark.parametrize("given", [",", " , ", [], b"tcp://a", [1]])
def test_what_names_no_broker_is_refused(given: str) -> None:
    with pytest.raises(BadRequest, match="give the address of a broker"):
        parse_addresses(given)


def test_brokers_are_limited() -> None:
    addresses = [f"tcp://b{number}:1" for number in range(BROKERS_MAX + 1)]
    assert len(parse_addresses(addresses[1:])) == BROKERS_MAX
    with pytest.raises(BadRequest, match="65 brokers were given, 64 at most"):
        parse_addresses(addresses)


def test_the_text_of_a_fleet_makes_it_again() -> None:
    assert parse_addresses(fleet(A, B, C).text) == (A, B, C)
    assert fleet(A).text == A


# --- the order ---------------------------------------------------------------------------------


def test_users_spread_evenly() -> None:
    first = Counter(ranked([A, B, C], user)[0] for user in USERS)
    assert all(900 < first[address] < 1_100 for address in (A, B, C))
    second = Counter(
        ranked([A, B, C], user)[1] for user in USERS if ranked([A, B, C], user)[0] == A
    )
    assert all(400 < second[address] < 600 for address in (B, C)), "and so do those of a lost one"


def test_all_clients_of_a_user_meet_whatever_the_order_of_their_lists() -> None:
    for user in USERS[:50]:
        assert ranked([A, B, C], user) == ranked([C, A, B], user)


def test_a_broker_that_is_taken_out_moves_its_own_users_only() -> None:
    for user in USERS[:300]:
        before = ranked([A, B, C], user)
        assert ranked([A, B], user) == [each for each in before if each != C]


def test_the_order_is_the_same_in_every_version() -> None:
    """Clients of two versions would part a user's connections, and what brokers keep of him."""
    names = dict(zip((A, B, C), "ABC", strict=True))
    orders = {user: "".join(names[each] for each in ranked([A, B, C], user)) for user in GOLDEN}
    assert orders == GOLDEN


GOLDEN = {"shafwa": "BAC", "fadly": "CBA", "afif": "ACB", "mamang": "CBA"}


def test_without_a_user_the_order_is_drawn_by_lot() -> None:
    first = Counter(fleet(A, B, C, key=None, random=n / 1_000).current for n in range(999))
    assert all(250 < first[address] < 420 for address in (A, B, C))


def test_one_broker_leaves_nothing_to_choose() -> None:
    alone = Fleet(A, key=None, random=no_lot)
    alone.failed(0, "gone")
    alone.prefer("shafwa", 0, connected=True)
    alone.choose(1)
    assert alone.current == A
    assert not alone.elsewhere(10**9, fresh=False)
    assert alone.better(10**9) is None
    assert alone.share(5_000, 1) == 5_000


# --- who failed ---------------------------------------------------------------------------------


def test_whoever_failed_is_passed_over_and_asked_last_where_all_failed() -> None:
    brokers = fleet(A, B, C)
    order = ranked([A, B, C], "shafwa")
    asked = []
    for now in range(6):
        brokers.choose(now)
        asked.append(brokers.current)
        brokers.failed(now, "refused")
    assert asked == order * 2


def test_whoever_failed_comes_back_after_a_time_by_lot_which_doubles() -> None:
    first = ranked([A, B, C], "shafwa")[0]
    for lot, factor in ((0.0, 0.5), (0.5, 1.0), (1.0, 1.5)):
        brokers = fleet(A, B, C, random=lot)
        for strike, times in enumerate((1, 2, 4, 8, 8)):
            at_ms = strike * (FORGOTTEN_MS - 1)
            brokers.failed(at_ms, "refused", at=first)
            bar_ms = times * factor * RETURN_MS
            brokers.choose(at_ms + bar_ms - 1)
            assert brokers.current != first
            assert brokers.better_ms == at_ms + bar_ms
            assert brokers.better(at_ms + bar_ms - 1) is None
            assert brokers.better(at_ms + bar_ms) == first
            brokers.choose(at_ms + bar_ms)
            assert brokers.current == first


def test_an_answer_lifts_the_bar_and_time_the_strikes() -> None:
    """One that is drained answers each ping, and would else be gone back to again and again."""
    brokers = fleet(A, B)
    first, second = ranked([A, B], "shafwa")
    brokers.failed(0, "refused", final=True)
    brokers.failed(1, "refused", final=True)
    brokers.answered()
    assert brokers.account() == f"{first}: no answer in time; {second}: not asked"
    brokers.choose(2)
    assert brokers.current == first
    brokers.failed(3, "refused")
    brokers.choose(4)
    assert brokers.better_ms == 3 + 4 * RETURN_MS
    brokers.failed(3 + FORGOTTEN_MS, "refused", at=first)
    assert brokers.better_ms == 3 + FORGOTTEN_MS + RETURN_MS


def test_a_better_broker_of_a_new_user_is_not_gone_to_at_once_while_one_is_connected() -> None:
    user = next(each for each in USERS if ranked([A, B], each) != ranked([A, B], "shafwa"))
    brokers = fleet(A, B)
    before = brokers.current
    brokers.prefer(user, 0, connected=True)
    assert (brokers.current, brokers.better(0), brokers.better_ms) == (before, None, RETURN_MS)
    brokers.prefer(user, 0, connected=False)
    unconnected = fleet(A, B)
    unconnected.prefer(user, 0, connected=False)
    unconnected.choose(0)
    assert unconnected.current != before


def test_no_broker_takes_all_of_a_calls_time() -> None:
    brokers = fleet(A, B, C)
    assert brokers.share(2_000, 30_000) == 2_000
    assert brokers.share(2_000, 3_000) == 1_000
    assert brokers.share(2_000, 30) == 100
    assert brokers.share(2_000, float("inf")) == 2_000


def test_where_nobody_is_left_whoever_failed_a_while_ago_may_be_back() -> None:
    brokers = fleet(A, B)
    assert brokers.elsewhere(0, fresh=True)
    brokers.failed(0, "refused")
    brokers.choose(1)
    assert not brokers.elsewhere(AGAIN_MS - 1, fresh=False)
    assert brokers.elsewhere(AGAIN_MS, fresh=False)
    assert not brokers.elsewhere(AGAIN_MS, fresh=True)


# --- in plain words -----------------------------------------------------------------------------


def test_each_broker_is_named_with_what_became_of_it() -> None:
    brokers = fleet(A, B, C)
    first, second, third = ranked([A, B, C], "shafwa")
    brokers.failed(0, "the connection was refused or timed out")
    brokers.choose(1)
    told = (
        f"{first}: the connection was refused or timed out; {second}: no answer in time; "
        f"{third}: not asked"
    )
    assert brokers.account() == told
    assert told in brokers.unreached("whatever")
    assert "any of 3 brokers" in brokers.unreached("whatever")
    assert brokers.unanswered() == f"none of the brokers answered in time ({told})"


def test_a_refusal_says_whose_it_is_and_what_the_others_said() -> None:
    brokers = fleet(A, B)
    first, second = ranked([A, B], "shafwa")
    brokers.failed(0, "the broker is stopping")
    brokers.choose(1)
    refused = brokers.refused(Unavailable(Code.UNAVAILABLE, "no store", 100))
    assert type(refused) is Unavailable
    assert refused.retry_after_ms == 100
    assert refused.message == f"no store (so says {second}; {first}: the broker is stopping)"


def test_unauthorized_of_another_broker_than_the_one_that_logged_in_says_what_it_may_mean() -> None:
    error = WireError(Code.UNAUTHORIZED, "log in")
    brokers = fleet(A, B)
    first, second = ranked([A, B], "shafwa")
    assert "do not share a store" in brokers.doubted(error).message
    brokers.login_at = first
    assert brokers.doubted(error) is error, "there, the session has ended"
    brokers.failed(0, "gone")
    brokers.choose(1)
    doubted = brokers.doubted(error)
    assert doubted.code is Code.UNAUTHORIZED
    assert f"so says {second}: the session was opened at {first}" in doubted.message
    assert fleet(A).doubted(error) is error
