"""What the machine did meanwhile, from /proc: our broker, and everybody else."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Final

from tests.load.broker_process import BrokerProcess

ROOT: Final = Path(__file__).resolve().parents[2]
_TICKS: Final = os.sysconf("SC_CLK_TCK")
#: Of the first line of /proc/stat: user, nice, system, irq, softirq.
_BUSY_FIELDS: Final = (1, 2, 3, 6, 7)


class MeasuredBroker(BrokerProcess):
    """A broker whose process a profiler may attach to."""

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid


def busy_seconds() -> float:
    """Return the CPU time that all processes of the machine have used; 0 without /proc."""
    try:
        fields = Path("/proc/stat").read_text().split("\n", 1)[0].split()
    except OSError:
        return 0.0
    return sum(int(fields[i]) for i in _BUSY_FIELDS) / _TICKS


def commit() -> str:
    """Return which code is measured; ``+`` says that files were changed since that commit.

    Not those of docs/, where the results go: they are being written already.
    """
    name = _git("rev-parse", "--short", "HEAD")
    changed = _git("status", "--porcelain", "--untracked-files=no", "--", ".", ":(exclude)docs")
    return f"{name}{'+' if changed else ''}" if name else "unknown"


def _git(*words: str) -> str:
    """Return what git prints; nothing where there is no git, or no repository."""
    try:
        done = subprocess.run(
            ["git", "-C", str(ROOT), *words], capture_output=True, text=True, check=False
        )
    except OSError:
        return ""
    return done.stdout.strip()
