"""Flame graphs, with a tool of a few lines in py-spy's place."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.bench import profiling
from tests.bench.machine import ROOT
from tests.bench.profiling import Profiler, ProfilerError, refusal

WRITES = 'while [ "$1" != --output ]; do shift; done; echo "<svg/>" > "$2"'
DENIED = "Error: Failed to open\n\nCaused by:\n    0: Permission denied (os error 13)"


@pytest.fixture
def bin_(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which the tool is looked for: beside Python, and by PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setattr(sys, "executable", str(folder / "python"))
    monkeypatch.setenv("PATH", str(folder))
    return folder


def tool(bin_: Path, script: str, *, mode: int = 0o755) -> None:
    path = bin_ / "py-spy"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(mode)


def record(profiler: Profiler) -> None:
    with profiler.recording("send-1x1", 1, 0.1) as begin:
        begin()


def test_without_the_tool_a_sentence_says_how_to_install_it(bin_: Path) -> None:
    with pytest.raises(ProfilerError, match=r"needs py-spy: .*python -m pip install py-spy"):
        Profiler(bin_)


def test_a_picture_is_waited_for_and_named(bin_: Path) -> None:
    tool(bin_, WRITES)
    profiler = Profiler(bin_)
    record(profiler)
    assert profiler.written == {"send-1x1": bin_ / "profile-send-1x1.svg"}
    assert profiler.written["send-1x1"].read_text() == "<svg/>\n"


def test_a_picture_says_what_it_shows_and_no_path_of_this_machine(bin_: Path) -> None:
    tool(
        bin_,
        'command="$0 $*"; while [ "$1" != --output ]; do shift; done\n'
        'echo "<svg><text id=\\"title\\" x=\\"1\\">$command</text><g/></svg>" > "$2"',
    )
    profiler = Profiler(bin_)
    record(profiler)
    assert profiler.written["send-1x1"].read_text() == (
        '<svg><text id="title" x="1">the broker at send-1x1, while it holds Python\'s lock</text>'
        "<g/></svg>\n"
    )


def test_what_was_measured_is_kept_without_a_path_of_the_machine_it_was_measured_on() -> None:
    kept = [each for each in (ROOT / "docs" / "bench").iterdir() if each.suffix != ".md"]
    kept += (ROOT / "tests" / "bench").glob("*.json")
    assert len(kept) > 5, "they are looked for where they are"
    for each in kept:
        text = each.read_text(encoding="utf-8")
        if each.suffix == ".svg":  # what people read in it: the rest names its own elements
            text = "\n".join(re.findall(r">([^<>]+)</(?:text|title|tspan)>", text))
        assert re.findall(r"(?<![\w.:/])/[\w.-]+/[\w./-]*", text) == [], each.name


def test_a_tool_that_is_not_permitted_to_look_says_who_is(bin_: Path) -> None:
    tool(bin_, f"echo '{DENIED}' >&2; exit 1")
    profiler = Profiler(bin_)
    with pytest.raises(ProfilerError, match="Run as root"):
        record(profiler)
    assert profiler.written == {}


def test_a_tool_that_cannot_be_run_is_an_error_of_profiling(bin_: Path) -> None:
    tool(bin_, WRITES)
    profiler = Profiler(bin_)
    (bin_ / "py-spy").unlink()  # as one without its interpreter, or without permission
    with pytest.raises(ProfilerError, match="cannot be run"):
        record(profiler)


def test_a_measurement_that_failed_is_not_hidden_by_its_profile(bin_: Path) -> None:
    tool(bin_, "exit 1")
    profiler = Profiler(bin_)
    with (  # noqa: PT012 - the failure happens while it is recorded
        pytest.raises(RuntimeError, match="the broker died"),
        profiler.recording("send-1x1", 1, 0.1) as begin,
    ):
        begin()
        raise RuntimeError("the broker died")


def test_a_tool_that_does_not_end_is_ended(bin_: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tool(bin_, "exec /bin/sleep 60")
    monkeypatch.setattr(profiling, "_WRITE_SECONDS_MAX", 0.1)
    with pytest.raises(ProfilerError, match="could not profile"):
        record(Profiler(bin_))


@pytest.mark.parametrize(
    "said",
    [
        'Permission Denied: Try running again with elevated permissions by going "sudo !!"',
        DENIED,
        "Error: Operation not permitted (os error 1)",
    ],
)
def test_what_the_tool_says_where_it_may_not_look_is_understood(said: str) -> None:
    told = refusal(f"{said}\n\nStack backtrace:\n   0: anyhow::error")
    assert "SYS_PTRACE" in told
    assert said in told
    assert "anyhow" not in told


def test_any_other_reason_is_passed_on() -> None:
    assert refusal("Error: No such process\n\nStack backtrace:\n   0: anyhow\n") == (
        "py-spy could not profile the broker:\nError: No such process"
    )
