"""Flame graphs of the broker at work, by py-spy: a tool, not a dependency."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from math import ceil
from pathlib import Path
from typing import Final

_SAMPLES_PER_S: Final = 200
#: Writing the picture, once the recording is over.
_WRITE_SECONDS_MAX: Final = 60.0
#: Where a picture names the command that made it, with the paths of this machine.
_TITLE: Final = re.compile(r'(<text id="title"[^>]*>)[^<]*')
#: What py-spy says where it may not look.
_DENIED: Final = re.compile("permission denied|operation not permitted", re.IGNORECASE)


class ProfilerError(Exception):
    """No profile can be made; the text says what to do."""


class Profiler:
    """Writes ``FOLDER/profile-POINT.svg`` for each point. Errors: `ProfilerError`.

    A repeated point leaves the picture of its last round.
    """

    def __init__(self, folder: Path) -> None:
        beside = Path(sys.executable).with_name("py-spy")
        found = str(beside) if beside.exists() else shutil.which("py-spy")
        if found is None:
            raise ProfilerError(f"--profile needs py-spy: {sys.executable} -m pip install py-spy")
        self._tool = found
        self._folder = folder
        #: The picture of each point that was profiled.
        self.written: dict[str, Path] = {}

    def command(self, point: str, pid: int, seconds: float) -> list[str]:
        """Return the command line. Only threads at work are shown: nobody who waits to lead."""
        return [
            *(self._tool, "record", "--pid", str(pid), "--duration", str(ceil(seconds))),
            *("--rate", str(_SAMPLES_PER_S), "--gil", "--output", str(self.path(point))),
        ]

    def path(self, point: str) -> Path:
        return self._folder / f"profile-{point}.svg"

    @contextmanager
    def recording(self, point: str, pid: int, seconds: float) -> Iterator[Callable[[], None]]:
        """Yield what begins the recording, which ends by itself; wait for its picture."""
        started: list[subprocess.Popen[str]] = []

        def begin() -> None:
            started.append(_start(self.command(point, pid, seconds)))

        try:
            yield begin
        finally:
            said = "".join(_end(process, seconds) for process in started)
        # Not where the phase itself has failed: that is what must be heard.
        if any(process.returncode for process in started):
            raise ProfilerError(refusal(said))
        for _ in started:
            retitle(self.path(point), point)
        self.written[point] = self.path(point)


def retitle(picture: Path, point: str) -> None:
    """Say above a picture what it shows: it is for people elsewhere, whom no path here helps."""
    title = f"the broker at {point}, while it holds Python's lock"
    drawn = picture.read_text(encoding="utf-8")
    picture.write_text(_TITLE.sub(lambda found: found[1] + title, drawn), encoding="utf-8")


def refusal(said: str) -> str:
    """Return why there is no profile, and what helps, from what py-spy said."""
    why = said.split("\n\nStack backtrace", 1)[0].strip()
    if _DENIED.search(why):
        return (
            "--profile: py-spy is not permitted to read the broker's memory. Run as root; in a "
            f"container that needs the capability SYS_PTRACE beside. py-spy says:\n{why}"
        )
    return f"py-spy could not profile the broker:\n{why}"


def _start(command: list[str]) -> subprocess.Popen[str]:
    try:
        return subprocess.Popen(
            command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise ProfilerError(f"py-spy cannot be run: {error}") from None


def _end(process: subprocess.Popen[str], seconds: float) -> str:
    try:
        return process.communicate(timeout=seconds + _WRITE_SECONDS_MAX)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[1]
