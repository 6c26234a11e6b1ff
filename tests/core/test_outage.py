"""While the store cannot be reached: everybody is told, nobody is harmed, and it passes."""

from __future__ import annotations

import logging

import pytest

from broker.core.model import Page
from broker.core.outage import QUIET_MS
from broker.core.ports import Key, R, StoreFullError, StoreUnavailableError
from broker.core.refusals import RETRY_AFTER_MS
from broker.core.service import IDLE_MS, OUTAGE_MS, TIDY_PAUSE_MS
from broker.core.subscriptions import TICK_MS
from broker.wire.errors import Code
from tests.core.fakes import ADMIN, FaultyStore, World

GONE = "no server answers"


def gone() -> StoreUnavailableError:
    return StoreUnavailableError(GONE)


def test_a_batch_is_answered_unavailable_as_a_whole_and_the_broker_goes_on(world: World) -> None:
    ann = world.user("ann")
    world.store.commit_faults = [gone()]
    replies = world.batch(
        world.frame("chat", ann, to="ann", text="hi", id="m1"), world.frame("ping"), b"unreadable"
    )
    errors = [reply.error for reply in replies if reply.error]
    assert [each.code for each in errors] == [Code.UNAVAILABLE, Code.UNAVAILABLE, Code.BAD_REQUEST]
    assert errors[0].retry_after_ms == RETRY_AFTER_MS
    assert not world.failed, "it may come back"
    world.now_ms += RETRY_AFTER_MS
    assert world.send(ann, "ann", "m1") == [1], "the same id, once it is back"


def test_what_was_sent_behind_a_refused_message_does_not_overtake_it(world: World) -> None:
    """A pipeline of two: the first is refused, the second is under way already."""
    ann = world.user("ann")
    assert world.send(ann, "ann", "m0") == [1]
    world.store.commit_faults = [gone()]
    assert world.code("chat", ann, to="ann", text="first", id="m1") is Code.UNAVAILABLE
    assert world.code("chat", ann, to="ann", text="second", id="m2") is Code.UNAVAILABLE
    assert world.send(ann, "ann", "m0") == [1], "what is stored has its answer all the same"
    world.now_ms += RETRY_AFTER_MS
    assert world.send(ann, "ann", "m1", "m2") == [2, 3]


def test_a_step_that_cannot_reach_the_store_ends_its_batch_and_is_no_fault_of_a_handler(
    world: World,
) -> None:
    """What was sent together with it has come to nothing as well: none of it may be answered OK."""
    ann = world.user("ann")
    world.store.read_fault = gone()
    replies = world.batch(
        world.frame("chat", ann, to="ann", text="hi", id="m1"), world.frame("inbox", ann)
    )
    assert [reply.error and reply.error.code for reply in replies] == [Code.UNAVAILABLE] * 2
    world.store.read_fault = None
    assert world.texts(ann) == []


def test_an_outage_is_told_once_however_many_batches_it_takes_and_its_end_too(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.store.commit_faults = [gone(), None, gone()]
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            world.call("ping")
            world.now_ms += 4_000
        assert [vars(each)["fields"] for each in caplog.records] == [{"reason": GONE}]
        assert world.service.degraded
        world.now_ms += QUIET_MS - 4_000
        world.turn()
    assert not world.service.degraded
    assert [vars(each)["fields"] for each in caplog.records[1:]] == [{"duration_ms": 8_000}]


def test_while_the_store_is_gone_turns_come_sooner_but_not_without_a_pause(world: World) -> None:
    ann = world.user("ann")
    world.ok("subscribe", ann, window=10)
    assert world.service.patience_ms == IDLE_MS
    world.store.read_fault = gone()
    world.send(ann, "ann", "m1")
    assert world.service.patience_ms == OUTAGE_MS, "something is left to push, but not now"


def test_what_could_not_be_pushed_is_pushed_when_the_store_is_back(world: World) -> None:
    ann = world.user("ann")
    world.ok("subscribe", ann, window=10)
    world.store.read_fault = gone()
    assert world.send(ann, "ann", "m1") == [1], "the reply was committed, and stands"
    assert world.events == []
    assert world.service.degraded
    world.store.read_fault = None
    world.turn()
    assert [each["text"] for each in world.events[0][1]["messages"]] == ["m1"]


def test_tidying_survives_and_is_tried_again_later(world: World) -> None:
    world.store.commit_faults = [gone()]
    assert world.service.tidy(world.now_ms), "False would stop the broker"
    assert world.service.degraded
    world.store.commit_faults = [StoreFullError()]
    assert world.service.tidy(world.now_ms + TIDY_PAUSE_MS - 1)
    assert world.store.commit_faults, "not yet"
    assert world.service.tidy(world.now_ms + TIDY_PAUSE_MS)
    assert not world.store.commit_faults


def test_nothing_of_a_batch_that_failed_is_remembered(world: World) -> None:
    world.user("ann")
    world.batch(world.frame("login", user="ann", password="password"))
    world.store.commit_faults = [gone()]
    world.turn(finished=world.work())
    assert world.code("ping", "token-2") is Code.UNAUTHORIZED
    assert not world.service.busy


class FadingStore(FaultyStore):
    """Looks up so many records, reads so many pages, and then is gone."""

    looks_left = 1_000
    reads_left = 1_000

    def read(self, user: str, device: str, after: int, limit: int, bytes_max: int) -> Page:
        self.reads_left -= 1
        if self.reads_left < 0:
            raise gone()
        return super().read(user, device, after, limit, bytes_max)

    def find(self, kind: type[R], key: Key) -> R | None:
        self.looks_left -= 1
        if self.looks_left < 0:
            raise gone()
        return super().find(kind, key)


def test_slow_work_of_requests_that_are_refused_after_all_is_not_begun() -> None:
    """Found out after the commit, while names are looked up: the job has a place already."""
    store = FadingStore()
    world = World(store=store)
    ann = world.user("ann")
    store.looks_left = 1
    slow = world.frame("user_passwd", ADMIN, user="ann", password="x")  # one look
    replies = world.batch(slow, world.frame("inbox", ann))
    assert [reply.error and reply.error.code for reply in replies] == [Code.UNAVAILABLE] * 2
    assert not world.jobs
    assert not world.service.busy


def test_nothing_is_pushed_of_which_nobody_knows_whether_it_is_noted_as_given() -> None:
    """It would come again without saying that it may have come before."""
    store = FadingStore()
    world = World(store=store)
    ann, ben = world.user("ann"), world.user("ben")
    for token in (ann, ben):
        world.ok("subscribe", token, window=10)
    store.reads_left = 1  # enough for the first of them
    world.batch(
        world.frame("chat", ann, to="ben", text="m", id="m1"),
        world.frame("chat", ben, to="ann", text="m", id="m2"),
    )
    assert world.events == []
    store.reads_left = 1_000
    world.now_ms += TICK_MS
    world.turn()
    assert len(world.events) == 2
    told = [each for _, body in world.events for each in body["messages"]]
    assert not any("redelivered" in each for each in told)


def test_what_was_not_pushed_for_want_of_a_name_does_not_count_as_under_way() -> None:
    """It would fill the window for good: nobody has it, so nobody would acknowledge it."""
    store = FadingStore()
    world = World(store=store)
    ann, ben = world.user("ann"), world.user("ben")
    world.ok("subscribe", ann, window=1)
    store.looks_left = 0
    assert world.send(ben, "ann", "m1") == [1], "the reply was committed, and stands"
    assert world.service.degraded
    assert world.events == []
    store.looks_left = 1_000
    world.now_ms += TICK_MS
    world.turn()
    assert [each["text"] for _, body in world.events for each in body["messages"]] == ["m1"]
