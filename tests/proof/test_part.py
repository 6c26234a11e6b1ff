"""A part of the proof as a command: its sizes, its rows, its exit code."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping

import pytest

from tests.proof.disk.prove import Row
from tests.proof.part import Part, Show, Size, Work, carry_out, main, row


def part(found: list[str]) -> Part:
    """Return a part with one row for each of its size, each with what was found."""

    def one(sizes: Mapping[str, int], seed: int) -> Row:
        return row("what", f"{sizes['so-many']} times", found, f"seed {seed}", figure=1)

    def work(sizes: Mapping[str, int], seed: int, show: Show) -> Iterator[Work]:
        for number in range(sizes["so-many"]):
            show("what", number, sizes["so-many"])
            yield lambda: one(sizes, seed)

    return Part("own", "A part of the test's own.", {"so-many": Size(2, "rows")}, work)


@pytest.fixture(autouse=True)
def _as_we_are(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.nice", lambda _: 0)
    monkeypatch.setattr("logging.disable", lambda: None)


def test_what_it_prints_as_json_is_every_row_with_the_seed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(part([]), ["--json", "--seed", "7"]) == 0
    fields = json.loads(capsys.readouterr().out)
    assert fields["size"] == {"so-many": 2, "seed": 7}
    assert [each["result"] for each in fields["rows"]] == ["0 breaches, seed 7"] * 2
    assert fields["passed"] is True


def test_a_breach_exits_1_and_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(part(["it broke"] * 5), ["--so-many", "1", "--seed", "7"]) == 1
    said = capsys.readouterr().out
    assert said.count("what: it broke") == 3
    assert "2 more" in said
    assert "seed 7" in said


def test_work_that_could_not_be_done_is_a_broken_row_and_the_rest_goes_on() -> None:
    def fail() -> Row:
        raise AssertionError("the broker did not start")

    def work(sizes: Mapping[str, int], seed: int, show: Show) -> Iterator[Work]:
        yield fail
        yield lambda: row("what", "once", [])

    rows = carry_out(Part("own", "", {}, work), {}, 1, lambda *_: None)
    assert [each.passed for each in rows] == [False, True]
    assert rows[0].found == ["the broker did not start"]


def test_a_size_of_nothing_leaves_it_out(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(part(["it broke"]), ["--so-many", "0", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["rows"] == []
