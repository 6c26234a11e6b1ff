"""Doubt in a cluster: of one server's mailboxes, not of the others', and not when slots move."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest

from broker.core.ports import StoreUnavailableError
from broker.stores.redis import RedisStore
from broker.stores.redis.link import script
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import DEADLINE_S, Cluster, Server, poll
from tests.stores.steps import ack, read, send, with_users
from tests.stores.test_redis_cluster import USERS, moving
from tests.stores.test_redis_doubt import die, told

NUMBERS = count(1)
OPERATIONS = Path(__file__).parents[2] / "docs" / "OPERATIONS.md"
RIGHTS = re.compile(r"user kotak on >PASSWORD (.*)")
#: Longer than a broker is waited for, with the time-out below.
OPTIONS = "?timeout_ms=500"
LEASE_S = 2.0


@pytest.fixture(autouse=True)
def redis() -> None:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")


@pytest.fixture
def own_cluster() -> Iterator[Cluster]:
    """One whose servers may be killed, each with a replica."""
    cluster = Cluster(replicas=1)
    yield cluster
    cluster.stop()


def go_on(*stores: RedisStore, until: Callable[[], bool], seconds: float = DEADLINE_S) -> bool:
    """Let brokers live, until something is so, or for so long; tell whether it has become so."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            for store in stores:
                with store.batch():
                    pass
            if until():
                return True
        except StoreUnavailableError:
            pass
        time.sleep(0.05)
    return False


def replica_of(cluster: Cluster, server: Server) -> Server:
    return cluster.replicas[cluster.primaries.index(server)]


def epochs(server: Server) -> set[bytes]:
    """Return the terms of the primaries, as a server knows them: all different, after a while."""
    lines = server.tell("CLUSTER", "NODES").splitlines()
    return {line.split()[6] for line in lines if b"master" in line} - {b"0"}


def is_primary(server: Server) -> bool:
    return bool(server.tell("ROLE")[0] == b"master")


@pytest.mark.slow
def test_a_machine_that_takes_a_broker_along_leaves_its_mailboxes_in_doubt(
    own_cluster: Cluster,
) -> None:
    """And what was lost there is told, though it was passed before."""
    gone, alive = (RedisStore(f"{own_cluster.url}{OPTIONS}") for _ in range(2))
    with_users(gone, *USERS)
    going = own_cluster.holder(alive._keys.place("bob"))
    replica = replica_of(own_cluster, going)
    assert go_on(gone, alive, until=lambda: True)
    replica.pause()
    going.tell("CLIENT", "KILL", "TYPE", "replica")
    seq = send(gone, "gone")
    die(gone)
    going.kill()
    replica.resume()
    assert go_on(alive, until=lambda: bool(ack(alive, send(alive, "after"))))
    doubted = {u for u in USERS if own_cluster.holder(alive._keys.place(u)) is going}
    assert go_on(alive, until=lambda: all(told(alive, seq, each) for each in doubted))
    for user in {*USERS} - doubted:
        assert read(alive, user).lost is None, user
    alive.close()


@pytest.mark.slow
def test_a_takeover_by_hand_that_breaks_no_connection_is_noticed_before_the_next_append(
    own_cluster: Cluster,
) -> None:
    one, other = (RedisStore(f"{own_cluster.url}{OPTIONS}") for _ in range(2))
    with_users(one, *USERS)
    assert go_on(one, other, until=lambda: True)
    before = own_cluster.holder(one._keys.place("bob"))
    replica = replica_of(own_cluster, before)
    poll(lambda: len(epochs(replica)) == len(own_cluster.primaries))
    replica.tell("CONFIG", "SET", "masteruser", "nobody", "masterauth", "nothing")
    before.tell("CLIENT", "KILL", "TYPE", "replica")  # which cannot come back
    seq = send(one, "gone")
    replica.tell("CLUSTER", "FAILOVER", "TAKEOVER")
    poll(lambda: not is_primary(before))
    assert go_on(other, until=lambda: bool(send(other, "m2")))
    one._roll.due_at = float("inf")
    assert send(one, "m3") > seq
    assert told(other, seq)
    for store in (one, other):
        store.close()


@pytest.mark.slow
def test_the_documented_rights_are_enough() -> None:
    """As docs/OPERATIONS.md lists them."""
    cluster = redis_server.shared_cluster()
    rights = RIGHTS.search(OPERATIONS.read_text(encoding="utf-8"))
    assert rights is not None
    for server in cluster.primaries:
        words = [each for each in rights[1].split() if each != "+waitaof"]
        server.tell("ACL", "SETUSER", "kotak", "on", ">secret", *words)
    store = RedisStore(cluster.url.replace("://", "://kotak:secret@") + OPTIONS)
    with_users(store, *USERS)
    for user in USERS:
        ack(store, send(store, "m1", to=user), user)
        assert store._link.one(script("doubt", store._keys.place(user), 1, 7)) == 1
        assert read(store, user).lost is not None
    assert go_on(store, until=lambda: len(store._roll._known) == len(cluster.primaries))
    store.close()
    for server in cluster.primaries:
        server.tell("ACL", "DELUSER", "kotak")


@pytest.mark.slow
def test_a_planned_failover_is_told_nobody(own_cluster: Cluster) -> None:
    ended, one, other = (RedisStore(f"{own_cluster.url}{OPTIONS}") for _ in range(3))
    with_users(one, *USERS)
    for user in USERS:
        send(other, "kept", to=user)
        send(ended, "kept too", to=user)
    ended.close()
    for primary, replica in zip(own_cluster.primaries, own_cluster.replicas, strict=True):
        replica.tell("CLUSTER", "FAILOVER")
        assert go_on(one, other, until=lambda: is_primary(replica))  # noqa: B023 - called here
        go_on(one, other, until=lambda: False, seconds=1.5)
        replica_again = primary
        poll(lambda: not is_primary(replica_again))  # noqa: B023 - called here
    go_on(one, other, until=lambda: False, seconds=2 * LEASE_S)
    for user in USERS:
        assert len(read(one, user).messages) == 2
        assert read(one, user).lost is None
    for store in (one, other):
        store.close()


@pytest.mark.slow
def test_slots_that_move_with_the_roll_in_them_are_no_reason_for_doubt() -> None:
    """To a server whose term rises by it, and back."""
    cluster = redis_server.shared_cluster()
    url = f"{cluster.url}{OPTIONS}&prefix=doubt{next(NUMBERS)}"
    one, other = (RedisStore(url) for _ in range(2))
    with_users(one, *USERS)
    for user in USERS:
        send(one, "kept", to=user)
    assert go_on(one, other, until=lambda: True)
    place = one._keys.roll(0)
    source = cluster.holder(place)
    target = next(each for each in cluster.primaries if each is not source)
    slot = source.tell("CLUSTER KEYSLOT", place)
    for here, there in ((source, target), (target, source)):
        with moving(here, there, slot) as move:
            list(move)
        go_on(one, other, until=lambda: False, seconds=2 * LEASE_S)
    for user in USERS:
        assert read(one, user).lost is None
    for store in (one, other):
        store.close()
    left = {b for each in cluster.primaries for b in each.tell("KEYS", f"{place[:6]}*:brokers")}
    assert all(server_of(cluster, key).tell("HKEYS", key) == [b""] for key in left)


def server_of(cluster: Cluster, key: bytes) -> Server:
    return cluster.holder(key.decode())
