"""One damage to one file, by a seed."""

from __future__ import annotations

import random
import struct
from enum import StrEnum
from typing import Final, NamedTuple

SECTOR_BYTES: Final = 512
PAGE_BYTES: Final = 4_096
_LOG_HEADER_BYTES: Final = 32
_FRAME_BYTES: Final = 24


class Kind(StrEnum):
    FLIP = "a bit flipped"
    SECTOR = "a sector of garbage"
    ZEROS = "a page of zeros"
    CUT = "cut short"


_KINDS: Final = (Kind.FLIP,) * 6 + (Kind.SECTOR, Kind.ZEROS, Kind.CUT, Kind.CUT)


#: Bytes of each kind; of one cut short, all behind it.
_SIZES: Final = {Kind.FLIP: 1, Kind.SECTOR: SECTOR_BYTES, Kind.ZEROS: PAGE_BYTES, Kind.CUT: 2**40}


class Damage(NamedTuple):
    """What was done to which file; ``offset`` is where, or what is left of a file cut short."""

    file: str
    kind: Kind
    offset: int
    content: bytes

    @property
    def end(self) -> int:
        """Where it ends."""
        return self.offset + _SIZES[self.kind]

    def __str__(self) -> str:
        return f"{self.file}: {self.kind} at {self.offset}"


def commits_in(log: bytes, offset: int) -> int:
    """Count the commits of a log that begin to be unreadable at ``offset``, or stand behind it."""
    (page_bytes,) = struct.unpack_from(">I", log, 8)
    step, salts = _FRAME_BYTES + page_bytes, log[16:24]
    first = max(0, offset - _LOG_HEADER_BYTES) // step
    places = range(_LOG_HEADER_BYTES + first * step, len(log) - _FRAME_BYTES, step)
    return sum(log[at + 8 : at + 16] == salts and any(log[at + 4 : at + 8]) for at in places)


def last_record(journal: bytes) -> int:
    """Return where the last record of the run that is at the front of a journal begins."""
    run = journal[:8]
    return max(at for at in range(0, len(journal), SECTOR_BYTES) if journal[at : at + 8] == run)


def damage(file: str, content: bytes, used: int, rng: random.Random) -> Damage:
    """Damage a file somewhere in its first ``used`` bytes."""
    kind = rng.choice(_KINDS)
    offset = rng.randrange(max(1, used))
    spoiled = bytearray(content)
    if kind is Kind.FLIP:
        spoiled[offset] ^= 1 << rng.randrange(8)
    elif kind is Kind.SECTOR:
        offset -= offset % SECTOR_BYTES
        spoiled[offset : offset + SECTOR_BYTES] = rng.randbytes(
            len(content[offset : offset + SECTOR_BYTES])
        )
    elif kind is Kind.ZEROS:
        offset -= offset % PAGE_BYTES
        spoiled[offset : offset + PAGE_BYTES] = bytes(len(content[offset : offset + PAGE_BYTES]))
    else:
        if rng.random() < 0.4:
            offset = 0 if rng.random() < 0.3 else offset - offset % PAGE_BYTES
        del spoiled[offset:]
    return Damage(file, kind, offset, bytes(spoiled))
