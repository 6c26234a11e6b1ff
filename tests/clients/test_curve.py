"""Encryption from the client's side: what it reads its keys from, and what a wrong key tells."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import zmq

from broker.wire.envelope import encoder
from broker.wire.keyfile import KeyFile, format_keys
from clients import Client
from clients.curve_keys import Curve, CurveKeyError, read_curve
from clients.errors import ConnectionFailed

BROKER, BROKER_SECRET = (key.decode() for key in zmq.curve_keypair())
PUBLIC, SECRET = (key.decode() for key in zmq.curve_keypair())
#: For what must not take long; and so long a call would wait where its end were not told.
LONG_MS = 60_000


@contextmanager
def peer(*, curve: bool = True, verdict: bytes = b"200") -> Iterator[str]:
    """Run a peer that says OK to everything; ``verdict`` is its answer to every client's key."""
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    judge, router, end, bell = (
        context.socket(kind) for kind in (zmq.REP, zmq.ROUTER, zmq.PAIR, zmq.PAIR)
    )
    judge.bind("inproc://zeromq.zap.01")
    end.bind("inproc://end")
    bell.connect("inproc://end")
    if curve:
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, BROKER_SECRET.encode())
        router.setsockopt(zmq.ZAP_DOMAIN, b"test")
        router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    router.bind("tcp://127.0.0.1:0")
    address = router.getsockopt_string(zmq.LAST_ENDPOINT)
    thread = threading.Thread(target=_serve, args=(judge, router, end, verdict))
    thread.start()
    try:
        yield address
    finally:
        bell.send(b"")
        thread.join()
        for socket in (judge, router, end, bell):
            socket.close(linger=0)
        context.term()


def _serve(
    judge: zmq.Socket[bytes], router: zmq.Socket[bytes], end: zmq.Socket[bytes], verdict: bytes
) -> None:
    encode = encoder()
    poller = zmq.Poller()
    for socket in (judge, router, end):
        poller.register(socket, zmq.POLLIN)
    while end not in (ready := dict(poller.poll())):
        if judge in ready:
            request_id = judge.recv_multipart()[1]
            judge.send_multipart([b"1.0", request_id, verdict, b"", b"", b""])
        if router in ready:
            route, _ = router.recv_multipart()
            router.send_multipart([route, encode([1, "OK", {"now_ms": 7}])])


def failure(address: str, curve: Curve | None, *, timeout_ms: int = LONG_MS) -> str:
    with Client(address, curve=curve, timeout_ms=timeout_ms) as client:
        with pytest.raises(ConnectionFailed) as caught:
            client.ping()
        return str(caught.value)


def test_a_client_with_the_brokers_key_is_served() -> None:
    with peer() as address, Client(address, curve=Curve.to(BROKER)) as client:
        assert client.ping() == 7


def test_a_key_that_is_not_admitted_is_told_at_once() -> None:
    with peer(verdict=b"400") as address:
        assert "does not admit this client's key" in failure(address, Curve.to(BROKER))


def test_a_broker_that_asks_for_encryption_is_told_at_once() -> None:
    with peer() as address:
        assert "give its public key" in failure(address, None)


def test_a_broker_that_does_not_encrypt_is_told_at_once() -> None:
    with peer(curve=False) as address:
        assert "the broker does not encrypt" in failure(address, Curve.to(BROKER))


def test_a_wrong_broker_key_is_told_when_time_is_up() -> None:
    with peer() as address:
        text = failure(address, Curve.to(PUBLIC), timeout_ms=500)
    assert "is the key given the broker's own?" in text
    assert "the request was not sent" in text


def test_a_broker_that_cannot_judge_is_tried_until_time_is_up() -> None:
    with peer(verdict=b"500") as address:
        text = failure(address, Curve.to(BROKER), timeout_ms=500)
    assert "could not judge" in text


# --- Where the keys are from -----------------------------------------------------------------


def key_file(path: Path, keys: KeyFile, mode: int = 0o600) -> str:
    path.write_text(format_keys(keys, comment="test"))
    path.chmod(mode)
    return str(path)


def test_a_key_or_a_public_key_file_is_the_brokers_and_the_pair_is_made(tmp_path: Path) -> None:
    file = key_file(tmp_path / "broker.pub", KeyFile(public=BROKER), 0o644)
    one, two = read_curve(BROKER), read_curve(file)
    assert one.server == two.server == BROKER
    assert len({one.public, two.public, BROKER}) == 3


def test_a_key_file_that_names_the_brokers_key_is_used_as_it_is(tmp_path: Path) -> None:
    file = key_file(tmp_path / "me.key", KeyFile(public=PUBLIC, secret=SECRET, server=BROKER))
    assert read_curve(file) == Curve(server=BROKER, public=PUBLIC, secret=SECRET)
    assert SECRET not in repr(read_curve(file))


@pytest.mark.parametrize(
    ("keys", "mode", "said"),
    [
        (KeyFile(public=PUBLIC, secret=SECRET, server=BROKER), 0o640, "run 'chmod 600"),
        (KeyFile(public=PUBLIC, secret=SECRET), 0o600, "does not name the broker's key"),
        (KeyFile(secret=SECRET, server=BROKER), 0o600, "has no public key"),
    ],
)
def test_a_key_file_that_cannot_be_used_says_what_to_do(
    keys: KeyFile, mode: int, said: str, tmp_path: Path
) -> None:
    file = key_file(tmp_path / "me.key", keys, mode)
    with pytest.raises(CurveKeyError, match=said) as caught:
        read_curve(file)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"hello", b'public-key = "short"'])
def test_a_file_of_something_else_is_refused_without_quoting_it(
    content: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "file"
    path.write_bytes(content)
    with pytest.raises(CurveKeyError, match="is no key file"):
        read_curve(str(path))


@pytest.mark.parametrize("value", ["/nowhere/at/all", "", "a\0b", "/dev/zero"])
def test_what_is_neither_a_key_nor_a_file_is_refused(value: str) -> None:
    with pytest.raises(CurveKeyError):
        read_curve(value)
