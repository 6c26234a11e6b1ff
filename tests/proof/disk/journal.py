"""The interposer's journal: what one process did to its folder, in the order of doing."""

from __future__ import annotations

import struct
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

#: As `struct record` in interposer.c.
_RECORD: Final = struct.Struct("<IIqqqqq")


class Kind(IntEnum):
    """As `enum kind` in interposer.c."""

    NAME = 1
    WRITE = 2
    ZEROS = 3
    TRUNCATE = 4
    SYNC = 5
    SYNC_FAILED = 6
    FOLDER_SYNC = 7
    UNLINK = 8
    RENAME = 9
    UNSEEN = 10


#: What changes a file's content, and may be lost.
CHANGES: Final = frozenset({Kind.WRITE, Kind.ZEROS, Kind.TRUNCATE})


class UnmodelledError(Exception):
    """The process did something to its folder that the model does not know."""


class Entry(NamedTuple):
    """One thing done. ``at_ns`` is CLOCK_MONOTONIC after it; ``before``: how many came before a
    sync began; ``offset`` of a TRUNCATE is the new length, of a NAME 1 where the file was made."""

    kind: Kind
    file: int
    at_ns: int
    offset: int
    length: int
    before: int
    data: bytes

    @property
    def name(self) -> str:
        return self.data.decode()


def entries(path: Path) -> list[Entry]:
    """Read a journal; a record that the kill has cut short was never made.

    Errors: `UnmodelledError`.
    """
    journal = path.read_bytes() if path.exists() else b""
    found: list[Entry] = []
    position = 0
    while position + _RECORD.size <= len(journal):
        kind, file, at_ns, offset, length, before, size = _RECORD.unpack_from(journal, position)
        end = position + _RECORD.size + size
        if end > len(journal):
            break
        data = journal[position + _RECORD.size : end]
        if kind == Kind.UNSEEN:
            raise UnmodelledError(f"{data.decode()}: teach it to tests/proof/disk, or avoid it")
        found.append(Entry(Kind(kind), file, at_ns, offset, length, before, data))
        position = end
    return found
