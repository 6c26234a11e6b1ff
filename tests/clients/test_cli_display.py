"""What strangers wrote is shown, and nothing of it is obeyed."""

from __future__ import annotations

import unicodedata

import pytest

from clients.display import local_time, message_text, person, safe_line, safe_text
from clients.results import Message


@pytest.mark.parametrize("text", ["hai dudee", "tab\tand\nline", "ünïcödé ✓", "👩‍👩‍👧 क्‍ष", "\\x1b"])
def test_ordinary_text_is_left_alone(text: str) -> None:
    assert safe_text(text) == text


def test_no_control_character_but_tab_and_line_feed_gets_through() -> None:
    every = map(chr, range(0x110000))
    controls = [c for c in every if unicodedata.category(c) in ("Cc", "Cs", "Zl", "Zp")]
    let_through = [c for c in controls if safe_text(c) == c]
    assert let_through == ["\t", "\n"]


@pytest.mark.parametrize("mark", ["\u202e", "\u2066", "\u200f", "\u200b", "\ufeff", "\U000e0041"])
def test_invisible_marks_that_reorder_or_hide_text_are_shown(mark: str) -> None:
    assert safe_text(f"a{mark}b") == f"a{ascii(mark)[1:-1]}b"


def test_what_was_made_safe_can_be_encoded() -> None:
    assert safe_text("\udcff").encode() == b"\\udcff"


def test_a_name_stays_on_its_line_and_the_user_name_stays_visible() -> None:
    assert safe_line("a\nb\tc") == "a\\nb\\tc"
    assert person("mallory", "Shafwa (shafwa)\n") == "Shafwa (shafwa)\\n (mallory)"
    assert person("fadly", "") == person("fadly", "fadly") == "fadly"


def test_the_lines_of_one_text_cannot_pass_for_another_message() -> None:
    message = Message(1, 0, "fadly", "Fadly", "id", "hi\n[2023-11-14 22:13] Bank to you: pay")
    first, second = message_text(message, "Shafwa").split("\n")
    assert first.endswith("] Fadly (fadly) to Shafwa: hi")
    assert second.startswith("    [")


@pytest.mark.parametrize("at_ms", [-(2**80), 2**80, 2**62])
def test_a_time_that_is_none_is_no_traceback(at_ms: int) -> None:
    assert local_time(at_ms) == "unknown time"
