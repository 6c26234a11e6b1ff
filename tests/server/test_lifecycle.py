"""broker.server in this process: what a start takes, a stop and a failed start give back."""

from __future__ import annotations

import gc
import importlib
import os
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
import zmq

from broker.config import Address, Config
from broker.core.ports import StoreFailedError
from broker.exits import Exit, ExitError
from broker.server import Server
from broker.server.listening import refused_address, require_free
from broker.stores import sqlite_ballast
from broker.stores.sqlite import SqliteStore
from clients import Client
from clients.text_connection import TextConnection
from tests.server.in_process import PlainHasher, any_ports, held

TIMEOUT_S = 30


@pytest.fixture(autouse=True)
def _umask() -> Iterator[None]:
    old = os.umask(0o077)
    yield
    os.umask(old)


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return any_ports(tmp_path / "data")


def live(config: Config) -> None:
    """Start a broker, use each door, stop it."""
    server = Server(config, hasher=PlainHasher())
    doors = server.start()
    try:
        assert doors.text
        with Client(doors.zmq) as client, TextConnection(*doors.text) as text:
            client.login("shafwa", "mks")
            client.send("fadly", "hai")
            token = text.login("fadly", "prp")["tokenid"]
            assert text.kotakmasuk(token)["messages"][0]["msg"] == "hai"
            with urllib.request.urlopen(f"http://{doors.http}/metrics", timeout=TIMEOUT_S) as page:
                assert page.status == 200
    finally:
        server.stop()
    assert not server.failed.is_set()


def test_twenty_lives_leave_no_thread_and_no_descriptor_behind(config: Config) -> None:
    live(config)  # what libraries make once and keep
    before = held()
    for _ in range(20):
        live(config)
    assert held() == before


@pytest.mark.parametrize("door", ["zmq", "text", "http"])
def test_a_start_that_fails_gives_everything_back(config: Config, door: str) -> None:
    live(config)
    before = held()
    with socket.create_server(("127.0.0.1", 0)) as other:
        taken = Address(*other.getsockname())
        wanted = f"tcp://{taken}" if door == "zmq" else taken
        with pytest.raises(ExitError) as caught:
            Server(any_ports(config.data, **{door: wanted}), hasher=PlainHasher()).start()
    assert caught.value.code == Exit.ADDRESS_TAKEN
    assert held() == before
    live(config)  # above all the lock is free again


@pytest.mark.parametrize("name", ["kotak.db", "kotak.seen", "broker.lock"])
def test_a_file_that_others_may_read_is_refused_with_the_cure(config: Config, name: str) -> None:
    live(config)
    (config.data / name).chmod(0o644)
    with pytest.raises(ExitError, match=f"chmod 600 {config.data / name}") as caught:
        Server(config, hasher=PlainHasher()).start()
    assert caught.value.code == Exit.DATA_FOLDER
    (config.data / name).chmod(0o600)
    live(config)


def test_readiness_ends_before_the_doors_close(config: Config) -> None:
    server = Server(config, hasher=PlainHasher())
    doors = server.start()
    try:
        server.ending.set()
        with pytest.raises(urllib.error.HTTPError) as caught:
            urllib.request.urlopen(f"http://{doors.http}/readyz", timeout=TIMEOUT_S)
        with caught.value as answer:
            assert answer.code == 503
        with Client(doors.zmq) as client:
            assert client.ping()
    finally:
        server.stop()


def test_every_door_may_listen_on_ipv6_and_is_reached_there(config: Config) -> None:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        pytest.skip("no IPv6 here")
    here = Address("::1", 0)
    live(any_ports(config.data, zmq="tcp://[::1]:0", text=here, http=here))


def test_a_second_stop_does_nothing(config: Config) -> None:
    server = Server(config, hasher=PlainHasher())
    server.start()
    server.stop()
    server.stop()


def test_demo_users_that_exist_keep_their_passwords(config: Config) -> None:
    server = Server(config, hasher=PlainHasher())
    with Client(server.start().zmq) as client:
        client.login("shafwa", "mks")
        client.change_password("mks", "my own password")
        server.stop()
    again = Server(config, hasher=PlainHasher())
    with Client(again.start().zmq) as client:
        assert client.login("shafwa", "my own password").user == "shafwa"
        again.stop()


def test_on_a_full_disk_demo_users_are_refused_in_a_sentence_and_those_there_are_served(
    config: Config, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_ballast, "BALLAST_BYTES", 2**60)  # no disk has so much to spare
    with pytest.raises(ExitError, match="without --demo") as caught:
        Server(config, hasher=PlainHasher()).start()
    assert caught.value.code == Exit.DATA_FOLDER
    monkeypatch.undo()
    live(config)
    monkeypatch.setattr(sqlite_ballast, "BALLAST_BYTES", 2**60)
    server = Server(config, hasher=PlainHasher())
    server.start()
    server.stop()


@pytest.mark.parametrize("step", ["_commit", "find_all"])
def test_a_disk_that_fails_while_the_broker_starts_ends_it_with_a_sentence(
    config: Config, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """Under the first commit, and under the first look at what is stored."""
    monkeypatch.setattr(SqliteStore, step, failing)
    before = held()
    with pytest.raises(ExitError, match="the disk failed") as caught:
        Server(config, hasher=PlainHasher()).start()
    assert caught.value.code == Exit.DISK_FAILED
    assert held() == before


def failing(*_: object, **__: object) -> None:
    raise StoreFailedError("SQLITE_IOERR: disk I/O error")


def test_the_collector_is_slowed_down_for_the_program_only() -> None:
    """An application that embeds a `Server` keeps its own settings."""
    thresholds = gc.get_threshold()
    try:
        importlib.import_module("broker.server.run")._spare_the_collector()
        assert gc.get_threshold() == (50_000, 20, 50)
        assert gc.get_freeze_count() > 0
    finally:
        gc.set_threshold(*thresholds)
        gc.unfreeze()


# --- doors that others can reach -----------------------------------------------------------------

EVERYWHERE = Address("0.0.0.0", 0)
INSECURE: list[dict[str, object]] = [
    {"zmq": "tcp://0.0.0.0:0"},
    {"zmq": "tcp://*:0"},
    {"zmq": "tcp://[::]:0"},
    {"zmq": "tcp://localhost.example:0"},
    {"text": EVERYWHERE},
    {"text": Address("::", 0)},
    {"http": EVERYWHERE},
    {"zmq": "tcp://0.0.0.0:0", "tls_cert": Path("cert"), "tls_key": Path("key")},
    {"text": EVERYWHERE, "curve_key": Path("key")},
    {"http": EVERYWHERE, "curve_key": Path("key"), "tls_cert": Path("c"), "tls_key": Path("k")},
    {"zmq": "tcp://0.0.0.0:0", "text": EVERYWHERE, "http": EVERYWHERE},
]


@pytest.mark.parametrize("settings", INSECURE, ids=" ".join)
def test_a_broker_that_would_expose_a_door_refuses_to_start(
    config: Config, settings: dict[str, object]
) -> None:
    before = held()
    with pytest.raises(ExitError, match="beyond this machine, and without encryption") as caught:
        Server(any_ports(config.data, **settings), hasher=PlainHasher()).start()
    assert caught.value.code == Exit.USAGE
    assert "or accept the risk with --insecure-public" in caught.value.sentence
    assert not config.data.exists()
    assert held() == before


def test_a_broker_that_was_told_of_the_risk_starts_and_warns_of_each_door(
    config: Config, caplog: pytest.LogCaptureFixture
) -> None:
    settings = {"zmq": "tcp://0.0.0.0:0", "text": EVERYWHERE, "http": EVERYWHERE}
    live(any_ports(config.data, insecure_public=True, **settings))
    assert [r.getMessage().split()[0] for r in caplog.records] == ["zmq", "text", "http"]


# --- addresses -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "said"),
    [
        (OSError(98, "error while binding ('127.0.0.1', 1): in use"), "Another program is using"),
        (OSError(99, "..."), "This machine has no such address"),
        (OSError(13, "..."), "Permission denied. Ports below 1024"),
        (socket.gaierror(-2, "Name or service not known"), "The host is not known here"),
        (zmq.ZMQError(98, "Address already in use (addr='tcp://h:1')"), "Address already in use. "),
        (zmq.ZMQError(19), "This machine has no such address"),
        (OSError("no number"), "It cannot be listened on"),
    ],
)
def test_a_refused_address_is_named_once_with_what_to_do(
    error: OSError | zmq.ZMQError, said: str
) -> None:
    refused = refused_address("text", "h:1", error)
    assert refused.code == Exit.ADDRESS_TAKEN
    assert said in refused.sentence
    assert refused.sentence.count("h:1") == 1
    assert "choose another address with --text (port 0 picks a free one)" in refused.sentence


@pytest.mark.parametrize("wanted", ["tcp://*:1", "tcp://eth0:1", "tcp://[::1]:0"])
def test_a_look_leaves_to_libzmq_what_only_libzmq_understands(config: Config, wanted: str) -> None:
    require_free(any_ports(config.data, zmq=wanted, text=None, http=None))


def test_a_look_finds_a_taken_ipv6_address(config: Config) -> None:
    try:
        other = socket.create_server(("::1", 0), family=socket.AF_INET6)
    except OSError:
        pytest.skip("no IPv6 here")
    with other:
        taken = Address("::1", other.getsockname()[1])
        with pytest.raises(ExitError, match="Address already in use"):
            require_free(any_ports(config.data, http=taken))
