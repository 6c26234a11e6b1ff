"""The trials: their judgements without a broker, and each of them once, briefly, for real."""

from __future__ import annotations

import json
from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from tests.bench import room, stalled, trial
from tests.bench.crew import CrewError
from tests.bench.room import DIRECT, FEW, MANY, Cost
from tests.bench.stalled import CASES, NOBODY, SILENT, Phase
from tests.bench.trial import Findings
from tests.load.test_load import figures, loadtest

CALM = Phase(before_mib=100, after_mib=101, p50_us=500, p99_us=1_000, broker_us=200)


def judged(*, filling: Phase = CALM, silent: Phase = CALM) -> Findings:
    """Judge a trial in which all else was calm."""
    turns = {case: [CALM] for case in CASES} | {SILENT: [silent]}
    return stalled.findings(stalled.Options(), stalled.Measurement(filling, turns))


class TestStalled:
    def test_a_broker_that_does_not_grow_is_right(self) -> None:
        assert judged().complaints == []

    def test_memory_for_what_is_not_read_is_a_complaint_whenever_it_is_taken(self) -> None:
        grown = replace(CALM, after_mib=200)
        assert "grew by 100.0 MiB" in judged(filling=grown).complaints[0]
        assert "grew by 100.0 MiB" in judged(silent=grown).complaints[0]

    def test_others_that_are_delayed_are_a_complaint(self) -> None:
        slow = replace(CALM, p99_us=8_000)
        assert "p99 is 8.0 times" in judged(silent=slow).complaints[0]

    def test_a_slow_turn_is_the_machine_s(self) -> None:
        turns = {case: [CALM] * 3 for case in CASES}
        turns[SILENT][1] = replace(CALM, p99_us=90_000)
        found = stalled.findings(stalled.Options(), stalled.Measurement(CALM, turns))
        assert found.complaints == []
        assert found.figures[SILENT]["p99_us"] == found.figures[NOBODY]["p99_us"]

    def test_a_short_one_measures_memory_and_the_others(self) -> None:
        done = loadtest(
            *("stalled", "--waiting", "3000", "--messages", "200", "--turns", "1", "--json"),
            *("--store", "memory:"),
        )
        assert done.returncode in (0, 1), done.stderr  # a p99 of 200 sends is no judgement
        found = figures(done)
        for case in CASES:
            assert found[case]["growth_mib"] < stalled.GROWTH_MIB_MAX
            assert found[case]["p99_us"] >= found[case]["p50_us"] > 0


COST = Cost(members=2, broker_us=20.0, sends_per_s=30_000, p50_us=500, p99_us=1_000)


def costs(many_us: float) -> Findings:
    """Judge a room whose sends cost so much beside 20 µs to few."""
    many = replace(COST, members=10_000, broker_us=many_us)
    measured = room.Measurement({DIRECT: COST, FEW: COST, MANY: many}, 8.0)
    return room.findings(room.Options(), measured)


class TestRoom:
    def test_a_cost_that_does_not_know_the_members_is_right(self) -> None:
        assert costs(21.0).complaints == []

    def test_a_cost_that_grows_with_the_members_is_a_complaint(self) -> None:
        assert "2.00 times" in costs(40.0).complaints[0]

    @pytest.mark.slow
    def test_a_short_one_joins_all_and_measures_each_target(self) -> None:
        done = loadtest("room", "--members", "60", "--seconds", "1", "--turns", "1", "--json")
        assert done.returncode in (0, 1), done.stderr  # a second on a busy machine says little
        found = figures(done)
        assert [found[target]["members"] for target in (DIRECT, FEW, MANY)] == [1, 2, 60]
        assert all(found[target]["broker_us"] > 0 for target in (DIRECT, FEW, MANY))


class TestTrial:
    FINDINGS = Findings(
        title="A title", headings=("what", "how much"), rows=[["this", "1 MiB"]],
        holds="All is well.", figures={"this": 1},
    )  # fmt: skip

    def test_a_person_is_shown_the_table_and_what_holds(self) -> None:
        shown = StringIO()
        trial.print_findings(self.FINDINGS, Console(file=shown, width=80))
        for words in ("A title", "how much", "1 MiB", "All is well."):
            assert words in shown.getvalue()

    def test_a_complaint_takes_the_place_of_what_holds(self) -> None:
        shown = StringIO()
        wrong = replace(self.FINDINGS, complaints=["This is not well."])
        trial.print_findings(wrong, Console(file=shown, width=80))
        assert "This is not well." in shown.getvalue()
        assert "All is well." not in shown.getvalue()

    @pytest.mark.parametrize(("complaints", "code"), [([], 0), (["wrong"], 1)])
    def test_the_exit_code_is_the_judgement_and_json_says_why(
        self, complaints: list[str], code: int, capsys: pytest.CaptureFixture[str]
    ) -> None:
        found = replace(self.FINDINGS, complaints=complaints)
        assert trial.carry_out("it", lambda _: found, steps=1, as_json=True) == code
        assert json.loads(capsys.readouterr().out) == {"this": 1, "complaints": complaints}

    def test_what_could_not_be_measured_is_exit_code_3_and_a_sentence(
        self, capsys: pytest.CaptureFixture[str]
    ) -> None:
        def fails(_: object) -> Findings:
            raise CrewError("nobody there")

        assert trial.carry_out("it", fails, steps=1, as_json=False) == 3
        assert "it: nobody there" in capsys.readouterr().err
