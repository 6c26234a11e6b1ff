"""Any history of two brokers over one server that breaks off and falls back, against a plain model.

What the model of the other engines says of batches that are undone does not hold here; this one is
about what does: the laws of docs/DURABILITY.md, L7 above all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from broker.core.model import Account
from broker.stores.redis import RedisStore
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import Server
from tests.stores.steps import ack, read, send, with_users

NUMBERS = count(1)
USERS = ("ann", "bob")

a_broker = st.integers(0, 1)
a_user = st.sampled_from(USERS)
an_id = st.integers(0, 20).map(str)


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")
    server = Server("--appendonly", "no")
    yield server
    server.stop()


@dataclass
class Box:
    """A mailbox: what it keeps, by id; what was lost; up to where it was read; what was given."""

    kept: dict[str, int] = field(default_factory=dict)
    lost: set[int] = field(default_factory=set)
    cursor: int = 0
    top: int = 0


class Machine(RuleBasedStateMachine):
    """Random steps at random brokers."""

    server: Server

    @initialize()
    def open(self) -> None:
        self.prefix = f"machine{next(NUMBERS)}"
        url = f"{self.server.url}?allow_memory=yes&prefix={self.prefix}"
        self.brokers = [RedisStore(url) for _ in range(2)]
        with_users(self.brokers[0], *USERS)
        self.boxes = {user: Box() for user in USERS}
        #: Of a mailbox: its keys as they once were, and the ids that were in it.
        self.copies: dict[str, tuple[dict[Any, Any], dict[str, int]]] = {}
        self.redis = self.server.client()

    def teardown(self) -> None:
        for broker in self.brokers:
            broker.close()
        self.redis.close()

    def keys(self, user: str) -> list[Any]:
        found: list[Any] = self.redis.keys(f"{self.prefix}:{{u:{user}}}:*")
        return found

    @rule(at=a_broker, user=a_user, message_id=an_id)
    def send(self, at: int, user: str, message_id: str) -> None:
        box = self.boxes[user]
        seq = send(self.brokers[at], message_id, to=user, sender="eve")
        if message_id in box.kept:
            assert seq == box.kept[message_id], "a repetition is answered as the first"
        else:
            assert seq > box.top, "no sequence is given twice"
            box.kept[message_id] = box.top = seq

    @rule(at=a_broker, user=a_user, part=st.floats(0, 1))
    def acknowledge(self, at: int, user: str, part: float) -> None:
        box = self.boxes[user]
        seqs = [0, *sorted(box.kept.values())]
        wanted = seqs[round(part * (len(seqs) - 1))]
        box.cursor = max(box.cursor, wanted)
        assert ack(self.brokers[at], wanted, user) >= box.cursor

    @rule(user=a_user)
    def copy(self, user: str) -> None:
        copies = {key: self.redis.dump(key) for key in self.keys(user)}
        self.copies[user] = (copies, {**self.boxes[user].kept})

    @precondition(lambda self: self.copies)
    @rule(data=st.data())
    def fall_back(self, data: st.DataObject) -> None:
        """A replica takes over that had one slot as it was."""
        user = data.draw(st.sampled_from(sorted(self.copies)))
        keys, kept = self.copies[user]
        box = self.boxes[user]
        with self.redis.pipeline() as pipeline:
            pipeline.unlink(*self.keys(user))
            for key, value in keys.items():
                pipeline.restore(key, 0, value, replace=True)
            pipeline.execute()
        box.lost |= set(box.kept.values()) - set(kept.values())
        box.kept = {**kept}
        self.break_off()

    @rule()
    def break_off(self) -> None:
        """All connections end; each broker goes on, as one does several times a second."""
        self.redis.execute_command("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        for broker in self.brokers:
            assert broker.find(Account, "ann")

    @rule()
    def forget_scripts(self) -> None:
        self.redis.script_flush()

    @invariant()
    def each_reader_gets_what_is_there_and_is_told_of_what_is_not(self) -> None:
        for user, box in self.boxes.items():
            for broker in self.brokers:
                page = read(broker, user, limit=1_000)
                waiting = [(each.message_id, each.seq) for each in page.messages]
                unread = [each for each in box.kept.items() if each[1] > box.cursor]
                assert waiting == sorted(unread, key=lambda each: each[1])
                missing = [seq for seq in box.lost if seq > box.cursor]
                if missing:
                    assert page.lost is not None, "a loss is never silent"
                    assert page.lost.first <= min(missing) <= max(missing) <= page.lost.last
                if not box.lost:
                    assert page.lost is None, "nothing was lost"
                assert page.last >= box.top


def run(server: Server, *, examples: int, steps: int) -> None:
    machine = type("OnServer", (Machine,), {"server": server})
    limits = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(machine, settings=limits)


def test_any_history_of_two_brokers_keeps_the_laws(server: Server) -> None:
    run(server, examples=25, steps=30)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
def test_many_long_histories_of_two_brokers_keep_the_laws(server: Server) -> None:
    run(server, examples=500, steps=100)
