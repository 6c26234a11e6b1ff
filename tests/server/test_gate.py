"""The encrypted ZeroMQ door of a whole broker: who is served, and what happens when it fails."""

from __future__ import annotations

import contextlib
import importlib
import queue
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Final

import pytest
import zmq

from broker.exits import Exit, ExitError
from broker.server import Doors, Server, open_admin
from broker.server.gate import Gate
from broker.transports.curve import Pair, write_pair
from broker.transports.router import Router
from broker.transports.zap import ZapHandler
from clients import Client
from clients.curve_keys import Curve, read_curve
from clients.errors import ConnectionFailed
from clients.text_connection import TextConnection
from tests.server.in_process import PlainHasher, any_ports, held

WAIT_S: Final = 30
BROKER: Final = Pair.make()
FADLY: Final = Pair.make()


@pytest.fixture
def keys(tmp_path: Path) -> Path:
    """Make a folder with the broker's key, and in ``clients`` nobody's."""
    write_pair(tmp_path / "broker.key", BROKER)
    (tmp_path / "clients").mkdir()
    return tmp_path


@contextmanager
def broker(keys: Path, **settings: object) -> Iterator[tuple[Server, Doors]]:
    config = any_ports(keys / "data", curve_key=keys / "broker.key", **settings)
    server = Server(config, hasher=PlainHasher())
    doors = server.start()
    try:
        yield server, doors
    finally:
        server.stop()


def fadly() -> Curve:
    return Curve(server=BROKER.public, public=FADLY.public, secret=FADLY.secret)


def refusal(address: str, curve: Curve | None, timeout_ms: int = 60_000) -> str:
    with Client(address, curve=curve, timeout_ms=timeout_ms) as client:
        with pytest.raises(ConnectionFailed) as caught:
            client.ping()
        return str(caught.value)


def test_whoever_knows_the_brokers_key_is_served_and_nobody_else(keys: Path) -> None:
    with broker(keys) as (_, doors):
        curve = read_curve(str(keys / "broker.key.pub"))
        with Client(doors.zmq, curve=curve) as one, Client(doors.zmq, curve=curve) as two:
            one.login("shafwa", "mks")
            two.login("fadly", "prp")
            one.send("fadly", "hai dudee")
            assert [message.text for message in two.inbox().messages] == ["hai dudee"]
        assert "asks for encryption" in refusal(doors.zmq, None)
        assert "the broker's own?" in refusal(doors.zmq, Curve.to(FADLY.public), 500)


def test_the_text_door_and_the_administrator_are_let_in(keys: Path) -> None:
    with broker(keys, curve_clients=keys / "clients") as (_, doors):
        assert doors.text
        with TextConnection(*doors.text) as text:
            assert text.login("fadly", "prp")["status"] == "OK"
        config = any_ports(keys / "data")
        with open_admin(config, create=False) as admin:
            users = admin.request("user_list", {})["users"]
        assert {user["user"] for user in users} == {"shafwa", "fadly", "afif", "mamang"}


def test_a_key_is_admitted_once_it_is_enrolled_and_read(
    keys: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with broker(keys, curve_clients=keys / "clients") as (server, doors):
        assert "no key is enrolled" in caplog.text
        assert "does not admit this client's key" in refusal(doors.zmq, fadly())
        (keys / "clients" / "fadly.pub").write_text(FADLY.public)
        server.reload()
        with Client(doors.zmq, curve=fadly()) as client:
            client.login("fadly", "prp")
            (keys / "clients" / "rubbish.pub").write_text("rubbish")
            server.reload()
            assert "curve_clients stays as it was" in caplog.text
            with Client(doors.zmq, curve=fadly()) as again:
                again.ping()
            for file in (keys / "clients").iterdir():
                file.unlink()
            server.reload()
            assert "does not admit" in refusal(doors.zmq, fadly())
            client.ping()  # a connection that stands is left


def test_silent_and_rude_peers_keep_nobody_out(keys: Path) -> None:
    """One such connection stopped all deliveries before libzmq 4.3.3 (CVE-2020-15166)."""
    with broker(keys, curve_clients="any") as (_, doors), contextlib.ExitStack() as stack:
        host, _, port = doors.zmq.removeprefix("tcp://").rpartition(":")
        for said in (b"", b"\xff" + b"\0" * 8 + b"\x7f", b"GET / HTTP/1.0\r\n\r\n", b"\x00" * 64):
            raw = stack.enter_context(socket.create_connection((host, int(port)), WAIT_S))
            raw.sendall(said)
        with Client(doors.zmq, curve=Curve.to(BROKER.public)) as client:
            client.login("fadly", "prp")


def test_lives_of_an_encrypted_broker_leave_nothing_behind(keys: Path) -> None:
    with broker(keys):
        pass
    before = held()
    for _ in range(5):
        with broker(keys, curve_clients=keys / "clients"):
            pass
    assert held() == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda keys: (keys / "broker.key").unlink(), "No such file"),
        (lambda keys: (keys / "broker.key").chmod(0o644), "chmod 600"),
        (lambda keys: (keys / "broker.key").write_text("rubbish"), "no key file"),
        (lambda keys: (keys / "clients" / "x.pub").write_text("rubbish"), "no key file"),
        (lambda keys: (keys / "clients").rmdir(), "No such file"),
    ],
)
def test_keys_that_cannot_be_used_end_the_start_before_anything_is_made(
    keys: Path, spoil: Callable[[Path], None], said: str
) -> None:
    spoil(keys)
    before = held()
    with (
        pytest.raises(ExitError, match=said) as caught,
        broker(keys, curve_clients=keys / "clients"),
    ):
        pass
    assert caught.value.code == Exit.USAGE
    assert BROKER.secret not in caught.value.sentence
    assert not (keys / "data").exists()
    assert held() == before


@pytest.mark.parametrize(
    ("name", "answer"), [("zmq_version_info", (4, 3, 2)), ("has", False)], ids=["old", "no CURVE"]
)
def test_a_libzmq_that_cannot_guard_a_door_ends_the_start(
    keys: Path, name: str, answer: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(zmq, name, lambda *_: answer)
    with pytest.raises(ExitError, match=r"libzmq is 4\.3\.3 or later, with CURVE"), broker(keys):
        pass


@pytest.mark.parametrize("address", ["tcp://0.0.0.0:0", "tcp://*:0", "tcp://localhost:0"])
def test_an_encrypted_door_may_listen_everywhere(keys: Path, address: str) -> None:
    curve = Curve.to(BROKER.public)
    with broker(keys, zmq=address) as (_, doors), Client(doors.zmq, curve=curve) as client:
        assert client.ping()


# --- A door that does not hold -----------------------------------------------------------------


def test_a_door_that_lets_strangers_in_is_not_opened(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when one option of the socket is lost: without a domain the handler is not asked."""
    monkeypatch.setattr(Router, "_encrypt", _carelessly)
    before = held()
    expected = pytest.raises(ExitError, match="not enrolled was admitted")
    with expected as caught, broker(keys, curve_clients=keys / "clients"):
        pass
    assert caught.value.code == Exit.GATE_FAILED
    assert held() == before


def _carelessly(router: Router, secret: str) -> None:
    router._socket.setsockopt(zmq.CURVE_SERVER, 1)
    router._socket.setsockopt(zmq.CURVE_SECRETKEY, secret.encode())
    router._socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def test_a_door_without_encryption_is_not_opened(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Router, "_encrypt", lambda router, secret: None)
    with pytest.raises(ExitError, match="does not encrypt was admitted"), broker(keys):
        pass


def test_a_door_that_admits_nobody_is_not_opened(
    keys: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ZapHandler, "start", lambda handler: handler.stop())
    with pytest.raises(ExitError, match="own key was refused"), broker(keys):
        pass


class Guarded(SimpleNamespace):
    """A door and its gate, without a broker behind them."""

    gate: Gate
    address: str


@pytest.fixture
def guarded(keys: Path) -> Iterator[Guarded]:
    config = any_ports(keys / "data", curve_key=keys / "broker.key", curve_clients=keys / "clients")
    gate = Gate(config)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    gate.start(context)
    router = Router(context, curve_secret=gate.secret)
    yield Guarded(gate=gate, address=router.bind("tcp://127.0.0.1:0"))
    gate.unwatch()
    router.close()
    gate.stop()
    context.term()


def test_a_door_that_begins_to_let_strangers_in_is_told_once(
    guarded: Guarded, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    opened: queue.Queue[None] = queue.Queue()
    guarded.gate.require_shut(guarded.address)
    monkeypatch.setattr(guarded.gate._handler, "_admits", lambda _: True)
    guarded.gate.watch(guarded.address, on_open=lambda: opened.put(None), every_s=0.01)
    opened.get(timeout=WAIT_S)
    guarded.gate.unwatch()
    assert opened.empty()
    assert caplog.messages[-1] == (
        "the encrypted zmq door does not hold: a key that is not enrolled was admitted"
    )


def test_a_door_that_admits_nobody_is_told_and_tried_again(
    guarded: Guarded, caplog: pytest.LogCaptureFixture
) -> None:
    def unexpected() -> None:
        raise AssertionError

    handler = guarded.gate._handler
    assert handler
    own = guarded.gate._enrolment._own
    guarded.gate._enrolment._own = b""
    guarded.gate.watch(guarded.address, on_open=unexpected, every_s=0.01)
    eventually(lambda: len(caplog.messages) > 1)
    guarded.gate._enrolment._own = own
    admitted = handler.judged["admitted"]
    eventually(lambda: handler.judged["admitted"] > admitted + 1)
    assert set(caplog.messages[1:]) == {
        "the encrypted zmq door does not hold: the broker's own key was refused"
    }


def test_a_broker_whose_door_fails_ends_and_says_why(keys: Path) -> None:
    with broker(keys, curve_clients=keys / "clients") as (server, _):
        server._fail(importlib.import_module("broker.server.broker")._GATE_FAILED)
        assert server.failed.is_set()
        assert server.ending.is_set()
        assert server.failure
        assert server.failure.code == Exit.GATE_FAILED


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
