"""Runs of the move from SQLite to Redis: cut short, repeated, refused, and compared at the end."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from typing import Any

import pytest

from broker.core.ports import StoreUnavailableError, StoreUnusableError
from broker.stores.migration_target import Target, TargetTakenError
from broker.stores.redis import RedisStore
from broker.stores.sqlite import SqliteStore
from tests.stores.moving import fresh_url, opened, run, told
from tests.stores.sqlite_steps import as_killed, open_at
from tests.stores.steps import (
    NOW_MS,
    ack,
    expire,
    ids,
    send,
    with_room,
    with_users,
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kotak.db"


# --- again, and otherwise -------------------------------------------------------------------------


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


@pytest.mark.parametrize("cluster", [False, True], ids=["server", "cluster"])
def test_a_broker_does_not_start_on_what_is_half_moved(path: Path, *, cluster: bool) -> None:
    """Nor leaves anything behind: the move goes on."""
    url = fresh_url(cluster=cluster)
    filled(path)
    with suppress(StoreUnavailableError):
        run(path, url, asks=12)
    with pytest.raises(StoreUnusableError, match="finish it with the same command"), opened(url):
        pass
    done = run(path, url)
    assert done.resumed
    assert done.verdict is not None
    assert done.verdict.same
    with opened(url) as new:
        assert ids(new)


def test_a_broker_that_was_started_meanwhile_is_noticed(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had looked just before the move began."""
    url = fresh_url()
    filled(path)
    settled = Target.settle
    monkeypatch.setattr(RedisStore, "_require_moved", lambda store, prefix: None)

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


# --- the comparison can fail ----------------------------------------------------------------------


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


# --- sources --------------------------------------------------------------------------------------


def test_the_source_is_left_as_it_is(path: Path) -> None:
    filled(path)
    before = path.read_bytes()
    run(path, fresh_url())
    assert path.read_bytes() == before


@pytest.mark.parametrize("journal", [False, True])
def test_what_stands_in_the_log_or_the_journal_of_a_killed_broker_is_moved(
    path: Path, tmp_path: Path, *, journal: bool
) -> None:
    store = with_users(open_at(path, journal=journal), "ann", "bob")
    send(store, "m1")
    send(store, "m2", ttl_ms=1_000)
    ack(store, 1, device="phone")
    copy = as_killed(path, tmp_path / "copy")
    store.close()
    before = {each.name: each.read_bytes() for each in copy.parent.iterdir()}
    url = fresh_url()
    run(copy, url)
    after = {each.name: each.read_bytes() for each in copy.parent.iterdir()}
    assert {name: after[name] for name in before} == before
    with opened(url) as new:
        assert ids(new) == ["m1", "m2"]
        assert ids(new, device="phone") == ["m2"]
        assert expire(new, NOW_MS + 1_000) == ["m2"]


def test_a_damaged_journal_is_not_moved(path: Path, tmp_path: Path) -> None:
    store = with_users(open_at(path), "ann", "bob")
    send(store, "m1")
    copy = as_killed(path, tmp_path / "copy")
    store.close()
    copy.with_name("kotak.journal").unlink()
    with pytest.raises(StoreUnusableError, match=r"kotak\.journal of .* is damaged or gone"):
        run(copy, fresh_url())


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
