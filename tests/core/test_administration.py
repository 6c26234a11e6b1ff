"""The administrator's look at the broker and at sessions, and what it may have it do."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.model import BackupTaken
from broker.wire.errors import Code, WireError
from tests.core.fakes import ADMIN, LIMITS, START_MS, World

TAKEN = BackupTaken("/data/backups/b.db", 4_096, 2, 7, 12)


class FakeOperations:
    """Does nothing, and remembers what it was asked for."""

    started_at_ms = START_MS - 1

    def __init__(self) -> None:
        self.fault: Exception | None = None
        self.names: list[str | None] = []

    def reload(self) -> list[str]:
        return ["tls_cert"]

    def backup(self, name: str | None) -> BackupTaken:
        if self.fault is not None:
            raise self.fault
        self.names.append(name)
        return TAKEN


@pytest.fixture
def operations() -> FakeOperations:
    return FakeOperations()


@pytest.fixture
def world(operations: FakeOperations) -> World:
    return World(operations=operations)


def sessions(world: World, user: str = "bob") -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.ok("session_list", ADMIN, user=user)["sessions"]
    return found


# --- sessions --------------------------------------------------------------------------------


def test_the_sessions_of_a_user_are_listed_without_their_tokens(world: World) -> None:
    first = world.user("bob", device="phone")
    world.now_ms += 5
    world.login("bob")
    phone, other = sessions(world)
    assert phone == {
        "session": phone["session"],
        "device": "phone",
        "bound": False,
        "opened_at_ms": START_MS,
        "seen_at_ms": START_MS,
        "expires_at_ms": START_MS + LIMITS.idle_ms,
    }
    assert (other["device"], other["opened_at_ms"]) == ("", START_MS + 5)
    assert len(phone["session"]) == 16
    assert phone["session"] not in first


def test_one_session_is_ended_by_its_name_and_the_others_stay(world: World) -> None:
    first = world.user("bob")
    second = world.login("bob")
    name = sessions(world)[0]["session"]
    assert world.ok("session_revoke", ADMIN, user="bob", session=name) == {}
    assert world.code("ping", first) is Code.UNAUTHORIZED
    world.ok("ping", second)
    assert world.code("session_revoke", ADMIN, user="bob", session=name) is Code.BAD_REQUEST


def test_a_session_is_ended_for_its_own_user_only(world: World) -> None:
    bob = world.user("bob")
    world.user("eve")
    name = sessions(world)[0]["session"]
    assert world.code("session_revoke", ADMIN, user="eve", session=name) is Code.BAD_REQUEST
    world.ok("ping", bob)


def test_all_sessions_of_a_user_are_ended_and_counted(world: World) -> None:
    tokens = [world.user("bob"), world.login("bob"), world.login("bob", device="phone")]
    eve = world.user("eve")
    assert world.ok("session_revoke_all", ADMIN, user="bob") == {"revoked": 3}
    assert [world.code("ping", token) for token in tokens] == [Code.UNAUTHORIZED] * 3
    world.ok("ping", eve)
    assert sessions(world) == []


def test_a_session_that_has_ended_by_itself_is_not_listed(world: World) -> None:
    world.user("bob")
    world.now_ms += LIMITS.idle_ms
    assert sessions(world) == []


@pytest.mark.parametrize("command", ["session_list", "session_revoke_all", "mailbox_depth"])
def test_nobody_of_that_name(world: World, command: str) -> None:
    assert world.code(command, ADMIN, user="nobody") is Code.NO_SUCH_USER


# --- mailboxes and the broker ----------------------------------------------------------------


def test_the_depth_of_a_mailbox_is_what_nobody_has_read(world: World) -> None:
    ann, bob = world.user("ann"), world.user("bob")
    seqs = world.send(ann, "bob", "m1", "m22", "m333")
    world.ok("ack", bob, seq=seqs[0])
    depth = {"user": "bob", "waiting": 2, "waiting_bytes": 7}
    assert world.ok("mailbox_depth", ADMIN, user="bob") == depth
    empty = {"user": "ann", "waiting": 0, "waiting_bytes": 0}
    assert world.ok("mailbox_list", ADMIN) == {"mailboxes": [empty, depth], "more": False}
    assert world.ok("mailbox_list", ADMIN, after="ann")["mailboxes"] == [depth]


def test_the_mailboxes_come_in_pages(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    for user in ("ann", "bob", "eve"):
        world.user(user)
    monkeypatch.setattr("broker.core.handlers.administration.USERS_PAGE_MAX", 2)
    page = world.ok("mailbox_list", ADMIN)
    assert ([each["user"] for each in page["mailboxes"]], page["more"]) == (["ann", "bob"], True)
    page = world.ok("mailbox_list", ADMIN, after="bob")
    assert ([each["user"] for each in page["mailboxes"]], page["more"]) == (["eve"], False)


def test_the_state_of_the_broker(world: World) -> None:
    ann = world.user("ann")
    world.send(ann, "ann", "m1", "m2")
    world.ok("room_create", ann, room="#den")
    world.send(ann, "#den", "m3")
    assert world.ok("broker_status", ADMIN) == {
        "server": "kotak test",
        "durability": "memory",
        "epoch": world.store.epoch.number,
        "started_at_ms": START_MS - 1,
        "draining": False,
        "mailboxes": 1,
        "waiting": 2,
        "waiting_bytes": 4,
        "subscriptions": 0,
    }


# --- draining --------------------------------------------------------------------------------


def test_a_broker_that_drains_takes_nothing_new_and_lets_everybody_read(world: World) -> None:
    ann = world.user("ann")
    (seq,) = world.send(ann, "ann", "m1")
    assert world.ok("broker_drain", ADMIN, on=True) == {"draining": True, "waiting": 1}
    assert world.service.closed
    new: dict[str, dict[str, Any]] = {
        "chat": {"to": "ann", "text": "hi", "id": "m2"},
        "room_create": {"room": "#den"},
        "room_invite": {"room": "#den", "user": "ann"},
    }
    assert {world.code(each, ann, **args) for each, args in new.items()} == {Code.UNAVAILABLE}
    assert world.code("user_add", ADMIN, user="eve", password="x") is Code.UNAVAILABLE
    again = world.ok("chat", ann, to="ann", text="m1", id="m1")
    assert again["seq"] == seq, "its answer may have been lost"
    ann = world.login("ann")
    assert world.texts(ann) == ["m1"]
    world.ok("ack", ann, seq=seq)
    assert world.ok("broker_drain", ADMIN, on=False) == {"draining": False, "waiting": 0}
    world.send(ann, "ann", "m2")


def test_it_takes_something_new_when_no_reason_is_left(world: World) -> None:
    ann = world.user("ann")
    world.service.close_to_new("memory")
    world.ok("broker_drain", ADMIN, on=True)
    world.ok("broker_drain", ADMIN, on=False)
    assert world.code("chat", ann, to="ann", text="hi", id="m1") is Code.UNAVAILABLE
    assert not world.ok("broker_status", ADMIN)["draining"]
    world.service.open_to_new("memory")
    assert not world.service.closed
    world.send(ann, "ann", "m1")


# --- what the process does -------------------------------------------------------------------


def test_a_backup_is_taken_behind_the_batch_that_asked_for_it(
    world: World, operations: FakeOperations
) -> None:
    (job,) = (world.batch(world.frame("broker_backup", ADMIN, name="b")), world.jobs)[1]
    assert operations.names == [], "what came with it is not committed yet"
    (reply,) = world.turn(finished=world.work())[b"r"]
    assert (reply.request_id, reply.result) == (job.request_id, TAKEN._asdict())
    assert operations.names == ["b"]


def test_files_are_read_anew(world: World) -> None:
    assert world.ok("broker_reload", ADMIN) == {"reloaded": ["tls_cert"]}


def test_what_a_backup_is_refused_with_comes_back(world: World, operations: FakeOperations) -> None:
    operations.fault = WireError(Code.CONFLICT, "there is one")
    assert world.code("broker_backup", ADMIN) is Code.CONFLICT


def test_on_a_full_disk_the_broker_still_reads_its_files_anew(world: World) -> None:
    ann = world.user("ann")
    world.batch(world.frame("broker_reload", ADMIN))
    world.store.full = True
    replies = world.turn(
        (b"a", [world.frame("chat", ann, to="ann", text="x", id="m")]), finished=world.work()
    )
    assert replies[b"r"][0].error is None
    refused = replies[b"a"][0].error
    assert refused is not None
    assert refused.code is Code.STORAGE_FULL


@pytest.mark.parametrize("command", ["broker_backup", "broker_reload", "broker_status"])
def test_without_a_broker_around_it_there_is_nothing_to_ask(command: str) -> None:
    assert World().code(command, ADMIN) is Code.UNAVAILABLE
