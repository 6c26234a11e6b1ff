"""Starting a life, listening to it, ending it."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import IO, Final, NamedTuple

from tests.proof.disk.course import Course, Said, parse_said

ROOT: Final = Path(__file__).resolve().parents[3]
_MEMORY: Final = Path("/dev/shm")  # a file system in memory, where there is one
_SECONDS_MAX: Final = 120


class Ended(NamedTuple):
    """How a life ended: its exit code (negative: a signal), its last words, what it had said."""

    code: int
    complaint: str
    said: Said


@contextmanager
def scratch() -> Iterator[Path]:
    """Make a folder for disks and journals: in memory where that can be, since no result depends
    on the real disk."""
    place = _MEMORY if os.access(_MEMORY, os.W_OK) else None
    with TemporaryDirectory(prefix="kotak-disk-", dir=place) as folder:
        yield Path(folder).resolve()


def live(
    folder: Path,
    course: Course,
    environment: Mapping[str, str],
    *,
    kill_after: int = 0,
    program: Sequence[str] = ("tests.proof.disk.life",),
) -> Ended:
    """Run one life to its end, or to the kill after so many lines.

    ``program`` is the module that lives, with words of its own before those of every life.
    """
    with TemporaryFile() as complaint:
        process = subprocess.Popen(
            [sys.executable, "-m", *program, str(folder), course.as_json()],
            stdout=subprocess.PIPE,
            stderr=complaint,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        assert process.stdout is not None
        with process.stdout as out:
            try:
                lines = _listen(out, process, kill_after)
                code = process.wait(_SECONDS_MAX)
            finally:
                process.kill()
                process.wait()
        complaint.seek(0)
        return Ended(code, complaint.read().decode(errors="replace"), parse_said(lines))


def _listen(out: IO[bytes], process: subprocess.Popen[bytes], kill_after: int) -> list[bytes]:
    lines: list[bytes] = []
    for line in out:
        lines.append(line)
        if len(lines) == kill_after:
            process.kill()
    return lines
