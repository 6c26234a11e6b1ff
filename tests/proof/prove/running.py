"""Running one part in a process of its own, which is ended where it does not come to an end."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

from tests.proof.prove.reading import Line, UnreadableError, read

ROOT: Final = Path(__file__).resolve().parents[3]
_LOOK_S: Final = 0.2
_WORDS_MAX: Final = 600
#: What a machine that others use too may need in place of the expected.
_SLOWER_MAX: Final = 6
_SECONDS_MIN: Final = 900


def run_part(
    name: str, words: Sequence[str], expected_s: float, tick: Callable[[float], None]
) -> list[Line]:
    """Run a part; ``tick`` is told the seconds so far. One that fails is one broken line."""
    began = time.monotonic()
    with TemporaryFile() as out, TemporaryFile() as err:
        process = subprocess.Popen(
            [sys.executable, *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
            start_new_session=True,  # so that all it has started can be ended with it
        )
        try:
            late = not _wait(process, began + max(_SECONDS_MIN, expected_s * _SLOWER_MAX), tick)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            code = process.wait()
        out.seek(0)
        err.seek(0)
        printed, complaint = out.read().decode(), err.read().decode(errors="replace")
    seconds = round(time.monotonic() - began, 1)
    if late:
        return [_broken(name, words, f"it did not end within {seconds:.0f} s", seconds)]
    try:
        return [replace(line, again=f"python {' '.join(words)}") for line in read(name, printed)]
    except UnreadableError:
        told = complaint.strip()[-_WORDS_MAX:] or "it said nothing"
        return [_broken(name, words, f"it ended with {code}: {told}", seconds)]


def _wait(process: subprocess.Popen[bytes], until: float, tick: Callable[[float], None]) -> bool:
    """Wait for the end; tell whether it came in time."""
    began = time.monotonic()
    while time.monotonic() < until:
        with suppress(subprocess.TimeoutExpired):
            process.wait(_LOOK_S)
            return True
        tick(time.monotonic() - began)
    return False


def _broken(name: str, words: Sequence[str], found: str, seconds: float) -> Line:
    return Line(name, "the part itself", "-", passed=False, result="could not be run",
                seconds=seconds, again=f"python {' '.join(words)}",
                found=[f"python {' '.join(words)}: {found}"])  # fmt: skip
