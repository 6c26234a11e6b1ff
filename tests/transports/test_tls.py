"""TLS before the text door: the same replies as without, and nobody who holds the others up."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import count
from pathlib import Path
from typing import Final, NamedTuple

import pytest

from broker.transports.private_file import SecretFileError
from broker.transports.text_gateway import TextGateway
from broker.transports.tls import TlsDoor
from tests.transports.certificates import Certificate, make_certificate, trusting
from tests.transports.fake_broker import FakeBroker

WAIT_S: Final = 30
END: Final = b"\r\n\r\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


class Door(NamedTuple):
    """A text door behind TLS on a thread of its own."""

    address: tuple[str, int]
    tls: TlsDoor
    gateway: TextGateway
    broker: FakeBroker
    loop: asyncio.AbstractEventLoop
    certificate: Certificate

    def connect(self) -> ssl.SSLSocket:
        raw = socket.create_connection(self.address, WAIT_S)
        return trusting(self.certificate).wrap_socket(raw, server_hostname="localhost")


@contextmanager
def door(certificate: Certificate, **limits: int) -> Iterator[Door]:
    loop = asyncio.new_event_loop()
    ids = count()
    broker = FakeBroker()
    gateway = TextGateway(broker, message_id=lambda: f"id-{next(ids)}", write_timeout_ms=1_000)
    tls = TlsDoor(certificate.cert, certificate.key, **limits)
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(coroutine: object) -> object:
        return asyncio.run_coroutine_threadsafe(coroutine, loop).result(WAIT_S)  # type: ignore[arg-type]  # any coroutine

    async def stop() -> None:
        tls.stop()
        await gateway.stop()

    try:
        address = run(gateway.start("127.0.0.1", 0, guard=tls.guard))
        yield Door(address, tls, gateway, broker, loop, certificate)  # type: ignore[arg-type]  # start's result
    finally:
        run(stop())
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()


def reply(peer: socket.socket) -> bytes:
    received = b""
    while END not in received:
        more = peer.recv(65_536)
        assert more, f"the door closed after {received[:200]!r}"
        received += more
    return received


def status(frame: bytes) -> str:
    return str(json.loads(frame)["status"])


def login(peer: socket.socket, user: str = "fadly", password: str = "prp") -> str:
    peer.sendall(f"login {user} {password}\r\n".encode())
    return str(json.loads(reply(peer))["tokenid"])


def ended(peer: socket.socket) -> bool:
    """Wait for the end of a connection, whichever way it comes."""
    try:
        while peer.recv(65_536):
            pass
    except (ConnectionResetError, ssl.SSLError):
        return True
    return True


def eventually(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


# --- What is served ----------------------------------------------------------------------------


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3])
def test_the_text_door_answers_through_tls(
    certificate: Certificate, version: ssl.TLSVersion
) -> None:
    with door(certificate) as here:
        context = trusting(certificate)
        context.minimum_version = context.maximum_version = version
        raw = socket.create_connection(here.address, WAIT_S)
        with context.wrap_socket(raw, server_hostname="localhost") as peer:
            token = login(peer)
            here.broker.put("fadly", "hai dudee")
            peer.sendall(f"kotakmasuk {token}\r\n".encode())
            assert b"hai dudee" in reply(peer)
            eventually(lambda: here.broker.commands() == ["login", "kotakmasuk", "ack"])


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_old_versions_are_refused(certificate: Certificate, version: ssl.TLSVersion) -> None:
    with door(certificate) as here:
        context = trusting(certificate)
        context.set_ciphers("ALL:@SECLEVEL=0")
        context.minimum_version = context.maximum_version = version
        with socket.create_connection(here.address, WAIT_S) as raw, pytest.raises(ssl.SSLError):
            context.wrap_socket(raw, server_hostname="localhost")
        eventually(lambda: here.tls.failed == 1)


def test_lines_that_come_byte_by_byte_and_many_at_once_are_answered_in_order(
    certificate: Certificate,
) -> None:
    with door(certificate) as here, here.connect() as peer:
        for byte in b"login fadly prp\r\n":
            peer.send(bytes([byte]))
        token = json.loads(reply(peer))["tokenid"]
        lines = [f"chat {token} shafwa {n} " + "x" * 60_000 for n in range(20)]
        sending = threading.Thread(target=peer.sendall, args=("\r\n".join([*lines, ""]).encode(),))
        sending.start()
        received = b""
        while received.count(END) < len(lines):
            received += peer.recv(65_536)
        sending.join()
        texts = [message["text"].split()[0] for message in here.broker.boxes["shafwa"]]
        assert texts == [str(n) for n in range(20)]


def test_a_reply_of_megabytes_arrives_whole_and_is_acknowledged_once_it_has(
    certificate: Certificate,
) -> None:
    with door(certificate) as here, here.connect() as peer:
        token = login(peer)
        for _ in range(60):
            here.broker.put("fadly", "y" * 60_000)
        peer.sendall(f"kotakmasuk {token}\r\n".encode())
        assert reply(peer).count(b"y" * 60_000) == 60
        eventually(lambda: "ack" in here.broker.commands())


def test_messages_that_a_peer_does_not_take_are_not_acknowledged(certificate: Certificate) -> None:
    with door(certificate) as here, here.connect() as peer:
        token = login(peer)
        for _ in range(400):
            here.broker.put("fadly", "y" * 60_000)
        peer.sendall(f"kotakmasuk {token}\r\n".encode())
        eventually(lambda: here.gateway.unread == 1)
        assert "ack" not in here.broker.commands()
        assert here.gateway.untaken == 1


def test_a_peer_that_ends_its_side_still_gets_the_replies_that_are_owed(
    certificate: Certificate,
) -> None:
    with door(certificate) as here, here.connect() as peer:
        peer.sendall(b"login fadly prp\r\nlogin shafwa mks\r\n")
        socket.socket.shutdown(peer, socket.SHUT_WR)
        received = b""
        while more := peer.recv(65_536):
            received += more
        assert [status(frame) for frame in received.split(END) if frame] == ["OK", "OK"]


def test_the_door_says_goodbye_so_that_an_end_can_be_told_from_a_cut(
    certificate: Certificate,
) -> None:
    with door(certificate) as here, here.connect() as peer:
        peer.suppress_ragged_eofs = False  # type: ignore[attr-defined]  # else both look alike
        peer.sendall(b"login fadly prp")
        socket.socket.shutdown(peer, socket.SHUT_WR)
        assert status(reply(peer)) == "ERROR"
        assert peer.recv(1) == b""


# --- Who is turned away ------------------------------------------------------------------------


def test_a_plain_line_gets_a_plain_error_and_the_end(certificate: Certificate) -> None:
    with door(certificate) as here, socket.create_connection(here.address, WAIT_S) as peer:
        peer.sendall(b"login fadly prp\r\n")
        assert status(reply(peer)) == "ERROR"
        assert peer.recv(1) == b""
        assert here.broker.calls == []


@pytest.mark.parametrize("said", [b"", b"\x16\x03\x01", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc"])
def test_a_handshake_that_does_not_end_is_cut_off_and_holds_up_nobody(
    certificate: Certificate, said: bytes
) -> None:
    with (
        door(certificate, handshake_ms=300) as here,
        socket.create_connection(here.address, WAIT_S) as stuck,
    ):
        stuck.sendall(said)
        with here.connect() as peer:
            login(peer)
        assert ended(stuck)
        eventually(lambda: here.tls.failed == 1)


@pytest.mark.parametrize("said", [b"\x16" + b"\xff" * 5_000, b"\x16\x03\x01\x00\x05hello"])
def test_rubbish_in_a_handshake_ends_the_connection(certificate: Certificate, said: bytes) -> None:
    with door(certificate) as here, socket.create_connection(here.address, WAIT_S) as peer:
        peer.sendall(said)
        assert ended(peer)
        eventually(lambda: here.tls.failed == 1)


def test_rubbish_behind_a_handshake_ends_the_connection(certificate: Certificate) -> None:
    with door(certificate) as here, here.connect() as peer:
        login(peer)
        socket.socket.sendall(peer, b"\x17\x03\x03\x00\x20" + b"\x00" * 32)
        assert ended(peer)
        eventually(lambda: here.gateway.connections == 0)


def test_more_handshakes_than_are_allowed_are_cut_off_at_once(certificate: Certificate) -> None:
    with door(certificate, handshakes_max=3) as here:
        stuck = [socket.create_connection(here.address, WAIT_S) for _ in range(5)]
        try:
            eventually(lambda: here.tls.failed == 2)
            stuck.pop(0).close()
            eventually(lambda: here.tls.failed == 3)
            with here.connect() as peer:
                login(peer)
        finally:
            for each in stuck:
                each.close()


def test_a_stop_ends_handshakes_and_answers_the_others(certificate: Certificate) -> None:
    with door(certificate) as here:
        stuck = socket.create_connection(here.address, WAIT_S)
        peer = here.connect()
        login(peer)
    with stuck, peer:
        assert status(reply(peer)) == "ERROR"
        assert ended(stuck)


# --- The files ---------------------------------------------------------------------------------


def serial(address: tuple[str, int], certificate: Certificate) -> bytes:
    raw = socket.create_connection(address, WAIT_S)
    with trusting(certificate).wrap_socket(raw, server_hostname="localhost") as peer:
        return peer.getpeercert(binary_form=True) or b""


def test_a_reload_serves_the_new_certificate_and_keeps_the_connections(tmp_path: Path) -> None:
    old = make_certificate(tmp_path)
    with door(old) as here, here.connect() as peer:
        token = login(peer)
        new = make_certificate(tmp_path)  # in the same files
        here.tls.reload()
        first = serial(here.address, new)
        peer.sendall(f"kotakmasuk {token}\r\n".encode())
        assert status(reply(peer)) == "OK"
        new.cert.write_text("rubbish")
        with pytest.raises(SecretFileError, match="no certificate and its unencrypted key"):
            here.tls.reload()
        raw = socket.create_connection(here.address, WAIT_S)
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
        with context.wrap_socket(raw) as later:
            assert later.getpeercert(binary_form=True) == first


def test_a_key_that_others_may_read_is_refused(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    certificate.key.chmod(0o644)
    with pytest.raises(SecretFileError, match="chmod 600"):
        TlsDoor(certificate.cert, certificate.key)


def test_a_key_of_another_certificate_is_refused(tmp_path: Path) -> None:
    one, two = make_certificate(tmp_path, "one"), make_certificate(tmp_path, "two")
    with pytest.raises(SecretFileError, match="key values mismatch"):
        TlsDoor(one.cert, two.key)


def test_a_key_with_a_password_is_refused_and_nobody_is_asked(tmp_path: Path) -> None:
    certificate = make_certificate(tmp_path)
    locked = tmp_path / "locked.pem"
    words = ("openssl", "ec", "-aes128", "-passout", "pass:secret", "-in", str(certificate.key))
    subprocess.run([*words, "-out", str(locked)], check=True, capture_output=True, timeout=60)
    locked.chmod(0o600)
    with pytest.raises(SecretFileError, match="unencrypted key"):
        TlsDoor(certificate.cert, locked)


def test_session_keys_are_not_written_where_the_environment_says(
    certificate: Certificate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSLKEYLOGFILE", str(tmp_path / "keys"))
    tls = TlsDoor(certificate.cert, certificate.key)
    assert tls.context.keylog_filename is None
    assert not (tmp_path / "keys").exists()
