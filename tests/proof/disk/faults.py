"""Failing disks: the n-th call fails, once or for ever, n swept from the first call to the last.

Each life begins on the same folder, with the same operations, and meets one fault. Then the store
is opened again twice: on what the process itself had written, and on what a power cut would have
left at that moment. What docs/DURABILITY.md says of each fault is checked on top of the laws.
"""

from __future__ import annotations

import errno
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, NamedTuple

from broker.stores.folder import DATABASE_FILE
from broker.stores.sqlite_journal import JOURNAL_NAME
from tests.proof.disk.course import DISK_FAILED, DONE, UNUSABLE, Course, Said
from tests.proof.disk.interposer import FOR_EVER, Calls, Interposer
from tests.proof.disk.journal import Entry, Kind
from tests.proof.disk.model import Disk, content_of, put_back
from tests.proof.disk.running import Ended, live, scratch
from tests.proof.disk.verdict import judge
from tests.proof.history import OK, Record


class Fault(NamedTuple):
    """One way to fail."""

    name: str
    calls: Calls
    error: int
    times: int = 1
    short: bool = False

    @property
    def passes(self) -> bool:
        """A full disk refuses a batch; everything else ends the process."""
        return self.error == errno.ENOSPC

    @property
    def lasts(self) -> bool:
        """A full disk that stays so."""
        return self.passes and self.times > 1


FAULTS: Final = (
    Fault("a sync fails once", Calls.SYNC, errno.EIO),
    Fault("each sync fails from there on", Calls.SYNC, errno.EIO, FOR_EVER),
    Fault("a write fails once", Calls.WRITE, errno.EIO),
    Fault("each write fails from there on", Calls.WRITE, errno.EIO, FOR_EVER),
    Fault("a write finds no room once", Calls.WRITE, errno.ENOSPC),
    Fault("no write finds room from there on", Calls.WRITE, errno.ENOSPC, FOR_EVER),
    Fault("half a write, then no room once", Calls.WRITE, errno.ENOSPC, short=True),
    Fault("a truncation fails once", Calls.TRUNCATE, errno.EIO),
    Fault("a file cannot be opened once", Calls.OPEN, errno.EIO),
    Fault("a file cannot be removed once", Calls.UNLINK, errno.EIO),
)


class Breach(NamedTuple):
    """What was broken by which fault at which call."""

    fault: str
    call: int
    found: str

    def __str__(self) -> str:
        return f"{self.fault}, call {self.call}: {self.found}"


@dataclass
class Faults:
    """What came of a sweep; ``ends`` counts lives by exit code."""

    lives: int = 0
    calls: int = 0
    ends: dict[int, int] = field(default_factory=dict)
    refused: int = 0
    breaches: list[Breach] = field(default_factory=list)


@dataclass(frozen=True)
class Ground:
    """Where each life of a sweep begins: a folder with messages in it, and what is known of it."""

    image: dict[str, bytes]
    past: list[Record]
    course: Course


def sweep(
    library: Path,
    faults: Sequence[Fault] = FAULTS,
    *,
    seed: int,
    stride: int = 1,
    until_breach: bool = False,
    show: Callable[[str, int, int], None] = lambda *_: None,
) -> Faults:
    """Let each call of a life fail in turn, or each ``stride``-th; ``until_breach``: to the first.

    ``show`` is told the fault's name, the call's number and how many there are.
    """
    with scratch() as place:
        data = place / "data"
        ground = _prepare(data, seed)
        with Interposer(library, data, place) as disk:
            run = _Sweep(disk, data, ground)
            for fault in faults:
                calls = run.calls(fault)
                for number in range(1, calls + 1, stride):
                    show(fault.name, number, calls)
                    run.one(fault, number)
                    if until_breach and run.result.breaches:
                        return run.result
            return run.result


def _prepare(data: Path, seed: int) -> Ground:
    """Make a folder with messages that wait, some acknowledged, its end a clean one."""
    data.mkdir(mode=0o700)
    ended = live(data, Course(seed, batches=6), {})
    assert ended.code == DONE, ended.complaint
    course = Course(
        seed,
        life=1,
        batches=12,
        operations_max=6,
        checkpoint_pages=6,
        journalled_max=10,
        retention_read_ms=1,
    )
    return Ground(content_of(data), list(ended.said.until(None)), course)


class _Sweep:
    """Lives on one folder, each of which meets one fault."""

    def __init__(self, disk: Interposer, data: Path, ground: Ground) -> None:
        self.result = Faults()
        self._disk, self._data, self._ground = disk, data, ground

    def calls(self, fault: Fault) -> int:
        """Count the calls of this kind in a life that nothing disturbs."""
        ended = self._live(fault, 0)
        assert ended.code == DONE, ended.complaint
        self.result.calls += self._disk.counted
        return self._disk.counted

    def one(self, fault: Fault, number: int) -> None:
        """Let one call fail, and judge all that follows."""
        result, ended = self.result, self._live(fault, number)
        entries, failed = self._disk.entries(), self._disk.failed
        result.lives += 1
        result.ends[ended.code] = result.ends.get(ended.code, 0) + 1
        result.refused += sum(b.answer == "storage_full" for b in ended.said.batches)
        found = list(_conduct(fault, ended, entries, failed=failed))
        found += _after(self._data, self._ground, ended.said, entries, seed=number)
        result.breaches += [Breach(fault.name, number, one) for one in found]

    def _live(self, fault: Fault, number: int) -> Ended:
        put_back(self._data, self._ground.image)
        self._disk.begin()
        self._disk.fail(
            fault.calls, number, error=fault.error, times=fault.times, short=fault.short
        )
        return live(self._data, self._ground.course, self._disk.environment())


def _conduct(fault: Fault, ended: Ended, entries: list[Entry], *, failed: int) -> Iterator[str]:
    """Judge how the process took it. Source: docs/DURABILITY.md, "What happens when"."""
    last_words = (ended.complaint.strip().splitlines() or [""])[-1]
    if ended.code not in (DONE, UNUSABLE, DISK_FAILED):
        yield f"the process ended with {ended.code}: {last_words}"
    if fault.passes and ended.code == DISK_FAILED:
        yield f"a full disk ended the process: {last_words}"
    # Harsher than a full disk: not even what is there can be overwritten. That must be said; where
    # there is room again before anybody can look, SQLite's "I/O error" is all that is known.
    if fault.lasts and ended.code == UNUSABLE and "no room on the disk" not in last_words:
        yield f"a full disk is taken for something else: {last_words}"
    failures = _failed_syncs(entries)
    if failures:
        after = sum(b.answer == OK and (b.at_ns or 0) > failures[0] for b in ended.said.batches)
        if after:
            yield f"a sync failed, and {after} more batches were answered OK"
    elif not fault.passes and failed and ended.code == DONE and ended.said.batches[-1].answer != OK:
        yield "the disk failed, and the process ended as if it had not"


def _failed_syncs(entries: list[Entry]) -> list[int]:
    """Return when syncs of what stores failed; what else lies there may do without."""
    names = {entry.file: entry.name for entry in entries if entry.kind == Kind.NAME}
    return [
        entry.at_ns
        for entry in entries
        if entry.kind == Kind.SYNC_FAILED
        and names[entry.file].startswith((DATABASE_FILE, JOURNAL_NAME))
    ]


def _after(data: Path, ground: Ground, said: Said, entries: list[Entry], *, seed: int) -> list[str]:
    """Start again without the fault: after the process's end, and after a power cut then."""
    disk = Disk(ground.image, rng=random.Random(seed))
    for entry in entries:
        disk.apply(entry)
    power_cut = disk.cut()
    now = list(said.until(None))
    found = [f"restarted: {one}" for one in judge(data, [*ground.past, *now], repeat=now)]
    put_back(data, power_cut)
    cut = judge(data, [*ground.past, *now], repeat=now)
    return found + [f"restarted after a power cut: {one}" for one in cut]
