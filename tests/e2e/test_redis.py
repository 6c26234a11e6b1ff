"""``kotak serve --store redis://`` as an operator meets it: what it says, and what it needs."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from broker.exits import Exit
from broker.wire.errors import Code
from clients import Client
from tests.e2e.program import Serving, complaint, connect, eventually, run
from tests.e2e.program import refused as refusal
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import KEEPING, Server, free_port
from tests.transports.certificates import make_certificate

NUMBERS = count(1)
PASSWORD = "geheim-123"


@pytest.fixture(autouse=True)
def redis() -> None:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    server = Server(*KEEPING)
    server.tell("CONFIG", "SET", "requirepass", PASSWORD)
    yield server
    server.stop()


@pytest.fixture
def url(server: Server) -> str:
    return f"redis://:{PASSWORD}@127.0.0.1:{server.port}?prefix=e2e{next(NUMBERS)}"


def serving(folder: Path, url: str, *options: str) -> Serving:
    return Serving(folder, "--demo", "--store", url, *options)


def refused(tmp_path: Path, url: str) -> str:
    """Return the one sentence that a broker ends with; no password is in what it says."""
    ended = run("serve", "--data", str(tmp_path / "data"), "--zmq", "tcp://127.0.0.1:0",
                "--text", "off", "--http", "off", "--store", url)  # fmt: skip
    assert ended.code in {Exit.USAGE, Exit.DATA_FOLDER}, ended.err
    assert PASSWORD not in ended.out + ended.err
    assert "Traceback" not in ended.err
    return complaint(ended)


def texts(client: Client) -> list[str]:
    return [message.text for message in client.inbox().messages]


def test_it_says_where_messages_are_kept_and_what_an_ok_means(
    tmp_path: Path, server: Server, url: str
) -> None:
    with serving(tmp_path / "data", url) as broker:
        where = f"Redis at 127.0.0.1:{server.port}, on disk before every OK"
        assert f"messages are kept in {where}\n" in broker.out
        with connect(broker, "shafwa", "mks") as client:
            assert client.send("fadly", "hai").durability == "fsync"
        ended = broker.stop()
    assert ended.code == Exit.OK
    assert PASSWORD not in ended.out + ended.err
    assert not (tmp_path / "data/kotak.db").exists()
    shown = run("check-config", "--store", url).out
    assert f"redis://***@127.0.0.1:{server.port}" in shown
    assert PASSWORD not in shown


def test_what_was_sent_to_one_broker_is_read_at_another_and_after_a_kill(
    tmp_path: Path, url: str
) -> None:
    with serving(tmp_path / "a", url) as one, serving(tmp_path / "b", url) as other:
        with connect(one, "shafwa", "mks") as shafwa, connect(other, "fadly", "prp") as fadly:
            shafwa.send("fadly", "over there")
            assert texts(fadly) == ["over there"]
        one.process.kill()
        one.end()
        with one.again("--demo", "--store", url) as again, connect(again, "fadly", "prp") as fadly:
            assert texts(fadly) == ["over there"]


def test_who_guesses_a_password_at_several_brokers_is_slowed_as_by_one(
    tmp_path: Path, url: str
) -> None:
    def guess(broker: Serving) -> Code:
        with Client(broker.zmq) as client:
            return refusal(lambda: client.login("shafwa", "a guess"))

    with (
        serving(tmp_path / "a", url) as one,
        serving(tmp_path / "b", url) as other,
        serving(tmp_path / "c", url) as third,
    ):
        codes = [guess(broker) for broker in (one, other, third) * 2]
        assert codes == [Code.BAD_CREDENTIALS] * 5 + [Code.RATE_LIMITED]
        connect(third, "fadly", "prp").close()
        for broker in (one, other, third):
            ended = broker.stop()
            assert "shafwa" not in ended.err


def test_a_server_that_goes_and_comes_is_told_as_unavailable_and_then_serves(
    tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    server = Server(*KEEPING)
    request.addfinalizer(server.stop)
    with serving(tmp_path / "data", f"{server.url}?timeout_ms=500") as broker:
        with connect(broker, "shafwa", "mks") as client:
            client.send("fadly", "before")
            server.kill()
            eventually(lambda: broker.page("/healthz") == (200, "degraded\n"))
            server.start()
            client.send("fadly", "after")  # the library repeats it until it is taken
        with connect(broker, "fadly", "prp") as client:
            assert texts(client) == ["before", "after"]
        eventually(lambda: broker.page("/healthz") == (200, "alive\n"))
        assert broker.stop().code == Exit.OK


@pytest.mark.slow
def test_a_server_that_keeps_silent_holds_neither_the_answers_nor_the_end(tmp_path: Path) -> None:
    server = Server(*KEEPING)
    try:
        with serving(tmp_path / "data", server.url) as broker:
            with connect(broker, "shafwa", "mks") as client:
                client.send("fadly", "before")
                server.pause()
                assert refusal(lambda: client.send("fadly", "after", timeout_ms=8_000))
                eventually(lambda: broker.page("/healthz") == (200, "degraded\n"))
            assert broker.stop().code == Exit.OK  # within what SIGTERM may take
    finally:
        server.resume()
        server.stop()


def test_an_encrypted_server_is_believed_by_its_certificate(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made, port = make_certificate(tmp_path, "elsewhere"), free_port()
    keys = ("--tls-cert-file", str(made.cert), "--tls-key-file", str(made.key))
    server = Server(*KEEPING, "--tls-port", str(port), "--tls-auth-clients", "no", *keys)
    try:
        assert "certificate verify failed" in refused(tmp_path, f"rediss://127.0.0.1:{port}")
        monkeypatch.setenv("SSL_CERT_FILE", str(made.cert))
        assert "Hostname mismatch" in refused(tmp_path, f"rediss://localhost:{port}")
        with serving(tmp_path / "data", f"rediss://127.0.0.1:{port}") as broker:
            assert f"Redis at 127.0.0.1:{port}" in broker.out
    finally:
        server.stop()


def test_administrators_need_no_running_broker(tmp_path: Path, url: str) -> None:
    data, env = str(tmp_path / "data"), {"KOTAK_STORE": url, "PRP": "a password"}
    added = run("user", "add", "mimi", "--data", data, "--password-env", "PRP", env=env)
    assert (added.code, added.err) == (Exit.OK, "")
    assert "mimi" in run("user", "list", "--data", data, env=env).out
    with serving(tmp_path / "elsewhere", url) as broker, connect(broker, "mimi", "a password"):
        pass
    kept = run("admin", "backup", "--data", data, env=env)
    assert kept.code != Exit.OK
    assert "Redis" in kept.err


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--appendonly", "no"), "appendonly yes"),
        ((*KEEPING, "--maxmemory-policy", "allkeys-lru"), "maxmemory-policy noeviction"),
    ],
)
def test_a_server_that_would_lose_what_it_is_given_is_refused(
    tmp_path: Path, options: tuple[str, ...], says: str
) -> None:
    server = Server(*options)
    try:
        assert says in refused(tmp_path, server.url)
    finally:
        server.stop()


def test_what_is_wrong_with_an_address_is_said_in_a_sentence(
    tmp_path: Path, server: Server
) -> None:
    port = free_port()
    for url, says in (
        (f"redis://:{PASSWORD}@127.0.0.1:{port}", "start it, or correct the address"),
        (f"redis+cluster://:{PASSWORD}@127.0.0.1:{port}", "start it, or correct the address"),
        (f"redis+sentinel://127.0.0.1:{port}/post", f"post of the sentinels 127.0.0.1:{port}"),
        (f"redis://:{PASSWORD}x@127.0.0.1:{server.port}", "correct the password"),
        (f"redis://127.0.0.1:{server.port}", "correct the password"),
        (f"redis+cluster://:{PASSWORD}@127.0.0.1:{server.port}", "no Redis Cluster serves"),
        (f"redis://:{PASSWORD}@127.0.0.1?colour=red", "no option 'colour'"),
    ):
        assert says in refused(tmp_path, url)


def test_without_the_library_it_says_how_to_install_it(tmp_path: Path) -> None:
    (tmp_path / "redis.py").write_text("raise ImportError('none', name='redis')\n")
    code = (
        f"import sys; sys.path.insert(0, {str(tmp_path)!r});"
        "from broker.stores import place_of\n"
        "try: place_of('redis://127.0.0.1')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'kotak[redis]'" in done.stdout
