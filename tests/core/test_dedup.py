"""How long an id is remembered, and how many are held. Source: docs/PROTOCOL.md, "chat"."""

from __future__ import annotations

from hypothesis import example, given
from hypothesis import strategies as st

from broker.core.dedup import DedupLimits, DedupWindow

LIMITS = DedupLimits(ids_per_sender=3, ids_max=10, window_ms=100)
SENDS = st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 60)), max_size=120)


def test_an_id_belongs_to_its_sender() -> None:
    window = DedupWindow(LIMITS)
    window.add("a", {"m1": 7}, 0)
    assert (window.find("a", "m1"), window.find("b", "m1"), window.find("a", "m2")) == (
        7,
        None,
        None,
    )


def test_an_id_is_discarded_wherever_it_lies() -> None:
    window = DedupWindow(LIMITS)
    for number in range(5):
        window.add("a", {str(number): number}, 0)
    for number in range(5):
        window.discard("a", str(number))
        assert window.find("a", str(number)) is None
    window.discard("a", "unknown")
    assert len(window) == 0


def test_all_ids_of_a_sender_are_forgotten_and_brought_back() -> None:
    window = DedupWindow(LIMITS)
    for number in range(9):  # over both generations and both tables of each
        window.add("a", {str(number): number}, 0 if number < 4 else 101)
        window.add("b", {str(number): number}, 101)
    before = [window.find("a", str(number)) for number in range(9)]
    held = len(window)
    undo = window.forget("a")
    assert [window.find("a", str(number)) for number in range(9)] == [None] * 9
    assert window.find("b", "8") == 8
    assert len(window) < held
    window.add("a", {"8": 99}, 101)
    window.discard("a", "8")
    undo()
    assert [window.find("a", str(number)) for number in range(9)] == before
    assert before[-1] == 8
    assert len(window) == held


def test_a_busy_sender_does_not_push_out_the_id_of_another() -> None:
    window = DedupWindow(LIMITS)
    window.add("quiet", {"m1": 1}, 0)
    for number in range(1_000):
        window.add("busy", {str(number): number}, 50)
    assert window.find("quiet", "m1") == 1


def test_an_id_is_forgotten_when_the_window_has_passed_twice() -> None:
    window = DedupWindow(LIMITS)
    for now_ms in (0, 101, 202, 303):
        window.add("a", {str(now_ms): now_ms}, now_ms)
    assert window.find("a", "0") is None
    assert window.find("a", "303") == 303


@given(sends=SENDS)
@example(sends=[(sender, 0) for sender in "bbbccaaaadddee"])
def test_an_id_is_remembered_as_long_as_promised(sends: list[tuple[str, int]]) -> None:
    """Unless its sender sent so many since, or the window passed, or all sent so many since."""
    window = DedupWindow(LIMITS)
    log: list[tuple[str, int]] = []
    now_ms = 1_000
    for seq, (sender, passed_ms) in enumerate(sends):
        now_ms += passed_ms
        window.add(sender, {str(seq): seq}, now_ms)
        log.append((sender, now_ms))
        for older, (who, at_ms) in enumerate(log):
            younger = [each for each, _ in log[older + 1 :]]
            if (
                younger.count(who) < LIMITS.ids_per_sender
                and now_ms - at_ms <= LIMITS.window_ms
                and len(younger) <= LIMITS.ids_max
            ):
                assert window.find(who, str(older)) == older


@given(sends=SENDS)
def test_no_more_is_held_than_twice_the_limit(sends: list[tuple[str, int]]) -> None:
    window = DedupWindow(LIMITS)
    for seq, (sender, _) in enumerate(sends):
        window.add(sender, {str(seq): seq}, 1_000)
        tables = (
            ids
            for generation in (window._young, window._old)
            for table in (generation.latest, generation.before)
            for ids in table.values()
        )
        held = sum(len(ids) for ids in tables)
        assert held == len(window) <= 2 * (LIMITS.ids_max + 1)
