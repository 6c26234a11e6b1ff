"""Moving from SQLite to Redis: whatever was in the one reads the same in the other."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.core.model import Account, Block, LoginKey, Membership, Room, SessionRecord
from broker.core.ports import Record, StoreLimits, StoreUnavailableError
from broker.stores.redis import RedisStore
from broker.stores.sqlite import SqliteStore
from broker.wire.errors import Code, WireError
from broker.wire.limits import SEQ_MAX
from tests.stores.moving import DEVICES, ROOMS, batched, fresh_url, opened, run, told
from tests.stores.steps import (
    NOW_MS,
    account,
    ack,
    expire,
    history,
    ids,
    join,
    kept,
    login,
    lost,
    read,
    refused,
    send,
    tidy,
    with_room,
    with_users,
)

USERS = ["ann", "bob", "eve"]
LIMITS = StoreLimits(
    mailbox_messages_max=8, retention_read_ms=30, retention_unread_ms=50, retention_room_ms=20
)


@pytest.fixture(params=["server", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    return fresh_url(cluster=request.param == "cluster")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kotak.db"


@pytest.fixture
def old(path: Path) -> Iterator[SqliteStore]:
    """The store that is moved away from; `moved` closes it."""
    store = SqliteStore(path)
    yield store
    with suppress(sqlite3.ProgrammingError):
        store.close()


@contextmanager
def moved(old: SqliteStore, path: Path, url: str) -> Iterator[RedisStore]:
    """Stop the old store, move, and open the new one."""
    old.close()
    done = run(path, url)
    assert done.verdict is not None
    assert done.verdict.same, done.verdict
    with opened(url) as store:
        yield store


a_user = st.sampled_from(USERS)
a_room = st.sampled_from(ROOMS)
a_step = st.one_of(
    st.tuples(
        st.just("send"),
        st.sampled_from(USERS * 2 + ROOMS * 2),
        a_user,
        st.integers(0, 30).map(str),
        st.sampled_from(["a", "bé\0", "c" * 40]),
        st.none() | st.integers(1, 40),
    ),
    st.tuples(st.just("ack"), a_user, st.sampled_from(DEVICES), st.integers(0, 40)),
    st.tuples(st.just("seat"), a_room, a_user, st.booleans()),
    st.tuples(st.just("unseat"), a_room, a_user),
    st.tuples(st.just("remove"), st.sampled_from([*USERS, *ROOMS])),
    st.tuples(st.just("wait"), st.integers(1, 20)),
    st.tuples(st.just("expire")),
    st.tuples(st.just("tidy")),
)


def play(store: SqliteStore, steps: list[tuple[Any, ...]]) -> None:
    now_ms = 1_000
    make(store, *USERS, *ROOMS)
    for kind, *args in steps:
        if kind == "wait":
            now_ms += args[0]
        elif kind == "remove":
            remove(store, args[0])
            make(store, args[0])
        else:
            with suppress(WireError), store.batch():
                take(store, now_ms, kind, args)


def take(store: SqliteStore, now_ms: int, kind: str, args: list[Any]) -> None:
    if kind == "send":
        to, sender, message_id, text, ttl_ms = args
        store.append(to, sender, message_id, text, now_ms, ttl_ms=ttl_ms)
    elif kind == "ack":
        store.acknowledge(*args)
    elif kind == "seat":
        store.put(Membership(args[0], args[1], joined=args[2]))
    elif kind == "unseat":
        store.remove(Membership, (args[0], args[1]))
    elif kind == "expire":
        store.expire(now_ms)
    else:
        store.tidy(now_ms)


def remove(store: SqliteStore, name: str) -> None:
    with store.batch():
        if name.startswith("#"):
            store.remove(Room, name)
        else:
            store.remove(Account, name)


def make(store: SqliteStore, *names: str) -> None:
    with store.batch():
        for name in names:
            if name.startswith("#"):
                store.put(Room(name, "ann", open=True, history=name == "#b"))
            else:
                store.put(account(name))


@settings(
    max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(steps=st.lists(a_step, max_size=60), again=st.none() | st.integers(1, 40))
def test_any_history_reads_the_same_after_it_was_moved(
    steps: list[tuple[Any, ...]], again: int | None
) -> None:
    """Also where the move was cut short after any of its round trips and begun again."""
    url = fresh_url()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kotak.db"
        store = SqliteStore(path, LIMITS)
        play(store, steps)
        store.close()
        if again is not None:
            with suppress(StoreUnavailableError):
                run(path, url, limits=LIMITS, asks=again)
        done = run(path, url, limits=LIMITS)
        if done.before_ms is None:
            assert done.verdict is not None
            assert done.verdict.same, done.verdict
        store = SqliteStore(path, LIMITS)
        try:
            with opened(url, LIMITS) as new:
                assert told(new) == told(store)
                for later_ms in (1_030, 1_080, 2_000):
                    assert expire(new, later_ms) == expire(store, later_ms)
                    tidy(new, later_ms)
                    tidy(store, later_ms)
                    assert told(new) == told(store), "what goes later goes alike"
        finally:
            store.close()


# --- what clients and brokers go by ------------------------------------------------------------


def test_the_directory_is_moved_whole(old: SqliteStore, path: Path, url: str) -> None:
    sessions = [
        SessionRecord(bytes([n]) * 32, "bob", n, NOW_MS + n, "tab", "K" * 40) for n in (2, 1)
    ]
    records: list[Record] = [
        Account("ann", "Ann \u00c5", "$argon2id$hash", "admin"),
        Account("bob", "Bob", "hash"),
        LoginKey("K" * 40, "bob"),
        Block("bob", "mallory"),
        *sessions,
        Room("#den", "ann", open=True, history=True),
        Membership("#den", "ann", joined=True),
        Membership("#den", "bob", joined=False),
    ]
    with old.batch():
        for record in records:
            old.put(record)
    with moved(old, path, url) as new:
        assert new.find_all(Account) == records[:2]
        assert new.find(LoginKey, "K" * 40) == records[2]
        assert new.find_all(LoginKey, of="bob") == [records[2]]
        assert new.find_all(Block, of="bob") == [records[3]]
        assert new.find_all(SessionRecord) == sessions, "in order of opening"
        assert new.find_all(SessionRecord, of="bob") == sessions
        assert new.find_all(Membership, of="#den") == records[-2:]
        room = new.find(Room, "#den")
        assert room == Room("#den", "ann", open=True, history=True, members=1)


def test_a_repeated_message_is_still_known(old: SqliteStore, path: Path, url: str) -> None:
    with_room(old, "ann", "bob")
    first, said = send(old, "m1"), send(old, "m2", to="#den")
    ack(old, first)
    with moved(old, path, url) as new:
        assert send(new, "m1") == first
        assert send(new, "m2", to="#den") == said
        refused(Code.CONFLICT, lambda: send(new, "m1", "another text"))
        assert kept(new, "#den") == ["m2"]


def test_ids_of_who_had_the_name_before_are_not(old: SqliteStore, path: Path, url: str) -> None:
    with_users(old, "ann", "bob")
    first = send(old, "m1")
    with old.batch():
        old.remove(Account, "ann")
    with_users(old, "ann")
    with moved(old, path, url) as new:
        assert kept(new, "sent", user="ann") == []
        assert send(new, "m1") > first
        assert len(ids(new)) == 2


def test_positions_stay_good_and_nothing_new_comes_below_them(
    old: SqliteStore, path: Path, url: str
) -> None:
    """A position may be that of a message which has gone since."""
    with_room(old, "ann", "bob")
    login(old, "tab")
    first = send(old, "m1")
    position = send(old, "m2", ttl_ms=1_000)
    expire(old, NOW_MS + 2_000)
    tidy(old, NOW_MS + 10 * 86_400_000)
    ack(old, first, device="tab")
    epoch = old.epoch
    with moved(old, path, url) as new:
        assert new.epoch.number == epoch.number
        born = new._link.one(("HGET", new._keys.of("bob", "meta"), "born"))
        assert int(born) < first, "or a loss would look like a mailbox that was made anew"
        for device in ("", "tab"):
            found = read(new, device=device, after=position)
            assert (found.messages, found.lost) == ([], None)
            assert found.last >= position
        said = send(new, "m3", to="#den")
        own = send(new, "m4")
        assert [each.seq for each in read(new, after=position).messages] == [said, own]
        assert min(said, own) > position
        assert ids(new, device="tab") == ["m3", "m4"]
        assert ids(new, "ann") == ["m3"]


def test_what_was_said_before_in_a_room_is_not_unread_again(
    old: SqliteStore, path: Path, url: str
) -> None:
    with_room(old, "ann", "bob", "eve")
    send(old, "m1", to="#den")
    ack(old, SEQ_MAX)
    send(old, "m2", to="#den")
    with old.batch():
        old.remove(Membership, ("#den", "eve"))
    with moved(old, path, url) as new:
        assert ids(new) == ["m2"]
        assert read(new).delivered >= read(new).messages[0].seq, "it may have been delivered"
        assert kept(new) == ["m1", "m2"]
        assert ids(new, "eve") == []
        join(new, "eve")
        send(new, "m3", to="#den")
        assert ids(new, "eve") == ["m3"]
        ack(new, SEQ_MAX)
        assert ids(new) == []


def test_messages_expire_when_they_would_have(old: SqliteStore, path: Path, url: str) -> None:
    with_users(old, "ann", "bob")
    send(old, "over", ttl_ms=1_000)
    send(old, "soon", ttl_ms=5_000)
    send(old, "never")
    assert expire(old, NOW_MS + 2_000) == ["over"]
    with moved(old, path, url) as new:
        states = history(new, "sent", user="ann").states
        assert states == ["expired", "stored", "stored"]
        assert ids(new) == ["soon", "never"]
        assert expire(new, NOW_MS + 6_000) == ["soon"]
        assert ids(new) == ["never"]
        assert send(new, "over", ttl_ms=1_000), "is known still, and not stored again"
        assert ids(new) == ["never"]


def test_a_loss_is_told_of_still(old: SqliteStore, path: Path, url: str) -> None:
    with_users(old, "ann", "bob")
    login(old, "tab")
    first = send(old, "m1")
    ack(old, first)
    tidy(old, NOW_MS + 10 * 86_400_000)
    before = lost(old, device="tab")
    assert before is not None
    with moved(old, path, url) as new:
        assert lost(new, device="tab") == before
        assert lost(new) is None


def test_limits_count_what_was_moved(old: SqliteStore, path: Path, url: str) -> None:
    with_users(old, "ann", "bob")
    for number in range(4):
        send(old, f"m{number}", "x" * 10)
    ack(old, read(old).messages[0].seq)
    with moved(old, path, url) as new:
        assert batched(new, lambda: new.depth("bob"))[1:] == (3, 30)
        with opened(url, StoreLimits(mailbox_messages_max=3)) as strict:
            refused(Code.MAILBOX_FULL, lambda: send(strict, "m9"))
