"""The timing of logins: what it counts as telling, what it prints, how it ends."""

from __future__ import annotations

import time
from collections.abc import Sequence

import pytest
from rich.console import Console

from tests.hostile import logins
from tests.hostile.logins import KINDS, RIGHT, UNKNOWN, WRONG, Timing, judge, measure, report
from tests.load.broker_process import BrokerError


def timing(kind: str, milliseconds: float, said: str, door: str = "ZeroMQ") -> Timing:
    spread = [milliseconds * part / 1_000 for part in (0.9, 1.0, 1.3)]
    return Timing(door, kind, seconds=spread, said={said})


def three(unknown_ms: float, wrong_ms: float, unknown_said: str = "no") -> list[Timing]:
    return [
        timing(UNKNOWN, unknown_ms, unknown_said),
        timing(WRONG, wrong_ms, "no"),
        timing(RIGHT, 99.0, ""),
    ]


@pytest.mark.parametrize("unknown_ms", [95.5, 100.0, 104.5])
def test_medians_within_five_percent_tell_nothing(unknown_ms: float) -> None:
    timings = three(unknown_ms, 100.0)
    assert [verdict.holds for verdict in judge(timings)] == [True]
    assert report(timings, Console()) == 0


@pytest.mark.parametrize("unknown_ms", [1.0, 94.0, 106.0])
def test_a_difference_of_the_medians_is_a_breach(unknown_ms: float) -> None:
    assert report(three(unknown_ms, 100.0), Console()) == 1


def test_a_difference_of_the_texts_is_a_breach(capsys: pytest.CaptureFixture[str]) -> None:
    assert report(three(100.0, 100.0, "no such user"), Console()) == 1
    assert "DIFFERENT TEXTS" in capsys.readouterr().out


def test_each_door_is_judged_by_itself() -> None:
    text = [timing(kind, 50.0, "" if kind == RIGHT else "x", "text") for kind in KINDS]
    verdicts = judge([*three(1.0, 100.0), *text])
    assert [(verdict.door, verdict.holds) for verdict in verdicts] == [
        ("ZeroMQ", False),
        ("text", True),
    ]


@pytest.mark.parametrize(("kind", "said"), [(RIGHT, "no"), (WRONG, ""), (UNKNOWN, "")])
def test_a_login_that_was_let_in_or_refused_wrongly_is_no_measurement(
    kind: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    timings = [each for each in three(1.0, 1.0) if each.kind != kind] + [timing(kind, 1.0, said)]
    with pytest.raises(BrokerError, match=kind):
        judge(timings)
    assert report(timings, Console()) == 1
    assert kind in capsys.readouterr().out


def test_a_broker_that_skips_the_hash_of_an_unknown_user_is_found_out() -> None:
    def leaky(user: str, password: str) -> str:
        if user == "shafwa":
            time.sleep(0.002)
        return "" if (user, password) == ("shafwa", "mks") else "no"

    timings = measure({"leaky": leaky}, range(30))
    assert [len(each.seconds) for each in timings] == [30, 30, 30]
    (verdict,) = judge(timings)
    assert not verdict.holds


def test_each_kind_is_asked_in_every_order() -> None:
    asked: list[str] = []

    def login(user: str, password: str) -> str:
        asked.append(UNKNOWN if user != "shafwa" else RIGHT if password == "mks" else WRONG)
        return ""

    measure({"door": login}, range(6))
    rounds = {tuple(asked[start : start + 3]) for start in range(0, 18, 3)}
    assert len(rounds) == 6


@pytest.mark.parametrize(
    ("words", "code"), [(["--help"], 0), (["--rounds", "x"], 2), (["--rounds", "3"], 2)]
)
def test_a_wrong_command_line_is_told_from_a_breach(words: Sequence[str], code: int) -> None:
    assert logins.main(words) == code


def test_a_broker_that_does_not_start_is_a_sentence(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def trial(*_: object) -> list[Timing]:
        raise BrokerError("the broker did not become ready")

    monkeypatch.setattr(logins, "trial", trial)
    assert logins.main([]) == 1
    assert "did not become ready" in capsys.readouterr().err


def test_the_doors_of_a_real_broker_are_asked() -> None:
    """A handful of logins, judged by their texts alone: so few say nothing about time."""
    timings = logins.trial(2)
    assert {each.door for each in timings} == {"ZeroMQ", "text"}
    assert all(verdict.same_text for verdict in judge(timings))
