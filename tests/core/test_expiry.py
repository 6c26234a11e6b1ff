"""What outlives its time: it is never delivered, and its sender may be told, once."""

from __future__ import annotations

import pytest

from broker.core import expiry
from broker.core.handlers import Policy
from broker.core.mailboxes import EXPIRED_PER_STEP_MAX
from broker.core.ports import DEFAULT_LIMITS, StoreFullError, StoreLimits
from broker.wire.errors import Code
from broker.wire.limits import TTL_MS_MAX, TTL_MS_MIN
from tests.core.fakes import ADMIN, World


@pytest.fixture
def world() -> World:
    return World(Policy(expiry_notices=True), limits=DEFAULT_LIMITS)


def test_a_message_is_read_until_its_time_and_not_after(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "short", ttl_ms=TTL_MS_MIN)
    world.send(ann, "ben", "long", ttl_ms=TTL_MS_MAX)
    world.now_ms += TTL_MS_MIN - 1
    assert world.texts(ben) == ["short", "long"]
    world.now_ms += 1
    assert world.texts(ben) == ["long"]
    assert world.ok("history", ben)["messages"][0]["text"] == "long"


def test_however_many_are_late_none_of_them_is_read(world: World) -> None:
    ann = world.user("ann")
    for number in range(3 * EXPIRED_PER_STEP_MAX):
        world.ok("chat", ann, to="ann", text="x", id=f"m{number}", ttl_ms=1_000)
    world.now_ms += 1_000
    assert {each["from"] for each in world.ok("inbox", ann)["messages"]} == {"!kotak"}


def test_one_turn_takes_out_no_more_than_it_has_time_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hundred thousand that are due at once must not hold every answer up."""
    monkeypatch.setattr(expiry, "EXPIRY_STEPS_MAX", 2)
    ann, ben = world.user("ann"), world.user("ben")
    count = 3 * EXPIRED_PER_STEP_MAX
    for number in range(count):
        world.ok("chat", ann, to="ben", text="x", id=f"m{number}", ttl_ms=1_000)
    world.now_ms += 1_000
    world.turn()
    assert world.service.expired == 2 * EXPIRED_PER_STEP_MAX
    assert world.texts(ben) == []
    assert world.service.expired == count


def test_a_life_has_bounds(world: World) -> None:
    ann = world.user("ann")
    for ttl_ms in (0, TTL_MS_MIN - 1, TTL_MS_MAX + 1, -1):
        chat = {"to": "ann", "text": "x", "id": "m", "ttl_ms": ttl_ms}
        assert world.code("chat", ann, **chat) is Code.BAD_REQUEST


def test_what_expired_is_pushed_to_nobody_and_leaves_no_gap(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("subscribe", ben, window=1)
    world.send(ann, "ben", "first")
    world.send(ann, "ben", "late", ttl_ms=1_000)
    world.send(ann, "ben", "last")
    world.now_ms += 1_000
    world.ok("ack", ben, seq=1)
    bodies = [(body["after"], body["messages"][0]["text"]) for _, body in world.events]
    assert bodies == [(0, "first"), (1, "last")]


def test_a_mailbox_has_room_again_for_what_expired(world: World) -> None:
    world = World()  # three messages
    ann = world.user("ann")
    world.send(ann, "ann", "1", "2", "3", ttl_ms=1_000)
    assert world.code("chat", ann, to="ann", text="4", id="4") is Code.MAILBOX_FULL
    world.now_ms += 1_000
    assert world.send(ann, "ann", "4")


def test_the_sender_is_told_once_in_the_batch_in_which_it_expires(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("subscribe", ann)
    world.send(ann, "ben", "late", ttl_ms=1_000)
    world.now_ms += 1_000
    (reply,) = world.batch(world.frame("inbox", ann))
    (notice,) = reply.result["messages"]
    assert (notice["from"], notice["text"]) == (
        "!kotak",
        "expired unread: your message late to ben",
    )
    assert len(world.events) == 1, "pushed as any message is"
    for _ in range(3):
        world.now_ms += 1_000
        world.turn()
    assert len(world.texts(ann)) == 1
    assert (world.service.expired, world.service.unnoticed) == (1, 0)
    assert world.texts(ben) == []


def test_nobody_is_told_where_that_is_not_wanted() -> None:
    world = World(Policy())
    ann, _ = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "late", ttl_ms=1_000)
    world.now_ms += 1_000
    assert world.texts(ann) == []
    assert world.service.expired == 1


def test_what_was_read_in_time_is_no_loss(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    (seq,) = world.send(ann, "ben", "read", ttl_ms=1_000)
    world.ok("ack", ben, seq=seq)
    world.now_ms += 1_000
    assert world.texts(ann) == []
    assert world.service.expired == 0


def test_after_its_time_a_device_that_lags_gets_it_no_more_and_has_lost_nothing(
    world: World,
) -> None:
    """Whoever sends a code that is good for a minute wants no phone to show it a week later."""
    ann, ben = world.user("ann"), world.user("ben")
    phone = world.login("ben", device="phone")
    late, last = (*world.send(ann, "ben", "late", ttl_ms=1_000), *world.send(ann, "ben", "last"))
    world.ok("ack", ben, seq=late)
    assert world.texts(phone) == ["late", "last"]
    world.now_ms += 1_000
    assert world.texts(phone) == ["last"]
    answer = world.ok("subscribe", phone)
    assert "history_lost" not in answer
    assert [body["messages"][0]["seq"] for _, body in world.events] == [last]
    assert world.ok("status", ann, to="ben", seq=late)["state"] == "acknowledged"
    assert world.texts(ann) == [], "and its sender is not told that it came to nothing"


def test_a_notice_that_expires_itself_is_told_to_nobody() -> None:
    limits = StoreLimits(retention_unread_ms=10_000)
    world = World(Policy(expiry_notices=True), limits=limits)
    ann, _ = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "late", ttl_ms=1_000)
    world.now_ms += 1_000
    world.turn()
    for _ in range(3):
        world.now_ms += 60_000
        world.service.tidy(world.now_ms)
        world.turn()
    assert world.service.expired == 2
    assert world.texts(ann) == []


def test_notices_that_find_no_place_are_counted(world: World) -> None:
    world = World(Policy(expiry_notices=True))  # three messages a mailbox
    ann, ben = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "late", ttl_ms=1_000)
    world.send(ben, "ann", "1", "2", "3")
    world.now_ms += 1_000
    world.turn()
    assert (world.service.expired, world.service.unnoticed) == (1, 1)


@pytest.mark.parametrize("who", ["ann", "ben"])
def test_an_account_that_is_gone_keeps_nothing_from_expiring(world: World, who: str) -> None:
    ann, _, cat = world.user("ann"), world.user("ben"), world.user("cat")
    world.send(ann, "ben", "late", ttl_ms=1_000)
    world.send(cat, "cat", "mine", ttl_ms=1_000)
    world.ok("user_remove", ADMIN, user=who)
    world.now_ms += 1_000
    assert [text for text in world.texts(cat) if text == "mine"] == []


def test_a_room_that_is_gone_keeps_nothing_from_expiring(world: World) -> None:
    ann = world.user("ann")
    world.ok("room_create", ann, room="#r")
    world.send(ann, "#r", "late", ttl_ms=1_000)
    world.ok("room_leave", ann, room="#r")
    world.now_ms += 1_000
    assert world.texts(ann) == []


# --- batches that fail -----------------------------------------------------------------------


def test_an_expiry_that_was_rolled_back_happens_again_and_is_counted_once(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "late", ttl_ms=1_000)
    world.now_ms += 1_000
    world.store.commit_faults = [StoreFullError(), StoreFullError()]
    world.turn()
    assert world.service.expired == 0
    world.turn()
    assert (world.service.expired, len(world.texts(ann))) == (1, 1)
    assert world.texts(ben) == []


def test_while_the_disk_is_full_what_is_due_waits_and_reading_goes_on(world: World) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.send(ann, "ben", "kept")
    world.send(ann, "ben", "late", ttl_ms=1_000)
    world.now_ms += 1_000
    world.store.full = True
    assert "kept" in world.texts(ben)
    assert world.ok("ack", ben, seq=1) == {"cursor": 1}
    assert world.service.expired == 0
    world.store.full = False
    assert world.texts(ben) == []
    assert world.service.expired == 1
