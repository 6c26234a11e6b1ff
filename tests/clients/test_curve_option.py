"""Which of option, variable and saved session says how a command encrypts."""

from __future__ import annotations

import argparse

import pytest

from broker.transports.curve import Pair
from clients.curve_keys import CurveKeyError
from clients.curve_option import VARIABLE, add_curve_option, chosen_curve, curve_value

ONE, TWO, THREE = (Pair.make().public for _ in range(3))


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_curve_option(parser)
    return parser.parse_args(words)


def server(*words: str, environ: dict[str, str] | None = None, saved: str | None = None) -> str:
    curve = chosen_curve(parsed(*words), environ or {}, saved=saved)
    return curve.server if curve else ""


def test_the_option_wins_over_the_variable_and_that_over_the_session() -> None:
    environ = {VARIABLE: TWO}
    assert server("--curve", ONE, environ=environ, saved=THREE) == ONE
    assert server(environ=environ, saved=THREE) == TWO
    assert server(saved=THREE) == THREE
    assert server() == ""
    assert server(environ={VARIABLE: ""}) == ""


def test_what_was_given_is_what_a_session_may_keep() -> None:
    assert curve_value(parsed("--curve", "me.key"), {}) == "me.key"
    assert curve_value(parsed(), {VARIABLE: ONE}) == ONE
    assert curve_value(parsed(), {}) is None


def test_a_wrong_value_is_told() -> None:
    with pytest.raises(CurveKeyError, match="cannot read the keys in /nowhere"):
        chosen_curve(parsed("--curve", "/nowhere"), {})
