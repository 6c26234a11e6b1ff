"""What callers saw of a fault, from a history made by hand."""

from __future__ import annotations

import pytest

from tests.proof.history import OK, Send
from tests.scale.calls import back_s, calls, longest_s

S = 1_000_000_000


def send(sender: str, to: str, t0_s: float, t1_s: float | None, answer: str | None = OK) -> Send:
    t1 = None if t1_s is None else int(t1_s * S)
    return Send(sender, to, "id", 0, 0, int(t0_s * S), t1, answer)


BEFORE = [send("ana", "box", 0, 0.1), send("ben", "bin", 0, 0.1)]


class TestBack:
    def test_it_is_when_the_last_sender_is_served_again(self) -> None:
        sends = [*BEFORE, send("ana", "box", 1.1, 1.2), send("ben", "bin", 1.1, 4)]
        assert back_s(sends, S) == pytest.approx(3.0)

    def test_a_mailbox_counts_like_a_sender(self) -> None:
        """Both senders are served at once, but only at one of the two mailboxes."""
        sends = [*BEFORE, send("ana", "box", 1.1, 1.2), send("ben", "box", 1.1, 1.2)]
        assert back_s(sends, S) is None
        assert back_s([*sends, send("ana", "bin", 1.3, 6)], S) == pytest.approx(5.0)

    def test_a_call_that_was_under_way_says_nothing(self) -> None:
        assert back_s([*BEFORE, send("ana", "box", 0.9, 1.2)], S) is None

    def test_an_error_is_no_service(self) -> None:
        sends = [*BEFORE, send("ana", "box", 1.1, 1.2), send("ben", "bin", 1.1, 1.2, "unavailable")]
        assert back_s(sends, S) is None

    def test_later_calls_change_nothing(self) -> None:
        sends = [send("ana", "box", 1.1, 1.2), send("ana", "box", 1.3, 9)]
        assert back_s(sends, S) == pytest.approx(0.2)


def test_the_longest_call_is_one_that_ended_after_the_fault() -> None:
    sends = [send("ana", "box", 0, 0.9), send("ana", "box", 0.9, 1.5), send("ana", "box", 2, 2.1)]
    assert longest_s(sends, S) == pytest.approx(0.6)
    assert longest_s(sends, 3 * S) == 0


def test_calls_belong_to_when_they_were_begun_and_silence_has_no_latency() -> None:
    sends = [
        send("ana", "box", 0.5, 9),
        send("ana", "box", 1, 1.010),
        send("ana", "box", 1.5, 1.530),
        send("ana", "box", 1.6, None, None),
        send("ana", "box", 2, 2.5),
    ]
    seen = calls(sends, S, 2 * S)
    assert seen.number == 2
    assert (seen.p50_ms, seen.max_ms) == pytest.approx((10, 30))
