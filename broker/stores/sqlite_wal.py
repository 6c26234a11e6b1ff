"""Tells a log that was damaged at rest from one whose end a power cut has left unfinished.

SQLite takes the log (``-wal``) up to the first frame whose checksum is wrong, and drops what stands
behind it without a word: right after a power cut, when that is a commit which was never answered;
a silent loss where a bit has flipped in the midst of what was. The two differ: a commit is synced
before the next one is written, so at most one commit can stand behind the first wrong frame of an
unfinished log. The layout is that of https://www.sqlite.org/walformat.html.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

_HEADER_BYTES: Final = 32
_FRAME_BYTES: Final = 24  # of a frame's header; the page follows
_PAGE_BYTES_MAX: Final = 65_536
_MAGIC: Final = (0x377F0682, 0x377F0683)
#: In the index (``-shm``), in the machine's own order: whether it is filled, and with how much.
_INDEX_INITIALISED: Final = struct.Struct("=12xB3xI")
#: Commits behind the first wrong frame that a power cut cannot leave.
_COMMITS_OF_DAMAGE: Final = 2


def damaged(wal: Path) -> bool:
    """Tell whether commits stand in the log behind one that SQLite cannot read.

    For the time between SQLite's own look at the log, through a connection that is still open, and
    the first write. False where there is nothing to be told by. Errors: `OSError`.
    """
    valid = _valid_frames(wal.with_name(wal.name.removesuffix("-wal") + "-shm"))
    if valid is None or not wal.exists():
        return False
    with wal.open("rb") as file:
        header = file.read(_HEADER_BYTES)
        if len(header) < _HEADER_BYTES:
            return False
        if not any(header):  # it is written and synced before the first frame
            return any(file.read(_FRAME_BYTES))
        return not _is_sound(header) or _commits(file, header, valid) >= _COMMITS_OF_DAMAGE


def _valid_frames(index: Path) -> int | None:
    """Return how many frames SQLite takes; None where it did not say."""
    try:
        with index.open("rb") as file:
            initialised, frames = _INDEX_INITIALISED.unpack(file.read(_INDEX_INITIALISED.size))
    except (OSError, struct.error):
        return None
    return int(frames) if initialised else None


def _is_sound(header: bytes) -> bool:
    """Check the log's header by its own checksum."""
    (magic,) = struct.unpack_from(">I", header)
    if magic not in _MAGIC:
        return False
    order = ">" if magic & 1 else "<"
    first = second = 0
    for a, b in struct.iter_unpack(f"{order}II", header[:24]):
        first = (first + a + second) & 0xFFFFFFFF
        second = (second + b + first) & 0xFFFFFFFF
    return (first, second) == struct.unpack(">II", header[24:])


def _commits(file: BinaryIO, header: bytes, valid: int) -> int:
    """Count the commits of this log's own behind its valid frames, as far as it matters."""
    (page_bytes,) = struct.unpack_from(">I", header, 8)
    step = _FRAME_BYTES + min(page_bytes, _PAGE_BYTES_MAX)
    salts, place, commits = header[16:24], _HEADER_BYTES + valid * step, 0
    while commits < _COMMITS_OF_DAMAGE:
        file.seek(place)
        frame = file.read(_FRAME_BYTES)
        if len(frame) < _FRAME_BYTES:
            break
        # The size of the database after a commit; 0 in the frames before it.
        commits += frame[8:16] == salts and any(frame[4:8])
        place += step
    return commits
