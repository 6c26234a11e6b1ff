"""What the service answers when the store, or the service itself, has a fault."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest

from broker.core import dispatcher, handlers
from broker.core.ports import StoreFailedError, StoreFullError
from broker.core.refusals import RETRY_AFTER_MS
from broker.core.service import Finished
from broker.wire.envelope import Reply
from broker.wire.errors import Code
from tests.core.fakes import ADMIN, LIMITS, World

CANARY = "canary-7f3a"


def codes(replies: list[Reply]) -> list[Code | None]:
    return [reply.error.code if reply.error else None for reply in replies]


# --- the commit fails ------------------------------------------------------------------------


def test_no_request_of_a_batch_that_was_not_committed_is_answered_ok(world: World) -> None:
    ann = world.user("ann")
    world.store.commit_faults = [StoreFailedError("SQLITE_IOERR: disk I/O error")]
    chats = [world.frame("chat", ann, to="ann", text="hi", id=f"m{n}") for n in (1, 2)]
    replies = world.batch(chats[0], world.frame("ping"), chats[1], b"unreadable")
    assert codes(replies) == [Code.UNAVAILABLE] * 3 + [Code.BAD_REQUEST]
    later = [reply.error.retry_after_ms for reply in replies if reply.error]
    assert later == [RETRY_AFTER_MS] * 3 + [None], "what is no request is none later either"
    assert world.failed, "the broker must stop: no OK can be trusted any more"


def test_slow_work_of_a_batch_that_was_not_committed_is_answered_and_not_started(
    world: World,
) -> None:
    world.user("ann")
    world.batch(world.frame("login", user="ann", password="password"))
    late = world.work()
    world.store.commit_faults = [StoreFailedError()]
    other = world.frame("login", user="ann", password="password")
    replies = world.turn((b"other", [other]), finished=late)
    assert {route: codes(each) for route, each in replies.items()} == {
        b"r": [Code.UNAVAILABLE],
        b"other": [Code.UNAVAILABLE],
    }
    assert world.jobs == []
    assert not world.service.busy


def test_a_token_of_a_failed_batch_is_worth_nothing(world: World) -> None:
    world.user("ann")
    world.batch(world.frame("login", user="ann", password="password"))
    world.store.commit_faults = [StoreFailedError()]
    world.turn(finished=world.work())
    assert world.code("ping", "token-2") is Code.UNAUTHORIZED


def test_a_logout_of_a_failed_batch_did_not_happen(world: World) -> None:
    ann = world.user("ann")
    world.store.commit_faults = [StoreFailedError()]
    world.call("logout", ann)
    assert world.ok("ping", ann)


def test_a_display_name_of_a_failed_batch_is_forgotten(world: World) -> None:
    ann = world.user("ann")
    world.ok("inbox", ann)
    world.store.commit_faults = [StoreFailedError()]
    world.call("user_remove", ADMIN, user="ann")
    assert world.ok("inbox", ann)["name"] == "ann"


def test_a_store_that_fails_in_a_step_ends_the_batch(world: World) -> None:
    ann = world.user("ann")
    world.store.read_fault = StoreFailedError()
    replies = world.batch(
        world.frame("chat", ann, to="ann", text="hi", id="m"), world.frame("inbox", ann)
    )
    assert codes(replies) == [Code.UNAVAILABLE] * 2
    assert world.failed
    world.store.read_fault = None
    assert world.ok("inbox", ann)["messages"] == []


def test_a_store_that_fails_while_names_are_looked_up_stops_the_broker(world: World) -> None:
    ann = world.user("ann")
    world.store.find_fault = StoreFailedError()
    assert codes(world.batch(world.frame("inbox", ann))) == [Code.UNAVAILABLE]
    assert world.failed


def test_a_store_that_fails_while_slow_work_is_finished_stops_the_broker(world: World) -> None:
    world.user("ann")
    world.batch(world.frame("login", user="ann", password="password"))
    late = world.work()
    world.store.find_fault = StoreFailedError()
    assert codes(world.turn(finished=late)[b"r"]) == [Code.UNAVAILABLE]
    assert world.failed


# --- no room ---------------------------------------------------------------------------------


def test_without_room_sends_are_refused_while_reading_and_acknowledging_go_on(
    world: World,
) -> None:
    ann = world.user("ann")
    world.ok("chat", ann, to="ann", text="hi", id="m1")
    world.store.full = True
    replies = world.batch(
        world.frame("chat", ann, to="ann", text="ho", id="m2"),
        world.frame("kotakmasuk", ann),
        world.frame("ack", ann, seq=1),
        world.frame("login", user="ann", password="password"),
    )
    assert codes(replies) == [Code.STORAGE_FULL, None, None, Code.STORAGE_FULL]
    assert [each["id"] for each in replies[1].result["messages"]] == ["m1"]
    assert replies[2].result == {"cursor": 1}
    assert not world.failed
    world.store.full = False
    assert world.ok("chat", ann, to="ann", text="ho", id="m2"), "no restart is needed"


def test_without_room_a_login_that_comes_to_its_end_does_not_take_reads_with_it(
    world: World,
) -> None:
    ann = world.user("ann")
    world.batch(world.frame("login", user="ann", password="password"))
    world.store.full = True
    replies = world.turn((b"reader", [world.frame("inbox", ann)]), finished=world.work())
    assert codes(replies[b"r"]) == [Code.STORAGE_FULL]
    assert codes(replies[b"reader"]) == [None]
    assert not world.service.busy


def test_where_even_the_rest_finds_no_room_everything_is_refused(world: World) -> None:
    ann = world.user("ann")
    world.store.commit_faults = [StoreFullError(), StoreFullError()]
    replies = world.turn((b"a", [world.frame("ack", ann, seq=1)]), (b"b", None))
    assert {route: codes(each) for route, each in replies.items()} == {
        b"a": [Code.STORAGE_FULL],
        b"b": [Code.BAD_REQUEST],  # too many frames: it would be refused on any disk
    }
    assert not world.failed


def test_a_store_that_fails_in_the_second_attempt_stops_the_broker(world: World) -> None:
    world.store.commit_faults = [StoreFullError(), StoreFailedError()]
    assert codes(world.batch(world.frame("ping"))) == [Code.UNAVAILABLE]
    assert world.failed


def test_slow_work_is_counted_once_when_a_batch_is_run_twice(world: World) -> None:
    world.user("ann")
    world.store.commit_faults = [StoreFullError()]
    login = world.frame("user_passwd", ADMIN, user="ann", password="x")
    assert world.batch(login) == []
    assert len(world.jobs) == 1
    world.turn(finished=world.work())
    assert not world.service.busy


# --- the service's own faults ----------------------------------------------------------------


def break_command(
    monkeypatch: pytest.MonkeyPatch, name: str, handle: Any
) -> Mapping[str, handlers.CommandSpec]:
    broken = dict(handlers.COMMANDS)
    broken[name] = replace(broken[name], handle=handle)
    monkeypatch.setattr(dispatcher, "COMMANDS", broken)
    return broken


def test_a_bug_in_a_handler_is_one_answer_and_its_log_tells_no_secret(
    world: World, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    ann = world.user("ann")

    def handle(ctx: handlers.Context, args: Any) -> handlers.Result:
        raise ValueError(args.text, args, ctx.session.token)

    break_command(monkeypatch, "send", handle)
    chat: dict[str, Any] = {"to": "ann", "text": CANARY, "id": "m1"}
    with caplog.at_level(logging.DEBUG):
        replies = world.batch(world.frame("send", ann, **chat), world.frame("chat", ann, **chat))
    assert codes(replies) == [Code.INTERNAL, None]
    assert "ValueError" in caplog.text, "a bug must be found by its place"
    assert CANARY not in caplog.text
    assert ann not in caplog.text
    assert replies[0].error is not None
    assert CANARY not in str(replies[0].error)


def test_slow_work_that_raised_is_answered_and_its_log_tells_no_secret(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    world.user("ann")
    world.batch(world.frame("login", user="ann", password=CANARY))
    (job,) = world.jobs
    replies = world.turn(finished=[Finished(job, MemoryError(CANARY))])[b"r"]
    assert codes(replies) == [Code.INTERNAL]
    assert "MemoryError" in caplog.text
    assert CANARY not in caplog.text


def test_a_bug_while_slow_work_is_finished_is_one_answer(world: World) -> None:
    world.user("ann")
    login = world.frame("login", user="ann", password="password")
    world.batch(login, login)
    good, bad = world.work()
    replies = world.turn(finished=[bad._replace(outcome="no pair"), good])[b"r"]
    assert codes(replies) == [Code.INTERNAL, None]


def test_a_fault_outside_of_any_request_leaves_no_slow_work_counted(world: World) -> None:
    world.user("ann")
    world.store.commit_faults = [MemoryError()]
    with pytest.raises(MemoryError):
        world.batch(world.frame("login", user="ann", password="password"))
    assert not world.service.busy


def test_a_failing_store_is_logged_without_what_was_asked(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    ann = world.user("ann")
    world.store.commit_faults = [StoreFailedError("SQLITE_IOERR: disk I/O error")]
    world.call("chat", ann, to="ann", text=CANARY, id="m1")
    assert "disk I/O error" in caplog.text
    assert CANARY not in caplog.text
    assert ann not in caplog.text


def test_without_room_a_session_is_used_without_writing_that_down(world: World) -> None:
    ann = world.user("ann")
    world.now_ms += LIMITS.idle_ms // 2
    world.store.full = True
    assert codes(world.batch(world.frame("inbox", ann))) == [None]
    world.store.full = False
    world.now_ms += LIMITS.idle_ms // 4
    assert world.ok("ping", ann)
    world.now_ms += LIMITS.idle_ms - 1
    assert world.ok("ping", ann), "it is written down as soon as there is room"
