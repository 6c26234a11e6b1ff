"""The trial of backups: a small one holds, and each law can be broken."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.hostile import backups
from tests.hostile.backups_load import KEPT, TAKEN, Acked, Seen, Sent, origin_of, text_of
from tests.hostile.backups_verdict import Found, Window, judge

WINDOW = Window(100, 110)


def test_backups_under_load_hold_what_was_answered_before_them(
    capsys: pytest.CaptureFixture[str],
) -> None:
    words = ["--count", "2", "--seconds", "0.3", "--stored", "3000", "--json"]
    code = backups.main(words)
    figures = json.loads(capsys.readouterr().out)
    assert code == 0, figures
    assert len(figures["backups"]) == 2
    for each in figures["backups"]:
        assert each["integrity"] == "ok"
        assert each["before"] > 0
        assert each["breaches"] == []


def test_the_table_shows_each_backup_and_what_was_broken(tmp_path: Path) -> None:
    from rich.console import Console

    judged = judge(WINDOW, seen(), {KEPT: [], TAKEN: []})
    told = {"took_ms": 12, "bytes": 1_000_000}
    row = backups.Row(backups.Taken(tmp_path / "nightly.db", WINDOW, told), judged, "ok", 2.5)
    outcome = backups.Outcome([row], 1.5, ["half.db"], killed_within=True)
    console = Console(width=120, record=True, file=(tmp_path / "out").open("w"))
    with console.file:
        backups.print_outcome(outcome, console)
    shown = console.export_text()
    for words in ("nightly", "1 breaches", "not there: 1, 3", "half.db does not hold", "1.5 ms"):
        assert words in shown
    assert not outcome.held


# --- the judge -----------------------------------------------------------------------------------


def sent(i: int, seq: int | None, t0: int, to: str = KEPT) -> Sent:
    return Sent("ann", to, i, t0, None if seq is None else t0 + 5, seq)


def seen() -> Seen:
    """Two to each before the window, one to each within it, one afterwards; one acknowledged."""
    messages = [
        *(sent(i, 2 * i + 1, t0) for i, t0 in enumerate((10, 20, 103, 120))),
        *(sent(i, 2 * i + 2, t0, TAKEN) for i, t0 in enumerate((10, 20, 103, 120))),
    ]
    return Seen(messages, [Acked(2, 50, 55)])


def found(*places: int, to: str = KEPT) -> list[Found]:
    first = 1 if to == KEPT else 2
    return [Found(first + 2 * i, text_of("ann", i)) for i in places]


GOOD = {KEPT: found(0, 1), TAKEN: found(1, to=TAKEN)}


def breaches(kept: list[Found], taken: list[Found], noted: Seen | None = None) -> list[str]:
    return judge(WINDOW, noted or seen(), {KEPT: kept, TAKEN: taken}).breaches


def test_a_prefix_is_good_with_and_without_what_was_sent_meanwhile() -> None:
    judged = judge(WINDOW, seen(), GOOD)
    assert judged == (4, 3, 0, 1, [])
    more = judge(WINDOW, seen(), {KEPT: found(0, 1, 2), TAKEN: found(1, 2, to=TAKEN)})
    assert more == (4, 5, 2, 1, [])


def test_what_was_acknowledged_meanwhile_may_be_there_or_not() -> None:
    within = Seen(seen().sent, [Acked(2, 50, 55), Acked(4, 104, None)])
    assert breaches(GOOD[KEPT], GOOD[TAKEN], within) == []
    assert breaches(GOOD[KEPT], [], within) == []


def lost() -> list[str]:
    return breaches(found(0), GOOD[TAKEN])


def lost_though_not_acknowledged() -> list[str]:
    return breaches(GOOD[KEPT], [])


def doubled() -> list[str]:
    return breaches([*GOOD[KEPT], Found(9, text_of("ann", 1))], GOOD[TAKEN])


def out_of_order() -> list[str]:
    return breaches(GOOD[KEPT][::-1], GOOD[TAKEN])


def with_a_gap() -> list[str]:
    return breaches(found(0, 1), found(1, 3, to=TAKEN))


def without_its_first() -> list[str]:
    return breaches(found(1), GOOD[TAKEN])


def taken_again() -> list[str]:
    return breaches(GOOD[KEPT], found(0, 1, to=TAKEN))


def from_the_future() -> list[str]:
    return breaches(found(0, 1, 2, 3), GOOD[TAKEN])


@pytest.mark.parametrize(
    ("broken", "said"),
    [
        (lost, "answered OK before it began, and not there: 3"),
        (lost_though_not_acknowledged, "answered OK before it began, and not there: 4"),
        (doubled, "doubled, out of order, or have a gap"),
        (out_of_order, "sequences do not grow"),
        (with_a_gap, "taken: ann's messages are doubled, out of order, or have a gap"),
        (without_its_first, "not the first of its sender"),
        (taken_again, "acknowledged before it began, and there again: 2"),
        (from_the_future, "not sent by the end of the backup: 7"),
    ],
)
def test_each_law_can_be_broken(broken: Callable[[], list[str]], said: str) -> None:
    assert any(said in breach for breach in broken()), broken()


def test_a_text_says_whose_it_is() -> None:
    assert origin_of(text_of("sender0", 17)) == ("sender0", 17)
