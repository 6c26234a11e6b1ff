"""What brokers over one Redis learn of each other: soon as a rule, and never not at all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from itertools import count

import pytest

from broker.core.model import Account, Kind, Membership, News, Room, SessionRecord
from broker.core.ports import StoreUnavailableError
from broker.stores.redis import RedisStore, news
from broker.stores.redis.telling import CHANGES_KEPT, SEEN_KEPT_MS
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import DEADLINE_S, KEEPING, Cluster, Server
from tests.stores.steps import NOW_MS, send, with_users

NUMBERS = count(1)
ANYTHING = News(Kind.ALL, "")


@pytest.fixture(autouse=True)
def redis() -> None:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")


@pytest.fixture(params=["server", "cluster"])
def url(request: pytest.FixtureRequest) -> str:
    shared = redis_server.shared_cluster if request.param == "cluster" else None
    place = (shared or redis_server.shared_server)()
    return f"{place.url}?prefix=news{next(NUMBERS)}"


@pytest.fixture
def here(url: str) -> Iterator[RedisStore]:
    store = RedisStore(url)
    yield store
    store.close()


@pytest.fixture
def there(url: str, here: RedisStore) -> Iterator[RedisStore]:
    store = RedisStore(url)
    yield with_users(store, "ann", "ben")
    store.close()


def wait_for(store: RedisStore, *wanted: News) -> list[News]:
    """Return what came, up to any of what was waited for."""
    found: list[News] = []
    deadline = time.monotonic() + DEADLINE_S
    while not {*wanted} & {*found}:
        assert time.monotonic() < deadline, f"no {wanted}, but {found}"
        found += store.news()
        time.sleep(0.002)
    return found


def settle(store: RedisStore, *names: str) -> None:
    """Listen, until nothing more can be told of what was before."""
    store.listen(names)
    wait_for(store, ANYTHING)
    store.listen([*names, "nobody"])
    wait_for(store, News(Kind.MAILBOX, "nobody"))
    store.news()


def test_what_one_appends_the_other_hears_of(here: RedisStore, there: RedisStore) -> None:
    settle(here, "ben")
    send(there, "m1", to="ben")
    assert wait_for(here, News(Kind.MAILBOX, "ben")) == [News(Kind.MAILBOX, "ben")]


def test_who_waits_is_woken(here: RedisStore, there: RedisStore) -> None:
    rung = threading.Event()
    here.on_news(rung.set)
    settle(here, "ben")
    rung.clear()
    send(there, "m1", to="ben")
    assert rung.wait(DEADLINE_S)


def test_rooms_are_mailboxes_too(here: RedisStore, there: RedisStore) -> None:
    with there.batch():
        there.put(Room("#pub", "ann", open=True, history=True))
        there.put(Membership("#pub", "ann", joined=True))
    settle(here, "#pub")
    with there.batch():
        there.append("#pub", "ann", "m1", "hi", NOW_MS)
    wait_for(here, News(Kind.MAILBOX, "#pub"))


def test_nothing_comes_of_mailboxes_that_nobody_listens_for(
    here: RedisStore, there: RedisStore
) -> None:
    settle(here, "ann", "ben")
    here.listen(["ben"])
    settle_marker = News(Kind.MAILBOX, "carl")
    here.listen(["ben", "carl"])
    wait_for(here, settle_marker)
    send(there, "m1", to="ann")
    send(there, "m2", to="ben")
    assert News(Kind.MAILBOX, "ann") not in wait_for(here, News(Kind.MAILBOX, "ben"))


def test_what_a_broker_appends_itself_is_no_news_to_it(here: RedisStore, there: RedisStore) -> None:
    settle(here, "ann", "ben")
    send(here, "m1", to="ann")
    send(there, "m2", to="ben")
    assert News(Kind.MAILBOX, "ann") not in wait_for(here, News(Kind.MAILBOX, "ben"))


def test_who_begins_to_listen_is_told_to_look_once(here: RedisStore, there: RedisStore) -> None:
    """What came between the last look and the listening would be missed otherwise."""
    settle(here, "ben")
    here.listen(["ann", "ben"])
    assert wait_for(here, News(Kind.MAILBOX, "ann")) == [News(Kind.MAILBOX, "ann")]


def test_leaving_and_coming_back_at_once_is_listening(here: RedisStore, there: RedisStore) -> None:
    settle(here, "ben")
    for _ in range(20):
        here.listen([])
        here.listen(["ben"])
        here.news()
    here.listen(["ben", "carl"])
    wait_for(here, News(Kind.MAILBOX, "carl"))
    here.news()
    send(there, "m1", to="ben")
    assert ANYTHING not in wait_for(here, News(Kind.MAILBOX, "ben"))


def test_what_changes_about_a_user_is_told_after_it_has_changed(
    here: RedisStore, there: RedisStore
) -> None:
    session = SessionRecord(b"d" * 32, "ann", NOW_MS, NOW_MS + 10**9)

    def change(*steps: Callable[[], None]) -> list[News]:
        with there.batch():
            for step in steps:
                step()
        return wait_for(here, News(Kind.USER, "ann"))

    settle(here)
    with there.batch():
        there.put(session)  # nobody can have known of it
    assert change(lambda: there.remove(SessionRecord, session.digest)) == [News(Kind.USER, "ann")]
    assert here.find(SessionRecord, session.digest) is None
    change(lambda: there.put(Account("ann", "Ann Other", "hash", role="admin")))
    found = here.find(Account, "ann")
    assert found is not None
    assert found.role == "admin"
    change(
        lambda: there.put(Room("#pub", "ben", open=True, history=True)),
        lambda: there.put(Membership("#pub", "ann", joined=True)),
    )
    change(lambda: there.remove(Membership, ("#pub", "ann")))
    change(lambda: there.remove(Account, "ann"))


# --- what is lost on the way -------------------------------------------------------------------


def test_a_connection_that_breaks_is_made_again_and_then_anything_may_have_changed(
    here: RedisStore, there: RedisStore
) -> None:
    settle(here, "ben")
    for node in there._link._nodes.primaries():
        node.ask("CLIENT", "KILL", "TYPE", "pubsub")
    wait_for(here, ANYTHING)
    send(there, "m1", to="ben")
    wait_for(here, News(Kind.MAILBOX, "ben"))


def test_what_no_hint_told_is_found_by_comparing(
    here: RedisStore, there: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "COMPARE_S", 0.05)
    monkeypatch.setattr(news.Ears, "_take", _deaf(news.Ears._take))
    settle(here, "ben")
    send(there, "m1", to="ben")
    wait_for(here, News(Kind.MAILBOX, "ben"))
    with there.batch():
        there.put(Account("ann", "Ann Other", "hash"))
    wait_for(here, News(Kind.USER, "ann"))
    here.news()


def _deaf(take: Callable[..., None]) -> Callable[..., None]:
    def hears_no_hints(ears: news.Ears, kind: bytes, channel: bytes, what: object) -> None:
        if kind != b"smessage":
            take(ears, kind, channel, what)

    return hears_no_hints


def test_more_changes_than_are_kept_may_be_anything(
    here: RedisStore, there: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news, "COMPARE_S", 0.05)
    monkeypatch.setattr(news.Ears, "_take", _deaf(news.Ears._take))
    settle(here)
    key = there._keys.index("changes", "ann")
    there._link.ask([("XADD", key, "*", "user", "ann") for _ in range(CHANGES_KEPT + 1)])
    wait_for(here, ANYTHING)


def test_a_stream_of_changes_that_is_another_one_may_hide_anything(
    here: RedisStore, there: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As after a failover to a replica that did not have the last of them."""
    monkeypatch.setattr(news, "COMPARE_S", 0.05)
    monkeypatch.setattr(news.Ears, "_take", _deaf(news.Ears._take))
    settle(here)
    with there.batch():
        there.put(Account("ann", "Ann Other", "hash"))
    wait_for(here, News(Kind.USER, "ann"))
    there._link.one(("DEL", there._keys.index("changes", "ann")))
    wait_for(here, ANYTHING)


def test_where_the_listener_comes_to_nothing_the_caller_looks_itself(
    here: RedisStore, there: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(news.Ears, "open", _fails)
    monkeypatch.setattr(news, "NEWS_LATE_MS_MAX", 50)
    wait_for(here, ANYTHING)
    wait_for(here, ANYTHING)


def _fails(*_: object) -> None:
    raise OSError("no way there")


def test_a_server_that_goes_and_comes_is_listened_to_again(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[news.Ears] = []
    opening = news.Ears.open

    def tried(ears: news.Ears, wanted: frozenset[str]) -> None:
        tries.append(ears)
        opening(ears, wanted)

    monkeypatch.setattr(news.Ears, "open", tried)
    server = Server(*KEEPING)
    try:
        here = RedisStore(server.url)
        there = with_users(RedisStore(server.url), "ben")
        settle(here, "ben")
        server.kill()
        in_vain = len(tries) + 3
        redis_server.poll(lambda: len(tries) >= in_vain)
        server.start()
        wait_for(here, ANYTHING)
        told = [each for each in caplog.records if "interrupted" in each.message]
        assert len(told) == 1, "once, not with each attempt"
        assert not any(each.levelname == "ERROR" for each in caplog.records), "it is no fault"
        send(there, "m1", to="ben")
        wait_for(here, News(Kind.MAILBOX, "ben"))
        here.close()
        there.close()
    finally:
        server.stop()


# --- who was heard -----------------------------------------------------------------------------


def test_who_was_heard_by_one_is_known_to_all(here: RedisStore, there: RedisStore) -> None:
    with there.batch():
        there.hear("ann", NOW_MS)
        there.hear("ann", NOW_MS - 1)
    assert here.heard(["ann", "ben"]) == {"ann": NOW_MS}


def test_who_was_not_heard_for_long_is_forgotten(here: RedisStore) -> None:
    with here.batch():
        here.hear("ann", NOW_MS)
    for number in range(1, 17):  # a part of the index at a time
        with here.batch():
            here.hear("ben", NOW_MS + SEEN_KEPT_MS + number * 60_000)
    assert list(here.heard(["ann", "ben"])) == ["ben"]


# --- a cluster that changes ----------------------------------------------------------------------


@pytest.fixture
def cluster() -> Iterator[Cluster]:
    """One whose servers may go."""
    cluster = Cluster(replicas=1)
    yield cluster
    cluster.stop()


@pytest.mark.parametrize("silent", [False, True])
def test_where_another_server_takes_over_the_news_comes_from_there(
    cluster: Cluster, *, silent: bool
) -> None:
    """Also where the old one keeps its connections open, and says nothing."""
    here, there = RedisStore(cluster.url), with_users(RedisStore(cluster.url), "ben")
    settle(here, "ben")
    gone = cluster.holder(there._keys.of("ben", "meta"))
    (gone.pause if silent else gone.kill)()
    told: News | None = None
    numbers = count(1)
    while told != News(Kind.MAILBOX, "ben"):
        send_late(there, f"m{next(numbers)}")
        told = wait_for(here, ANYTHING, News(Kind.MAILBOX, "ben"))[-1]
    here.close()
    there.close()


def send_late(store: RedisStore, message_id: str) -> None:
    """Send to ben as soon as there is somebody to take it."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        with suppress(StoreUnavailableError):
            send(store, message_id, to="ben")
            return
        assert time.monotonic() < deadline, "nobody takes over"
        time.sleep(0.05)
