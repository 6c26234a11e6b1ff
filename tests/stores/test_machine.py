"""Any history of steps, failures and restarts, over every engine.

Each store must tell the same as `tests.stores.reference.Reference`, after each step, and after a
batch that failed the same as before it; or, where nothing is undone, as if it had not failed.
"""

from __future__ import annotations

import copy
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, cast

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

from broker.core import mailboxes
from broker.core.model import Account, Membership, Message, Room, SessionRecord
from broker.core.ports import StoreLimits
from broker.stores import LocalStore
from broker.stores.redis import store as redis_store
from broker.stores.sqlite import SqliteStore
from broker.wire.errors import WireError
from tests.stores.engines import ENGINES, Engine, marks_of
from tests.stores.reference import DEVICES_MAX, Reference, Refused, Row, Ways

USERS = ["ann", "bob", "eve"]
ROOMS = ["#a", "#b"]
DEVICES = ["", "phone", "desk", "tab"]
TEXTS = st.sampled_from(["a", "b\u00e9", "c" * 40])
MANY = 10_000
LIMITS = StoreLimits(
    mailbox_messages_max=5,
    mailbox_bytes_max=100,
    retention_read_ms=30,
    retention_unread_ms=50,
    retention_room_ms=20,
)

a_user = st.sampled_from(USERS)
a_room = st.sampled_from(ROOMS)
a_device = st.sampled_from(DEVICES)
a_seq = st.integers(0, 40)


class Failure(Exception):
    """Ends a batch."""


def outcome(step: Callable[[], Any]) -> Any:
    try:
        return step()
    except (WireError, Refused) as error:
        return error.code if isinstance(error, WireError) else error.args[0]


def told(rows: list[Row]) -> list[Message]:
    return [Message(row.seq, row.at_ms, row.sender, row.id, row.text, row.box.name) for row in rows]


class StoreMachine(RuleBasedStateMachine):
    """Random steps in random batches, some of which fail."""

    engine_name = "memory"

    @initialize()
    def open(self) -> None:
        self.folder = tempfile.TemporaryDirectory()
        self.engine: Engine = ENGINES[self.engine_name](Path(self.folder.name))
        self.store = self.engine.open(LIMITS)
        engine = self.engine
        ways = Ways(engine.one_log, engine.ids_per_mailbox, engine.remembers_given)
        self.model = Reference(LIMITS, ways)
        self.before = self.model
        self.batch: Any = None
        self.now_ms = 1_000
        for user in USERS[:2]:
            self.put_account(user, "first")
        self.put_room("#a", open_=True, history=False)
        self.put_membership("#a", "ann", joined=True)
        self.end()

    def teardown(self) -> None:
        if self.batch is not None:
            self.end()
        self.engine.close()
        self.folder.cleanup()

    # --- batches ---------------------------------------------------------------------------

    def begin(self) -> None:
        if self.batch is None:
            if self.store.undoes:
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
        with suppress(Failure):
            self.batch.__exit__(Failure, Failure(), None)
        self.batch = None
        if self.store.undoes:
            self.model = self.before

    @precondition(lambda self: self.batch is None)
    @rule()
    def restart(self) -> None:
        if self.engine.reopens:
            self.store = self.engine.reopen(self.store)
            self.model.restart()
            self.expire()
            self.end()

    @rule()
    def take_in(self) -> None:
        """Have a journal taken into its database with this batch."""
        if isinstance(self.store, SqliteStore):
            self.begin()
            self.store._begin()

    @rule(ms=st.integers(1, 20))
    def pass_time(self, ms: int) -> None:
        self.now_ms += ms

    def both(self, ours: Callable[[], Any], theirs: Callable[[], Any]) -> None:
        self.begin()
        expected = outcome(theirs)
        assert outcome(ours) == expected

    # --- messages --------------------------------------------------------------------------

    @rule(
        to=st.sampled_from(USERS + ROOMS * 2),
        sender=a_user,
        message_id=st.integers(0, 5).map(str),
        text=TEXTS,
        ttl_ms=st.none() | st.integers(1, 40),
    )
    def send(self, to: str, sender: str, message_id: str, text: str, ttl_ms: int | None) -> None:
        if not self.model.can_send(sender):
            return
        self.begin()
        args = (to, sender, message_id, text, self.now_ms)
        ours = outcome(lambda: self.store.append(*args, ttl_ms=ttl_ms).seq)
        assert ours == outcome(lambda: self.model.append(*args, ttl_ms=ttl_ms, given=ours))

    @rule(
        to=st.sampled_from([*USERS[:2], "#a"]),
        sender=st.sampled_from(USERS[:2]),
        message_ids=st.lists(st.integers(0, 5).map(str), min_size=1, max_size=4),
        text=TEXTS,
        ttl_ms=st.none() | st.integers(1, 40),
    )
    def send_some(
        self, to: str, sender: str, message_ids: list[str], text: str, ttl_ms: int | None
    ) -> None:
        """Mostly such as are taken: of those who were there at first."""
        for message_id in message_ids:
            self.send(to, sender, message_id, text, ttl_ms)

    @rule(user=a_user, device=a_device, limit=st.integers(1, 5))
    def read_and_acknowledge(self, user: str, device: str, limit: int) -> None:
        self.read(user, device, 0, limit)
        if user in self.model.boxes:
            waiting, cursor, _, _ = self.model.read(user, device, 0)
            seqs = [cursor, *(row.seq for row in waiting[:limit])]
            self.acknowledge_at(user, device, seqs[-1])

    @rule(user=a_user, device=a_device, seq=a_seq)
    def acknowledge(self, user: str, device: str, seq: int) -> None:
        self.acknowledge_at(user, device, self.model.at(seq))

    def acknowledge_at(self, user: str, device: str, seq: int) -> None:
        self.both(
            lambda: self.store.acknowledge(user, device, seq),
            lambda: self.model.acknowledge(user, device, seq),
        )

    @rule(user=a_user, device=a_device, after=st.just(0) | a_seq, limit=st.integers(0, 5))
    def read(self, user: str, device: str, after: int, limit: int) -> None:
        self.begin()
        if user not in self.model.boxes:
            return
        after = self.model.at(after)
        page = self.store.read(user, device, after, limit, MANY)
        waiting, cursor, delivered, lost = self.model.read(user, device, after)
        more = len(waiting) > limit
        last = self.model.last_of(self.model.boxes[user])
        assert page == (told(waiting[:limit]), more, cursor, delivered, last, lost)
        if page.messages:
            self.model.give(user, device, page.messages[-1].seq)

    @rule(
        user=a_user,
        of=st.sampled_from(["inbox", "sent", *ROOMS]),
        before=st.none() | a_seq,
        after=st.none() | a_seq,
        limit=st.integers(1, 5),
    )
    def history(
        self, user: str, of: str, before: int | None, after: int | None, limit: int
    ) -> None:
        self.begin()
        before = None if before is None else self.model.at(before)
        after = None if after is None else self.model.at(after)
        self.compare_history(user, of, before, after, limit)

    def compare_history(
        self, user: str, of: str, before: int | None, after: int | None, limit: int
    ) -> None:
        def ours() -> Any:
            return self.store.history(
                user, of, before=before, after=after, limit=limit, bytes_max=MANY
            )

        assert outcome(ours) == outcome(lambda: self.expected(user, of, before, after, limit))

    def expected(
        self, user: str, of: str, before: int | None, after: int | None, limit: int
    ) -> Any:
        rows = self.model.history(user, of)
        if after is not None:
            rows = [row for row in rows if row.seq > after]
            page = rows[:limit]
        else:
            rows = [row for row in rows if before is None or row.seq < before]
            page = rows[-limit:]
        states = [self.model.state(row) for row in page] if of == "sent" else None
        return told(page), states, len(rows) > limit

    @rule()
    def expire(self) -> None:
        self.both(
            lambda: [each.seq for each in self.store.expire(self.now_ms)],
            lambda: self.model.expire(self.now_ms),
        )

    @rule()
    def tidy(self) -> None:
        self.begin()
        assert not self.store.tidy(self.now_ms), "fewer messages than one step looks at"
        self.model.tidy(self.now_ms)

    # --- the directory ---------------------------------------------------------------------

    @rule(user=a_user, name=TEXTS)
    def put_account(self, user: str, name: str) -> None:
        record = Account(user, name, "hash")
        self.both(lambda: self.store.put(record), lambda: self.model.put_account(record))

    @rule(room=a_room, open_=st.booleans(), history=st.booleans())
    def put_room(self, room: str, *, open_: bool, history: bool) -> None:
        record = Room(room, "ann", open_, history)
        self.both(lambda: self.store.put(record), lambda: self.model.put_room(record))

    @rule(room=a_room, user=a_user, joined=st.sampled_from([True, True, True, False]))
    def put_membership(self, room: str, user: str, *, joined: bool) -> None:
        record = Membership(room, user, joined)
        self.both(lambda: self.store.put(record), lambda: self.model.put_membership(record))

    @rule(room=a_room, user=a_user)
    def remove_membership(self, room: str, user: str) -> None:
        self.both(
            lambda: self.store.remove(Membership, (room, user)),
            lambda: self.model.remove_membership(room, user),
        )

    @rule(name=st.sampled_from(USERS + ROOMS))
    def remove(self, name: str) -> None:
        kind: type[Any] = Room if name in ROOMS else Account
        self.both(lambda: self.store.remove(kind, name), lambda: self.model.remove(name))

    @rule(number=st.integers(0, 5), user=a_user, expires_ms=st.integers(0, 9))
    def put_or_remove_session(self, number: int, user: str, expires_ms: int) -> None:
        self.begin()
        digest = bytes([number]) * 32
        if expires_ms == 0:
            self.store.remove(SessionRecord, digest)
            self.model.sessions.pop(digest, None)
        else:
            known = self.model.sessions.get(digest)
            record = SessionRecord(digest, known.user if known else user, 0, expires_ms)
            self.store.put(record)
            self.model.sessions[digest] = record

    # --- what always holds -----------------------------------------------------------------

    @invariant()
    def the_same_records(self) -> None:
        find_all, model = self.store.find_all, self.model
        assert find_all(Account) == [model.accounts[user] for user in sorted(model.accounts)]
        assert find_all(SessionRecord) == list(model.sessions.values())
        assert find_all(Membership) == [model.memberships[k] for k in sorted(model.memberships)]
        assert find_all(Room) == [
            Room(name, "ann", record.open, record.history, model.members(name))
            for name, record in sorted(model.room_records.items())
        ]

    @invariant()
    def the_same_counts(self) -> None:
        assert self.store.depth().messages == self.model.waiting()
        if self.engine.one_log:
            boxes = cast("LocalStore", self.store).mailboxes
            assert (boxes.read_bytes, boxes.last) == (self.model.read_bytes(), self.model.last)

    @precondition(lambda self: self.batch is None)
    @invariant()
    def the_same_messages(self) -> None:
        """Looked at in a batch that fails, or without reading, so that nothing is delivered."""
        limit = MANY if self.store.undoes else 0
        with suppress(Failure), self.store.batch():
            users = self.model.boxes.keys() - set(ROOMS)
            for user in users:
                for of in ("inbox", "sent", *ROOMS):
                    self.compare_history(user, of, None, None, MANY)
            for user in users:
                for device in DEVICES:
                    page = self.store.read(user, device, 0, limit, MANY)
                    waiting, cursor, delivered, lost = self.model.read(user, device, 0)
                    shown, more = told(waiting[:limit]), len(waiting) > limit
                    last = self.model.last_of(self.model.boxes[user])
                    assert page == (shown, more, cursor, delivered, last, lost)
            raise Failure


def run(monkeypatch: pytest.MonkeyPatch, name: str, *, examples: int, steps: int) -> None:
    for engine in (mailboxes, redis_store):
        monkeypatch.setattr(engine, "DEVICES_PER_USER_MAX", DEVICES_MAX)
    machine = type("Machine", (StoreMachine,), {"engine_name": name})
    limits = settings(max_examples=examples, stateful_step_count=steps, deadline=None)
    run_state_machine_as_test(machine, settings=limits)


EACH = pytest.mark.parametrize(
    "name", [pytest.param(name, marks=marks_of(name)) for name in ENGINES]
)


@EACH
def test_any_history_is_told_as_the_model_tells_it(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    # A step and what is asked after it take a server a dozen round trips.
    run(monkeypatch, name, examples=20 if name.startswith("redis") else 40, steps=50)


@pytest.mark.slow
@pytest.mark.timeout(1_800)
@EACH
def test_many_long_histories_are_told_as_the_model_tells_them(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    run(monkeypatch, name, examples=500, steps=100)
