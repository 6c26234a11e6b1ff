"""Which of option and variable says how a command encrypts, and what is kept of it."""

from __future__ import annotations

import argparse
from pathlib import Path

import pytest

from broker.transports.curve import Pair
from clients.curve_keys import CurveKeyError
from clients.curve_option import VARIABLE, add_curve_option, chosen_curve, curve_value, kept_value

ONE, TWO = (Pair.make().public for _ in range(2))


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_curve_option(parser)
    return parser.parse_args(words)


def server(*words: str, environ: dict[str, str] | None = None) -> str:
    curve = chosen_curve(parsed(*words), environ or {})
    return curve.server if curve else ""


def test_the_option_wins_over_the_variable() -> None:
    environ = {VARIABLE: TWO}
    assert server("--curve", ONE, environ=environ) == ONE
    assert server(environ=environ) == TWO
    assert server() == ""
    assert server(environ={VARIABLE: ""}) == ""


def test_off_is_the_word_for_not_encrypted() -> None:
    assert server("--curve", "off", environ={VARIABLE: TWO}) == ""
    assert server(environ={VARIABLE: "off"}) == ""


def test_what_is_kept_is_good_in_any_folder() -> None:
    given = curve_value(parsed("--curve", "me.key"), {})
    assert kept_value(given) == str(Path.cwd() / "me.key")
    assert kept_value("~/me.key") == str(Path.home() / "me.key")
    assert kept_value(curve_value(parsed(), {VARIABLE: ONE})) == ONE
    assert kept_value(curve_value(parsed(), {})) == ""
    assert kept_value("off") == ""


def test_a_wrong_value_is_told() -> None:
    with pytest.raises(CurveKeyError, match="cannot read the keys in /nowhere"):
        chosen_curve(parsed("--curve", "/nowhere"), {})
