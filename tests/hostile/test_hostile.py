"""The command over the trials: what it lists, what it hands on, what it refuses."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from tests.hostile import __main__ as command


def test_without_a_name_every_trial_is_listed_with_its_help(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main([]) == 0
    listed = capsys.readouterr().out
    for trial in command.trials().values():
        assert f"  {trial.name:10}{trial.help}\n" in listed


def test_an_unknown_name_is_refused_with_the_ones_there_are(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert command.main(["flood"]) == 2
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err.startswith("hostile: there is no 'flood', but ")


def test_the_words_behind_the_name_and_the_exit_code_are_the_trials_own(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    heard: list[Sequence[str]] = []

    def run(words: Sequence[str]) -> int:
        heard.append(words)
        return 1

    monkeypatch.setattr(command, "trials", lambda: {"rain": command.Trial("rain", "water", run)})
    assert command.main(["rain", "--seconds", "3"]) == 1
    assert heard == [["--seconds", "3"]]


def test_an_interrupted_trial_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def run(_: Sequence[str]) -> int:
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "trials", lambda: {"rain": command.Trial("rain", "water", run)})
    assert command.main(["rain"]) == 130
    assert capsys.readouterr().err == "hostile: interrupted\n"
