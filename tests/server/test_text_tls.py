"""The text door behind TLS in a whole broker: what a start takes, and what a stop cuts off."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

import pytest

from broker.config import Address, Config
from broker.exits import Exit, ExitError
from broker.server import Server
from tests.server.in_process import PlainHasher, any_ports, held
from tests.transports.certificates import Certificate, make_certificate, trusting

WAIT_S: Final = 30


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


def encrypted(data: Path, certificate: Certificate) -> Config:
    here = {"text": Address("0.0.0.0", 0), "http": None}
    return any_ports(data, tls_cert=certificate.cert, tls_key=certificate.key, **here)


def live(config: Config, certificate: Certificate) -> None:
    """Start a broker, log in through TLS, and stop it while a handshake does not end."""
    server = Server(config, hasher=PlainHasher())
    doors = server.start()
    assert doors.text
    address = ("127.0.0.1", doors.text.port)
    with socket.create_connection(address, WAIT_S):
        raw = socket.create_connection(address, WAIT_S)
        with trusting(certificate).wrap_socket(raw, server_hostname="localhost") as peer:
            peer.sendall(b"login fadly prp\r\n")
            assert b'"status": "OK"' in peer.recv(65_536)
        began = time.monotonic()
        server.stop()
        assert time.monotonic() - began < 5


def test_lives_of_an_encrypted_text_door_leave_nothing_behind(
    tmp_path: Path, certificate: Certificate
) -> None:
    config = encrypted(tmp_path / "data", certificate)
    live(config, certificate)
    before = held()
    for _ in range(5):
        live(config, certificate)
    assert held() == before


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda made: made.key.chmod(0o644), "chmod 600"),
        (lambda made: made.key.unlink(), "No such file"),
        (lambda made: made.cert.write_text("rubbish"), "no certificate"),
        (lambda made: made.cert.unlink(), "No such file"),
    ],
)
def test_files_that_cannot_be_used_end_the_start_before_anything_is_made(
    tmp_path: Path, spoil: Callable[[Certificate], None], said: str
) -> None:
    made = make_certificate(tmp_path)
    spoil(made)
    with pytest.raises(ExitError, match=f"the text door cannot encrypt: .*{said}") as caught:
        Server(encrypted(tmp_path / "data", made), hasher=PlainHasher()).start()
    assert caught.value.code == Exit.USAGE
    assert not (tmp_path / "data").exists()


def test_a_client_that_does_not_trust_the_certificate_is_the_one_to_leave(
    tmp_path: Path, certificate: Certificate
) -> None:
    server = Server(encrypted(tmp_path / "data", certificate), hasher=PlainHasher())
    try:
        text = server.start().text
        assert text
        raw = socket.create_connection(("127.0.0.1", text.port), WAIT_S)
        with raw, pytest.raises(ssl.SSLCertVerificationError):
            ssl.create_default_context().wrap_socket(raw, server_hostname="localhost")
    finally:
        server.stop()
