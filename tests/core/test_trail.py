"""What the audit is told: who did what, from where, with what outcome, and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from broker.core.handlers import COMMANDS
from broker.core.model import AuditEntry
from broker.core.ports import StoreFailedError, StoreFullError
from broker.wire.errors import Code
from tests.core.fakes import ADMIN, START_MS, World
from tests.wire.test_commands import GOOD

SECRETS = ("password", "new_password", "password_hash", "text", "token", "name")


class FakeAudit(list[AuditEntry]):
    def note(self, entry: AuditEntry) -> None:
        self.append(entry)

    @property
    def told(self) -> list[tuple[str, str, str]]:
        return [(each.command, each.by, each.outcome) for each in self]


@pytest.fixture
def audit() -> FakeAudit:
    return FakeAudit()


@pytest.fixture
def world(audit: FakeAudit) -> World:
    world = World(audit=audit)
    world.user("bob")
    audit.clear()
    return world


def test_an_entry_names_the_action_its_object_and_where_it_came_from(
    world: World, audit: FakeAudit
) -> None:
    world.addresses[b"r"] = "192.0.2.7"
    world.ok("user_role", ADMIN, user="bob", role="observer")
    (entry,) = audit
    assert entry == AuditEntry(
        START_MS,
        "user_role",
        "!administrator",
        "192.0.2.7",
        entry.request_id,
        {"user": "bob", "role": "observer"},
        "OK",
    )


def test_logins_and_logouts_are_told_with_their_outcome(world: World, audit: FakeAudit) -> None:
    bob = world.login("bob", device="phone")
    world.ok("logout", bob)
    assert world.code("login", user="bob", password="wrong") is Code.BAD_CREDENTIALS
    assert world.code("logout", bob) is Code.UNAUTHORIZED
    assert audit.told == [
        ("login", "", "OK"),
        ("logout", "bob", "OK"),
        ("login", "", "bad_credentials"),
        ("logout", "", "unauthorized"),
    ]
    assert audit[0].args == {"user": "bob", "device": "phone"}


def test_an_attempt_that_was_forbidden_names_who_made_it(world: World, audit: FakeAudit) -> None:
    bob = world.login("bob")
    audit.clear()
    assert world.code("user_remove", bob, user="ann") is Code.FORBIDDEN
    assert audit.told == [("user_remove", "bob", "forbidden")]


def test_the_one_before_in_a_batch_is_not_taken_for_the_one_who_asked(
    world: World, audit: FakeAudit
) -> None:
    bob = world.login("bob")
    audit.clear()
    world.batch(world.frame("rooms", bob), world.frame("user_list"), world.frame("key_add", "x"))
    assert audit.told == [("key_add", "", "unauthorized")]


def test_messages_and_looks_are_nobodys_business(world: World, audit: FakeAudit) -> None:
    bob = world.login("bob")
    audit.clear()
    world.send(bob, "bob", "m1")
    world.texts(bob)
    world.ok("user_list", ADMIN)
    assert audit == []


def test_what_was_rolled_back_was_not_done(world: World, audit: FakeAudit) -> None:
    world.store.commit_faults = [StoreFullError()]
    world.ok("user_role", ADMIN, user="bob", role="admin")
    assert audit.told == [("user_role", "!administrator", "OK")], "once: of the second attempt"
    audit.clear()
    world.store.commit_faults = [StoreFailedError()]
    assert world.code("user_role", ADMIN, user="bob", role="user") is Code.UNAVAILABLE
    assert audit == []


def test_a_fault_of_the_broker_is_an_outcome(
    world: World, audit: FakeAudit, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr("broker.core.accounts.Accounts.set_role", bug)
    assert world.code("user_role", ADMIN, user="bob", role="user") is Code.INTERNAL
    assert audit.told == [("user_role", "!administrator", "internal")]


AUDITED = [command for command, spec in COMMANDS.items() if spec.audit is not None]


@pytest.mark.parametrize("command", AUDITED)
def test_no_secret_is_among_what_is_told(world: World, audit: FakeAudit, command: str) -> None:
    args: dict[str, Any] = {
        key: f"kenari-{key}" if key in SECRETS else value
        for key, value in GOOD.get(command, GOOD["login"]).items()
    }
    world.call(command, ADMIN, **args)
    assert audit
    told = repr([each._replace(args=dict(each.args, name="")) for each in audit])
    assert "kenari" not in told


def test_a_long_or_odd_argument_does_not_make_it_grow(world: World, audit: FakeAudit) -> None:
    world.call("login", user="x" * 100_000, password="p")
    world.call("login", user=["x"] * 100, password="p")
    assert [len(repr(each.args)) < 100 for each in audit] == [True, True]
