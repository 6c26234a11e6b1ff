"""One life of a store: a process that appends, reads and acknowledges until it is killed.

    python -m tests.proof.disk.life FOLDER COURSE

It behaves as the broker does: a full disk refuses one batch, any other fault of the disk ends the
process with exit code 6, a store that cannot be opened ends it with 5.
"""

from __future__ import annotations

import json
import os
import random
import sys
import time
from pathlib import Path
from typing import Final

from broker.core.ports import StoreFailedError, StoreFullError, StoreUnusableError
from tests.proof.disk.course import DISK_FAILED, DONE, UNUSABLE, USERS, Course
from tests.proof.disk.planting import plant
from tests.proof.disk.store_calls import StoreCalls, text_of
from tests.proof.history import OK, Ack, Read, Record, Seen, Send, digest

_OUT: Final = 1
#: Sends that may be repeated under their id: the last few.
_REPEATABLE: Final = 20
_READ_MAX: Final = 50


def _say(**fields: object) -> None:
    os.write(_OUT, json.dumps(fields, separators=(",", ":")).encode() + b"\n")


def _say_batch(operations: list[Record]) -> bool:
    _say(batch=[operation.as_json() for operation in operations])
    return True


class Life:
    """Carries out a course on an open store."""

    def __init__(self, store: StoreCalls, course: Course) -> None:
        self._store = store
        self._course = course
        self._rng = random.Random(f"{course.seed}/{course.life}")
        self._sent = 0
        self._last: list[Send] = []
        # What the last answered read of each mailbox returned.
        self._read: dict[str, tuple[Seen, ...]] = {}

    def live(self) -> None:
        number = 0
        while not self._course.batches or number < self._course.batches:
            number += 1
            self._batch()
            if self._rng.random() < 0.2 and self._course.tidies:
                self._tidy()

    def _batch(self) -> None:
        operations: list[Record] = []
        said = False
        try:
            with self._store.batch():
                for _ in range(self._rng.randint(1, self._course.operations_max)):
                    operation = self._operation()
                    if operation is not None:
                        operations.append(operation)
                said = _say_batch(operations)
        except (StoreFullError, StoreFailedError) as error:
            at_ns = time.monotonic_ns()
            if not said:
                _say_batch(operations)
            full = isinstance(error, StoreFullError)
            _say(end=[at_ns, "storage_full" if full else "unavailable"])
            if not full:
                raise
        else:
            _say(end=[time.monotonic_ns(), OK])
            self._remember(operations)

    def _remember(self, operations: list[Record]) -> None:
        for operation in operations:
            if isinstance(operation, Send):
                self._last = [*self._last, operation][-_REPEATABLE:]
            elif isinstance(operation, Read):
                self._read[operation.user] = operation.messages

    def _operation(self) -> Record | None:
        kind = self._rng.random()
        user = self._rng.choice(USERS)
        if kind < 0.1:
            return self._read_one(user)
        if kind < 0.2:
            return self._acknowledge(user)
        if kind < 0.25 and self._last:
            return self._send(self._rng.choice(self._last))
        return self._send(self._new(user))

    def _new(self, to: str) -> Send:
        self._sent += 1
        most = self._course.text_bytes_max
        length = self._rng.randint(1, most * 8 if self._rng.random() < 0.03 else most)
        message_id = f"{self._course.life}.{self._sent}-{length}"
        order = self._course.life * 1_000_000 + self._sent
        sender = self._rng.choice(USERS)
        return Send(sender, to, message_id, order, digest(text_of(message_id)), 0)

    def _send(self, send: Send) -> Send:
        began = time.monotonic_ns()
        seq = self._store.append(send.to, send.sender, send.id)
        return send._replace(t0=began, t1=None, answer=None, seq=seq)

    def _read_one(self, user: str) -> Read:
        began = time.monotonic_ns()
        return Read(user, began, messages=self._store.read(user, _READ_MAX))

    def _acknowledge(self, user: str) -> Ack | None:
        read = self._read.get(user)
        if not read:
            return None
        seq = self._rng.choice(read).seq
        assert seq is not None
        began = time.monotonic_ns()
        self._store.acknowledge(user, seq)
        return Ack(user, seq, began)

    def _tidy(self) -> None:
        try:
            with self._store.batch():
                self._store.tidy()
        except StoreFullError:
            return  # the broker tries again later


def main(folder: Path, course: Course) -> int:
    try:
        store = StoreCalls(folder, retention_read_ms=course.retention_read_ms)
    except StoreUnusableError as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE
    try:
        store.add_users(USERS)
        if course.synchronous is not None:  # late: what is caught is lost messages, not lost users
            store.set_pragma("synchronous", course.synchronous)
        if course.checkpoint_pages is not None:
            store.checkpoint_at(course.checkpoint_pages)
        if course.journalled_max is not None:
            store.settle_at(course.journalled_max)
        if course.spoiled is not None:
            plant(course.spoiled)
        _say(open=time.monotonic_ns(), epoch=store.epoch)
        Life(store, course).live()
    except StoreFailedError as error:
        sys.stderr.write(f"{error}\n")
        return DISK_FAILED
    store.close()
    return DONE


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Course.parse(sys.argv[2])))
