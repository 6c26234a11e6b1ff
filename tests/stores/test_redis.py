"""What Redis is like beyond the contract: several brokers, servers that go, and what is full."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import count

import pytest

from broker.core.accounts import Accounts
from broker.core.dedup import DedupLimits
from broker.core.model import Account, Room, SessionRecord
from broker.core.ports import (
    StoreFullError,
    StoreLimits,
    StoreUnavailableError,
    StoreUnusableError,
)
from broker.core.replies import Answered, Replies
from broker.stores.redis import RedisStore
from broker.stores.redis.link import script
from broker.wire.codec import unpack_reply
from broker.wire.errors import Code, WireError
from tests.core.fakes import FakeHasher
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import KEEPING, Server
from tests.stores.steps import (
    NOW_MS,
    Interrupted,
    ack,
    expire,
    history,
    ids,
    join,
    kept,
    login,
    read,
    refused,
    send,
    tidy,
    with_room,
    with_users,
)

NUMBERS = count(1)
HOUR_US = 3_600_000_000


@pytest.fixture(autouse=True)
def redis() -> None:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")


@pytest.fixture
def url() -> str:
    return f"{redis_server.shared_server().url}?prefix=own{next(NUMBERS)}"


@pytest.fixture
def brokers(url: str) -> Iterator[tuple[RedisStore, RedisStore]]:
    """Two over one server."""
    one, other = RedisStore(url), RedisStore(url)
    yield one, other
    one.close()
    other.close()


@pytest.fixture
def store(brokers: tuple[RedisStore, RedisStore]) -> RedisStore:
    return brokers[0]


@pytest.fixture
def server() -> Iterator[Server]:
    """One that may be killed."""
    server = Server(*KEEPING)
    yield server
    server.stop()


def field(store: RedisStore, user: str, name: str, value: int | None = None) -> int:
    """Read, or set, what a script keeps of a mailbox."""
    key = store._keys.of(user, "meta")
    if value is not None:
        store._link.one(("HSET", key, name, value))
    return int(store._link.one(("HGET", key, name)) or 0)


# --- several brokers -------------------------------------------------------------------------


def test_what_one_broker_stores_another_gives_out(brokers: tuple[RedisStore, RedisStore]) -> None:
    one, other = brokers
    with_users(one, "ann", "bob")
    seq = send(one, "m1")
    assert ids(other) == ["m1"]
    assert read(one).delivered == seq, "it is known what the other has given"
    assert send(other, "m1") == seq, "an answer that was lost comes from any broker"
    refused(Code.CONFLICT, lambda: send(other, "m1", "ho"))
    assert ack(other) == seq
    assert ids(one) == []
    assert send(other, "m2") > seq
    assert one.epoch == other.epoch


def test_rooms_are_pulled_once_whoever_pulls(brokers: tuple[RedisStore, RedisStore]) -> None:
    one, other = brokers
    with_room(one, "ann", "bob")
    send(one, "m1", to="#den")
    before = one._link.one(("HGETALL", one._keys.of("bob", "rooms")))
    for store in (one, other, one):
        store._rooms.pull("bob", before)
    assert ids(other) == ["m1"]
    send(other, "m2", to="#den")
    assert ids(one) == ["m1", "m2"]


def test_what_a_slow_clock_says_in_a_room_comes_behind_what_was_given(store: RedisStore) -> None:
    """Another server's clock may be behind: nothing may land below a cursor."""
    with_room(store, "ann", "bob")
    first = send(store, "m1")
    ahead = first + HOUR_US
    field(store, "bob", "given", ahead)
    said = send(store, "m2", to="#den")
    page = read(store, after=ahead)
    assert [each.message_id for each in page.messages] == ["m2"]
    assert page.messages[0].seq > ahead > said
    assert page.last >= page.messages[0].seq
    last = ack(store, page.messages[0].seq)
    assert last == page.messages[0].seq
    assert send(store, "m3") > last, "its own come behind that"
    assert ids(store) == ["m3"]


def test_what_was_said_in_a_room_stays_in_order_where_some_of_it_comes_behind(
    store: RedisStore,
) -> None:
    """A message to the user is given by one who looked at the room before; then more is said."""
    with_room(store, "ann", "bob")
    send(store, "m1", to="#den")
    send(store, "own1")
    with store.batch():  # as the second half of a read whose first half was a while ago
        store._link.one(script("read", store._keys.place("bob"), "", 0, 100, 10_000, 20, "1"))
    send(store, "m2", to="#den")
    send(store, "own2")
    assert ids(store) == ["own1", "own2", "m1", "m2"]
    send(store, "m3", to="#den")
    assert ids(store) == ["own1", "own2", "m1", "m2", "m3"]


def test_sequences_go_on_when_the_clock_goes_back(store: RedisStore) -> None:
    with_users(store, "bob")
    ahead = field(store, "bob", "last", send(store, "m1") + HOUR_US)
    assert [send(store, "m2"), send(store, "m3")] == [ahead + 1, ahead + 2]


def test_a_mailbox_that_was_made_anew_never_repeats_a_sequence(store: RedisStore) -> None:
    with_users(store, "bob")
    old = send(store, "m1")
    with store.batch():
        store.remove(Account, "bob")
    with_users(store, "bob")
    assert send(store, "m1") > old


def test_prefixes_share_nothing(url: str, store: RedisStore) -> None:
    other = RedisStore(url + "other")
    with_users(store, "bob")
    assert other.find_all(Account) == []
    assert other.epoch != store.epoch
    other.close()


def test_an_account_leaves_no_key_behind(store: RedisStore) -> None:
    tidy(store, NOW_MS)  # after which the broker is on the server's roll
    before = set(store._link.one(("KEYS", f"{store._keys.epoch.removesuffix(':epoch')}:*")))
    with_room(store, "ann", "bob")
    login(store, "phone")
    send(store, "m1", ttl_ms=1_000)
    send(store, "m2", sender="bob", to="ann")
    send(store, "m3", to="#den")
    read(store)
    expire(store, NOW_MS + 1_000)
    tidy(store, NOW_MS + 10**12)
    with store.batch():
        for user in ("ann", "bob"):
            store.remove(Account, user)
        store.remove(Room, "#den")
    left = set(store._link.one(("KEYS", f"{store._keys.epoch.removesuffix(':epoch')}:*"))) - before
    assert {key for key in left if not key.endswith(b":changes")} == set()


# --- batches ---------------------------------------------------------------------------------


def test_a_receipt_is_known_when_the_batch_has_ended(store: RedisStore) -> None:
    with_users(store, "bob")
    with store.batch():
        receipts = [store.append("bob", "ann", str(n), "x", NOW_MS) for n in range(3)]
        nobody = store.append("eve", "ann", "m1", "x", NOW_MS)
    assert [each.seq for each in receipts] == [each.seq for each in read(store).messages]
    refused(Code.NO_SUCH_USER, lambda: nobody.seq)


def test_a_batch_that_is_repeated_after_it_failed_stores_once(store: RedisStore) -> None:
    with_users(store, "bob")
    with suppress(Interrupted), store.batch():
        seq = store.append("bob", "ann", "m1", "x", NOW_MS).seq
        store.append("bob", "ann", "m2", "x", NOW_MS)
        raise Interrupted
    assert ids(store) == ["m1"], "what was asked for was carried out, the rest was not"
    assert [send(store, "m1", "x"), send(store, "m2", "x") > seq] == [seq, True]


def test_replies_tell_what_became_of_appends(store: RedisStore) -> None:
    with_users(store, "bob")
    replies = Replies(Accounts(store, FakeHasher()), durability="fsync", epoch=1)
    with store.batch():
        stored = store.append("bob", "ann", "m1", "x", NOW_MS)
        no_one = store.append("eve", "ann", "m1", "x", NOW_MS)
    answered = Answered()
    answered.add(1, stored)
    answered.add(2, no_one)
    answers = {b"r": answered}
    apart = [unpack_reply(frame) for frame in replies.encode(answers)[b"r"]]
    (together,) = replies.encode(answers, {b"r"})[b"r"]
    for first, second in (apart, unpack_reply(together)):
        assert first == [1, "OK", {"seq": stored.seq, "durability": "fsync"}]
        assert (second[0], second[2]["code"]) == (2, "no_such_user")
    assert replies.errors["no_such_user"] == 2


def test_a_refusal_given_along_is_the_answer(store: RedisStore) -> None:
    with_users(store, "bob")
    refusal = WireError(Code.STORAGE_FULL, "no room")
    with store.batch():
        receipt = store.append("bob", "ann", "m1", "x", NOW_MS, refusal=refusal)
    with pytest.raises(WireError) as caught:
        _ = receipt.seq
    assert caught.value is refusal


# --- limits ----------------------------------------------------------------------------------


def test_a_long_acknowledgement_goes_in_steps(store: RedisStore) -> None:
    with_users(store, "bob")
    with store.batch():
        sent = [store.append("bob", "ann", str(n), "xy", NOW_MS) for n in range(2_500)]
    seqs = [each.seq for each in sent]
    assert ack(store, seqs[-2]) == seqs[-2]
    assert store.depth("bob") == (1, 1, 2)
    assert field(store, "bob", "rb") == 2 * 2_499
    assert ack(store) == seqs[-1]
    assert store.depth("bob") == (1, 0, 0)


def test_ids_are_forgotten_by_count_and_by_time(url: str) -> None:
    store = RedisStore(url, StoreLimits(dedup=DedupLimits(ids_max=3, window_ms=1_000)))
    with_users(store, "bob")
    first = send(store, "m0")
    for number in range(1, 7):
        send(store, f"m{number}")
    assert send(store, "m0") > first, "two generations of three have passed"
    last = send(store, "last")
    later = send(store, "later", now_ms=NOW_MS + 2_000)
    assert send(store, "last", now_ms=NOW_MS + 2_000) == last
    send(store, "much later", now_ms=NOW_MS + 4_000)
    assert send(store, "later", now_ms=NOW_MS + 4_000) == later
    assert send(store, "last", now_ms=NOW_MS + 4_000) > last
    for what in ("ids", "ids:old"):
        assert store._link.one(("PTTL", store._keys.of("bob", what))) > 0, "nothing is for ever"
    store.close()


def test_a_session_that_nobody_ends_expires_in_the_end(store: RedisStore) -> None:
    digest = b"\1" * 32
    with store.batch():
        store.put(SessionRecord(digest, "ann", NOW_MS, NOW_MS + 5_000))
    left_ms = store._link.one(("PTTL", store._keys.session(digest.hex())))
    assert 86_400_000 < left_ms <= 86_405_000


def test_what_was_sent_is_listed_though_the_recipients_lie_elsewhere(store: RedisStore) -> None:
    with_users(store, "ann", "bob", "eve")
    for number in range(6):
        send(store, f"m{number}", to="bob" if number % 2 else "eve")
    with store.batch():
        store.remove(Account, "eve")
    assert kept(store, "sent", user="ann") == ["m1", "m3", "m5"]
    page = history(store, "sent", user="ann", limit=2)
    assert ([each.message_id for each in page.messages], page.more) == (["m3", "m5"], True)
    assert store._link.one(("ZCARD", store._keys.of("ann", "sent"))) <= 6


# --- servers that go -------------------------------------------------------------------------


def test_a_server_that_was_killed_keeps_what_was_told_to_be_stored(server: Server) -> None:
    store = with_users(RedisStore(server.url), "bob")
    assert store.durability == "fsync"
    seqs = [send(store, f"m{number}") for number in range(3)]
    ack(store, seqs[0])
    server.kill()
    with pytest.raises(StoreUnavailableError), store.batch():
        store.append("bob", "ann", "m3", "hi", NOW_MS)
    server.start()
    assert ids(store) == ["m1", "m2"]
    assert send(store, "m2") == seqs[2]
    assert send(store, "m3") > seqs[2]
    store.close()


def test_a_server_that_has_forgotten_the_scripts_is_given_them_again(store: RedisStore) -> None:
    with_users(store, "bob")
    store._link.one(("SCRIPT FLUSH",))
    with store.batch():
        receipts = [store.append("bob", "ann", str(n), "x", NOW_MS) for n in range(3)]
    assert ids(store) == ["0", "1", "2"]
    assert len({each.seq for each in receipts}) == 3


def test_a_full_server_takes_nothing_new_but_is_read_and_acknowledged(server: Server) -> None:
    store = with_room(RedisStore(server.url), "ann", "bob")
    seq = send(store, "m1")
    send(store, "m2", to="#den")
    with server.client() as client:
        client.config_set("maxmemory", 1)
        with pytest.raises(StoreFullError), store.batch():
            store.append("bob", "ann", "m3", "hi", NOW_MS)
        assert send(store, "m1") == seq, "a repetition needs no room"
        assert ids(store) == ["m1", "m2"]
        assert ack(store) > seq
        expire(store, NOW_MS)
        tidy(store, NOW_MS + 10**12)
        client.config_set("maxmemory", 0)
    send(store, "m3")
    assert ids(store) == ["m3"]
    store.close()


def test_a_server_without_enough_replicas_is_waited_for(server: Server) -> None:
    store = with_users(RedisStore(server.url), "bob")
    with server.client() as client:
        client.config_set("min-replicas-to-write", 1)
    with pytest.raises(StoreUnavailableError):
        send(store, "m1")
    store.close()


@pytest.mark.parametrize(
    ("options", "query", "expected"),
    [
        (("--appendonly", "yes", "--appendfsync", "always"), "", "fsync"),
        (("--appendonly", "yes", "--appendfsync", "everysec"), "", "memory"),
        (("--appendonly", "no"), "?allow_memory=yes", "memory"),
        (("--appendonly", "no"), "", "appendonly yes"),
        ((*KEEPING, "--maxmemory-policy", "allkeys-lru"), "", "maxmemory-policy noeviction"),
    ],
)
def test_a_server_must_keep_what_it_is_given(
    options: tuple[str, ...], query: str, expected: str
) -> None:
    server = Server(*options)
    try:
        if expected in {"fsync", "memory"}:
            store = RedisStore(server.url + query)
            assert store.durability == expected
            store.close()
        else:
            with pytest.raises(StoreUnusableError, match=expected):
                RedisStore(server.url + query)
    finally:
        server.stop()


def test_where_nothing_answers_the_refusal_says_where_and_no_password() -> None:
    port = redis_server.free_port()
    for scheme in ("redis", "redis+cluster"):
        with pytest.raises(StoreUnusableError) as caught:
            RedisStore(f"{scheme}://:secret@127.0.0.1:{port}")
        assert f"127.0.0.1:{port}" in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_room_joined_on_one_broker_is_read_on_another(
    brokers: tuple[RedisStore, RedisStore],
) -> None:
    one, other = brokers
    with_room(one, "ann")
    with_users(other, "bob")
    join(other, "bob")
    send(one, "m1", to="#den")
    assert ids(other) == ids(one) == ["m1"]
