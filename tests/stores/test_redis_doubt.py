"""A replica takes over, and not everybody who had been answered for is there to tell what is lost.

One address, behind which a server with an older state takes over: `Address.fail_over`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from types import SimpleNamespace

import pytest

from broker.core.model import Lost
from broker.stores.redis import RedisStore, rollcall, rooms, witness
from broker.stores.redis import store as store_module
from broker.stores.redis.link import script
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import KEEPING, Server, poll
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


class Clock:
    """The monotonic clock of all brokers."""

    now_s = 1_000.0

    def monotonic(self) -> float:
        self.now_s += 1e-6  # no two moments are one
        return self.now_s


class Address(Server):
    """A primary, and a replica that can be cut off and take over behind the same address."""

    def __init__(self) -> None:
        super().__init__(*KEEPING)
        self.replica = Server(*KEEPING)
        self.replica.replicate(self)

    def cut(self) -> None:
        """From here on the replica hears of nothing."""
        poll(lambda: self._offset(self) == self._offset(self.replica))
        self.replica.tell("REPLICAOF", "NO", "ONE")

    @staticmethod
    def _offset(server: Server) -> int:
        offset: int = server.tell("INFO", "replication")["master_repl_offset"]
        return offset

    def fail_over(self, *, quietly: bool = False) -> None:
        """Have the replica's state here; ``quietly``: no connection breaks."""
        self.replicate(self.replica)
        self.tell("REPLICAOF", "NO", "ONE")
        if not quietly:
            self.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")

    def stop(self) -> None:
        super().stop()
        self.replica.stop()


@pytest.fixture(autouse=True)
def redis() -> None:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    fake = SimpleNamespace(monotonic=clock.monotonic, time_ns=time.time_ns)
    for module in (store_module, rollcall, witness):
        monkeypatch.setattr(module, "time", fake)
    return clock


@pytest.fixture
def address() -> Iterator[Address]:
    address = Address()
    yield address
    address.stop()


@pytest.fixture
def start(address: Address, clock: Clock) -> Iterator[Callable[[], RedisStore]]:
    """Start brokers on it; each has signed the roll."""
    started: list[RedisStore] = []

    def broker(options: str = "") -> RedisStore:
        store = RedisStore(f"{address.url}{options}")
        started.append(store)
        turn(store)
        return store

    yield broker
    for store in started:
        with suppress(OSError):  # it has ended already
            store.close()


def turn(*stores: RedisStore) -> None:
    """Have brokers do what they do once a second."""
    for store in stores:
        with store.batch():
            pass


def die(store: RedisStore) -> None:
    """End as a process does whose machine is gone: nobody signs off."""
    store._doubts.close()
    store._listener.close()
    store._link.close()


def wait(clock: Clock, *stores: RedisStore, seconds: int = 8) -> None:
    """Let time go by, beat by beat, longer than anybody is waited for."""
    for _ in range(seconds):
        clock.now_s += 1.01
        turn(*stores)
        for store in stores:
            thread = store._doubts._thread
            if thread is not None:
                thread.join()


def told(store: RedisStore, seq: int, user: str = "bob", device: str = "") -> bool:
    lost = read(store, user, device=device).lost
    return lost is not None and lost.first <= seq <= lost.last


def roll(address: Address) -> set[bytes]:
    """Return the brokers on the roll."""
    return set(address.tell("HKEYS", "kotak:{b:0}:brokers")) - {b""}


Start = Callable[..., RedisStore]

# --- in doubt ----------------------------------------------------------------------------------


def test_what_only_a_broker_knew_that_has_ended_too_is_told_to_all_of_that_server(
    address: Address, start: Start, clock: Clock
) -> None:
    gone, alive = start(), start()
    with_room(gone, "ann", "bob")
    login(gone, "phone")
    kept = ack(gone, send(gone, "kept"))
    wait(clock, gone, alive, seconds=1)
    address.cut()
    seq = send(gone, "gone")
    in_room = send(gone, "gone", to="#den")
    die(gone)
    address.fail_over()
    wait(clock, alive, seconds=2)
    assert read(alive).lost is None, "it may still come"
    wait(clock, alive)
    for user, device in (("bob", ""), ("bob", "phone"), ("ann", "")):
        assert told(alive, seq, user, device)
        assert told(alive, in_room, user, device)
    assert not told(alive, kept), "what came before its last signature is there"
    ack(alive, send(alive, "m2"))
    assert read(alive).lost is None, "until it goes on"
    assert told(alive, seq, device="phone"), "each reader is told"
    wait(clock, alive)
    assert read(alive).lost is None, "and once"


def test_an_acknowledgement_that_passes_it_before_hides_nothing(
    address: Address, start: Start, clock: Clock
) -> None:
    gone, alive = start(), start()
    with_users(gone, "bob")
    address.cut()
    seq = send(gone, "gone")
    die(gone)
    address.fail_over()
    ack(alive, send(alive, "m2"))
    assert ids(alive) == []
    wait(clock, alive)
    assert told(alive, seq)


def test_where_nobody_lived_through_it_the_next_one_has_everybody_told(
    address: Address, start: Start, clock: Clock
) -> None:
    gone = start()
    with_users(gone, "bob")
    address.cut()
    seq = send(gone, "gone")
    die(gone)
    address.fail_over()
    later = start()
    wait(clock, later)
    assert told(later, seq)


def test_also_where_the_roll_that_is_left_names_nobody(
    address: Address, start: Start, clock: Clock
) -> None:
    with_users(start(), "bob").close()
    address.cut()
    gone = start()
    seq = send(gone, "gone")
    die(gone)
    address.fail_over()
    assert roll(address) == set()
    later = start()
    wait(clock, later)
    assert told(later, seq)


def test_a_broker_whose_signature_was_lost_as_well_is_missed_by_those_that_saw_it(
    address: Address, start: Start, clock: Clock
) -> None:
    alive = with_users(start(), "bob")
    address.cut()
    gone = start()
    wait(clock, alive, gone, seconds=1)
    seq = send(gone, "gone")
    die(gone)
    address.fail_over()
    clock.now_s += 60  # for so long nobody could look
    wait(clock, alive, seconds=3)
    assert not told(alive, seq), "it may still come"
    wait(clock, alive)
    assert told(alive, seq)


def test_who_signed_off_after_the_replica_was_cut_off_is_missed(
    address: Address, start: Start, clock: Clock
) -> None:
    ended, alive = start(), start()
    with_users(ended, "bob")
    address.cut()
    seq = send(ended, "gone")
    ended.close()
    address.fail_over()
    wait(clock, alive)
    assert told(alive, seq)


def test_a_broker_that_has_forgotten_some_of_what_it_answered_says_so(
    address: Address, start: Start, clock: Clock
) -> None:
    store = with_users(start(), "bob", "ann")
    store._witness._max = 1
    address.cut()
    seq = send(store, "gone")
    send(store, "gone", to="ann")
    address.fail_over()
    assert not told(store, seq)
    wait(clock, store)
    assert told(store, seq)


def test_of_two_brokers_the_other_goes_on_where_one_ends_in_the_midst(
    address: Address, start: Start, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    gone, *others = start(), start(), start()
    first, second = sorted(others, key=lambda each: each._roll.own)
    with_users(gone, "ann", "bob")
    address.cut()
    seq = send(gone, "gone")
    die(gone)
    address.fail_over()
    monkeypatch.setattr(first._doubts, "settle", lambda _: None)
    wait(clock, first, second)
    assert not told(second, seq), "one is enough"
    die(first)
    wait(clock, second, seconds=16)
    assert told(second, seq)


def test_a_restart_loses_what_a_server_had_not_synced(
    address: Address, start: Start, clock: Clock
) -> None:
    address.tell("CONFIG", "SET", "appendfsync", "everysec")
    gone, alive = start(), start()
    with_users(gone, "bob")
    seq = send(gone, "m1")
    die(gone)
    address.kill()
    address.start()
    wait(clock, alive)
    assert told(alive, seq), "nobody knows that it is there, nor what else was"


def test_a_mailbox_is_marked_once_for_one_doubt(start: Start) -> None:
    store = with_users(start(), "bob")
    mark = script("doubt", store._keys.place("bob"), 5, 77)
    assert [store._link.one(mark) for _ in range(2)] == [1, 0]
    ack(store, send(store, "m1"))
    assert store._link.one(mark) == 0
    assert read(store).lost is None


# --- what the living know ----------------------------------------------------------------------


@pytest.mark.parametrize("quietly", [False, True])
def test_where_all_brokers_live_only_what_was_lost_is_told(
    address: Address, start: Start, clock: Clock, *, quietly: bool
) -> None:
    one, other = start(), start()
    with_users(one, "ann", "bob", "eve")
    send(one, "kept", to="eve")
    address.cut()
    seqs = {"bob": send(one, "gone"), "ann": send(other, "gone", to="ann")}
    address.fail_over(quietly=quietly)
    wait(clock, one, other, seconds=16)
    assert all(told(other, seq, user) for user, seq in seqs.items())
    assert ids(one, "eve") == ["kept"]
    assert read(one, "eve").lost is None


def test_what_others_have_given_and_read_since_does_not_hide_what_is_missing(
    address: Address, start: Start, clock: Clock
) -> None:
    one, other = start(), start()
    with_users(one, "bob")
    address.cut()
    seqs = [send(one, f"gone{n}") for n in range(3)]
    address.fail_over()
    ack(other, send(other, "m2"))
    assert read(other).lost is None, "it cannot know"
    turn(one)
    assert all(told(other, seq) for seq in seqs)
    ack(other, send(other, "m3"))
    assert read(other).lost is None
    wait(clock, one, other, seconds=16)
    assert read(other).lost is None


def test_the_next_append_tells_it_though_a_later_message_of_a_room_was_read(
    address: Address, start: Start
) -> None:
    store = start()
    with_room(store, "ann", "bob")
    seq = send(store, "gone")
    ack(store, send(store, "m1", to="#den"))
    meta = store._keys.of("bob", "meta")
    store._link.one(("HDEL", meta, "last"))
    store._link.one(("UNLINK", store._keys.of("bob", "box"), store._keys.of("bob", "ids")))
    send(store, "m2")
    assert told(store, seq)


# --- no doubt ----------------------------------------------------------------------------------


def test_a_restart_of_the_same_server_is_no_reason_for_doubt(
    address: Address, start: Start, clock: Clock
) -> None:
    gone, alive = start(), start()
    with_users(gone, "bob")
    send(gone, "kept")
    die(gone)
    address.kill()
    address.start()
    assert len(roll(address)) == 2
    wait(clock, alive)
    assert roll(address) == {alive._roll.own.encode()}, "nobody is missed"
    assert ids(alive) == ["kept"]
    assert read(alive).lost is None


def test_a_server_that_all_brokers_had_left_may_restart(
    address: Address, start: Start, clock: Clock
) -> None:
    with_users(start(), "bob").close()
    assert roll(address) == set()
    address.kill()
    address.start()
    later = start()
    wait(clock, later)
    assert read(later).lost is None


def test_a_clean_restart_of_brokers_and_a_complete_failover_are_told_nobody(
    address: Address, start: Start, clock: Clock
) -> None:
    one, other = start(), start()
    with_users(one, "bob")
    send(one, "kept")
    one.close()
    one = start()
    address.cut()
    address.fail_over()
    wait(clock, one, other, seconds=16)
    other.close()
    address.kill()
    address.start()
    wait(clock, one)
    assert roll(address) == {one._roll.own.encode()}
    assert read(one).lost is None


def test_connections_that_break_and_brokers_that_are_killed_are_no_reason(
    address: Address, start: Start, clock: Clock
) -> None:
    gone, alive = start(), start()
    with_users(gone, "bob")
    send(gone, "kept")
    die(gone)
    for _ in range(3):
        address.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
        wait(clock, alive, seconds=4)
    address.cut()
    address.fail_over()  # which has all that the one that was killed had answered
    wait(clock, alive, seconds=16)
    assert ids(alive) == ["kept"]
    assert read(alive).lost is None


def test_what_was_read_and_tidied_or_expired_is_not_missed(address: Address, start: Start) -> None:
    store = with_users(start(), "bob", "eve")
    ack(store, send(store, "m1"))
    late = send(store, "late", to="eve", ttl_ms=10)
    expire(store, NOW_MS + 20)
    tidy(store, NOW_MS + 10**12)
    assert send(store, "late", to="eve") == late, "its id is still known"
    address.tell("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
    for user in ("bob", "eve"):
        assert ids(store, user) == []
        assert read(store, user).lost is None


def test_where_replicas_confirm_nobody_signs(address: Address, start: Start) -> None:
    store = with_users(start("?replicas=1"), "bob")
    send(store, "m1")
    assert roll(address) == set()


def test_an_acknowledgement_above_what_is_left_is_made_again_as_it_was(
    address: Address, start: Start
) -> None:
    one, other = start(), start()
    with_users(one, "bob")
    address.cut()
    send(one, "m1")
    seq = send(other, "m2")
    assert ack(one) == seq
    address.fail_over()
    turn(one)
    assert ack(one, 0) == seq


def test_after_a_failover_what_was_there_before_may_have_been_given(
    address: Address, start: Start, clock: Clock
) -> None:
    """That it was given is noted in the mailbox, and that may be lost."""
    store = with_users(start(), "bob")
    given = send(store, "kept")
    address.cut()
    assert ids(store) == ["kept"]
    address.fail_over()
    assert read(store).delivered >= given
    wait(clock, store)
    later = start()
    for each in (store, later):
        assert given <= read(each, device="phone").delivered < send(each, each._roll.own)


def test_a_loss_is_a_range_from_where_the_first_may_be_missing() -> None:
    gone = rooms.Gone
    assert store_module._lost(10, [gone(0, 10, 4), gone(0, 0, 0)]) is None
    assert store_module._lost(10, [gone(0, 20, 4)]) == Lost(5, 20)
    assert store_module._lost(3, [gone(0, 20, 7), gone(0, 9, 9)]) == Lost(4, 20)
    assert store_module._lost(10, [gone(8, 20, 4)]) == Lost(9, 20)
