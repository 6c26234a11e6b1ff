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
    """Return which code is measured; ``+`` says that files were changed since that commit."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty=+", "--exclude=*"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() or "unknown"
