"""Receipts that are put together from parts are, byte by byte, what msgpack makes of them."""

from __future__ import annotations

import msgpack
from hypothesis import example, given
from hypothesis import strategies as st

from broker.wire.envelope import join_replies
from broker.wire.limits import REQUEST_ID_MAX, SEQ_MAX
from broker.wire.receipts import Receipts

#: Around where msgpack takes another width.
EDGES = [0, 2**7 - 1, 2**7, 2**8 - 1, 2**8, 2**16 - 1, 2**16, 2**32 - 1, 2**32]
IDS = st.sampled_from([*EDGES, REQUEST_ID_MAX]) | st.integers(0, REQUEST_ID_MAX)
SEQS = st.sampled_from([*EDGES, SEQ_MAX]) | st.integers(0, SEQ_MAX)
DURABILITIES = st.sampled_from(["fsync", "memory", "x" * 40])


def plain(request_id: int, seq: int, durability: str) -> bytes:
    packed: bytes = msgpack.packb((request_id, "OK", {"seq": seq, "durability": durability}))
    return packed


@given(st.lists(st.tuples(IDS, SEQS), min_size=1), DURABILITIES)
@example([(id_edge, seq_edge) for id_edge in EDGES for seq_edge in EDGES], "fsync")
def test_receipts_are_those_of_msgpack_whatever_their_widths(
    pairs: list[tuple[int, int]], durability: str
) -> None:
    receipts = Receipts(durability)
    expected = [plain(*pair, durability) for pair in pairs]
    assert [receipts.encode(*pair) for pair in pairs] == expected
    assert receipts.encode_all(*zip(*pairs, strict=True)) == expected


def test_receipts_of_one_width_are_those_of_msgpack() -> None:
    """The short way, where both the first and the last of a width stand among the numbers."""
    bounds = [(0, 2**7 - 1), (2**7, 2**8 - 1), (2**8, 2**16 - 1), (2**16, 2**32 - 1)]
    bounds.append((2**32, SEQ_MAX))
    for ids in bounds:
        for seqs in bounds:
            expected = [plain(*pair, "fsync") for pair in zip(ids, seqs, strict=True)]
            assert Receipts("fsync").encode_all(ids, seqs) == expected


def test_replies_are_joined_as_msgpack_joins_them() -> None:
    for count in (0, 1, 15, 16, 255, 256):
        replies = [[number, "OK", {}] for number in range(count)]
        assert join_replies([msgpack.packb(each) for each in replies]) == msgpack.packb(replies)
