"""Moving from SQLite to Redis: whatever was in the one reads the same in the other."""

from __future__ import annotations

import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from broker.core.model import Account, Block, LoginKey, Membership, Room, SessionRecord
from broker.core.ports import Record, Store, StoreLimits, StoreUnavailableError, StoreUnusableError
from broker.stores.migration import Moved, move
from broker.stores.migration_source import Source
from broker.stores.migration_target import Target, TargetTakenError
from broker.stores.redis import RedisStore
from broker.stores.redis.link import Link
from broker.stores.redis.url import parse_url
from broker.stores.sqlite import SqliteStore
from broker.wire.errors import Code, WireError
from broker.wire.limits import SEQ_MAX
from tests.stores import redis_server
from tests.stores.engines import absent
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

NUMBERS = count(1)
USERS = ["ann", "bob", "eve"]
ROOMS = ["#a", "#b"]
DEVICES = ["", "phone", "desk"]
#: Pages of a history.
BOUNDS: list[dict[str, Any]] = [{}, {"before": 12, "limit": 3}, {"after": 5, "limit": 3}]
LIMITS = StoreLimits(
    mailbox_messages_max=8, retention_read_ms=30, retention_unread_ms=50, retention_room_ms=20
)


@pytest.fixture(scope="module", autouse=True)
def redis() -> None:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")


def fresh_url(server: str = "") -> str:
    return f"{server or redis_server.shared_server().url}?prefix=moved{next(NUMBERS)}"


@pytest.fixture(params=["server", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    cluster = request.param == "cluster"
    return fresh_url(redis_server.shared_cluster().url if cluster else "")


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


def run(
    path: Path, url: str, *, limits: StoreLimits | None = None, asks: int | None = None
) -> Moved:
    """Move; ``asks``: the server goes away after so many round trips."""
    limits = limits or StoreLimits()
    where = parse_url(url)
    link = Link(where) if asks is None else FailingLink(url, asks)
    try:
        with Source(path, ids_max=limits.dedup.ids_max) as source:
            return move(source, Target(link, where.prefix, limits), watch=lambda *_: None)
    finally:
        link.close()


class FailingLink(Link):
    """Gives up in the midst: what it was asked last may have been done, or not."""

    def __init__(self, url: str, asks: int) -> None:
        super().__init__(parse_url(url))
        self._asks = asks

    def ask(self, calls: Any) -> list[Any]:
        self._asks -= 1
        if self._asks < 0:
            raise StoreUnavailableError("gone")
        found = super().ask(calls)
        if self._asks == 0:
            raise StoreUnavailableError("gone, once it was done")
        return found


@contextmanager
def opened(url: str, limits: StoreLimits | None = None) -> Iterator[RedisStore]:
    store = RedisStore(url, limits or StoreLimits())
    try:
        yield store
    finally:
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


def outcome(step: Callable[[], Any]) -> Any:
    try:
        return step()
    except WireError as error:
        return error.code


# --- everything, by the port -------------------------------------------------------------------


def told(store: Store) -> dict[str, Any]:
    """Return all that the port tells, to every reader."""
    found: dict[str, Any] = {"epoch": store.epoch.number, "depth": batched(store, store.depth)}
    found["keys"] = sorted(store.find_all(LoginKey), key=repr)
    kinds: list[type[Any]] = [Account, Room, Membership, Block, SessionRecord]
    found |= {kind.__name__: store.find_all(kind) for kind in kinds}
    for user in [each.user for each in store.find_all(Account)]:
        found[user] = batched(store, partial(store.depth, user))
        for of in ("inbox", "sent", *ROOMS):
            for bounds in BOUNDS:
                step = partial(history, store, of, user=user, **bounds)
                found[f"{user} {of} {bounds}"] = outcome(step)
        for device in DEVICES:
            found[f"{user} {device}"] = page(store, user, device, 0, 100)
            found[f"{user} {device} paged"] = page(store, user, device, 4, 2)
    return found


def batched(store: Store, step: Callable[[], Any]) -> Any:
    with store.batch():
        return step()


def page(store: Store, user: str, device: str, after: int, limit: int) -> Any:
    found = read(store, user, device=device, after=after, limit=limit)
    # To a device that nobody has logged in from, nothing was ever given: there is no telling.
    return found._replace(delivered=0) if device else found


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


# --- again, and otherwise ----------------------------------------------------------------------


def filled(path: Path, messages: int = 5) -> None:
    store = with_room(SqliteStore(path), "ann", "bob")
    for number in range(messages):
        send(store, f"m{number}", to="bob" if number % 2 else "#den")
    store.close()


def test_a_second_run_does_nothing(path: Path) -> None:
    url = fresh_url()
    filled(path)
    assert run(path, url).before_ms is None
    with opened(url) as new:
        ack(new)
    again = run(path, url)
    assert again.verdict is None
    assert again.before_ms is not None
    with opened(url) as new:
        assert ids(new) == [], "what was read since stays read"


def test_a_source_that_went_on_is_refused(path: Path) -> None:
    url = fresh_url()
    filled(path)
    with suppress(StoreUnavailableError):
        run(path, url, asks=12)
    store = SqliteStore(path)
    send(store, "later")
    store.close()
    with pytest.raises(TargetTakenError, match="the beginning of another migration"):
        run(path, url)
    whole = fresh_url()
    run(path, whole)
    store = SqliteStore(path)
    ack(store)
    store.close()
    with pytest.raises(TargetTakenError, match="a broker has run since"):
        run(path, whole)


@pytest.mark.parametrize(
    "fill",
    [
        lambda store: with_users(store, "zoe"),
        lambda store: None,
    ],
    ids=["other data", "a broker was started"],
)
def test_a_target_with_anything_in_it_is_refused(
    path: Path, fill: Callable[[RedisStore], object]
) -> None:
    url = fresh_url()
    filled(path)
    with opened(url) as new:
        fill(new)
        before = told(new)
    with pytest.raises(TargetTakenError):
        run(path, url)
    with opened(url) as new:
        assert told(new) == before


def test_a_broker_that_was_started_meanwhile_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = fresh_url()
    filled(path)
    settled = Target.settle

    def start(target: Target, epoch: Any) -> None:
        with opened(url):
            settled(target, epoch)

    monkeypatch.setattr(Target, "settle", start)
    with pytest.raises(TargetTakenError, match="while it was being filled"):
        run(path, url)


def test_prefixes_beside_each_other_do_not_matter(path: Path) -> None:
    filled(path)
    for url in (fresh_url(), fresh_url()):
        done = run(path, url)
        assert done.verdict is not None
        assert done.verdict.same


def test_many_rows_are_moved_in_pages(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every page boundary there is, with each possible end of the run before."""
    monkeypatch.setattr("broker.stores.migration_source.PAGE_ROWS", 2)
    filled(path, 7)
    url = fresh_url()
    for asks in count(1):
        try:
            done = run(path, url, asks=asks)
        except StoreUnavailableError:
            assert asks < 1_000
        else:
            break
    if done.before_ms is None:
        assert done.verdict is not None
        assert done.verdict.same, done.verdict
    with opened(url) as new:
        assert ids(new) == [f"m{n}" for n in range(7)]


# --- the comparison can fail -------------------------------------------------------------------

WRONGS: dict[str, Callable[[Any], tuple[Any, ...]]] = {
    "a message is gone": lambda keys: ("ZREMRANGEBYRANK", keys.of("bob", "box"), 0, 0),
    "a pointer is gone": lambda keys: ("ZREMRANGEBYRANK", keys.of("bob", "pulled"), 0, 0),
    "a cursor is another": lambda keys: ("HSET", keys.of("bob", "meta"), "c:", 1),
    "a count is another": lambda keys: ("HSET", keys.of("bob", "meta"), "n", 1),
    "a member is gone": lambda keys: ("SREM", keys.of("#den", "joined"), "bob"),
    "an account is gone": lambda keys: ("DEL", keys.of("bob", "account")),
    "an id is gone": lambda keys: ("DEL", keys.of("bob", "ids")),
}


@pytest.mark.parametrize("wrong", list(WRONGS))
def test_a_difference_is_found(path: Path, wrong: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """And the run is not over: the next one compares again."""
    url = fresh_url()
    filled(path)
    settled = Target.settle

    def spoil(target: Target, epoch: Any) -> None:
        settled(target, epoch)
        target.link.one(WRONGS[wrong](target._keys))

    monkeypatch.setattr(Target, "settle", spoil)
    done = run(path, url)
    assert done.verdict is not None
    assert not done.verdict.same
    assert set(done.verdict.differing) <= {"bob", "#den"}
    assert done.verdict.differing
    assert done.verdict.digests[0] != done.verdict.digests[1]
    again = run(path, url)
    assert again.verdict is not None
    assert not again.verdict.same


# --- sources -----------------------------------------------------------------------------------


def test_the_source_is_left_as_it_is(path: Path) -> None:
    filled(path)
    before = path.read_bytes()
    run(path, fresh_url())
    assert path.read_bytes() == before


def test_what_stands_in_the_log_of_a_killed_broker_is_moved(path: Path, tmp_path: Path) -> None:
    store = with_users(SqliteStore(path), "ann", "bob")
    send(store, "m1")
    copy = tmp_path / "copy"
    copy.mkdir()
    for file in path.parent.glob("kotak.*"):
        (copy / file.name).write_bytes(file.read_bytes())
    store.close()
    url = fresh_url()
    run(copy / "kotak.db", url)
    with opened(url) as new:
        assert ids(new) == ["m1"]


def test_a_database_that_was_put_back_is_not_moved(path: Path) -> None:
    """Its clients must be told of a loss, which a broker does that starts on it."""
    filled(path)
    (path.parent / "kotak.seen").unlink()
    with pytest.raises(StoreUnusableError, match="new epoch"):
        run(path, fresh_url())
    SqliteStore(path).close()
    url = fresh_url()
    run(path, url)
    store = SqliteStore(path)
    with opened(url) as new:
        assert new.epoch.number == store.epoch.number
        assert new.epoch.lost.last == store.epoch.lost.last
        assert send(new, "later") > store.epoch.lost.last
    store.close()


def test_what_is_no_database_of_ours_is_refused(path: Path) -> None:
    with pytest.raises(StoreUnusableError, match="there is no"):
        run(path, fresh_url())
    with sqlite3.connect(path) as database:
        database.execute("CREATE TABLE other (x)")
    database.close()
    with pytest.raises(StoreUnusableError, match="no database of Kotak's"):
        run(path, fresh_url())


def test_an_older_version_is_refused(path: Path) -> None:
    filled(path)
    with sqlite3.connect(path) as database:
        database.execute("PRAGMA user_version = 3")
    database.close()
    with pytest.raises(StoreUnusableError, match="start a broker of this version"):
        run(path, fresh_url())
