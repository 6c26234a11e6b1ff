"""The queues in memory: cursors, bounds, and a batch taken back."""

from __future__ import annotations

import pytest

from broker.core.dedup import DedupLimits
from broker.core.mailboxes import Mailbox, Mailboxes, fitting
from broker.core.model import Message
from broker.wire.errors import Code, WireError


@pytest.fixture
def boxes() -> Mailboxes:
    boxes = Mailboxes(messages_max=600, dedup=DedupLimits())
    boxes.add("bob", Mailbox(1, 0))
    boxes.commit()
    return boxes


def append(boxes: Mailboxes, *ids: str) -> Mailbox:
    box = boxes.find("bob")
    for each in ids:
        boxes.append("bob", "ann", each, 0)
    return box


def test_the_count_of_mailboxes_and_of_what_waits(boxes: Mailboxes) -> None:
    box = append(boxes, "m1", "m2", "m3")
    boxes.acknowledge(box, 1)
    assert (len(boxes), boxes.waiting(), "bob" in boxes, "eve" in boxes) == (1, 2, True, False)


def test_a_mailbox_that_is_not_there(boxes: Mailboxes) -> None:
    with pytest.raises(WireError) as caught:
        boxes.find("eve")
    assert caught.value.code is Code.NO_SUCH_USER
    assert boxes.remove("eve") is None


def test_acknowledged_sequences_do_not_pile_up_in_memory(boxes: Mailboxes) -> None:
    for start in range(0, 5_000, 500):
        box = append(boxes, *(str(start + number) for number in range(500)))
        boxes.acknowledge(box, box.last)
        boxes.commit()
        assert len(box.pending) <= 500
    assert (boxes.waiting(), box.cursor, box.last) == (0, 5_000, 5_000)


def test_a_cut_queue_goes_on_where_it_was(boxes: Mailboxes) -> None:
    box = append(boxes, *(str(number) for number in range(600)))
    boxes.acknowledge(box, 500)
    boxes.commit()
    assert (len(box.pending), box.head) == (100, 0)
    assert list(boxes.after(box, 0, 2)) == [501, 502]
    assert list(boxes.after(box, 599, 9)) == [600]


def test_rollback_of_a_queue_that_was_cut_empty_keeps_its_last(boxes: Mailboxes) -> None:
    box = append(boxes, *(str(number) for number in range(600)))
    boxes.acknowledge(box, 600)
    boxes.commit()
    append(boxes, "lost")
    boxes.acknowledge(box, 601)
    boxes.rollback()
    assert (box.last, box.cursor, boxes.next_seq) == (600, 600, 601)
    assert boxes.duplicate("ann", "lost") is None
    assert boxes.duplicate("ann", "599") == 600
    assert boxes.acknowledge(box, 10_000) == 600


def test_rollback_takes_back_steps_that_touch_each_other(boxes: Mailboxes) -> None:
    box = append(boxes, "m1", "m2")
    boxes.commit()
    boxes.acknowledge(box, 1)
    append(boxes, "m3")
    boxes.acknowledge(box, 3)
    boxes.remove("bob")
    boxes.add("bob", Mailbox(2, 0))
    append(boxes, "m4")
    boxes.rollback()
    assert boxes.find("bob") is box
    assert list(boxes.after(box, 0, 9)) == [1, 2]
    assert (box.cursor, box.last, boxes.next_seq) == (0, 2, 3)


def message(text: str) -> Message:
    return Message(1, 0, "ann", "m", text)


def test_fitting_counts_bytes_and_takes_one_at_least() -> None:
    texts = [message("\u00e9\u00e9"), message("a"), message("b")]
    assert fitting(texts, 0) == texts[:1]
    assert fitting(texts, 5) == texts[:2]
    assert fitting([], 5) == []
