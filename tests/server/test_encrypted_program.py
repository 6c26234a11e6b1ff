"""The whole way as an operator goes it: keys, an encrypted broker, reload, a gateway before it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path
from typing import Final

import pytest

from broker.exits import Exit
from clients import Client
from clients.curve_keys import read_curve
from clients.errors import ConnectionFailed
from tests.e2e.program import PATIENCE_S, ROOT, Program, Serving, eventually, run
from tests.e2e.terminal import Terminal
from tests.transports.certificates import Certificate, make_certificate, trusting

FREE: Final = "tcp://127.0.0.1:0"


def text_login(address: tuple[str, int], certificate: Certificate) -> str:
    """Log in through TLS; return the serial number of the certificate that was shown."""
    raw = socket.create_connection(address, 30)
    with trusting(certificate).wrap_socket(raw, server_hostname="localhost") as peer:
        peer.sendall(b"login fadly prp\r\n")
        assert b'"status": "OK"' in peer.recv(65_536)
        return str((peer.getpeercert() or {})["serialNumber"])


def test_an_encrypted_broker_on_every_address(tmp_path: Path) -> None:
    key, clients, me = tmp_path / "broker.key", tmp_path / "clients", tmp_path / "me.key"
    public = run("keygen", str(key)).out.strip()
    assert run("keygen", str(me), "--broker", public).code == Exit.OK
    clients.mkdir()
    certificate = make_certificate(tmp_path)
    options = (
        *("--demo", "--store", "memory:", "--curve-key", str(key), "--curve-clients", str(clients)),
        *("--tls-cert", str(certificate.cert), "--tls-key", str(certificate.key)),
    )
    doors = {"zmq": "tcp://0.0.0.0:0", "text": "0.0.0.0:0"}
    with Serving(tmp_path / "data", *options, **doors) as broker:
        before = text_login(broker.text_address, certificate)
        refused = pytest.raises(ConnectionFailed, match="does not admit")
        with Client(broker.zmq, curve=read_curve(str(me))) as client, refused:
            client.ping()

        (clients / "me.pub").write_bytes((tmp_path / "me.key.pub").read_bytes())
        certificate = make_certificate(tmp_path)
        broker.signal(signal.SIGHUP)
        eventually(lambda: broker.err.count("was read anew") == 2)
        assert text_login(broker.text_address, certificate) != before
        with Client(broker.zmq, curve=read_curve(str(me))) as client:
            client.login("shafwa", "mks")

        gateway = ("gateway", "text", "--text", "127.0.0.1:0", "--broker", broker.zmq)
        with Program(*gateway, "--curve", str(me)) as plain:
            _, port = plain.wait_for(re.compile(r"ready text=(\S+):(\d+)")).groups()
            with socket.create_connection(("127.0.0.1", int(port)), 30) as peer:
                peer.sendall(b"login fadly prp\r\n")
                assert b'"status": "OK"' in peer.recv(65_536)
        assert broker.metric('kotak_curve_handshakes_total{outcome="refused"}') > 1
        ended = broker.stop()
    assert ended.code == Exit.OK
    secret = [line.split('"')[1] for line in me.read_text().splitlines() if "secret-key" in line]
    assert secret[0] not in ended.err


def test_a_hangup_reloads_a_service_and_ends_a_broker_whose_terminal_was_closed(
    tmp_path: Path,
) -> None:
    with Serving(tmp_path / "service", "--store", "memory:") as service:
        service.signal(signal.SIGHUP)
        assert service.page("/readyz")[0] == 200
        assert service.stop().code == Exit.OK

    terminal, broker_side = os.openpty()
    words = ("serve", "--data", str(tmp_path / "data"), "--text", "off", "--http", "off")
    with subprocess.Popen(
        ["setsid", "--ctty", sys.executable, "-m", "broker.cli", *words, "--zmq", FREE],
        stdin=broker_side,
        stdout=broker_side,
        stderr=broker_side,
        cwd=ROOT,
    ) as broker:
        os.close(broker_side)
        said = b""
        while not re.search(rb"ready .*\n", said):
            said += os.read(terminal, 4_096)
        os.close(terminal)
        assert broker.wait(PATIENCE_S) == Exit.OK
    assert not (tmp_path / "data" / "admin.json").exists()


def test_a_gateway_that_would_expose_passwords_refuses_to_start() -> None:
    far = run("gateway", "text", "--broker", "tcp://mail.example:1", "--text", "127.0.0.1:0")
    assert far.code == Exit.USAGE
    assert "the way there is not encrypted" in far.err
    public = run("gateway", "text", "--broker", "tcp://127.0.0.1:1", "--text", "0.0.0.0:0")
    assert public.code == Exit.USAGE
    assert "Set tls_cert and tls_key" in public.err


def test_a_broker_in_the_open_refuses_to_start_and_a_look_beforehand_says_so(
    tmp_path: Path,
) -> None:
    words = ("--data", str(tmp_path / "data"), "--text", "0.0.0.0:0")
    assert run("check-config", *words).code == Exit.USAGE
    served = run("serve", *words)
    assert served.code == Exit.USAGE
    assert served.err.count("\n") == 1
    assert not (tmp_path / "data").exists()


def test_a_person_works_encrypted_from_login_to_logout_and_is_told_the_way(tmp_path: Path) -> None:
    key = tmp_path / "broker.key"
    public = run("keygen", str(key)).out.strip()
    env = {"KOTAK_SESSION_FILE": str(tmp_path / "session.json"), "MKS": "mks", "PRP": "prp"}
    login = ("login", "shafwa", "--password-env", "MKS")
    options = ("--demo", "--store", "memory:", "--curve-key", str(key))
    with Serving(tmp_path / "data", *options, text="off") as broker:
        where = ("--broker", broker.zmq)
        plain = run(*login, *where, "--timeout", "5", env=env)
        assert plain.code == Exit.UNREACHABLE
        assert re.search(r"asks for encryption.*--curve", plain.err)
        assert run(*login, *where, "--curve", public, env=env).code == Exit.OK
        for words in (("send", "shafwa", "hai"), ("inbox",), ("room", "list"), ("logout",)):
            assert run(*words, env=env).code == Exit.OK

        terminal = Terminal({**env, "KOTAK_CURVE": public}, *where)
        try:
            terminal.read_until("Command :")
            terminal.type("login shafwa mks\r")
            terminal.read_until("username shafwa logged in")
            terminal.type("chat shafwa to myself\r")
            # Pushed: the live inbox. The first may have come before it looked out for any.
            while not terminal.seen_within(1, "] Shafwa (shafwa) to Shafwa: to myself"):
                terminal.type("chat shafwa to myself\r")
            assert terminal.leave("\x04") == Exit.OK
        finally:
            terminal.close()


def test_the_text_client_talks_to_an_encrypted_text_door(tmp_path: Path) -> None:
    made = make_certificate(tmp_path)
    options = ("--demo", "--store", "memory:", "--tls-cert", str(made.cert), "--tls-key")
    with Serving(tmp_path / "data", *options, str(made.key)) as broker:
        typed = "login shafwa mks\nuser_on\nlogout\n"
        told = run("text", broker.text, "--ca", str(made.ca), typed=typed)
        assert told.code == Exit.OK
        assert "user aktif: shafwa" in told.out
        assert "is not trusted" in run("text", broker.text, "--tls", typed=typed).out
        assert "this door speaks TLS" in run("text", broker.text, typed=typed).out


def test_a_key_of_an_account_is_the_login_and_its_token_is_good_for_that_key_alone(
    tmp_path: Path,
) -> None:
    key, me = tmp_path / "broker.key", str(tmp_path / "me.key")
    public = run("keygen", str(key)).out.strip()
    mine = run("keygen", me, "--broker", public).out.strip()
    data, session = tmp_path / "data", tmp_path / "session.json"
    env = {"KOTAK_SESSION_FILE": str(session)}
    with Serving(data, "--demo", "--curve-key", str(key)) as broker:
        login = ("login", "shafwa", "--broker", broker.zmq, "--curve", me)
        unknown = run(*login, env=env)
        assert unknown.code == Exit.USAGE  # it would have asked for the password
        assert run("user", "key", "add", "shafwa", f"{me}.pub", "--data", str(data)).code == Exit.OK
        assert run(*login, env=env).code == Exit.OK
        for words in (("send", "shafwa", "hai"), ("inbox",), ("watch", "--help"), ("whoami",)):
            assert run(*words, env=env).code == Exit.OK

        stolen = run("whoami", "--curve", public, env=env)
        assert stolen.code == Exit.REFUSED
        assert "not logged in" in stolen.err
        token = json.loads(session.read_text())["token"]
        with socket.create_connection(broker.text_address, 30) as peer:
            peer.sendall(f"kotakmasuk {token}\r\n".encode())
            assert b"Informasi tidak ditemukan" in peer.recv(65_536)

        again = broker.stop()
    assert again.code == Exit.OK
    with Serving(data, "--demo", "--curve-key", str(key), zmq=broker.zmq) as broker:
        assert run("whoami", env=env).code == Exit.OK
        assert run("user", "key", "list", "shafwa", "--data", str(data)).out == f"{mine}\n"
        assert run("user", "key", "remove", "shafwa", mine, "--data", str(data)).code == Exit.OK
        assert run("whoami", env=env).code == Exit.REFUSED
