from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from clients.ids import MessageIds

ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def _ids(clock_ms: Callable[[], int], random_bytes: Callable[[int], bytes] = bytes) -> MessageIds:
    return MessageIds(clock_ns=lambda: clock_ms() * 1_000_000, random_bytes=random_bytes)


def _decode(ulid: str) -> int:
    value = 0
    for character in ulid:
        value = value << 5 | ALPHABET.index(character)
    return value


def test_an_id_has_26_characters_of_crockfords_alphabet() -> None:
    ulid = MessageIds()()
    assert len(ulid) == 26
    assert set(ulid) <= set(ALPHABET)


def test_the_first_ten_characters_are_the_time_in_ms() -> None:
    # The example of the ULID specification: 1469918176385 ms is 01ARYZ6S41.
    assert _ids(lambda: 1_469_918_176_385)().startswith("01ARYZ6S41")


def test_all_random_bits_reach_the_id() -> None:
    low = _decode(_ids(lambda: 5, bytes)())
    high = _decode(_ids(lambda: 5, lambda n: b"\xff" * n)())
    assert low == 5 << 80
    # The counter starts in the lower half of its 20 bits.
    assert high == (5 << 80) + ((1 << 60) - 1 << 20) + (1 << 19) - 1


def test_each_millisecond_has_random_bits_of_its_own_and_all_its_ids_share_them() -> None:
    clock = iter((1_999_999, 2_000_000, 2_999_999, 3_000_000))
    random = iter(bytes([n]) * 12 for n in range(1, 4))
    make = MessageIds(clock_ns=lambda: next(clock), random_bytes=lambda _: next(random))
    prefixes = [make()[:22] for _ in range(4)]
    assert prefixes[1] == prefixes[2]
    assert len({prefix[10:] for prefix in prefixes}) == 3


@given(st.lists(st.integers(0, 2**47), min_size=2, max_size=50))
def test_ids_grow_whatever_the_clock_does(times: list[int]) -> None:
    clock = iter(times)
    make = _ids(lambda: next(clock), lambda n: b"\x7f" * n)
    made = [make() for _ in times]
    assert made == sorted(set(made))


def test_a_used_up_counter_goes_on_with_the_next_prefix_in_the_same_ms() -> None:
    make = _ids(lambda: 1)
    first = make()
    make._counter = (1 << 20) - 1  # a million calls would get there as well
    last, after = make(), make()
    assert first < last < after
    assert last[:10] == after[:10]
    assert last[:22] != after[:22]


def test_a_used_up_prefix_borrows_the_next_ms() -> None:
    make = _ids(lambda: 1, lambda n: b"\xff" * n)
    before = make()
    make._counter = 1 << 20
    assert before < make()


def test_two_generators_do_not_make_the_same_ids() -> None:
    one, other = MessageIds(), MessageIds()
    assert {one() for _ in range(1000)}.isdisjoint({other() for _ in range(1000)})


@given(st.lists(st.integers(0, 3_000), min_size=1, max_size=5), st.integers(0, 1 << 20))
def test_many_ids_are_those_that_as_many_calls_would_make(counts: list[int], counter: int) -> None:
    one_by_one, together = (_ids(lambda: 1, lambda n: b"\x7f" * n) for _ in range(2))
    for make in (one_by_one, together):
        make()
        make._counter = counter
    for count in counts:
        assert together.many(count) == [one_by_one() for _ in range(count)]


def test_many_ids_are_of_the_ms_in_which_they_are_made() -> None:
    clock = iter((1, 2))
    make = _ids(lambda: next(clock))
    early, late = make.many(2), make.many(2)
    assert early < late
    assert early[0][:10] != late[0][:10]
