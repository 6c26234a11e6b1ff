"""Receipts in bulk: ``[id, "OK", {"seq": ..., "durability": ...}]``, put together from their parts.

Of a receipt only two whole numbers are its own. What is around them is encoded once, so that one of
many costs 0.1 us, where msgpack, which walks over every key, takes 0.5. The bytes are msgpack's.
Source: docs/PROTOCOL.md, "Requests and replies".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final, NamedTuple

from broker.wire.codec import Packer
from broker.wire.envelope import OK


class _Width(NamedTuple):
    """How msgpack writes whole numbers up to ``most``: behind ``mark``, as `struct` calls it."""

    most: int
    mark: bytes
    code: str


_WIDTHS: Final = (
    _Width(0x7F, b"", "B"),
    _Width(0xFF, b"\xcc", "B"),
    _Width(0xFFFF, b"\xcd", "H"),
    _Width(0xFFFF_FFFF, b"\xce", "I"),
    _Width(0xFFFF_FFFF_FFFF_FFFF, b"\xcf", "Q"),
)


#: A `Struct.pack`, and what stands before, between and behind the two numbers.
_Shape = tuple[Callable[..., bytes], bytes, bytes, bytes]


class Receipts:
    """Encodes receipts of one durability (``fsync``, ``memory``)."""

    def __init__(self, durability: str) -> None:
        pack = Packer().pack
        self._between = pack(OK) + b"\x82" + pack("seq")
        self._behind = pack("durability") + pack(durability)
        #: By the widths of the id and of the sequence: what packs both, with what goes around them.
        self._shapes = {
            (id_width, seq_width): self._shape(id_width, seq_width)
            for id_width in _WIDTHS
            for seq_width in _WIDTHS
        }

    def encode(self, ids: Sequence[int], seqs: Sequence[int]) -> list[bytes]:
        """Encode receipts, at least one: each by the id of its request and its sequence."""
        id_width, seq_width = _width(max(ids)), _width(max(seqs))
        if _width(min(ids)) is not id_width or _width(min(seqs)) is not seq_width:
            # Seldom: the numbers have just become longer.
            return [self.encode((i,), (seq,))[0] for i, seq in zip(ids, seqs, strict=True)]
        pack, before, between, behind = self._shapes[id_width, seq_width]
        return [
            pack(before, i, between, seq, behind) for i, seq in zip(ids, seqs, strict=True)
        ]

    def _shape(self, id_width: _Width, seq_width: _Width) -> _Shape:
        before, between = b"\x93" + id_width.mark, self._between + seq_width.mark
        behind = self._behind
        layout = f">{len(before)}s{id_width.code}{len(between)}s{seq_width.code}{len(behind)}s"
        return Struct(layout).pack, before, between, behind


def _width(number: int) -> _Width:
    return next(width for width in _WIDTHS if number <= width.most)
