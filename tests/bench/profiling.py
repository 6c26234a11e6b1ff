"""Flame graphs of the broker at work, by py-spy: a tool, not a dependency."""

from __future__ import annotations

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


class ProfilerError(Exception):
    """No profile can be made; the text says what to do."""


class Profiler:
    """Writes ``FOLDER/profile-POINT.svg`` for each point. Errors: `ProfilerError`."""

    def __init__(self, folder: Path) -> None:
        beside = Path(sys.executable).with_name("py-spy")
        found = str(beside) if beside.exists() else shutil.which("py-spy")
        if found is None:
            raise ProfilerError(f"--profile needs py-spy: {sys.executable} -m pip install py-spy")
        self._tool = found
        self._folder = folder

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
        self._folder.mkdir(parents=True, exist_ok=True)
        started: list[subprocess.Popen[str]] = []

        def begin() -> None:
            command = self.command(point, pid, seconds)
            started.append(subprocess.Popen(command, stdout=-3, stderr=subprocess.PIPE, text=True))

        try:
            yield begin
        finally:
            for process in started:
                said = _end(process)
                if process.returncode:
                    raise ProfilerError(f"py-spy could not profile the broker:\n{said.strip()}")


def _end(process: subprocess.Popen[str]) -> str:
    try:
        return process.communicate(timeout=_WRITE_SECONDS_MAX)[1]
    except subprocess.TimeoutExpired:
        process.kill()
        return process.communicate()[1]
