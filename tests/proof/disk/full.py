"""A full disk: what is refused, what goes on, and how it ends."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Final

from broker.stores.sqlite_ballast import BALLAST_NAME
from tests.proof.disk.course import Course
from tests.proof.disk.interposer import Interposer
from tests.proof.disk.remote import Operation, RemoteStore
from tests.proof.disk.running import live, scratch
from tests.proof.history import OK

#: More than the log has room for: a disk that is full stays so, however long the log lasts.
_SENDS_MAX: Final = 20_000
_TEXT_BYTES: Final = 3_000
_BATCH: Final = 20
#: docs/DURABILITY.md: with room again everything goes on.
RECOVERY_S_MAX: Final = 1.0


@dataclass(frozen=True)
class FullDisk:
    """What was seen. ``acknowledged`` of ``waiting`` messages, one after the other, on no room."""

    sent: int
    refusal: str
    read: str
    waiting: int
    acknowledged: int
    refusal_of_ack: str | None
    recovery_s: float | None
    missing: int

    def breaches(self) -> list[str]:
        """Say what should have been otherwise."""
        return list(self._breaches())

    def _breaches(self) -> Iterator[str]:
        if self.refusal != "storage_full":
            yield f"a send on a full disk was answered {self.refusal}, not storage_full"
        if self.read != OK:
            yield f"a read on a full disk was answered {self.read}"
        if self.acknowledged < self.waiting:
            yield (
                f"after {self.acknowledged} of {self.waiting} acknowledgements on a full disk "
                f"one was answered {self.refusal_of_ack}"
            )
        if self.recovery_s is None or self.recovery_s > RECOVERY_S_MAX:
            yield f"with room again, sends were not accepted within {RECOVERY_S_MAX} s"
        if self.missing:
            yield f"{self.missing} messages answered OK are not there"


def fill_disk(library: Path) -> FullDisk:
    """Fill the disk under a running store, use it while it is full, give room, use it again."""
    with scratch() as place:
        data = place / "data"
        data.mkdir(mode=0o700)
        with (
            Interposer(library, data, place) as disk,
            RemoteStore(data, disk.environment()) as store,
        ):
            disk.limit(more_bytes=0)
            return _use(disk, store)


def start_on_full_disk(library: Path, *, reserve: bool) -> tuple[list[str], str]:
    """Start a store on a disk that was filled while it was down; ``reserve``: but for its own.

    Return the answers to a read, an acknowledgement, a send, and a send once there is room; and
    what the process said at its end, if it did not start.
    """
    with scratch() as place:
        data = place / "data"
        data.mkdir(mode=0o700)
        live(data, Course(1, batches=3), {})
        if not reserve:
            (data / BALLAST_NAME).unlink()
        with Interposer(library, data, place) as disk:
            disk.limit(more_bytes=0)
            with RemoteStore(data, disk.environment()) as store:
                if not store.ready:
                    return [], store.last_words()
                operations: Sequence[Operation] = (
                    ["read", "bob", 5],
                    ["acknowledge", "bob", 1],
                    _send(count(1)),
                )
                answers = [store.batch(operation)[0] for operation in operations]
                disk.limit(more_bytes=None)
                recovered = _recovery(store, count(2)) is not None
                return [*answers, OK if recovered else "storage_full"], ""


def _use(disk: Interposer, store: RemoteStore) -> FullDisk:
    numbers = count(1)
    seqs, refusal = _send_until_refused(store, numbers)
    read, _ = store.batch(["read", "bob", 5])
    acknowledged, refusal_of_ack = 0, None
    half = seqs[: len(seqs) // 2]  # the other half is there to be missed
    for seq in half:
        answer, _ = store.batch(["acknowledge", "bob", seq])
        if answer != OK:
            refusal_of_ack = answer
            break
        acknowledged += 1
    disk.limit(more_bytes=None)
    recovery_s = _recovery(store, numbers)
    position = half[acknowledged - 1] if acknowledged else 0
    found = _drain(store) if recovery_s is not None else set()
    missing = len({seq for seq in seqs if seq > position} - found)
    return FullDisk(
        len(seqs), refusal, read, len(half), acknowledged, refusal_of_ack, recovery_s, missing
    )


def _send(numbers: Iterator[int]) -> Operation:
    return ["append", "bob", "ann", f"m{next(numbers)}-{_TEXT_BYTES}"]


def _send_until_refused(store: RemoteStore, numbers: Iterator[int]) -> tuple[list[int], str]:
    """Send in batches, then one by one, until not even one is taken."""
    seqs: list[int] = []
    answer = OK
    for size in (_BATCH, 1):
        while True:
            answer, results = store.batch(*(_send(numbers) for _ in range(size)))
            if answer != OK or len(seqs) > _SENDS_MAX:
                break
            seqs += results
    return seqs, answer


def _recovery(store: RemoteStore, numbers: Iterator[int]) -> float | None:
    """Return how long it took until a send was accepted."""
    began = time.monotonic()
    while time.monotonic() - began < 10 * RECOVERY_S_MAX:
        answer, _ = store.batch(_send(numbers))
        if answer == OK:
            return time.monotonic() - began
        if answer == "gone":
            return None
        time.sleep(0.01)
    return None


def _drain(store: RemoteStore) -> set[int]:
    """Return the sequences of what waits, taking it."""
    found: set[int] = set()
    while True:
        _, (messages,) = store.batch(["read", "bob", 500])
        if not messages:
            return found
        found.update(messages)
        store.batch(["acknowledge", "bob", messages[-1]])
