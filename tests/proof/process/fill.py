"""Filling a store, and leaving it as a kill does.

    python -m tests.proof.process.fill FOLDER MESSAGES LOG_MIB

So many messages wait in it, and its log has so many MiB that no checkpoint has moved yet.
"""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import Final

from tests.proof.disk.course import USERS
from tests.proof.disk.store_calls import StoreCalls
from tests.proof.kills.points import die

_BATCH: Final = 2_000
_TEXT: Final = "x" * 100
#: What one message of such a text takes in the log, pages and all.
_LOG_BYTES: Final = 160
_MIB: Final = 1_048_576


def fill(folder: Path, messages: int, log_mib: int) -> None:
    """Append the messages; those of the last ``log_mib`` stay in the log."""
    store = StoreCalls(folder)
    kept = min(messages, log_mib * _MIB // _LOG_BYTES)
    engine, now_ms = store._store, time.time_ns() // 1_000_000
    for first in range(0, messages, _BATCH):
        if first >= messages - kept:
            store.checkpoint_at(sys.maxsize)
        with store.batch():
            for number in range(first, min(first + _BATCH, messages)):
                to = USERS[number % len(USERS)]
                engine.append(to, USERS[0], f"fill-{number}", _TEXT, now_ms)
    die()


if __name__ == "__main__":
    fill(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
