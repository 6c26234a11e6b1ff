"""``kotak migrate`` as a person uses it: from a broker on SQLite to one on a real Redis."""

from __future__ import annotations

import json
import signal
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from broker.cli import migrating
from broker.core.ports import StoreLimits
from broker.exits import Exit, ExitError
from broker.stores.redis import RedisStore
from broker.stores.sqlite import SqliteStore
from clients import Client
from tests.e2e.program import (
    Program,
    Serving,
    complaint,
    connect,
    contents,
    eventually,
    run,
)
from tests.e2e.terminal import Terminal
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import Server
from tests.stores.steps import NOW_MS, ids, read, with_users

NUMBERS = count(1)
#: So many that a run of them can be killed in its midst.
MANY = 20_000


@pytest.fixture(scope="module")
def redis() -> Iterator[Server]:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")
    server = Server("--appendonly", "yes")
    yield server
    server.stop()


@pytest.fixture
def url(redis: Server) -> str:
    return f"{redis.url}?prefix=moved{next(NUMBERS)}"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return tmp_path / "data"


def filled(data: Path, messages: int = 5) -> Path:
    """Make a data folder in which bob has messages."""
    data.mkdir(mode=0o700)
    store = with_users(SqliteStore(data / "kotak.db"), "ann", "bob")
    for start in range(0, messages, 500):
        with store.batch():
            for number in range(start, min(messages, start + 500)):
                store.append("bob", "ann", f"m{number:05}", f"text {number}", NOW_MS)
    store.close()
    return data


def rows(out: str) -> dict[str, list[str]]:
    """Return the lines of a table as it is piped, by what they are about."""
    return {line.split("\t")[0]: line.split("\t")[1:] for line in out.splitlines()}


# --- a broker, and the next ----------------------------------------------------------------------


def test_tokens_positions_and_ids_are_good_at_a_broker_on_redis(data: Path, url: str) -> None:
    """Given a reader that has read a part, and a sender whose last answer was lost,

    if the broker is stopped, moved to Redis and started there,
    I expect that neither notices, but for the address.
    """
    with Serving(data, "--demo") as broker:
        with connect(broker) as sender, connect(broker, "fadly", "prp") as reader:
            sent = [sender.send("fadly", f"text {n}", message_id=f"m{n}").seq for n in range(3)]
            reader.request("ack", {"seq": sent[0]})
            page = reader.request("kotakmasuk")
            tokens = (sender.token, reader.token)
        assert broker.stop().code == 0
    moved = run("migrate", str(data), url)
    assert moved.code == 0, moved.err
    table = rows(moved.out)
    assert table["sessions"] == ["2", "2", "yes"]
    assert table["messages unread"] == ["2", "2", "yes"]
    assert {line[-1] for line in table.values()} == {"yes"}
    other = data.with_name("other")
    with Serving(other, "--store", url) as broker:
        with Client(broker.zmq, token=tokens[0]) as sender:
            assert sender.send("fadly", "text 2", message_id="m2").seq == sent[2]
            assert sender.send("fadly", "text 3", message_id="m3").seq > sent[2]
        with Client(broker.zmq, token=tokens[1]) as reader:
            found = reader.request("kotakmasuk", {"after": sent[1], "epoch": page["epoch"]})
            assert "history_lost" not in found
            assert [each["text"] for each in found["messages"]] == ["text 2", "text 3"]
            assert found["epoch"] == page["epoch"]
            assert found["cursor"] == sent[0]
        with connect(broker, "fadly", "prp"):
            pass  # the password is the same
        assert broker.stop().code == 0


def test_a_broker_that_runs_keeps_its_folder(data: Path, url: str) -> None:
    with Serving(data, "--demo") as broker:
        ended = run("migrate", str(data), url)
        assert ended.code == Exit.DATA_FOLDER
        assert "another broker is running" in complaint(ended)
        assert broker.stop().code == 0


# --- again and again -----------------------------------------------------------------------------


def test_a_killed_run_goes_on_and_a_finished_one_does_nothing(
    data: Path, url: str, redis: Server
) -> None:
    filled(data, MANY)
    before = contents(data)["kotak.db"]
    prefix = url.partition("=")[2]
    with redis.client() as client, Program("migrate", str(data), url) as program:
        eventually(lambda: client.hget(f"{prefix}:migration", "phase") == b"messages")
        program.signal(signal.SIGKILL)
        assert program.end().code == -signal.SIGKILL
        assert client.hget(f"{prefix}:migration", "state") == b"moving"
    look = run("migrate", str(data), url, "--dry-run")
    assert look.code == 0
    assert "a run was cut short at" in look.err
    again = run("migrate", str(data), url)
    assert again.code == 0, again.err
    assert rows(again.out)["messages unread"] == [str(MANY), str(MANY), "yes"]
    done = run("migrate", str(data), url)
    assert (done.code, done.out) == (0, "")
    assert "everything was moved before" in done.err
    assert contents(data)["kotak.db"] == before
    store = RedisStore(url, StoreLimits())
    assert ids(store, limit=3) == ["m00000", "m00001", "m00002"]
    assert read(store, after=MANY - 2).messages[-1].text == f"text {MANY - 1}"
    store.close()


def test_a_dry_run_writes_nothing(data: Path, url: str, redis: Server) -> None:
    filled(data)
    with redis.client() as client:
        before = client.dbsize()
        ended = run("migrate", f"sqlite://{data}", url, "--dry-run", "--json")
        assert client.dbsize() == before
    assert ended.code == 0
    counts = {row["what"]: row["source"] for row in json.loads(ended.out)}
    assert (counts["users"], counts["messages unread"]) == (2, 5)
    assert "nothing was written" in ended.err


def test_a_terminal_sees_a_table(data: Path, url: str) -> None:
    filled(data)
    terminal = Terminal({}, "migrate", str(data), url)
    try:
        terminal.read_until("messages unread")
        terminal.read_until("moved to Redis at")
    finally:
        terminal.close()


# --- what is refused -----------------------------------------------------------------------------


def test_a_target_that_is_not_empty_is_refused(data: Path, url: str) -> None:
    filled(data)
    store = with_users(RedisStore(url, StoreLimits()), "zoe")
    store.close()
    ended = run("migrate", str(data), url)
    assert ended.code == Exit.REFUSED
    assert "choose another prefix" in complaint(ended)


def test_a_target_that_differs_at_the_end_is_exit_one(data: Path, url: str, redis: Server) -> None:
    filled(data)
    prefix = url.partition("=")[2]
    assert run("migrate", str(data), url).code == 0
    with redis.client() as client:  # as if it had been cut short while it compared
        client.hset(f"{prefix}:migration", "state", "moving")
        client.hdel(f"{prefix}:migration", "ended_ms")
        client.zremrangebyrank(f"{prefix}:{{u:bob}}:box", 0, 0)
    ended = run("migrate", str(data), url)
    assert ended.code == Exit.REFUSED
    table = rows(ended.out)
    assert table["messages unread"] == ["5", "4", "NO"]
    assert table["digest of everything"][-1] == "NO"
    assert "the two sides differ, in mailboxes: 1 (bob)" in ended.err


def test_a_server_that_throws_away_is_refused(data: Path, redis: Server, url: str) -> None:
    filled(data)
    with redis.client() as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            ended = run("migrate", str(data), url)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert ended.code == Exit.USAGE
    assert "noeviction" in complaint(ended)


def test_a_server_that_is_full_says_so_and_the_next_run_goes_on(data: Path) -> None:
    filled(data, 3_000)
    server = Server("--appendonly", "yes", "--maxmemory", "2mb")
    try:
        ended = run("migrate", str(data), server.url)
        assert ended.code == Exit.REFUSED
        assert "give it more memory" in complaint(ended)
        with server.client() as client:
            client.config_set("maxmemory", "100mb")
        again = run("migrate", str(data), server.url)
        assert again.code == 0, again.err
        assert rows(again.out)["messages unread"] == ["3000", "3000", "yes"]
    finally:
        server.stop()


def test_a_server_that_is_not_there_is_unreachable(data: Path) -> None:
    filled(data)
    ended = run("migrate", str(data), f"redis://127.0.0.1:{redis_server.free_port()}")
    assert ended.code == Exit.UNREACHABLE
    assert "start it" in complaint(ended)


@pytest.mark.parametrize(
    ("target", "said"),
    [
        ("sqlite:", "the target is a Redis"),
        ("redis://127.0.0.1/3", "has no path"),
        ("redis://127.0.0.1?prefx=a", "has no option 'prefx'"),
    ],
)
def test_a_wrong_target_is_usage(data: Path, target: str, said: str) -> None:
    filled(data)
    ended = run("migrate", str(data), target)
    assert ended.code == Exit.USAGE
    assert said in complaint(ended)


def test_the_source_may_be_written_in_several_ways(data: Path) -> None:
    filled(data)
    ways = [
        f"sqlite:{data}",
        f"sqlite://{data}",
        f"sqlite:///{data}",
        f"{data}",
        f"{data}/kotak.db",
    ]
    assert {migrating._folder(way, Path("/none")) for way in ways} == {data}
    assert migrating._folder("sqlite:", data) == data


@pytest.mark.parametrize(
    ("source", "code"),
    [
        ("redis://127.0.0.1", Exit.USAGE),
        ("memory:", Exit.USAGE),
        ("sqlite://host/path", Exit.USAGE),
        ("/nowhere/at/all", Exit.DATA_FOLDER),
        (__file__, Exit.DATA_FOLDER),
    ],
)
def test_a_wrong_source_is_told_from_a_missing_one(source: str, code: Exit) -> None:
    with pytest.raises(ExitError) as caught:
        migrating._folder(source, Path("/none"))
    assert caught.value.code is code
