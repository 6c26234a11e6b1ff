"""Figures, points, pictures and comparisons, without a process."""

from __future__ import annotations

import json
import re
import subprocess
import xml.etree.ElementTree as ET
from pathlib import Path
from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.bench import machine
from tests.bench.figures import (
    Figures,
    Result,
    from_line,
    load,
    medians,
    percentile_us,
    ratios,
    rounded,
    to_line,
)
from tests.bench.options import parse
from tests.bench.plots import draw, label, nice_above, short, svg
from tests.bench.points import DRAWN, POINTS, chosen
from tests.bench.scenarios import SCENARIOS
from tests.bench.show import ratio_table, table

SECONDS = st.floats(1e-6, 100.0)


def result(
    point: str = "send-2x100", series: str = "send", at: str = "", **figures: float
) -> Result:
    return Result(point=point, series=series, at=at, figures=figures, repeats=1, commit="abc")


def shown(what: object) -> str:
    console = Console(width=160)
    with console.capture() as capture:
        console.print(what)
    return capture.get()


class TestFigures:
    @given(st.lists(SECONDS, min_size=1), st.integers(1, 100))
    def test_a_percentile_is_a_value_that_so_many_do_not_exceed(
        self, values: list[float], percent: int
    ) -> None:
        ordered = sorted(values)
        found = percentile_us(ordered, percent) / 1e6
        assert found in [pytest.approx(value) for value in ordered]
        assert sum(value <= found * (1 + 1e-9) for value in ordered) >= len(ordered) * percent / 100

    def test_nothing_has_percentile_zero(self) -> None:
        assert percentile_us([], 99) == 0.0

    @given(st.lists(st.floats(0.1, 999), min_size=1, max_size=9))
    def test_repeats_are_told_by_their_median(self, values: list[float]) -> None:
        found = medians([{"p50_us": value} for value in values])
        assert found["p50_us"] == pytest.approx(median(values), rel=1e-3)

    def test_small_figures_keep_four_digits_and_large_ones_their_ones(self) -> None:
        assert rounded({"a": 7.123456, "b": 0.000123456, "c": 123456.7}) == {
            "a": 7.123, "b": 0.0001235, "c": 123457,
        }  # fmt: skip

    def test_a_line_says_all_that_a_result_holds(self, tmp_path: Path) -> None:
        before = [result(sends_per_s=5, p50_us=2.5), result("drain-100", "drain", drained_per_s=9)]
        file = tmp_path / "lines"
        file.write_text("\n".join(map(to_line, before)) + "\n\n")
        assert load(file) == before
        assert json.loads(to_line(before[0]))["p50_us"] == 2.5

    @pytest.mark.parametrize("line", ["", "{}", "[]", "7", '{"point": "send-1x1"}', "no json"])
    def test_a_foreign_line_is_refused(self, line: str) -> None:
        with pytest.raises(ValueError):  # noqa: PT011 - any of its kinds: argparse shows the text
            from_line(line)

    def test_ratios_are_now_to_then_for_what_both_measured(self) -> None:
        now = [result(sends_per_s=150, p50_us=10, messages=7), result("text-8", sends_per_s=1)]
        then = [result(sends_per_s=100, p50_us=20, messages=9, p99_us=1)]
        assert list(ratios(now, then)) == [("send-2x100", {"sends_per_s": 1.5, "p50_us": 0.5})]

    def test_a_figure_that_was_zero_has_no_ratio(self) -> None:
        assert list(ratios([result(p50_us=1)], [result(p50_us=0)])) == []


class TestPoints:
    def test_names_are_unique_and_every_scenario_exists(self) -> None:
        assert len({point.name for point in POINTS}) == len(POINTS)
        assert {point.scenario for point in POINTS} == set(SCENARIOS)

    def test_every_figure_has_points_with_labels_of_their_own(self) -> None:
        for series in DRAWN:
            labels = [point.at for point in POINTS if point.series == series]
            assert len(set(labels)) == len(labels) > 1
            assert all(labels)

    @pytest.mark.parametrize(
        ("patterns", "names"),
        [
            (["send-2x100"], ["send-2x100"]),
            (["drain"], ["drain-100", "drain-1000"]),
            (["start", "send-*x1"], ["send-1x1", "send-8x1", "start"]),
        ],
    )
    def test_points_are_chosen_by_name_series_or_pattern(
        self, patterns: list[str], names: list[str]
    ) -> None:
        assert [point.name for point in chosen(patterns)] == names

    def test_no_pattern_means_all(self) -> None:
        assert chosen([]) == list(POINTS)

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--points", "sned"], "no point fits 'sned'"),
            (["--seconds", "0"], "must lie between"),
            (["--repeat", "0"], "must lie between"),
            (["--compare", "/nowhere"], "cannot read /nowhere"),
            (["--draw", "/dev/null"], "cannot use /dev/null"),
            (["--profile", "/dev/null/deeper"], "cannot use /dev/null/deeper"),
        ],
    )
    def test_a_mistake_ends_with_code_2_and_a_sentence(
        self, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as exit_:
            parse(words)
        assert exit_.value.code == 2
        assert sentence in capsys.readouterr().err

    def test_list_names_every_point(self, capsys: pytest.CaptureFixture[str]) -> None:
        assert parse(["--list"]) is None
        assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [
            point.name for point in POINTS
        ]


class TestShow:
    def test_columns_that_no_point_has_are_left_out(self) -> None:
        lines = shown(table([result(sends_per_s=123456, p50_us=1.5)]))
        assert "123,456" in lines
        assert "drained/s" not in lines

    def test_ratios_have_two_digits(self) -> None:
        figures: Figures = {"sends_per_s": 1.5, "broker_us": 0.913}
        lines = shown(ratio_table([("send-1x1", figures)]))
        assert "1.50" in lines
        assert "0.91" in lines
        assert "drained/s" not in lines


class TestCommit:
    @pytest.fixture
    def git(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
        monkeypatch.setattr(machine, "ROOT", tmp_path)
        who = ["-c", "user.name=a", "-c", "user.email=a@example.org", "-c", "commit.gpgsign=false"]
        for name in ("broker", "docs"):
            (tmp_path / name).mkdir()
            (tmp_path / name / "file").write_text("committed")
        for words in (["init", "-q"], ["add", "."], [*who, "commit", "-q", "-m", "first"]):
            subprocess.run(["git", "-C", str(tmp_path), *words], check=True)
        return tmp_path

    def test_results_that_are_being_written_are_no_change_of_the_code(self, git: Path) -> None:
        (git / "docs" / "file").write_text("")
        assert re.fullmatch("[0-9a-f]{7,}", machine.commit())

    def test_changed_code_is_marked(self, git: Path) -> None:
        (git / "broker" / "file").write_text("changed")
        assert machine.commit().endswith("+")

    def test_a_copy_without_git_is_unknown(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(machine, "ROOT", tmp_path)
        monkeypatch.setenv("PATH", "")
        assert machine.commit() == "unknown"


class TestPlots:
    def series(self, *rates: float) -> list[Result]:
        return [
            result(f"body-{i}", "body", f"{i} B", sends_per_s=rate, broker_us=7.0)
            for i, rate in enumerate(rates)
        ]

    def test_a_figure_is_xml_with_two_bars_a_point(self) -> None:
        root = ET.fromstring(svg("body", self.series(100_000, 90_000, 0)))
        assert len(root.findall("{http://www.w3.org/2000/svg}rect")) == 6

    def test_bars_are_as_high_as_their_values_and_stay_inside(self) -> None:
        root = ET.fromstring(svg("body", self.series(100_000, 50_000)))
        bars = root.findall("{http://www.w3.org/2000/svg}rect")
        heights = [float(bar.attrib["height"]) for bar in bars if bar.attrib["class"] == "rate"]
        assert heights[0] == pytest.approx(2 * heights[1])
        assert all(float(bar.attrib["y"]) >= 84 for bar in bars)

    def test_the_same_results_give_the_same_bytes(self) -> None:
        assert svg("body", self.series(1, 2)) == svg("body", self.series(1, 2))

    def test_a_figure_says_when_others_disturbed_it(self) -> None:
        disturbed = [*self.series(1), result("body-9", "body", "9 B", foreign_cores=0.9)]
        assert "DISTURBED: up to 0.9 cores" in svg("body", disturbed)
        assert "DISTURBED" not in svg("body", self.series(1, 2))

    def test_only_what_was_measured_twice_is_drawn(self, tmp_path: Path) -> None:
        results = [*self.series(1, 2), result("idle-0", "idle", "0", sends_per_s=1)]
        assert draw(results, tmp_path / "new") == [tmp_path / "new" / "body.svg"]

    @given(st.floats(1e-3, 1e9))
    def test_an_axis_ends_at_or_little_above_its_highest_bar(self, value: float) -> None:
        assert value * (1 - 1e-6) <= nice_above(value) <= 2.5 * value

    def test_numbers_read_as_people_write_them(self) -> None:
        assert [short(value) for value in (950, 12_345, 123_456)] == ["950", "12.3k", "123k"]
        assert [label("100000"), label("64 KB")] == ["100,000", "64 KB"]
