"""A broker with something done to it first: a stand-in for broker.cli.

``PROOF_SPOILED`` in the environment names what, separated by commas (`SPOILERS`).
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from collections.abc import Callable, Mapping
from itertools import count
from typing import Any, Final

from broker import passwords, workers
from broker.cli import main
from broker.core import service
from broker.stores import sqlite, sqlite_journal
from broker.transports import router

VARIABLE: Final = "PROOF_SPOILED"

_SERVICE: Final[Any] = service
_TURNS: Final[Any] = service.Service
_STORE: Final[Any] = sqlite.SqliteStore
_JOURNAL: Final[Any] = sqlite_journal.Journal
_HASHER: Final[Any] = passwords.Argon2Hasher
_ROUTER: Final[Any] = router.Router
_POOL: Final[Any] = workers.WorkerPool


def _restless() -> None:
    """Threads change places as often as the interpreter can."""
    sys.setswitchinterval(1e-6)


def _brisk() -> None:
    """What may be deleted is looked for all the time, not once a minute."""
    _SERVICE.TIDY_PAUSE_MS = 100


def _deadly_hashes() -> None:
    """Each third password hash would end the thread that works on it."""
    _fail_at(_HASHER, "verify", lambda number: number % 3 == 0, SystemExit)


def _faulty_turns() -> None:
    """Each hundredth turn ends in a fault before it has begun, and so does a bell now and then."""
    _fail_at(_TURNS, "turn", lambda number: number % 100 == 99, RuntimeError)


def _broken_turns() -> None:
    """From the fiftieth on no turn comes to its end."""
    _fail_at(_TURNS, "turn", lambda number: number >= 50, RuntimeError)


def _failing_writer() -> None:
    """The fiftieth batch meets a broken disk, in the database or in the journal."""
    original, append, batches = _STORE._run, _JOURNAL.append, count(1)

    def run(self: Any, statement: str, *values: Any) -> Any:
        if statement == "COMMIT" and next(batches) == 50:
            raise self._judged(sqlite3.OperationalError("put here by the proof"))
        return original(self, statement, *values)

    def written(self: Any, body: bytes) -> Any:
        if next(batches) == 50:
            raise OSError(errno.EIO, "put here by the proof")
        return append(self, body)

    _STORE._run = run
    _JOURNAL.append = written


def _dying_worker() -> None:
    """The thread that leads ends at its fiftieth turn, in a way that nobody foresaw."""
    _fail_at(_TURNS, "turn", lambda number: number == 50, RuntimeError)

    def fail(*_: object) -> None:
        raise SystemExit

    _POOL._survive = fail


def _fail_at(
    owner: Any, name: str, when: Callable[[int], bool], error: type[BaseException]
) -> None:
    original, numbers = getattr(owner, name), count(1)

    def changed(*arguments: Any, **options: Any) -> Any:
        if when(next(numbers)):
            raise error("put here by the proof")
        return original(*arguments, **options)

    setattr(owner, name, changed)


SPOILERS: Final[Mapping[str, Callable[[], None]]] = {
    "restless": _restless,
    "brisk": _brisk,
    "deadly-hashes": _deadly_hashes,
    "faulty-turns": _faulty_turns,
    "broken-turns": _broken_turns,
    "failing-writer": _failing_writer,
    "dying-worker": _dying_worker,
}

if __name__ == "__main__":
    for name in os.environ[VARIABLE].split(","):
        SPOILERS[name]()
    sys.exit(main())
