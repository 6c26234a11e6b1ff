"""What a disk may hold when the power fails: see the package's docstring for what is modelled."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Final, NamedTuple

from tests.proof.disk.journal import CHANGES, Entry, Kind

SECTOR_BYTES: Final = 512
#: Places at which one write is torn: more would only tell the same.
_TEARS_MAX: Final = 6
_ZEROS: Final = bytes(65_536)


class Change(NamedTuple):
    """One change of a file's content that no sync has saved yet; ``data`` None: a truncation."""

    number: int
    offset: int
    data: bytes | None


class _File:
    """One file: what is safe, and what is not yet, in order."""

    def __init__(self, content: bytes) -> None:
        self.safe = bytearray(content)
        self.pending: list[Change] = []

    def sync(self, before: int) -> None:
        """Save what was written before the sync began."""
        for change in self.pending:
            if change.number < before:
                _carry_out(self.safe, change)
        self.pending = [change for change in self.pending if change.number >= before]

    def sync_failed(self, before: int, rng: random.Random) -> None:
        """Save some of it, and forget the rest: the kernel takes those pages for clean."""
        self.pending = [c for c in self.pending if c.number >= before or rng.random() < 0.5]
        self.sync(before)


class Disk:
    """A folder on a disk, fed with the entries of a journal; `cut` says what a power cut leaves.

    ``before`` is the folder at the beginning, all of it safe.
    """

    def __init__(self, before: Mapping[str, bytes], *, rng: random.Random) -> None:
        self._rng = rng
        self._count = 0
        self._files: dict[int, _File] = {}
        self._safe_names: dict[str, int] = {}
        self._untouched = dict(before)  # files that the process has not opened yet
        self._pending_names: list[tuple[int, Entry]] = []

    def apply(self, entry: Entry) -> None:
        """Let one more thing have happened."""
        if entry.kind in CHANGES:
            self._files[entry.file].pending.append(_change(self._count, entry))
        elif entry.kind == Kind.SYNC:
            self._files[entry.file].sync(entry.before)
        elif entry.kind == Kind.SYNC_FAILED:
            self._files[entry.file].sync_failed(entry.before, self._rng)
        elif entry.kind == Kind.FOLDER_SYNC:
            self._sync_folder(entry.before)
        elif entry.kind == Kind.NAME and not entry.offset:  # it was there when we came
            self._files[entry.file] = _File(self._untouched.pop(entry.name, b""))
            self._safe_names[entry.name] = entry.file
        else:
            if entry.kind == Kind.NAME:
                self._files[entry.file] = _File(b"")
            self._pending_names.append((self._count, entry))
        self._count += 1

    def _sync_folder(self, before: int) -> None:
        for number, entry in self._pending_names:
            if number < before:
                _rename(self._safe_names, entry)
        self._pending_names = [pair for pair in self._pending_names if pair[0] >= before]

    def seen(self) -> dict[str, bytes]:
        """Return what the process itself sees: everything, synced or not."""
        return self._image(lambda changes: changes, len(self._pending_names))

    def cut(self, under_way: Entry | None = None) -> dict[str, bytes]:
        """Return what may be left of the folder, by name. ``under_way`` had begun, not ended."""
        unsynced = self._pending_names
        survive = _mood(self._rng, self._count)
        if under_way is None or under_way.kind not in CHANGES:
            return self._image(survive, self._rng.randint(0, len(unsynced)))
        file = self._files[under_way.file]
        file.pending.append(_change(self._count, under_way))
        try:
            return self._image(survive, self._rng.randint(0, len(unsynced)))
        finally:
            file.pending.pop()

    def _image(
        self, survive: Callable[[list[Change]], Iterable[Change]], names_kept: int
    ) -> dict[str, bytes]:
        names = dict(self._safe_names)
        for _, entry in self._pending_names[:names_kept]:
            _rename(names, entry)
        image = dict(self._untouched)
        for name, number in names.items():
            file = self._files[number]
            content = bytearray(file.safe)
            for change in survive(file.pending):
                _carry_out(content, change)
            image[name] = bytes(content)
        return image


def _change(number: int, entry: Entry) -> Change:
    if entry.kind == Kind.TRUNCATE:
        return Change(number, entry.offset, None)
    data = bytes(entry.length) if entry.kind == Kind.ZEROS else entry.data
    return Change(number, entry.offset, data)


def _carry_out(content: bytearray, change: Change) -> None:
    offset, data = change.offset, change.data
    if data is None:
        del content[offset:]
        end = offset
    else:
        end = offset + len(data)
    if len(content) < end:
        content.extend(bytes(end - len(content)))
    if data is not None:
        content[offset:end] = data


def _rename(names: dict[str, int], entry: Entry) -> None:
    """Carry out one change of a name."""
    if entry.kind == Kind.NAME:
        names[entry.name] = entry.file
    elif entry.kind == Kind.UNLINK:
        names.pop(entry.name, None)
    else:
        old, _, new = entry.name.partition("/")
        names.pop(old, None)
        names[new] = entry.file


# --- chance ------------------------------------------------------------------------------------


def _mood(rng: random.Random, count: int) -> Callable[[list[Change]], Iterable[Change]]:
    """Choose how a disk treats what was not synced; ``count`` entries were made in all."""
    mood = rng.choice(("none", "all", "until", "some", "some", "some"))
    if mood == "none":
        return lambda _: ()
    if mood == "all":
        return lambda changes: changes
    if mood == "until":  # written back in order, up to a moment
        last = rng.randint(max(0, count - 200), count)
        return lambda changes: [change for change in changes if change.number <= last]
    share, torn = rng.choice((0.05, 0.5, 0.95)), rng.choice((0.0, 0.3))
    return lambda changes: [
        part
        for change in changes
        if rng.random() < share
        for part in (_tear(change, rng) if rng.random() < torn else (change,))
    ]


def _tear(change: Change, rng: random.Random) -> list[Change]:
    """Return the sectors of a write that reached the disk, as runs."""
    data, offset = change.data, change.offset
    if data is None:
        return [change]
    first = offset // SECTOR_BYTES + 1
    last = (offset + len(data) - 1) // SECTOR_BYTES
    borders = {rng.randint(first, last) for _ in range(_TEARS_MAX)} if first <= last else set()
    places = [0, *(place * SECTOR_BYTES - offset for place in sorted(borders)), len(data)]
    return [
        change._replace(offset=offset + begin, data=data[begin:end])
        for begin, end in pairwise(places)
        if rng.random() < 0.5
    ]


# --- folders -----------------------------------------------------------------------------------


def content_of(folder: Path) -> dict[str, bytes]:
    """Return the files of a folder, without what does not survive by design."""
    files = (path for path in folder.iterdir() if path.is_file())
    return {path.name: path.read_bytes() for path in files if not path.name.endswith("-shm")}


def used_bytes(content: bytes) -> int:
    """Return how far a file is written; a log, of 32 MiB from its start, is zeros behind that."""
    end = len(content)
    while content.endswith(_ZEROS, 0, end):  # whole blocks first: rstrip looks at each byte
        end -= len(_ZEROS)
    return len(content[:end].rstrip(b"\0"))


def put_back(folder: Path, image: Mapping[str, bytes]) -> None:
    """Make a folder hold an image and nothing else. Long zeros at a file's end take no room."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for path in folder.iterdir():
        path.unlink()
    for name, content in image.items():
        path = folder / name
        path.touch(0o600)
        with path.open("r+b") as file:
            file.write(content[: used_bytes(content)])
            file.truncate(len(content))
