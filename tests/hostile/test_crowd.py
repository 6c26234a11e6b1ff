"""The crowd, small: it comes in, does what it says, is counted, and the honest client is served."""

from __future__ import annotations

import resource

import pytest

from tests.hostile import crowd
from tests.hostile.attackers import Account
from tests.hostile.crowd import CrowdError, Outcome, Phase, Wish, breaches, percentile, table
from tests.hostile.honest import Seen

SMALL = Wish(seconds=3, text=200, zmq=50, raw=10)


@pytest.mark.slow
def test_a_small_crowd_is_there_all_the_time_and_the_honest_client_misses_nothing() -> None:
    outcome = crowd.run(SMALL)
    assert crowd.faults(outcome) == []
    for phase in (outcome.alone, outcome.crowded):
        assert len(phase.seen.zmq_s) == len(phase.seen.text_s) > 10
    assert [(account.kind, account.peers) for account in outcome.accounts] == [
        ("idle zmq", 50),
        ("raw silent", 10),
        ("slow text", 200),
    ]
    assert outcome.connected >= SMALL.connections * 0.9
    assert set(outcome.memory) == {"idle zmq", "raw silent", "slow text"}


# --- judging -------------------------------------------------------------------------------------


def outcome(*, alone_ms: float, crowded_ms: float, faults: tuple[str, ...] = ()) -> Outcome:
    alone, crowded = (
        Phase(Seen([ms / 1_000] * 100, [0.001] * 100, list(said)), 1.0, 0.1)
        for ms, said in ((alone_ms, ()), (crowded_ms, faults))
    )
    return Outcome(alone, crowded, {"idle zmq": 5_000.0}, [Account("idle zmq", 4, 0, 0.5)], 4)


@pytest.mark.parametrize(
    ("alone_ms", "crowded_ms", "holds"),
    [(1, 4.9, True), (1, 5, False), (4, 7.9, True), (4, 8, False), (10, 10, True)],
)
def test_the_p99_may_double_or_stay_below_5_ms(
    *, alone_ms: float, crowded_ms: float, holds: bool
) -> None:
    times = f"is {crowded_ms:.1f} ms with the crowd, {alone_ms:.1f} ms without"
    found = breaches(outcome(alone_ms=alone_ms, crowded_ms=crowded_ms))
    assert found == ([] if holds else [f"the p99 of the zmq door {times}"])


def test_what_the_honest_client_was_refused_is_a_breach() -> None:
    assert breaches(outcome(alone_ms=1, crowded_ms=1, faults=("Busy: later",))) == ["Busy: later"]


def test_the_table_tells_times_memory_and_processor() -> None:
    lines = "\n".join(table(outcome(alone_ms=1.5, crowded_ms=2.5)))
    for part in ("zmq, alone", "1.50", "2.50", "idle zmq", "5000", "10 % of a core", ": 0"):
        assert part in lines


def test_a_percentile_is_one_of_the_values() -> None:
    assert percentile([], 99) == 0
    assert percentile([3, 1, 2], 50) == 2
    assert percentile(list(range(100)), 99) == 99


# --- the command ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "words", [["--seconds", "0"], ["--text", "-1"], ["--zmq", "x"], ["--raw", "70000"], ["more"]]
)
def test_a_wrong_command_line_is_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert crowd.main(words) == 2
    assert "usage: scripts/hostile crowd" in capsys.readouterr().err


def test_too_few_open_files_end_it_with_what_to_do(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (64, 64))
    assert crowd.main([]) == 1
    said = capsys.readouterr().err
    assert said.startswith("crowd: 14400 files must be open at once, 64 may be: raise 'ulimit -Hn'")


def test_a_breach_is_1_and_no_breach_0(monkeypatch: pytest.MonkeyPatch) -> None:
    for crowded_ms, code in ((1, 0), (50, 1)):
        found = outcome(alone_ms=1, crowded_ms=crowded_ms)
        monkeypatch.setattr(crowd, "run", lambda *_, found=found: found)
        assert crowd.main(["--seconds", "1"]) == code


def test_a_process_that_has_ended_ends_the_trial() -> None:
    with crowd.Crew() as crew, pytest.raises(CrowdError, match="has ended"):
        crowd._answer(crew.start(print))
