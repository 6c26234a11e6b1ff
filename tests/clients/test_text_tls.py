"""The text client through TLS: whom it trusts, and what it says where it does not."""

from __future__ import annotations

import argparse
import io
import re
import socket
import ssl
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

import pytest

from clients import text_cli
from clients.text_connection import TextConnection, TextDoorError, verifying
from tests.transports.certificates import Certificate, make_certificate

REPLY: Final = b'{"status": "OK", "message": "logout success"}\r\n\r\n'
LOGIN: Final = "login shafwa mks\n"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Certificate:
    return make_certificate(tmp_path_factory.mktemp("certificate"))


@contextmanager
def door(certificate: Certificate | None, *, lines: int = 1) -> Iterator[int]:
    """Serve ``lines`` of one connection, at the port told; through TLS, given a certificate."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        connection.settimeout(30)
        with connection, suppress(OSError):
            if certificate is not None:
                context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
                context.load_cert_chain(certificate.cert, certificate.key)
                connection = context.wrap_socket(connection, server_side=True)
            with connection:
                for _ in range(lines):
                    connection.recv(65_536)
                    connection.sendall(REPLY)

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield listener.getsockname()[1]
    finally:
        thread.join(60)
        listener.close()


def refusal(port: int, tls: ssl.SSLContext, *, timeout_ms: int = 30_000) -> str:
    """Return what a request to the door ended in."""
    with TextConnection("localhost", port, timeout_ms=timeout_ms, tls=tls) as connection:
        with pytest.raises(TextDoorError) as caught:
            connection.logout("T")
        return str(caught.value)


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1"])
def test_a_door_whose_certificate_is_trusted_is_talked_to(
    certificate: Certificate, host: str
) -> None:
    tls = verifying(certificate.ca)
    with door(certificate, lines=2) as port, TextConnection(host, port, tls=tls) as connection:
        assert connection.logout("T")["message"] == "logout success"
        assert connection.logout("T")["message"] == "logout success"


def test_a_certificate_that_nobody_here_has_signed_is_refused(certificate: Certificate) -> None:
    with door(certificate) as port:
        said = refusal(port, verifying())
    assert re.search(r"not trusted \(self.signed certificate\).*--ca", said)


def test_a_certificate_of_another_host_is_refused(tmp_path: Path) -> None:
    other = make_certificate(tmp_path, "other.example")
    with door(other) as port:
        assert re.search(r"not trusted .*localhost", refusal(port, verifying(other.ca)))


def test_a_door_that_does_not_encrypt_is_told_from_one_that_is_not_there() -> None:
    with door(None) as port:
        assert "does not speak TLS" in refusal(port, verifying())


def test_a_connection_that_ends_in_the_midst_is_named(certificate: Certificate) -> None:
    tls = verifying(certificate.ca)
    with door(certificate) as port, TextConnection("localhost", port, tls=tls) as it:
        it.logout("T")
        with pytest.raises(TextDoorError, match="closed the connection"):
            it.logout("T")


def test_silence_in_the_handshake_ends_in_time(certificate: Certificate) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        assert "no answer from" in refusal(port, verifying(certificate.ca), timeout_ms=100)


def test_tls_older_than_1_2_is_not_spoken(certificate: Certificate) -> None:
    assert verifying(certificate.ca).minimum_version == ssl.TLSVersion.TLSv1_2
    assert verifying().verify_mode == ssl.CERT_REQUIRED
    assert verifying().check_hostname


@pytest.mark.parametrize(
    ("content", "says"), [(None, "No such file"), ("rubbish", "holds no certificate")]
)
def test_a_file_that_holds_no_certificate_is_a_wrong_usage(
    tmp_path: Path, content: str | None, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "ca.pem"
    if content is not None:
        file.write_text(content)
    assert run("127.0.0.1:1", "--ca", str(file)) == 2
    assert says in capsys.readouterr().err


def test_the_command_encrypts_where_it_is_told(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(LOGIN))
    with door(certificate) as port:
        assert run(f"localhost:{port}", "--ca", str(certificate.ca)) == 0
    assert "username shafwa logged in" in capsys.readouterr().out


def test_the_command_trusts_no_stranger(
    certificate: Certificate, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(LOGIN))
    with door(certificate) as port:
        assert run(f"localhost:{port}", "--tls") == 1
    assert "is not trusted" in capsys.readouterr().out


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    text_cli.add_arguments(parser)
    return text_cli.run(parser.parse_args(words))
