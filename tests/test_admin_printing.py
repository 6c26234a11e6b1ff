"""broker.admin.printing: the same result for a person, for a script, and as JSON."""

from __future__ import annotations

import io
import json
import sys
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

import pytest

from broker.admin import operation, printing, user_sessions
from broker.admin.printing import Column, at_work, counted, local_time, print_list, raw, size

AT_MS = 1_700_000_000_000
SESSION = {
    "session": "0123456789abcdef",
    "device": "phone\x1b[2J",
    "bound": True,
    "opened_at_ms": AT_MS,
    "seen_at_ms": AT_MS,
    "expires_at_ms": AT_MS,
}
STATUS = {
    "server": "kotak/9",
    "durability": "fsync",
    "epoch": 7,
    "started_at_ms": AT_MS,
    "draining": True,
    "mailboxes": 3,
    "waiting": 1,
    "waiting_bytes": 1_500,
    "subscriptions": 0,
}


class FakeAdmin:
    """Answers with what it was given."""

    running = True

    def __init__(self, **answers: dict[str, Any]) -> None:
        self._answers = answers

    def request(
        self, command: str, args: Mapping[str, Any], *, timeout_ms: int | None = None
    ) -> dict[str, Any]:
        return self._answers[command]


ADMIN = FakeAdmin(session_list={"sessions": [SESSION]}, broker_status=STATUS)


def terminal(monkeypatch: pytest.MonkeyPatch) -> io.StringIO:
    """Make stdout a terminal of some width, and return what stands on it."""
    shown = io.StringIO()
    shown.isatty = lambda: True  # type: ignore[method-assign]
    monkeypatch.setattr(sys, "stdout", shown)
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    return shown


def test_a_person_gets_a_table_with_times_and_words(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    user_sessions.sessions(ADMIN, Namespace(user="ann", json=False))
    for words in ("Session", "Last used", "its own", "phone\\x1b[2J", local_time(AT_MS)):
        assert words in shown.getvalue()


def test_a_script_gets_tabs_and_plain_numbers(capsys: pytest.CaptureFixture[str]) -> None:
    user_sessions.sessions(ADMIN, Namespace(user="ann", json=False))
    wanted = ["0123456789abcdef", "phone\\x1b[2J", "yes", *[str(AT_MS)] * 3]
    assert capsys.readouterr().out == "\t".join(wanted) + "\n"


def test_json_is_what_the_broker_said(capsys: pytest.CaptureFixture[str]) -> None:
    user_sessions.sessions(ADMIN, Namespace(user="ann", json=True))
    operation.status(ADMIN, Namespace(json=True))
    first, second = capsys.readouterr().out.splitlines()
    assert (json.loads(first), json.loads(second)) == ([SESSION], STATUS)


def test_status_speaks_to_a_person(monkeypatch: pytest.MonkeyPatch) -> None:
    shown = terminal(monkeypatch)
    operation.status(ADMIN, Namespace(json=False))
    lines = shown.getvalue().splitlines()
    for words in ("on disk before every OK", "yes: nothing new is taken", "1 message", "1.5 kB"):
        assert any(line.endswith(words) for line in lines), words


def test_fields_that_an_older_broker_does_not_tell_are_left_out(
    capsys: pytest.CaptureFixture[str],
) -> None:
    operation.status(FakeAdmin(broker_status={"server": "kotak/8"}), Namespace(json=False))
    assert capsys.readouterr().out == "server\tkotak/8\n"


def test_an_empty_list_is_a_sentence_for_a_person_and_nothing_for_a_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    shown = terminal(monkeypatch)
    columns = [Column("A", "a")]
    print_list([], columns, as_json=False, empty="[none] of them")
    assert shown.getvalue() == "[none] of them\n"
    monkeypatch.setattr(sys, "stdout", plain := io.StringIO())
    print_list([], columns, as_json=False, empty="none")
    assert plain.getvalue() == ""


@pytest.mark.parametrize(
    ("value", "shown"),
    [(True, "yes"), (False, "no"), (12, "12"), ("a\tb", "a\\tb"), ("é", "é")],
)
def test_a_value_cannot_break_its_line(value: object, shown: str) -> None:
    assert raw(value) == shown


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1_500, "1.5 kB"),
        (2**30, "1.1 GB"),
        (10**16, "10000.0 TB"),
    ],
)
def test_sizes_have_the_unit_that_fits(count: int, shown: str) -> None:
    assert size(count) == shown


def test_numbers_agree_with_their_nouns_and_a_broken_clock_is_no_traceback() -> None:
    assert [counted(n, "message") for n in (0, 1, 2)] == ["0 messages", "1 message", "2 messages"]
    assert local_time(2**62) == "unknown"


def test_what_takes_long_is_shown_on_a_terminal_and_what_does_not_is_no_flicker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    for after_s, is_terminal, seen in ((0.0, True, True), (60.0, True, False), (0.0, False, False)):
        stream = io.StringIO()
        stream.isatty = lambda answer=is_terminal: answer  # type: ignore[method-assign, misc]
        monkeypatch.setattr(sys, "stderr", stream)
        with at_work("at it", after_s=after_s) as tell:
            deadline = time.monotonic() + 10
            while seen and "at it" not in stream.getvalue() and time.monotonic() < deadline:
                time.sleep(0.01)
            tell("still at it")
        assert ("at it" in stream.getvalue()) is seen


def test_a_spinner_comes_after_two_seconds() -> None:
    assert printing.PROGRESS_AFTER_S == 2.0
