"""A broker process with something done to it, and clients of which everything is known."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Self

from tests.load.broker_process import STOP_SECONDS_MAX, BrokerProcess
from tests.proof.disk.crowd import Crowd, Operation
from tests.proof.disk.verdict import judge
from tests.proof.disk.whole import add_users, log_in, surrounded
from tests.proof.history import Record
from tests.proof.process.program import VARIABLE

#: How a client of the library says that the same request is good again later.
_RETRYABLE: Final = ("unavailable", "internal")


class Machine:
    """One broker on one folder over its lives; a context manager that ends it at the end."""

    def __init__(self, place: Path, *, spoiled: str, options: Sequence[str] = ()) -> None:
        self.data = place / "data"
        self._spoiled = spoiled
        self.process = BrokerProcess(
            self.data,
            options=options,
            program="tests.proof.process.program" if spoiled else "broker.cli",
        )
        self.tokens: dict[str, str] = {}
        self.past: list[Record] = []
        self._life = 0

    def __enter__(self) -> Self:
        self.data.mkdir(mode=0o700, parents=True)
        add_users(self.data)
        return self

    def __exit__(self, *_: object) -> None:
        self.process.stop()

    def start(self) -> BrokerProcess:
        """Start it; at the first time, log everybody in."""
        with surrounded({VARIABLE: self._spoiled}):
            self.process.start()
        if not self.tokens:
            self.tokens = log_in(self.process.doors.zmq)
        return self.process

    @property
    def pid(self) -> int:
        assert self.process._process is not None
        return self.process._process.pid

    def crowd(self) -> Crowd:
        """Let clients begin."""
        self._life += 1
        return Crowd(self.process.doors.zmq, self.tokens, life=self._life)

    def work(self, seconds: float) -> tuple[list[Operation], list[str]]:
        """Let clients work for so long, or until the broker has ended."""
        crowd = self.crowd()
        until = time.monotonic() + seconds
        while time.monotonic() < until and self.process.alive:
            time.sleep(0.01)
        return self.finish(crowd)

    def finish(self, crowd: Crowd) -> tuple[list[Operation], list[str]]:
        """Let the clients give up; return what they saw, and what they should not have."""
        records = crowd.stop()
        self.past += records
        return records, [fault for fault in crowd.faults if not _may_be_repeated(fault)]

    def terminate(self) -> tuple[int, float]:
        """End it by SIGTERM; return its exit code, and the seconds that it took."""
        began = time.monotonic()
        os.kill(self.pid, signal.SIGTERM)
        code = self.ended()
        return code, time.monotonic() - began

    def ended(self) -> int:
        """Wait for its end; return its exit code, -9 where that had to be brought about."""
        process = self.process._process
        assert process is not None
        try:
            code = process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            code = -signal.SIGKILL
        self.process.stop()
        return code

    def judged(self) -> list[str]:
        """Open the store of a broker that has ended, and judge all that its clients saw."""
        return judge(self.data, self.past, repeat=self.past)


def _may_be_repeated(fault: str) -> bool:
    return any(f": {code}: " in fault for code in _RETRYABLE)
