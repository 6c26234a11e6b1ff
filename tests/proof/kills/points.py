"""Where a process ends itself by SIGKILL: put into it by replacing what the broker calls there."""

from __future__ import annotations

import os
import random
import signal
import sqlite3
import threading
import time
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

from broker.core import service
from broker.stores import sqlite, sqlite_checkpoint, sqlite_log
from broker.stores.folder import DATABASE_FILE
from broker.transports import router

#: The log is moved into the database often, so that there is something to end in the midst of.
_CHECKPOINT_PAGES: Final = 60
#: A checkpoint of so many pages takes a millisecond or two.
_INTO_CHECKPOINT_S: Final = 0.002


#: What is replaced, for this process alone.
_SERVICE: Final[Any] = service
_SQLITE: Final[Any] = sqlite
_WAL: Final[Any] = sqlite_checkpoint
_STORE: Final[Any] = sqlite.SqliteStore
_LOG: Final[Any] = sqlite_log.MessageLog
_ROUTER: Final[Any] = router.Router


class Point(StrEnum):
    """The places. Those of `STORE` are met by a store alone, those of `BROKER` by a whole one."""

    ANY_TIME = "at any time"
    COMMITTED = "after a commit, before its answer"
    ACKNOWLEDGED = "after an acknowledgement's commit"
    STATEMENT = "before a statement of SQL"
    PURGE = "in a purge"
    CHECKPOINT = "in a checkpoint"
    BEFORE_REPLY = "after a commit, before the reply leaves"
    AFTER_REPLY = "after the reply was handed over"
    ACK_REPLY = "after an acknowledgement, before the reply"


STORE: Final = (
    Point.ANY_TIME,
    Point.COMMITTED,
    Point.ACKNOWLEDGED,
    Point.STATEMENT,
    Point.PURGE,
    Point.CHECKPOINT,
)
BROKER: Final = (
    Point.ANY_TIME,
    Point.BEFORE_REPLY,
    Point.AFTER_REPLY,
    Point.ACK_REPLY,
    Point.PURGE,
    Point.CHECKPOINT,
)


def die() -> None:
    """End as the kernel would end us: no handler, no buffer, no `finally`."""
    os.kill(os.getpid(), signal.SIGKILL)


class Countdown:
    """Ends the process at the ``number``-th time."""

    def __init__(self, number: int) -> None:
        self._left = number

    def __call__(self) -> None:
        self._left -= 1
        if self._left == 0:
            die()


def arm(point: Point, number: int, folder: Path) -> None:
    """Let this process end at the ``number``-th time that it comes to ``point``."""
    count = Countdown(number)
    match point:
        case Point.ANY_TIME:
            pass  # from outside
        case Point.COMMITTED | Point.ACKNOWLEDGED:
            _after_commits(count, acknowledging=point is Point.ACKNOWLEDGED)
        case Point.STATEMENT:
            _at_statements(count)
        case Point.PURGE:
            _after_deletes(count)
            _SERVICE.TIDY_PAUSE_MS = 5  # a purge a minute would not be met
        case Point.CHECKPOINT:
            _in_checkpoint(number, folder / DATABASE_FILE)
        case Point.BEFORE_REPLY | Point.AFTER_REPLY | Point.ACK_REPLY:
            _at_replies(count, point)


def _after_deletes(count: Countdown) -> None:
    original = _LOG.delete

    def delete(self: Any, seqs: Any) -> None:
        original(self, seqs)
        count()

    _LOG.delete = delete


def _after_commits(count: Countdown, *, acknowledging: bool) -> None:
    """After those that wrote something; ``acknowledging``: that moved a cursor."""
    original = _STORE._commit

    def commit(self: Any) -> None:
        moves = bool(self._staged.cursors)
        writes = moves or bool(self._staged) or self._writing
        original(self)
        if moves or (writes and not acknowledging):
            count()

    _STORE._commit = commit


def _at_statements(count: Countdown) -> None:
    """Before each statement from the moment on in which the file was opened."""
    original = _SQLITE.open_database

    def opened(path: Path, *, check: bool = True) -> sqlite3.Connection:
        database: sqlite3.Connection = original(path, check=check)
        database.set_trace_callback(lambda _: count())
        return database

    _SQLITE.open_database = opened


def _in_checkpoint(number: int, database: Path) -> None:
    """Soon after the file was written to for the ``number``-th time: only a checkpoint does."""
    _WAL.CHECKPOINT_PAGES = _CHECKPOINT_PAGES

    def watch() -> None:
        rng = random.Random(number)
        while not database.exists():
            time.sleep(0.001)
        last, left = database.stat().st_mtime_ns, number
        while True:
            now = database.stat().st_mtime_ns
            if now != last:
                last, left = now, left - 1
                if left <= 0:
                    time.sleep(rng.random() * _INTO_CHECKPOINT_S)
                    die()
            time.sleep(0.0001)

    threading.Thread(target=watch, daemon=True).start()


def _at_replies(count: Countdown, point: Point) -> None:
    """Around the handing over of a turn's replies, which begins once its commit is done."""
    send, acknowledge = _ROUTER.send, _STORE.acknowledge
    acknowledged = threading.Event()

    def acknowledging(self: Any, *arguments: Any) -> Any:
        acknowledged.set()
        return acknowledge(self, *arguments)

    def sending(self: Any, replies: Any) -> Any:
        counts = bool(replies) and (point is not Point.ACK_REPLY or acknowledged.is_set())
        acknowledged.clear()
        if counts and point is not Point.AFTER_REPLY:
            count()
        lost = send(self, replies)
        if counts and point is Point.AFTER_REPLY:
            count()
        return lost

    _STORE.acknowledge = acknowledging
    _ROUTER.send = sending
