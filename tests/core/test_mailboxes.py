"""All mailboxes in memory: counts, removal, expiry, and a batch taken back as a whole."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core import mailboxes as module
from broker.core.mailbox import Mailbox
from broker.core.mailboxes import Mailboxes
from broker.core.model import Membership, State
from broker.core.ports import StoreLimits
from broker.wire.errors import Code, WireError
from broker.wire.limits import DEVICES_PER_USER_MAX


@pytest.fixture
def boxes() -> Mailboxes:
    boxes = Mailboxes(StoreLimits(mailbox_messages_max=600))
    for key, name in enumerate(["ann", "bob", "#den"], 1):
        boxes.add(Mailbox(name, key))
    for user in ("ann", "bob"):
        boxes.seat(Membership("#den", user, joined=True))
    boxes.commit()
    return boxes


def append(boxes: Mailboxes, *ids: str, to: str = "bob", size: int = 10) -> Mailbox:
    boxes.append_all("ann", [(to, "x" * size, each, None) for each in ids], 0)
    return boxes.find(to)


def whole(boxes: Mailboxes) -> dict[str, Any]:
    """Everything that a rollback must bring back, in plain values."""
    return {
        "next": boxes.next_seq,
        "read": boxes.read_bytes,
        "expired": dict(boxes.expired),
        "expiring": sorted(boxes._expiring),
        "boxes": {
            box.name: {
                "key": box.key,
                "history": box.history,
                "seqs": list(box.seqs),
                "sizes": list(box.sizes),
                "sent": list(box.sent),
                "numbers": (box.furthest, box.given, box.head, box.last, box.purged),
                "waiting": box.waiting_bytes,
                "readers": [(each.cursor, each.delivered) for each in box.readers()],
                "devices": list(box.devices),
                "rooms": {room.name: since for room, since in box.rooms.items()},
                "members": sorted(member.name for member in box.members),
            }
            for box in boxes._boxes.values()
        },
    }


# --- counts ----------------------------------------------------------------------------------


def test_the_count_of_mailboxes_and_of_what_waits(boxes: Mailboxes) -> None:
    box = append(boxes, "m1", "m2", "m3")
    append(boxes, "m4", to="#den")
    boxes.acknowledge(box, "", 1)
    assert (len(boxes), boxes.depth().messages, "bob" in boxes, "eve" in boxes) == (
        3,
        2,
        True,
        False,
    )
    assert (boxes.last, boxes.read_bytes) == (4, 10)


@pytest.mark.parametrize(("name", "code"), [("eve", "no_such_user"), ("#no", "no_such_room")])
def test_a_mailbox_that_is_not_there(boxes: Mailboxes, name: str, code: str) -> None:
    with pytest.raises(WireError) as caught:
        boxes.find(name)
    assert caught.value.code == Code(code)
    assert boxes.remove(name) is boxes.get(name) is None


def test_bytes_that_were_read_are_counted_as_long_as_they_are_kept(boxes: Mailboxes) -> None:
    box = append(boxes, "m1", "m2", "m3")
    boxes.acknowledge(box, "", 2)
    boxes.acknowledge(box, "phone", 1)
    assert boxes.read_bytes == 20
    boxes.purge([(1, box, "ann"), (3, box, "ann")])
    assert (boxes.read_bytes, box.waiting_bytes) == (10, 0)
    boxes.remove("bob")
    assert boxes.read_bytes == 0


def test_what_a_room_keeps_never_counts_as_read(boxes: Mailboxes) -> None:
    append(boxes, "m1", to="#den")
    boxes.acknowledge(boxes.find("bob"), "", 1)
    assert boxes.read_bytes == 0


# --- devices ---------------------------------------------------------------------------------


def test_a_device_that_is_replaced_is_named_once(boxes: Mailboxes) -> None:
    box = append(boxes, "m1")
    names = [f"d{number:02}" for number in range(DEVICES_PER_USER_MAX)]
    for name in names:
        assert boxes.acknowledge(box, name, 0)[1:] == (True, None)
    boxes.acknowledge(box, names[0], 1)
    assert boxes.acknowledge(box, "new", 0)[1:] == (True, names[1]), "of equals the first by name"
    assert boxes.acknowledge(box, "new", 0)[1:] == (False, None)
    assert len(box.devices) == DEVICES_PER_USER_MAX


def test_a_newcomer_in_anothers_place_makes_nothing_look_delivered(boxes: Mailboxes) -> None:
    box = append(boxes, "m1")
    for number in range(DEVICES_PER_USER_MAX + 1):
        boxes.acknowledge(box, f"d{number}", 0)
    assert boxes.state(1, "bob") is State.STORED


# --- expiry ----------------------------------------------------------------------------------


def test_equal_times_of_expiry_are_no_trouble(boxes: Mailboxes) -> None:
    box = append(boxes, "m1", "m2")
    for seq in (2, 1, 2, 1):
        boxes.expire_at(box, seq, 5)
    assert boxes.expire(4) == []
    assert boxes.expire(5) == [1, 2]
    assert boxes.expire(5) == []


def test_an_entry_of_a_message_that_is_gone_does_nothing(boxes: Mailboxes) -> None:
    box = append(boxes, "m1", "m2")
    boxes.expire_at(box, 1, 5)
    boxes.expire_at(box, 2, 5)
    boxes.purge([(1, box, "ann")])
    boxes.remove("bob")
    boxes.add(Mailbox("bob", 9))
    assert boxes.expire(5) == []
    assert boxes.expired == {}


def test_what_expired_is_forgotten_with_its_row(boxes: Mailboxes) -> None:
    box = append(boxes, "m1")
    boxes.expire_at(box, 1, 5)
    assert (boxes.expire(5), boxes.state(1, "bob")) == ([1], State.EXPIRED)
    assert boxes.purge([(1, box, "ann")]) == []
    assert (boxes.expired, list(boxes.find("ann").sent)) == ({}, [])


# --- rollback --------------------------------------------------------------------------------


def busy(boxes: Mailboxes) -> None:
    """Take every kind of step, such that later ones touch what earlier ones made."""
    box, ann, den = boxes.find("bob"), boxes.find("ann"), boxes.find("#den")
    append(boxes, "n1", "n2", "n3")
    boxes.expire_at(box, boxes.last, 7)
    boxes.acknowledge(box, "phone", boxes.last - 1)
    boxes.give(box, boxes.reader(box, "desk"), boxes.last)
    boxes.expire(9)
    append(boxes, "n4", to="#den")
    boxes.purge([(2, box, "ann"), (3, den, "ann"), (boxes.last, den, "ann")])
    boxes.forget_sent([(1, "ann")])
    boxes.alter(den, history=True)
    boxes.unseat("#den", "bob")
    boxes.seat(Membership("#den", "bob", joined=True))
    boxes.acknowledge(box, "tab", 10**9)
    boxes.remove("bob")
    boxes.add(Mailbox("bob", 7))
    boxes.seat(Membership("#den", "bob", joined=True))
    append(boxes, "n1", "n5")
    boxes.remove("#den")
    append(boxes, "n6", to="ann")
    boxes.acknowledge(ann, "", boxes.last)
    boxes.remove("ann")


def test_a_batch_is_taken_back_whole(boxes: Mailboxes) -> None:
    box = append(boxes, "m1", "m2")
    append(boxes, "m3", to="#den")
    append(boxes, "m4", "m5")
    boxes.expire_at(box, 5, 8)
    boxes.acknowledge(box, "", 1)
    boxes.acknowledge(box, "desk", 2)
    boxes.commit()
    before = whole(boxes)
    busy(boxes)
    assert whole(boxes) != before
    boxes.rollback()
    assert whole(boxes) == before
    assert boxes.find("bob") is box
    assert [boxes.duplicate("ann", each) for each in ("m1", "m5", "n1", "n6")] == [1, 5, None, None]
    busy(boxes)
    boxes.rollback()
    assert whole(boxes) == before, "and again"


def test_what_was_committed_is_not_taken_back(boxes: Mailboxes) -> None:
    append(boxes, "m1")
    boxes.commit()
    boxes.rollback()
    assert (boxes.depth().messages, boxes.next_seq) == (1, 2)


def test_rollback_takes_back_what_was_sent_and_deleted_in_one_batch(boxes: Mailboxes) -> None:
    """Both ends of the list of what was sent are touched: only backwards comes out right."""
    append(boxes, "kept")
    boxes.commit()
    box = append(boxes, "lost")
    boxes.purge([(2, box, "ann")])
    boxes.rollback()
    assert list(boxes.find("ann").sent) == list(box.seqs) == [1]


def test_only_what_was_put_on_the_heap_is_taken_off(boxes: Mailboxes) -> None:
    box = append(boxes, "m1")
    boxes.expire_at(box, 1, 5)
    boxes.commit()
    append(boxes, "m2")
    boxes.expire_at(box, 2, 4)
    boxes.expire_at(box, 1, 6)
    boxes.rollback()
    assert boxes._expiring == [(5, 1, "bob")]
    append(boxes, "m3")
    assert boxes.expire(9) == [1]


def test_a_full_heap_is_taken_in_steps(boxes: Mailboxes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "EXPIRED_PER_STEP_MAX", 2)
    box = append(boxes, "m1", "m2", "m3")
    for seq in (1, 2, 3):
        boxes.expire_at(box, seq, 10 - seq)
    assert (boxes.expire(10), boxes.expire(10)) == ([2, 3], [1])
