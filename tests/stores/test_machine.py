"""Any history of sends, retries, reads, acknowledgements, removals, failures and restarts.

Each store must tell the same as a model of a few dictionaries, which keeps every message of every
mailbox in a list and never optimises anything.
"""

from __future__ import annotations

import copy
import tempfile
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
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

from broker.core.model import Account, SessionRecord
from broker.core.ports import Store
from broker.wire.errors import Code, WireError
from tests.stores.engines import ENGINES, Engine

USERS = st.sampled_from(["ann", "bob", "eve"])
TEXTS = st.sampled_from(["a", "b\u00e9", "c" * 40])
IDS = st.integers(0, 15).map(str)
MESSAGES_MAX = 4
MANY = 10_000


class Failure(Exception):
    """Ends a batch."""


@dataclass
class Box:
    sent: list[tuple[int, str, str, str]] = field(default_factory=list)
    cursor: int = 0

    def waiting(self, after: int = 0) -> list[tuple[int, str, str, str]]:
        return [each for each in self.sent if each[0] > max(after, self.cursor)]


@dataclass
class Model:
    """The reference: what the store holds, in the plainest form."""

    boxes: dict[str, Box] = field(default_factory=dict)
    names: dict[str, str] = field(default_factory=dict)
    first: dict[tuple[str, str], tuple[int, str, str]] = field(default_factory=dict)
    sessions: dict[bytes, SessionRecord] = field(default_factory=dict)
    last: int = 0

    def append(self, to: str, sender: str, message_id: str, text: str) -> int | Code:
        known = self.first.get((sender, message_id))
        if known is not None:
            return known[0] if known[1:] == (to, text) else Code.CONFLICT
        box = self.boxes.get(to)
        if box is None:
            return Code.NO_SUCH_USER
        if len(box.waiting()) >= MESSAGES_MAX:
            return Code.MAILBOX_FULL
        self.last += 1
        self.first[sender, message_id] = (self.last, to, text)
        box.sent.append((self.last, sender, message_id, text))
        return self.last

    def acknowledge(self, user: str, seq: int) -> int | Code:
        box = self.boxes.get(user)
        if box is None:
            return Code.NO_SUCH_USER
        last = box.sent[-1][0] if box.sent else 0
        box.cursor = max(box.cursor, min(seq, last))
        return box.cursor

    def gone(self, sender: str, message_id: str) -> bool:
        """Is the first copy of this id acknowledged or removed? Engines may forget its text."""
        seq, to, _ = self.first.get((sender, message_id), (0, "", ""))
        box = self.boxes.get(to)
        return seq > 0 and (box is None or all(each[0] != seq for each in box.waiting()))


class StoreMachine(RuleBasedStateMachine):
    """Random steps in random batches, some of which fail, over one engine."""

    engine_name = "memory"

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.engine: Engine = ENGINES[self.engine_name](Path(self.folder.name))
        self.store: Store = self.engine.open(messages_max=MESSAGES_MAX)
        self.model = Model()
        self.before: Model | None = None
        self.batch: Any = None

    def teardown(self) -> None:
        if self.batch is not None:
            self.end()
        self.engine.close()
        self.folder.cleanup()

    # --- batches ---------------------------------------------------------------------------

    def begin(self) -> None:
        if self.batch is None:
            self.before = copy.deepcopy(self.model)
            self.batch = self.store.batch()
            self.batch.__enter__()

    @precondition(lambda self: self.batch is not None)
    @rule()
    def end(self) -> None:
        self.batch.__exit__(None, None, None)
        self.batch = None

    @precondition(lambda self: self.batch is not None)
    @rule()
    def fail(self) -> None:
        failure = Failure()
        with suppress(Failure):
            self.batch.__exit__(Failure, failure, None)
        self.batch = None
        assert self.before is not None
        self.model = self.before

    @precondition(lambda self: self.batch is None)
    @rule()
    def restart(self) -> None:
        self.store = self.engine.reopen(self.store)
        if self.engine_name == "sqlite reopened":
            # Ids and sequences of removed mailboxes lie in no row any more.
            self.forget_the_removed()

    def forget_the_removed(self) -> None:
        kept = {each[0] for box in self.model.boxes.values() for each in box.sent}
        self.model.first = {k: v for k, v in self.model.first.items() if v[0] in kept}
        self.model.last = max(
            [*kept, *(box.cursor for box in self.model.boxes.values())], default=0
        )

    # --- steps -----------------------------------------------------------------------------

    @rule(to=USERS, sender=USERS, message_id=IDS, text=TEXTS)
    def send(self, to: str, sender: str, message_id: str, text: str) -> None:
        if self.model.gone(sender, message_id):
            _, to, text = self.model.first[sender, message_id]  # a retry, not a conflict
        self.begin()
        expected = self.model.append(to, sender, message_id, text)
        assert self.outcome(lambda: self.store.append(to, sender, message_id, text, 1).seq) == (
            expected
        )

    @rule(user=USERS, seq=st.integers(0, 40))
    def acknowledge(self, user: str, seq: int) -> None:
        self.begin()
        expected = self.model.acknowledge(user, seq)
        assert self.outcome(lambda: self.store.acknowledge(user, seq)) == expected

    @rule(user=USERS, after=st.integers(0, 40), limit=st.integers(1, 5))
    def read(self, user: str, after: int, limit: int) -> None:
        self.begin()
        box = self.model.boxes.get(user)
        if box is None:
            assert self.outcome(lambda: self.store.read(user, 0, 1, 1)) is Code.NO_SUCH_USER
            return
        waiting = box.waiting(after)
        messages, more, cursor = self.store.read(user, after, limit, MANY)
        found = [(each.seq, each.sender, each.message_id, each.text) for each in messages]
        assert (found, more, cursor) == (waiting[:limit], len(waiting) > limit, box.cursor)

    @rule(user=USERS, name=TEXTS)
    def put_account(self, user: str, name: str) -> None:
        self.begin()
        self.store.put_account(user, Account(user, name, "hash"))
        self.model.boxes.setdefault(user, Box())
        self.model.names[user] = name

    @rule(user=USERS)
    def remove_account(self, user: str) -> None:
        self.begin()
        self.store.put_account(user, None)
        self.model.boxes.pop(user, None)
        self.model.names.pop(user, None)

    @rule(number=st.integers(0, 5), user=USERS, expires_ms=st.integers(1, 9))
    def put_session(self, number: int, user: str, expires_ms: int) -> None:
        self.begin()
        digest = bytes([number]) * 32
        known = self.model.sessions.get(digest)
        record = SessionRecord(digest, known.user if known else user, 0, expires_ms)
        self.store.put_session(digest, record)
        self.model.sessions[digest] = record

    @rule(number=st.integers(0, 5))
    def remove_session(self, number: int) -> None:
        self.begin()
        self.store.put_session(bytes([number]) * 32, None)
        self.model.sessions.pop(bytes([number]) * 32, None)

    def outcome(self, step: Any) -> Any:
        try:
            return step()
        except WireError as error:
            return error.code

    # --- what always holds -----------------------------------------------------------------

    @invariant()
    def the_same_accounts_and_sessions(self) -> None:
        found = self.store.accounts("", MANY)
        assert [(each.user, each.name) for each in found] == sorted(self.model.names.items())
        assert list(self.store.sessions()) == list(self.model.sessions.values())

    @precondition(lambda self: self.batch is None)
    @invariant()
    def the_same_messages(self) -> None:
        with self.store.batch():
            for user, box in self.model.boxes.items():
                messages, more, cursor = self.store.read(user, 0, MANY, MANY)
                assert [each.seq for each in messages] == [each[0] for each in box.waiting()]
                assert (more, cursor) == (False, box.cursor)


def run(name: str, *, examples: int, steps: int) -> None:
    machine = type("Machine", (StoreMachine,), {"engine_name": name})
    limits = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(machine, settings=limits)


@pytest.mark.parametrize("name", list(ENGINES))
def test_any_history_is_told_as_the_model_tells_it(name: str) -> None:
    run(name, examples=25, steps=30)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@pytest.mark.parametrize("name", list(ENGINES))
def test_many_long_histories_are_told_as_the_model_tells_them(name: str) -> None:
    run(name, examples=600, steps=120)
