"""The parts are run within their budget, read, and told in one table; a breach is never lost."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path

import pytest
from rich.console import Console

from tests.proof.prove import __main__ as command
from tests.proof.prove.parts import MINUTES_DEFAULT, PARTS, Amount, Command
from tests.proof.prove.reading import Line, UnreadableError, read
from tests.proof.prove.report import (
    BEGIN,
    END,
    NoPlaceError,
    Report,
    print_report,
    write_into,
    write_json,
)
from tests.proof.prove.running import run_part

ROW = {"what": "w", "how_much": "2", "passed": True, "result": "r", "seconds": 1.5,
       "figures": {"n": 2}, "found": []}  # fmt: skip
HELD = Line("rot", "w", "2", passed=True, result="0 breaches", seconds=1.5, seed=7)
BROKEN = Line("kills", "k", "3", passed=False, result="5 breaches", seconds=2, found=["x"] * 5)


def run(program: str, tmp_path: Path, expected_s: float = 1) -> list[Line]:
    path = tmp_path / "part.py"
    path.write_text(program)
    return run_part("own", [str(path)], expected_s, lambda _: None)


class TestSizes:
    def test_they_go_by_the_budget_between_the_least_and_a_night(self) -> None:
        amount = Amount(10, 150, 1_000)
        assert [amount.at(minutes) for minutes in (0.1, MINUTES_DEFAULT, 30, 1_440)] == [
            10,
            150,
            300,
            1_000,
        ]

    def test_of_a_stride_less_is_more(self) -> None:
        amount = Amount(24, 4, 1, falling=True)
        assert [amount.at(minutes) for minutes in (0.1, MINUTES_DEFAULT, 60)] == [24, 4, 1]

    @pytest.mark.parametrize("each", PARTS, ids=lambda each: each.name)
    def test_every_part_takes_the_options_that_it_is_given(self, each: Command) -> None:
        words = each.words(MINUTES_DEFAULT, 7, nightly=False)
        lines = run_part(each.name, [*words, "--help"], 1, lambda _: None)
        assert not lines[0].passed  # help is no figures
        for option in [*each.amounts, *filter(None, [each.seed.strip("-")]), "json"]:
            assert f"--{option}" in " ".join(words)
        assert "unrecognized arguments" not in lines[0].found[0]
        assert "it ended with 0" in lines[0].found[0]

    def test_a_night_has_the_full_sizes(self) -> None:
        for each in PARTS:
            words = each.words(1, 7, nightly=True)
            assert all(str(amount.nightly) in words for amount in each.amounts.values())
            assert each.expected_s(1, nightly=True) >= each.expected_s(15, nightly=False)


class TestReading:
    def test_rows(self) -> None:
        found = {**ROW, "passed": False, "found": ["seed 3: lost"]}
        lines = read("rot", json.dumps({"size": {"seed": 7}, "rows": [ROW, found]}))
        assert [line.passed for line in lines] == [True, False]
        assert lines[1].found == ["seed 3: lost"]
        assert lines[0].seed == 7

    def test_the_simulator(self) -> None:
        fields = {"seeds": 20, "simulated_hours": 2.0, "clean": False, "broken": {"9": ["L1"]},
                  "sends": 5, "broker_lives": 6, "seconds": 2.0}  # fmt: skip
        (line,) = read("simulator", json.dumps(fields))
        assert not line.passed
        assert line.found == ["seed 9: L1"]

    def test_planted_bugs(self) -> None:
        bugs = [{"bug": "a", "law": "L1", "seconds": 3.0}, {"bug": "b", "law": "", "seconds": 9.0}]
        (line,) = read("seeded", json.dumps(bugs))
        assert not line.passed
        assert line.found == ["NOT CAUGHT: b"]
        assert read("seeded", json.dumps(bugs[:1]))[0].passed

    @pytest.mark.parametrize("printed", ["", "nonsense", "{}", "[]", '{"rows": []}', "7"])
    def test_anything_else_is_no_result(self, printed: str) -> None:
        with pytest.raises(UnreadableError):
            read("rot", printed)


class TestRunning:
    def test_a_part_that_prints_figures_is_read(self, tmp_path: Path) -> None:
        printed = json.dumps({"size": {"seed": 1}, "rows": [ROW]})
        (line,) = run(f"print('''{printed}''')", tmp_path)
        assert line.passed

    def test_a_part_that_breaks_off_is_a_broken_line_with_its_last_words(
        self, tmp_path: Path
    ) -> None:
        (line,) = run("raise SystemExit('no compiler')", tmp_path)
        assert not line.passed
        assert "no compiler" in line.found[0]

    def test_a_part_that_does_not_end_is_ended_with_all_that_it_started(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("tests.proof.prove.running._SECONDS_MIN", 0)
        mark = tmp_path / "alive"
        child = (
            f"import time, pathlib\\nwhile True: pathlib.Path('{mark}').touch(); time.sleep(.01)"
        )
        program = (
            f'import subprocess, sys, time\nsubprocess.Popen([sys.executable, "-c", "{child}"])\n'
            "time.sleep(60)"
        )
        (line,) = run(program, tmp_path, expected_s=0.2)
        assert "did not end" in line.found[0]
        mark.unlink(missing_ok=True)
        time.sleep(0.1)
        assert not mark.exists()


class TestReport:
    def test_one_broken_line_breaks_it_and_an_empty_one_proves_nothing(self) -> None:
        assert Report("2026-01-31", "again", 7, lines=[HELD]).passed
        assert not Report("2026-01-31", "again", 7, lines=[HELD, BROKEN]).passed
        assert not Report("2026-01-31", "again", 7).passed

    def test_the_table_shows_a_few_breaches_and_how_to_repeat_them(self) -> None:
        out = io.StringIO()
        report = Report("2026-01-31", "scripts/prove --seed 7", 7, 3.0, [HELD, BROKEN])
        print_report(report, Console(width=120, file=out))
        said = out.getvalue()
        assert "1 of 2 lines broken" in said
        assert "at least 2 more" in said
        assert "scripts/prove --seed 7" in said

    def test_json_holds_everything(self, tmp_path: Path) -> None:
        write_json(Report("2026-01-31", "again", 7, 3.0, [BROKEN]), tmp_path / "proof.json")
        fields = json.loads((tmp_path / "proof.json").read_text())
        assert fields["passed"] is False
        assert fields["lines"][0]["found"] == ["x"] * 5
        assert "SQLite" in fields["machine"]

    def test_the_document_gets_the_table_between_its_marks_again_and_again(
        self, tmp_path: Path
    ) -> None:
        document = tmp_path / "page.md"
        document.write_text(f"before\n{BEGIN}\nold\n{END}\nafter\n")
        for _ in range(2):
            write_into(Report("2026-01-31", "again", 7, 3.0, [HELD, BROKEN]), document)
        text = document.read_text()
        assert text.startswith(f"before\n{BEGIN}\n")
        assert text.endswith(f"{END}\nafter\n")
        assert "old" not in text
        assert text.count("| w | 2 | 0 breaches |") == 1
        assert "**broken**: 5 breaches" in text

    def test_a_document_without_marks_is_left_alone(self, tmp_path: Path) -> None:
        document = tmp_path / "page.md"
        document.write_text("nothing here")
        with pytest.raises(NoPlaceError):
            write_into(Report("2026-01-31", "again", 7, 3.0, [HELD]), document)
        assert document.read_text() == "nothing here"

    def test_the_project_s_document_has_a_place(self) -> None:
        text = Path("docs/DURABILITY.md").read_text()
        assert text.index(BEGIN) < text.index(END)


class TestCommand:
    @pytest.fixture(autouse=True)
    def _own_parts(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        printed = {True: [ROW], False: [{**ROW, "passed": False}]}
        for passed, rows in printed.items():
            path = tmp_path / f"proof_{passed}.py"
            fields = {"size": {"seed": 1}, "rows": rows}
            path.write_text(f"print('''{json.dumps(fields)}''')")
        monkeypatch.setenv("PYTHONPATH", str(tmp_path))
        parts = [Command(name, f"proof_{name == 'good'}", 1, {}) for name in ("good", "bad")]
        monkeypatch.setattr(command, "PARTS", parts)
        monkeypatch.setattr("os.nice", lambda _: 0)
        monkeypatch.setattr("signal.signal", lambda *_: None)  # this process keeps its own
        monkeypatch.setattr(
            "tests.proof.prove.running.ROOT", tmp_path
        )  # where -m looks for the parts first

    def test_it_exits_1_for_a_breach_and_0_without(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert command.main(["--only", "good", "--json", str(tmp_path / "out.json")]) == 0
        assert json.loads((tmp_path / "out.json").read_text())["passed"]
        assert command.main(["--seed", "5"]) == 1
        assert "scripts/prove --minutes 15 --seed 5" in capsys.readouterr().out

    def test_what_comes_late_is_made_smaller(self) -> None:
        wish = command._parse(["--minutes", "15"])
        times = sum(part.expected_s(15, nightly=False) for part in wish.parts)
        assert command._minutes_for(wish, times, 0, 0) == 15
        assert command._minutes_for(wish, times / 2, times / 2, times / 2) == 15
        late = command._minutes_for(wish, times / 2, times / 2, times * 0.75)
        assert late == pytest.approx(15 / 3)  # half of the time that is left, and half as fast
        assert command._minutes_for(wish, times / 2, times / 2, times * 2) == pytest.approx(3)

    def test_a_document_without_a_place_is_told(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "page.md").write_text("nothing")
        assert command.main(["--only", "good", "--write", str(tmp_path / "page.md")]) == 1
        assert "no place for the table" in capsys.readouterr().err

    def test_a_budget_of_nothing_is_a_mistake(self) -> None:
        with pytest.raises(SystemExit) as ended:
            command.main(["--minutes", "0"])
        assert ended.value.code == 2
