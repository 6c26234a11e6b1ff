"""Texts that say when they were sent, without a broker."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.bench.crew import Shift, _Gate
from tests.bench.parts import Limit
from tests.bench.push import END, age_s, letters, stamped, take
from tests.load.plan import Plan

PLAN = Plan(senders=2, mailboxes=3, size_bytes=64)


@given(st.integers(0, 10**18), st.integers(0, 10**12))
def test_an_age_is_the_time_since_the_stamp(made_ns: int, passed_ns: int) -> None:
    assert age_s(f"{made_ns} xxx", made_ns + passed_ns) == pytest.approx(passed_ns / 1e9)


def test_a_stamp_bears_the_time_at_which_it_was_made_and_has_the_asked_size() -> None:
    before = time.monotonic_ns()
    text = stamped(64)
    after = time.monotonic_ns()
    assert 0 <= age_s(text, after) <= (after - before) / 1e9
    assert len(text) == 64


def test_a_short_size_does_not_cut_the_time() -> None:
    text = stamped(1)
    assert 0 <= age_s(text, time.monotonic_ns()) < 60


def test_letters_go_to_the_mailboxes_in_turn_and_end_with_one_end_for_each() -> None:
    sent = list(letters(PLAN, 0, Limit(messages=6), 0))
    boxes = [PLAN.mailbox(i) for i in range(3)]
    assert [box for box, _ in sent] == boxes * 3
    assert [text == END for _, text in sent] == [False] * 6 + [True] * 3


def test_letters_whose_time_is_over_are_their_ends_alone() -> None:
    sent = list(letters(PLAN, 1, Limit(seconds=time.monotonic()), 0))
    assert [text for _, text in sent] == [END] * 3


def test_a_pause_comes_before_the_stamp_and_does_not_count_as_latency(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    pauses: list[float] = []
    clock = [0]

    def sleep(seconds: float) -> None:
        pauses.append(seconds)
        clock[0] += round(seconds * 1e9)

    monkeypatch.setattr("tests.bench.push.time.sleep", sleep)
    monkeypatch.setattr("tests.bench.push.time.monotonic_ns", lambda: clock[0])
    ages = []
    for _, text in letters(PLAN, 0, Limit(messages=50), 4.0):
        if text != END:
            ages.append(age_s(text, clock[0]))
    assert ages == [0.0] * 50
    assert all(0.002 <= pause <= 0.006 for pause in pauses)
    assert len(set(pauses)) > 1


def test_a_receiver_stops_at_the_last_senders_end_and_counts_no_end() -> None:
    shift = Shift(_Gate(1))
    texts = iter([stamped(64), END, stamped(64), stamped(64), END, stamped(64)])
    assert take(shift, texts, 2) == 3
    assert len(shift.latencies) == 3
    assert len(list(texts)) == 1
