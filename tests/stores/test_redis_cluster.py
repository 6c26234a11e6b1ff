"""A cluster of three real servers: steps over several slots, slots that move, servers that go.

The whole contract runs over a cluster too, where slow tests are wanted.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count

import pytest

from broker.core.model import Account, Block, Depth, SessionRecord
from broker.core.ports import StoreUnavailableError
from broker.stores.redis import RedisStore
from broker.wire.errors import Code
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import DEADLINE_S, Cluster, Server
from tests.stores.steps import (
    NOW_MS,
    ack,
    ids,
    kept,
    read,
    refused,
    send,
    with_room,
    with_users,
)

NUMBERS = count(1)
#: Of the hash tags of these, each third of the slots has some.
USERS = ("ann", "bob", "eve", "dan", "joe", "kim")


@pytest.fixture(autouse=True)
def redis() -> None:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")


@pytest.fixture
def cluster() -> Cluster:
    return redis_server.shared_cluster()


@pytest.fixture
def store(cluster: Cluster) -> Iterator[RedisStore]:
    store = RedisStore(f"{cluster.url}?prefix=own{next(NUMBERS)}")
    yield store
    store.close()


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """One whose servers may be killed, each with a replica."""
    cluster = Cluster(replicas=1)
    yield cluster
    cluster.stop()


def until_it_serves(step: Callable[[], object]) -> float:
    """Repeat a step while the store is unavailable; return how long that was, in seconds."""
    began = time.monotonic()
    while True:
        try:
            step()
        except StoreUnavailableError:
            assert time.monotonic() < began + DEADLINE_S, "it does not serve any more"
            time.sleep(0.05)
        else:
            return time.monotonic() - began


def test_one_batch_goes_to_all_servers_and_each_step_is_answered(
    cluster: Cluster, store: RedisStore
) -> None:
    with_users(store, *USERS)
    assert len({cluster.holder(store._keys.place(user)).port for user in USERS}) == 3
    with store.batch():
        receipts = [store.append(user, "ann", f"to {user}", "x", NOW_MS) for user in USERS]
    for user, receipt in zip(USERS, receipts, strict=True):
        (message,) = read(store, user=user).messages
        assert (message.seq, message.message_id) == (receipt.seq, f"to {user}")
    assert store.depth() == Depth(len(USERS), len(USERS), len(USERS))
    assert sorted(kept(store, "sent", user="ann")) == sorted(f"to {user}" for user in USERS)
    assert [each.user for each in store.find_all(Account)] == sorted(USERS)


def test_a_room_is_read_by_members_on_other_servers(store: RedisStore) -> None:
    with_room(store, *USERS)
    send(store, "m1", to="#den")
    last = send(store, "m2", to="#den")
    for user in USERS:
        assert ids(store, user=user) == ["m1", "m2"]
        assert ack(store, user=user) >= last
        assert ids(store, user=user) == []


def test_records_lie_on_several_servers_and_are_listed_in_order(store: RedisStore) -> None:
    with_users(store, *USERS)
    with store.batch():
        for number, user in enumerate(USERS):
            store.put(SessionRecord(bytes([number]) * 32, user, NOW_MS, NOW_MS + 1_000))
            store.put(Block(user, "mallory"))
    assert [each.user for each in store.find_all(SessionRecord)] == list(USERS)
    assert {each.user for each in store.find_all(Block)} == set(USERS)
    refused(Code.BLOCKED, lambda: send(store, "m1", sender="mallory"))


def test_while_a_slot_is_moved_its_mailboxes_wait_and_then_go_on(
    cluster: Cluster, store: RedisStore
) -> None:
    """Half a mailbox here and half there must never be taken for the whole."""
    with_users(store, *USERS)
    first = send(store, "m1")
    place = store._keys.place("bob")
    source = cluster.holder(place)
    target = next(each for each in cluster.primaries if each is not source)
    slot = source.tell("CLUSTER KEYSLOT", place)
    with moving(source, target, slot) as move:
        for keys in move:
            with pytest.raises(StoreUnavailableError):
                send(store, "m2")
            with pytest.raises(StoreUnavailableError):
                read(store)
            other = next(u for u in USERS if cluster.holder(store._keys.place(u)) is not source)
            send(store, f"beside {keys}", to=other)
    try:
        assert ids(store) == ["m1"]
        assert send(store, "m1") == first
        send(store, "m2")
        assert ids(store) == ["m1", "m2"]
        other_broker = RedisStore(store_url(cluster, store))
        assert ids(other_broker) == ["m1", "m2"]
        other_broker.close()
    finally:
        with moving(target, source, slot) as move:
            list(move)


def store_url(cluster: Cluster, store: RedisStore) -> str:
    return f"{cluster.url}?prefix={store._keys.epoch.removesuffix(':epoch')}"


class moving:  # noqa: N801 - reads as a statement
    """Move a slot from server to server, key by key; each step tells how many keys have gone."""

    def __init__(self, source: Server, target: Server, slot: int) -> None:
        self._source, self._target, self._slot = source, target, slot
        self._names = [server.tell("CLUSTER MYID").decode() for server in (source, target)]

    def __enter__(self) -> Iterator[int]:
        source, target = self._names
        self._target.tell("CLUSTER SETSLOT", self._slot, "IMPORTING", source)
        self._source.tell("CLUSTER SETSLOT", self._slot, "MIGRATING", target)
        return self._steps()

    def _steps(self) -> Iterator[int]:
        yield 0
        for gone in count(1):
            keys = self._source.tell("CLUSTER GETKEYSINSLOT", self._slot, 1)
            if not keys:
                return
            self._source.tell("MIGRATE", "127.0.0.1", self._target.port, keys[0], 0, 5_000)
            yield gone

    def __exit__(self, *_: object) -> None:
        for server in (self._target, self._source):
            server.tell("CLUSTER SETSLOT", self._slot, "NODE", self._names[1])


@pytest.mark.slow
@pytest.mark.parametrize("how", ["killed", "stopped"])
def test_when_a_primary_goes_its_replica_takes_over_and_nothing_is_lost_in_silence(
    own_cluster: Cluster, how: str
) -> None:
    store = with_users(RedisStore(f"{own_cluster.url}?timeout_ms=500"), *USERS)
    answered = {}
    for number in range(300):
        user = USERS[number % len(USERS)]
        answered[f"m{number}"] = (user, send(store, f"m{number}", to=user))
    going = own_cluster.holder(store._keys.place("bob"))
    going.pause() if how == "stopped" else going.kill()
    until_it_serves(lambda: send(store, "after"))
    for user in USERS:
        page = read(store, user=user)
        there = {message.message_id for message in page.messages}
        missing = {i: seq for i, (to, seq) in answered.items() if to == user and i not in there}
        if missing:
            assert page.lost is not None
            assert page.lost.first <= min(missing.values())
            assert page.lost.last >= max(missing.values())
        else:
            assert page.lost is None
    if how == "stopped":
        going.resume()
    store.close()
