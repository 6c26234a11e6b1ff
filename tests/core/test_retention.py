"""Which messages go, rule by rule. Source: docs/DURABILITY.md, "What is deleted, and when"."""

from __future__ import annotations

import pytest

from broker.core.dedup import DedupLimits
from broker.core.mailbox import Mailbox
from broker.core.mailboxes import Mailboxes
from broker.core.ports import StoreLimits
from broker.core.retention import Retention, Row

NOW_MS = 1_000_000
LIMITS = StoreLimits(
    retention_read_ms=100,
    retention_unread_ms=300,
    retention_room_ms=200,
    retention_bytes_max=25,
    dedup=DedupLimits(ids_max=2),
)


@pytest.fixture
def boxes() -> Mailboxes:
    """Bob has read 1 to 3 of 1 to 4; 5 was said in the room; each has ten bytes."""
    boxes = Mailboxes(LIMITS)
    for key, name in enumerate(["bob", "#den"], 1):
        boxes.add(Mailbox(name, key))
    letters = [("bob", "x" * 10, str(number), None) for number in range(4)]
    boxes.append_all("ann", letters, 0)
    boxes.acknowledge(boxes.find("bob"), "", 3)
    return boxes


def row(boxes: Mailboxes, seq: int, age_ms: int, name: str = "bob") -> Row:
    return Row(seq, boxes.get(name), NOW_MS - age_ms, "ann")


def fate(boxes: Mailboxes, row: Row, limits: StoreLimits = LIMITS) -> str:
    verdict = Retention(limits, boxes).judge([row], NOW_MS)
    if verdict.delete:
        return "deleted"
    return "expired" if verdict.expire else "kept"


def roomy(**changes: int) -> StoreLimits:
    """The same limits, with no cap that anything would be above."""
    ages = {"retention_read_ms": 100, "retention_unread_ms": 300, "retention_room_ms": 200}
    return StoreLimits(**(ages | changes))  # type: ignore[arg-type]  # whole numbers all of them


@pytest.mark.parametrize(
    ("seq", "age_ms", "name", "expected"),
    [
        (3, 100, "bob", "kept"),
        (3, 101, "bob", "deleted"),
        (4, 101, "bob", "kept"),
        (4, 300, "bob", "kept"),
        (4, 301, "bob", "expired"),
        (5, 101, "#den", "kept"),
        (5, 200, "#den", "kept"),
        (5, 201, "#den", "deleted"),
        (5, 100, "gone", "kept"),
        (5, 101, "gone", "deleted"),
    ],
)
def test_age_decides(boxes: Mailboxes, seq: int, age_ms: int, name: str, expected: str) -> None:
    assert fate(boxes, row(boxes, seq, age_ms, name), roomy()) == expected


def test_zero_keeps_unread_messages_for_ever(boxes: Mailboxes) -> None:
    assert fate(boxes, row(boxes, 4, 10**9), roomy(retention_unread_ms=0)) == "kept"


def test_zero_for_what_was_read_means_at_once(boxes: Mailboxes) -> None:
    limits = roomy(retention_read_ms=0)
    assert fate(boxes, row(boxes, 3, 1), limits) == "deleted"
    assert fate(boxes, row(boxes, 4, 1), limits) == "kept"


@pytest.mark.parametrize(("since_ms", "expected"), [(100, "kept"), (101, "deleted")])
def test_what_expired_is_kept_from_then_on(boxes: Mailboxes, since_ms: int, expected: str) -> None:
    boxes.expired[4] = NOW_MS - since_ms
    assert fate(boxes, row(boxes, 4, 10**6), roomy()) == expected


def test_the_oldest_go_until_no_more_is_kept_than_may_be(boxes: Mailboxes) -> None:
    rows = [row(boxes, seq, 0) for seq in (1, 2, 3, 4)]
    verdict = Retention(LIMITS, boxes).judge(rows, NOW_MS)
    assert [each.seq for each in verdict.delete] == [1], "30 bytes are 5 too many"
    assert (verdict.expire, verdict.looked_at) == ([], 1)


def test_the_youngest_stay_because_their_ids_are_read_back_from_them(boxes: Mailboxes) -> None:
    limits = StoreLimits(retention_bytes_max=0, dedup=LIMITS.dedup)
    rows = [row(boxes, seq, 0) for seq in (1, 2, 3, 4)]
    verdict = Retention(limits, boxes).judge(rows, NOW_MS)
    assert [each.seq for each in verdict.delete] == [1, 2]


def test_a_walk_ends_at_the_first_row_too_young_for_any_rule(boxes: Mailboxes) -> None:
    ages = [301, 150, 101, 100, 500]
    rows = [row(boxes, seq, age_ms) for seq, age_ms in enumerate(ages, 1)]
    verdict = Retention(roomy(), boxes).judge(rows, NOW_MS)
    assert ([each.seq for each in verdict.delete], verdict.looked_at) == ([1, 2, 3], 3)


def test_nothing_expires_twice(boxes: Mailboxes) -> None:
    boxes.expired[4] = NOW_MS
    assert fate(boxes, row(boxes, 4, 10**6), roomy()) == "kept"
