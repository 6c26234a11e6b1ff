"""Servers that keep silent, lose their replicas, or come back with less than was answered for."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from contextlib import closing
from itertools import count
from pathlib import Path

import pytest

from broker.core.model import Account, Lost
from broker.core.ports import StoreFailedError, StoreUnavailableError, StoreUnusableError
from broker.stores.redis import RedisStore
from broker.stores.redis.keys import Keys
from broker.stores.redis.witness import Witness
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import KEEPING, Sentinel, Server, poll
from tests.stores.steps import (
    NOW_MS,
    ack,
    expire,
    ids,
    login,
    read,
    send,
    tidy,
    with_room,
    with_users,
)

NUMBERS = count(1)


@pytest.fixture(autouse=True)
def redis() -> None:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")


@pytest.fixture
def server() -> Iterator[Server]:
    server = Server(*KEEPING)
    yield server
    server.stop()


@pytest.fixture
def replica() -> Iterator[Server]:
    replica = Server(*KEEPING)
    yield replica
    replica.stop()


@pytest.fixture
def forgetful() -> Iterator[Server]:
    """One that comes back with what it had when it last saved."""
    server = Server("--appendonly", "no")
    yield server
    server.stop()


@pytest.fixture
def store(forgetful: Server) -> Iterator[RedisStore]:
    store = RedisStore(f"{forgetful.url}?allow_memory=yes")
    yield store
    store.close()


@pytest.fixture
def newcomer(forgetful: Server) -> Iterator[RedisStore]:
    """A broker that has answered for nothing yet."""
    store = RedisStore(f"{forgetful.url}?allow_memory=yes")
    yield store
    store.close()


def go_back(server: Server) -> None:
    """Come back as it was when it last saved."""
    server.kill()
    server.start()


# --- silence ---------------------------------------------------------------------------------


def test_a_server_that_keeps_silent_holds_a_batch_once_and_is_then_left_alone(
    server: Server,
) -> None:
    """Not once for each of its steps: 300 would be minutes."""
    store = with_users(RedisStore(f"{server.url}?timeout_ms=500"), "bob")
    server.pause()
    began = time.monotonic()
    for _ in range(3):
        with pytest.raises(StoreUnavailableError):
            send_many(store)
    assert time.monotonic() - began < 10
    server.resume()
    poll(lambda: serves(store))
    seqs = send_many(store)
    assert [each.seq for each in read(store, limit=1_000).messages] == seqs
    store.close()


def send_many(store: RedisStore) -> list[int]:
    with store.batch():
        receipts = [store.append("bob", "ann", f"m{n}", "x", NOW_MS) for n in range(300)]
    return [each.seq for each in receipts]


def serves(store: RedisStore) -> bool:
    try:
        ids(store)
    except StoreUnavailableError:
        return False
    return True


# --- replicas --------------------------------------------------------------------------------


def test_with_replicas_an_answer_waits_until_they_have_it(server: Server, replica: Server) -> None:
    replica.replicate(server)
    store = with_users(RedisStore(f"{server.url}?replicas=1"), "bob")
    assert store.durability == "replicated=1"
    seq = send(store, "m1")
    server.kill()
    promoted = with_promoted(replica)
    assert [(each.message_id, each.seq) for each in read(promoted).messages] == [("m1", seq)]
    for each in (store, promoted):
        each.close()


def with_promoted(replica: Server) -> RedisStore:
    replica.tell("REPLICAOF", "NO", "ONE")
    return RedisStore(f"{replica.url}?allow_memory=yes")


def test_without_them_nothing_is_answered_for_not_even_when_it_is_repeated(
    server: Server, replica: Server
) -> None:
    """A repetition writes nothing, and still must not be confirmed by nobody."""
    replica.replicate(server)
    store = with_users(RedisStore(f"{server.url}?replicas=1&timeout_ms=2000"), "bob")
    first = send(store, "m1")
    replica.kill()
    for _ in range(2):
        with pytest.raises(StoreUnavailableError, match="replicas"):
            send(store, "m2")
    with pytest.raises(StoreUnavailableError, match="replicas"):
        ack(store, first)
    assert ids(store) == ["m2"], "reading promises nothing"
    replica.start()
    replica.replicate(server)
    assert send(store, "m2") == read(store).messages[0].seq
    store.close()


def test_a_broker_starts_while_a_replica_is_on_its_way(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    # Longer than a disk that others use keeps a server; the replicas are waited for so long.
    url = f"{server.url}?replicas=2&timeout_ms=2000"
    with pytest.raises(StoreUnusableError, match="0 of 2"):
        RedisStore(url)  # the very first
    RedisStore(server.url).close()
    with closing(RedisStore(url)) as store:
        assert "0 replicas" in caplog.text
        with pytest.raises(StoreUnavailableError, match="0 of 2"):
            with_users(store, "bob")


@pytest.mark.slow
def test_sentinels_are_asked_again_when_the_primary_has_gone(
    server: Server, replica: Server, request: pytest.FixtureRequest
) -> None:
    replica.replicate(server)
    sentinel = Sentinel("post", server)
    request.addfinalizer(sentinel.stop)
    deaf = f"127.0.0.1:{redis_server.free_port()}"
    url = f"redis+sentinel://{deaf},127.0.0.1:{sentinel.port}/post?timeout_ms=500&replicas=1"
    store = with_users(RedisStore(url), "bob")
    seq = send(store, "m1")
    poll(lambda: len(sentinel.tell("SENTINEL", "REPLICAS", "post")) == 1)
    server.kill()
    poll(lambda: serves(store))
    assert [each.seq for each in read(store).messages] == [seq]
    server.start()  # as the replica that it now is
    poll(lambda: stores(store, "m2"))
    store.close()


def stores(store: RedisStore, message_id: str) -> bool:
    try:
        send(store, message_id)
    except StoreUnavailableError:
        return False
    return True


# --- less than was answered for ----------------------------------------------------------------


def test_what_an_older_state_lacks_is_told_to_every_reader_until_it_goes_on(
    forgetful: Server, store: RedisStore
) -> None:
    with_users(store, "bob")
    login(store, "phone")
    kept = send(store, "m1")
    forgetful.tell("SAVE")
    last = [send(store, f"gone{n}") for n in range(3)][-1]
    go_back(forgetful)
    for device in ("", "phone"):
        page = read(store, device=device)
        assert [each.seq for each in page.messages] == [kept]
        assert page.lost == Lost(1, last) if device else page.lost is not None
        assert page.last >= last
    seq = send(store, "m2")
    assert seq > last, "no sequence is given twice"
    assert read(store).lost is not None, "until it goes on"
    ack(store, seq)
    assert read(store).lost is None
    assert read(store, device="phone").lost is not None, "each reader is told"


def test_it_is_noticed_by_the_next_append_where_no_connection_broke(
    forgetful: Server, store: RedisStore
) -> None:
    with_users(store, "bob")
    last = send(store, "m1")
    key = store._keys.of("bob", "meta")
    store._link.one(("HDEL", key, "last"))
    store._link.one(("UNLINK", store._keys.of("bob", "box"), store._keys.of("bob", "ids")))
    assert read(store).lost == Lost(1, last)
    store._link.one(("HDEL", key, "last", "purged"))
    assert send(store, "m2") > last
    assert read(store).lost == Lost(1, last)


def test_another_brokers_append_does_not_hide_what_was_lost_before_it(
    forgetful: Server, store: RedisStore, newcomer: RedisStore
) -> None:
    with_users(store, "bob")
    forgetful.tell("SAVE")
    last = send(store, "gone")
    go_back(forgetful)
    after = send(newcomer, "m1")
    assert read(newcomer).lost is None, "it cannot know"
    assert ids(store) == ["m1"]
    ack(newcomer, after)  # of a reader that was given it before anybody knew
    for each in (store, newcomer):
        lost = read(each).lost
        assert lost is not None
        assert lost.first <= last <= lost.last
    ack(newcomer, send(newcomer, "m2"))
    assert read(store).lost is None


def test_an_acknowledgement_that_was_lost_is_made_again(
    forgetful: Server, store: RedisStore, newcomer: RedisStore
) -> None:
    with_users(store, "bob")
    login(store, "phone")
    seqs = [send(store, f"m{n}") for n in range(3)]
    forgetful.tell("SAVE")
    ack(store, seqs[1])
    ack(store, seqs[0], device="phone")
    go_back(forgetful)
    assert ids(store) == ids(newcomer) == ["m2"]
    assert [each.seq for each in read(newcomer, device="phone").messages] == seqs[1:]
    assert read(newcomer).lost is None


def test_what_a_room_has_lost_its_members_are_told(forgetful: Server, store: RedisStore) -> None:
    with_room(store, "ann", "bob")
    kept = send(store, "m1", to="#den")
    ack(store, kept)
    forgetful.tell("SAVE")
    last = send(store, "gone", to="#den")
    go_back(forgetful)
    lost = read(store).lost
    assert lost is not None
    assert lost.last == last
    ack(store, send(store, "m2", to="#den"))
    assert read(store).lost is None


def test_nobody_is_told_where_nothing_is_missing(server: Server) -> None:
    """Read, tidied, expired and removed are not lost."""
    store = with_users(RedisStore(server.url), "ann", "bob", "eve", "dan")
    ack(store, send(store, "m1"))
    send(store, "late", to="eve", ttl_ms=10)
    send(store, "old", to="dan")
    send(store, "waits", to="ann")
    tidy(store, NOW_MS + 10**12)
    expire(store, NOW_MS + 20)
    other = RedisStore(server.url)
    with other.batch():
        other.remove(Account, "dan")
    with_users(other, "dan")
    send(other, "new", to="dan")
    server.kill()
    server.start()
    for user, there in (("bob", []), ("eve", []), ("dan", ["new"]), ("ann", ["waits"])):
        assert ids(store, user=user) == there
        assert read(store, user=user).lost is None, user
    for each in (store, other):
        each.close()


def test_a_server_without_any_of_it_is_not_the_store_that_was_opened(
    forgetful: Server, store: RedisStore
) -> None:
    with_users(store, "bob")
    go_back(forgetful)
    with pytest.raises(StoreFailedError, match="lost its data"):
        send(store, "m1")
    again = RedisStore(f"{forgetful.url}?allow_memory=yes")
    assert again.epoch.number != store.epoch.number
    again.close()


def test_that_everything_is_gone_is_noticed_without_a_broken_connection(
    forgetful: Server, store: RedisStore
) -> None:
    with_users(store, "bob")
    tidy(store, NOW_MS)
    forgetful.tell("FLUSHALL")
    with pytest.raises(StoreFailedError, match="lost its data"):
        tidy(store, NOW_MS)


def test_a_witness_remembers_the_latest_and_never_a_lower_sequence() -> None:
    witness = Witness(Keys("kotak"), retention_ms=1_000, witnessed_max=2)
    for name, seq in (("ann", 1), ("bob", 5), ("bob", 3), ("eve", 7)):
        witness.saw(name, seq)
        witness.acknowledged(name, "", seq)
    assert [witness.given(name) for name in ("ann", "bob", "eve")] == [0, 5, 7]
    assert len(list(witness.questions())) == len(list(witness.repetitions())) == 2
    witness.forget("eve")
    assert witness.given("eve") == 0
    assert len(list(witness.questions())) == len(list(witness.repetitions())) == 1


def test_a_copy_of_the_file_put_back_is_an_older_state(
    forgetful: Server, store: RedisStore, tmp_path: Path
) -> None:
    """As an operator would restore one."""
    with_users(store, "bob")
    forgetful.tell("SAVE")
    shutil.copy(forgetful.folder / "dump.rdb", tmp_path)
    last = send(store, "gone")
    forgetful.tell("SAVE")
    forgetful.kill()
    shutil.copy(tmp_path / "dump.rdb", forgetful.folder)
    forgetful.start()
    assert read(store).lost == Lost(1, last)
    # Who has no memory of it is told by its own position.
    assert read(store, after=last).last >= last
