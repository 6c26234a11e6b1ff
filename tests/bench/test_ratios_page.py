"""The tables of ratios: what they say of made-up figures, and where they are written."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.bench.contest import Comparison
from tests.bench.figures import Result
from tests.bench.ratios_page import (
    BEGIN,
    END,
    NONE,
    Contested,
    PageError,
    Ratios,
    load,
    markdown,
    number,
    ratio,
    save,
    write_into,
)
from tests.bench.rivals import OWN_TARGETS, RIVALS, TARGETS, Goal

CALM = Comparison(0.1, 0.05, 2.0, 1.0, 3.0)


def contested(
    rival: str = "redis-always-lib", point: str = "2x100", **figures: Comparison
) -> Contested:
    return Contested(
        rival=rival, point=point, made="2026-01-02", commit="abc", alternations=5, seconds=5.0,
        version="7.0.15", figures={"other_cores": CALM, **figures},
    )  # fmt: skip


def ratios(*those: Contested) -> Ratios:
    return Ratios(surroundings={"Python": "3.11", "pyzmq": "27"}, contested=those)


def rows(text: str, beginning: str) -> list[list[str]]:
    """Return the cells of the rows that begin so."""
    lines = [line for line in text.splitlines() if line.startswith(f"| {beginning}")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def own(point: str, **figures: float) -> Result:
    return Result(point=point, series="", at="", repeats=3, commit="abc", figures=figures)


class TestTables:
    def test_a_rate_is_told_with_both_medians_its_ratio_and_its_goals(self) -> None:
        found = contested(sent_per_s=Comparison(120_000, 100_000, 1.2, 1.1, 1.3))
        text = markdown(ratios(found), [])
        assert rows(text, "durable sends a second at 2x100")[0][1:] == [
            "120,000", "100,000", "**1.20** (1.10-1.30)", "at least 1", "", "met",
        ]  # fmt: skip
        assert rows(text, "Redis, appendfsync always |")[-1][:4] == [
            "Redis, appendfsync always", "2x100", "120,000, 100,000", "**1.20** (1.10-1.30)",
        ]  # fmt: skip

    def test_cpu_is_judged_by_our_own_figure(self) -> None:
        found = contested(
            sent_per_s=Comparison(1, 1, 1, 1, 1), server_cpu_per_M=Comparison(5, 2.5, 2, 2, 2)
        )
        row = rows(markdown(ratios(found), []), "broker CPU a durable send")[0]
        assert row[1] == "5"
        assert row[-1] == "met"

    def test_every_goal_has_a_row_and_every_rival_one_for_each_point(self) -> None:
        text = markdown(ratios(contested(sent_per_s=Comparison(1, 1, 1, 1, 1))), [])
        for what in [*(t.what for t in TARGETS), *(t.what for t in OWN_TARGETS)]:
            assert len(rows(text, what)) == 1
        for rival in RIVALS:
            assert len(rows(text, f"{rival.title} |")) == len(rival.points)

    def test_what_was_not_measured_is_not_judged(self) -> None:
        text = markdown(ratios(contested(sent_per_s=Comparison(1, 1, 1, 1, 1))), [])
        row = rows(text, "p50 of a durable send")[0]
        assert row[3:] == ["not measured", "at most 1.3", "at most 1.1", ""]

    def test_what_needs_no_rival_comes_from_the_bench(self) -> None:
        results = [
            own("full", sends_per_s=95_000), own("send-2x100", sends_per_s=100_000),
            own("start", bytes_per_waiting=44.6, start_full_s=3.5),
        ]  # fmt: skip
        text = markdown(ratios(contested(sent_per_s=Comparison(1, 1, 1, 1, 1))), results)
        assert rows(text, "sends a second with 10^6 waiting")[0][1:] == [
            "95,000", "100,000", "0.95", "at least 0.9", "at least 1", "met",
        ]  # fmt: skip
        assert rows(text, "memory a waiting message")[0][-1] == "met"
        assert rows(text, "start with 10^6 waiting")[0][-1] == "short"

    def test_machine_versions_and_commit_stand_above(self) -> None:
        text = markdown(ratios(contested(sent_per_s=Comparison(1, 1, 1, 1, 1))), [])
        assert "Measured 2026-01-02 at commit abc.\nAlternations: 5 of 5 s." in text
        assert "Python 3.11; pyzmq 27." in text
        assert "Rivals: redis 7.0.15." in text

    def test_a_disturbed_point_is_marked(self) -> None:
        calm = contested(sent_per_s=Comparison(1, 1, 1, 1, 1))
        disturbed = contested(
            sent_per_s=Comparison(1, 1, 1, 1, 1), other_cores=Comparison(0.1, 0.9, 1, 1, 1)
        )
        assert "DISTURBED" not in markdown(ratios(calm), [])
        text = markdown(ratios(disturbed), [])
        assert "DISTURBED" in text
        assert "2x100 †" in text

    def test_nothing_measured_is_said(self) -> None:
        assert "Not measured yet" in markdown(NONE, [])


class TestGoals:
    @pytest.mark.parametrize(
        ("value", "word"), [(0.89, "short"), (0.9, "met"), (0.99, "met"), (1.0, "stretch")]
    )
    def test_more_is_better_for_a_rate(self, value: float, word: str) -> None:
        assert Goal(0.9, 1.0, more=True).judged(value) == word

    @pytest.mark.parametrize(("value", "word"), [(1.31, "short"), (1.3, "met"), (1.1, "stretch")])
    def test_less_is_better_for_a_time(self, value: float, word: str) -> None:
        assert Goal(1.3, 1.1, more=False).judged(value) == word

    def test_where_only_the_stretch_is_set_nothing_less_is_met(self) -> None:
        assert Goal(None, 1.0, more=True).judged(0.9) == "short"

    def test_every_goal_names_a_rival_that_is_measured_there(self) -> None:
        measured = {(rival.key, where) for rival in RIVALS for where in rival.points}
        assert {(target.rival, target.where) for target in TARGETS} <= measured


class TestFiles:
    def test_what_was_saved_is_read_back(self, tmp_path: Path) -> None:
        failed = Contested(
            rival="x", point="1x1", made="2026-01-02", commit="abc", failed="no such program"
        )
        before = ratios(contested(p50_us=Comparison(1, 0, None, None, None)), failed)
        save(before, tmp_path / "file")
        after = load(tmp_path / "file")
        assert after.surroundings == before.surroundings
        assert list(after.contested) == list(before.contested)

    def test_a_new_result_takes_the_place_of_the_old_one(self) -> None:
        old, other = contested(), contested("redis-always-raw")
        new = contested(sent_per_s=Comparison(1, 1, 1, 1, 1))
        found = ratios(old, other).with_one(new, {"Python": "3.13"})
        assert found.contested == [other, new]
        assert found.surroundings == {"Python": "3.13"}

    @pytest.mark.parametrize("text", ["", "{}", "7", "[]", "no json", '{"surroundings": {}}\n7'])
    def test_a_foreign_file_is_refused(self, tmp_path: Path, text: str) -> None:
        (tmp_path / "file").write_text(text)
        with pytest.raises(PageError, match="cannot be read as results"):
            load(tmp_path / "file")

    def test_only_what_stands_between_the_marks_is_replaced(self, tmp_path: Path) -> None:
        page = tmp_path / "page.md"
        page.write_text(f"above\n\n{BEGIN}\nold\n{END}\n\nbelow\n")
        for text in ("new", "newer"):
            write_into(page, text)
        assert page.read_text() == f"above\n\n{BEGIN}\nnewer\n{END}\n\nbelow\n"

    @pytest.mark.parametrize("text", ["", BEGIN, f"{END}\n{BEGIN}"])
    def test_a_document_without_both_marks_is_left_alone(self, tmp_path: Path, text: str) -> None:
        page = tmp_path / "page.md"
        page.write_text(text)
        with pytest.raises(PageError, match="needs a line"):
            write_into(page, "new")
        assert page.read_text() == text


@pytest.mark.parametrize(
    ("value", "written"), [(0.1234, "0.123"), (44.57, "44.6"), (123_456.7, "123,457")]
)
def test_numbers_have_three_digits_or_all_of_theirs(value: float, written: str) -> None:
    assert number(value) == written


def test_syncs_of_both_are_told_since_they_show_who_syncs() -> None:
    found = contested(
        sent_per_s=Comparison(1, 1, 1, 1, 1), flushes_per_k=Comparison(8.26, 1000, 0.01, 0, 0)
    )
    text = markdown(ratios(found), [])
    assert rows(text, "Redis, appendfsync always |")[-1][-1] == "8.26, 1,000"


def test_a_ratio_that_is_none_is_left_empty() -> None:
    assert ratio(None) == ratio(Comparison(1, 0, None, None, None)) == ""
