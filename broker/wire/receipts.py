"""Receipts in bulk: ``[id, "OK", {"seq": ..., "durability": ...}]``, put together from their parts.

Of a receipt only two whole numbers are its own. What is around them is encoded once, so that one of
many costs 0.1 us, where msgpack, which walks over every key, takes 0.5. The bytes are msgpack's.
Source: docs/PROTOCOL.md, "Requests and replies".
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from struct import Struct
from typing import Final

from broker.wire.codec import Packer
from broker.wire.envelope import OK

#: How msgpack writes whole numbers of up to 7, 8, 16, 32 and 64 bits: behind which byte, and as
#: what (`struct`).
_WIDTHS: Final = ((b"", "B"), (b"\xcc", "B"), (b"\xcd", "H"), (b"\xce", "I"), (b"\xcf", "Q"))
#: Which of them it is, by the number's bits.
_WIDTH_OF: Final = (*[0] * 8, 1, *[2] * 8, *[3] * 16, *[4] * 32)
#: A `Struct.pack`, and what stands before, between and behind the two numbers.
_Shape = tuple[Callable[..., bytes], bytes, bytes, bytes]


class Receipts:
    """Encodes receipts of one durability (``fsync``, ``memory``)."""

    def __init__(self, durability: str) -> None:
        pack = Packer().pack
        self._between = pack(OK) + b"\x82" + pack("seq")
        self._behind = pack("durability") + pack(durability)
        #: By the widths of the id and of the sequence: what packs both, with what goes around them.
        self._shapes = [[self._shape(*of_id, *of_seq) for of_seq in _WIDTHS] for of_id in _WIDTHS]

    def encode(self, request_id: int, seq: int) -> bytes:
        """Encode one receipt, by the id of its request and its sequence."""
        of_id, of_seq = _WIDTH_OF[request_id.bit_length()], _WIDTH_OF[seq.bit_length()]
        pack, before, between, behind = self._shapes[of_id][of_seq]
        return pack(before, request_id, between, seq, behind)

    def encode_all(self, ids: Sequence[int], seqs: Sequence[int]) -> list[bytes]:
        """Encode receipts, at least one, as `encode` each. Hot path."""
        of_id, of_seq = _width_of_all(ids), _width_of_all(seqs)
        if of_id is None or of_seq is None:  # seldom: the numbers have just become longer
            return list(map(self.encode, ids, seqs))
        pack, before, between, behind = self._shapes[of_id][of_seq]
        return [pack(before, i, between, seq, behind) for i, seq in zip(ids, seqs, strict=True)]

    def _shape(self, id_mark: bytes, id_as: str, seq_mark: bytes, seq_as: str) -> _Shape:
        before, between, behind = b"\x93" + id_mark, self._between + seq_mark, self._behind
        layout = f">{len(before)}s{id_as}{len(between)}s{seq_as}{len(behind)}s"
        return Struct(layout).pack, before, between, behind


def _width_of_all(numbers: Sequence[int]) -> int | None:
    """Return the width of all numbers, None where they differ in it."""
    least, most = (_WIDTH_OF[each.bit_length()] for each in (min(numbers), max(numbers)))
    return most if least == most else None
