"""A start with a million messages waiting and a long log, until the first OK."""

from __future__ import annotations

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from signal import SIGKILL
from typing import Final

from broker.stores.folder import DATABASE_FILE
from clients.client import Client
from tests.proof.disk.course import USERS
from tests.proof.disk.running import ROOT
from tests.proof.disk.whole import log_in
from tests.proof.process.machine import Machine

#: On a quiet machine; judged by processor time, which neighbours do not add to.
START_S_MAX: Final = 3.0
_FILL_SECONDS_MAX: Final = 300
_MIB: Final = 1_048_576


@dataclass(frozen=True)
class Start:
    """How long it took until the first OK, by the clock and by the processor."""

    waiting: int
    log_mib: float
    seconds: float
    cpu_seconds: float
    memory_mib: float
    breaches: list[str]


def start_full(place: Path, messages: int, log_mib: int) -> Start:
    """Fill a store, kill who filled it, start a broker on it, and ask."""
    with Machine(place, spoiled="") as machine:
        words = [str(machine.data), str(messages), str(log_mib)]
        ended = subprocess.run(
            [sys.executable, "-m", "tests.proof.process.fill", *words],
            cwd=ROOT,
            check=False,
            timeout=_FILL_SECONDS_MAX,
        )
        assert ended.returncode == -SIGKILL, f"filling ended with {ended.returncode}"
        log_bytes = (machine.data / f"{DATABASE_FILE}-wal").stat().st_size
        began = time.monotonic()
        machine.process.start()
        with Client(machine.process.doors.zmq) as client:
            client.request("hello", {"version": 1}, token=None)
        seconds, cpu = time.monotonic() - began, machine.process.cpu_seconds()
        memory = machine.process.memory_mib()
        machine.tokens = log_in(machine.process.doors.zmq)
        breaches = _missing(machine, messages)
    if cpu > START_S_MAX:
        breaches.append(f"the first OK took {cpu:.1f} s of processor time")
    return Start(messages, round(log_bytes / _MIB, 1), seconds, cpu, memory, breaches)


def _missing(machine: Machine, messages: int) -> list[str]:
    """Look at the newest message of each user: the last one sent must be there."""
    found = 0
    for user in USERS:
        with Client(machine.process.doors.zmq, token=machine.tokens[user]) as client:
            page = client.history(limit=1)
            found = max(found, *(message.seq for message in page.messages))
    return [] if found == messages else [f"the last message is {found}, not {messages}"]
