"""``kotak block``, ``unblock`` and ``blocks``, and what senders are told who may not write."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from broker import cli as program
from clients import cli
from tests.clients.fake_calls import FakeBroker

Kotak = Callable[..., int]
Capture = pytest.CaptureFixture[str]


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def as_fadly(
    broker: FakeBroker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Capture
) -> Kotak:
    """Return what runs ``kotak WORDS`` as fadly, the whole program but for the broker."""
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(tmp_path / "session.json"))
    monkeypatch.delenv("KOTAK_BROKER", raising=False)
    monkeypatch.setenv("PRP", "prp")
    add_commands = cli.add_commands
    monkeypatch.setattr(
        cli, "add_commands", lambda commands: add_commands(commands, connect=broker.connect)
    )

    def run(*words: str) -> int:
        try:
            return program.main(words)
        except SystemExit as stop:
            return int(str(stop.code))

    assert run("login", "fadly", "--password-env", "PRP") == 0
    capsys.readouterr()
    return run


def test_block_and_unblock_say_what_follows(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    for _ in range(2):  # twice is no error
        assert as_fadly("block", "shafwa") == 0
        assert capsys.readouterr().out == (
            "shafwa's messages are refused from now on; those that wait stay\n"
        )
        assert broker.blocked["fadly"] == {"shafwa"}
    for _ in range(2):
        assert as_fadly("unblock", "shafwa") == 0
        assert capsys.readouterr().out == "shafwa's messages are taken\n"
        assert broker.blocked["fadly"] == set()


def test_blocks_lists_names_for_programs_a_line_each(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.blocked["fadly"] |= {"shafwa", "afif"}
    assert as_fadly("blocks") == 0
    assert capsys.readouterr() == ("afif\nshafwa\n", "")
    assert as_fadly("blocks", "--json") == 0
    lines = capsys.readouterr().out.splitlines()
    assert list(map(json.loads, lines)) == [{"user": "afif"}, {"user": "shafwa"}]


def test_blocks_of_nobody_puts_nothing_where_a_program_reads(
    as_fadly: Kotak, capsys: Capture
) -> None:
    assert as_fadly("blocks") == 0
    assert capsys.readouterr() == ("", "nobody is blocked\n")
    assert as_fadly("blocks", "--json") == 0
    assert capsys.readouterr() == ("", "")


class _AtTerminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_at_a_terminal_blocks_is_a_table_and_names_cannot_speak_to_it(
    as_fadly: Kotak, broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.blocked["fadly"] |= {"shafwa", "\x07[bold]"}
    monkeypatch.setenv("TERM", "dumb")
    terminal = _AtTerminal()
    monkeypatch.setattr(sys, "stdout", terminal)
    assert as_fadly("blocks") == 0
    shown = terminal.getvalue().splitlines()
    heading, rule, *names = [line.strip() for line in shown if line.strip()]
    assert (heading, set(rule)) == ("Blocked", {"─"})
    assert names == ["\\x07[bold]", "shafwa"]


def test_a_sender_who_is_blocked_is_told_so_with_the_code(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.blocked["shafwa"].add("fadly")
    assert as_fadly("send", "shafwa", "hai") == 1
    assert capsys.readouterr() == (
        "",
        "kotak: that user takes no messages from you: nothing was stored (blocked)\n",
    )


def test_an_observer_who_sends_is_told_that_it_may_only_read(
    as_fadly: Kotak, broker: FakeBroker, capsys: Capture
) -> None:
    broker.observers.add("fadly")
    assert as_fadly("send", "shafwa", "hai") == 1
    assert capsys.readouterr().err == (
        "kotak: an observer may read, and write to nobody (forbidden)\n"
    )


def test_whoever_blocks_nobody_of_that_name_is_told_so(as_fadly: Kotak, capsys: Capture) -> None:
    assert as_fadly("block", "nobody") == 1
    assert capsys.readouterr().err == "kotak: there is no user of that name (no_such_user)\n"


@pytest.mark.parametrize("words", [("block",), ("unblock",), ("block", "a", "b"), ("blocks", "a")])
def test_a_block_without_its_one_user_is_a_wrong_usage(
    as_fadly: Kotak, broker: FakeBroker, words: tuple[str, ...], capsys: Capture
) -> None:
    assert as_fadly(*words) == 2
    assert capsys.readouterr().err.startswith("kotak: ")
    assert broker.calls == ["login"]


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("block", "Take no messages from a user, nor invitations; those that wait stay."),
        ("unblock", "Take messages from a user again."),
        ("blocks", "List the users from whom you take no messages."),
    ],
)
def test_help_tells_what_each_does(as_fadly: Kotak, name: str, says: str, capsys: Capture) -> None:
    assert as_fadly(name, "--help") == 0
    behind = capsys.readouterr().out
    assert says in behind
    assert as_fadly("help", name) == 0
    assert capsys.readouterr().out == behind
