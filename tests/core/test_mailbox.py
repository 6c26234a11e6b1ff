"""One mailbox in memory: what waits, what is kept, and each change taken back."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.core.mailbox import Mailbox, Reader, fitting, text_bytes
from broker.core.model import Lost, Message

SLOTS = [name for name in Mailbox.__slots__ if name not in {"reader", "devices", "rooms"}]


def box_of(*seqs: int, name: str = "bob", read: int = 0) -> Mailbox:
    """A mailbox that keeps these, of as many bytes each, acknowledged up to ``read``."""
    box = Mailbox(name, 1)
    box.seqs.extend(seqs)
    box.sizes.extend(seqs)
    box.waiting_bytes = sum(seqs)
    box.last = max(seqs, default=0)
    if read:
        box.acknowledge(box.reader, read)
    return box


def state(box: Mailbox) -> dict[str, Any]:
    return {name: copy.copy(getattr(box, name)) for name in SLOTS} | {
        "cursors": [reader.cursor for reader in box.readers()]
    }


# --- pages -----------------------------------------------------------------------------------


@given(st.sets(st.integers(1, 30)), st.integers(0, 31), st.integers(0, 31), st.integers(1, 9))
def test_what_waits_is_above_cursor_and_position(
    seqs: set[int], read: int, after: int, limit: int
) -> None:
    box = box_of(*sorted(seqs), read=read)
    ordered = [seq for seq in sorted(seqs) if seq > max(read, after)]
    assert list(box.waiting(box.reader, after, limit)) == ordered[:limit]
    behind = Reader(0)
    ordered = [seq for seq in sorted(seqs) if seq > after]
    assert list(box.waiting(behind, after, limit)) == ordered[:limit]


@given(
    st.dictionaries(st.integers(1, 30), st.sampled_from("bxy")),
    st.integers(0, 31),
    st.integers(0, 31),
    st.none() | st.integers(0, 31),
    st.none() | st.integers(0, 31),
    st.integers(1, 9),
)
def test_pages_over_rooms_are_those_of_one_list(  # noqa: PLR0917 - drawn, not written
    places: dict[int, str],
    since: int,
    read: int,
    before: int | None,
    after: int | None,
    limit: int,
) -> None:
    seqs = {place: sorted(seq for seq in places if places[seq] == place) for place in "bxy"}
    box = box_of(*seqs["b"], read=read)
    box.rooms = {box_of(*seqs["x"], name="#x"): since, box_of(*seqs["y"], name="#y"): 0}
    mine = sorted(seq for seq in places if places[seq] != "x" or seq > since)
    waiting = [seq for seq in mine if seq > max(read, after or 0)]
    assert list(box.waiting(box.reader, after or 0, limit)) == waiting[:limit]
    if after is not None:
        expected = [seq for seq in mine if seq > after][:limit]
    else:
        expected = [seq for seq in mine if before is None or seq < before][-limit:]
    assert list(box.kept(before, after, limit)) == expected


def test_a_room_shows_its_history_from_a_point_on() -> None:
    room = box_of(1, 2, 3, 4, name="#x")
    assert list(room.kept(None, None, 9, low=2)) == [3, 4]
    assert list(room.kept(4, None, 9, low=2)) == [3]
    assert list(room.kept(None, 0, 9, low=2)) == [3, 4]
    assert list(room.kept(2, None, 9, low=2)) == []


def test_what_can_be_reached_is_the_last_of_all() -> None:
    box = box_of(1, 2)
    box.rooms = {box_of(5, name="#x"): 0, box_of(4, name="#y"): 0}
    assert box.reached() == 5
    assert box_of(1, 2).reached() == 2


def test_what_a_reader_lost_lies_above_its_cursor_and_its_joining() -> None:
    box = box_of()
    assert box.lost(Reader(0)) is None
    box.purged = 4
    assert [box.lost(Reader(cursor)) for cursor in (0, 3, 4)] == [Lost(1, 4), Lost(4, 4), None]
    room = box_of(name="#x")
    room.purged = 9
    box.rooms = {room: 8}
    assert box.lost(Reader(2)) == Lost(3, 9)
    assert box.lost(Reader(9)) is None
    box.rooms = {room: 9}
    assert box.lost(Reader(5)) is None


# --- changes ---------------------------------------------------------------------------------


def test_an_acknowledgement_counts_once_whoever_makes_it() -> None:
    box = box_of(1, 2, 3)
    phone = Reader(0)
    box.devices = {"phone": phone}
    assert box.acknowledge(phone, 2)[0] == 1 + 2
    assert (box.head, box.furthest, box.waiting_bytes) == (2, 2, 3)
    assert box.acknowledge(box.reader, 1)[0] == 0
    assert (box.head, box.furthest, box.reader.cursor) == (2, 2, 1)
    assert box.acknowledge(box.reader, 3)[0] == 3
    assert (box.head, box.waiting_bytes) == (3, 0)


@given(st.sets(st.integers(1, 20), min_size=1), st.integers(0, 20), st.data())
def test_a_cut_takes_out_what_it_should_and_its_undo_puts_it_back(
    seqs: set[int], read: int, data: st.DataObject
) -> None:
    box = box_of(*sorted(seqs), read=read)
    before = state(box)
    gone = sorted(data.draw(st.sets(st.sampled_from(sorted(seqs)), min_size=1)))
    were_read, undo = box.cut(gone)
    left = sorted(seqs - set(gone))
    assert were_read == sum(seq for seq in gone if seq <= read)
    assert (list(box.seqs), list(box.sizes)) == (left, left)
    assert box.head == sum(seq <= read for seq in left)
    assert box.waiting_bytes == sum(seq for seq in left if seq > read)
    undo()
    assert state(box) == before


@given(st.sets(st.integers(1, 20), min_size=2), st.data())
def test_undoing_backwards_comes_to_the_beginning(seqs: set[int], data: st.DataObject) -> None:
    box = box_of(*sorted(seqs))
    box.devices = {"phone": Reader(0)}
    before = state(box)
    undo = []
    for _ in range(4):
        if data.draw(st.booleans()) and len(box.seqs):
            gone = sorted(data.draw(st.sets(st.sampled_from(list(box.seqs)), min_size=1)))
            undo.append(box.cut(gone)[1])
        else:
            reader = data.draw(st.sampled_from(box.readers()))
            seq = data.draw(st.integers(reader.cursor, 21))
            undo.append(box.acknowledge(reader, seq)[1])
    for step in reversed(undo):
        step()
    assert state(box) == before


def test_what_is_not_there_is_not_cut_from_what_was_sent() -> None:
    box = Mailbox("ann", 1)
    box.sent.extend([2, 4, 6, 8])
    undo = box.cut_sent([1, 4, 5, 8, 9])
    assert list(box.sent) == [2, 6]
    undo()
    assert list(box.sent) == [2, 4, 6, 8]
    box.cut_sent([3])
    assert list(box.sent_page(None, None, 3)) == [4, 6, 8]


def test_what_is_kept_can_be_asked_for() -> None:
    box = box_of(2, 4)
    assert box.there([1, 2, 3, 4, 5]) == [2, 4]
    assert [box.size(seq) for seq in (1, 2, 3, 4, 5)] == [0, 2, 0, 4, 0]


# --- texts -----------------------------------------------------------------------------------


def message(text: str) -> Message:
    return Message(1, 0, "ann", "m", text, "bob")


def test_fitting_counts_bytes_and_takes_one_at_least() -> None:
    texts = [message("\u00e9\u00e9"), message("a"), message("b")]
    assert fitting(texts, 0) == texts[:1]
    assert fitting(texts, 5) == texts[:2]
    assert fitting(texts, 6) == texts
    assert fitting([], 5) == []


@pytest.mark.parametrize(("text", "count"), [("", 0), ("ab", 2), ("\u00e9", 2), ("\U0001f4ec", 4)])
def test_texts_are_measured_as_utf8(text: str, count: int) -> None:
    assert text_bytes(text) == count
