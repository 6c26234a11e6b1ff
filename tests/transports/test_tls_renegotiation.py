"""Renegotiation makes the door compute keys again at a client's word: it is refused."""

from __future__ import annotations

import asyncio
import ssl
import subprocess
import threading
from pathlib import Path
from typing import Final

from broker.transports.text_gateway import TextGateway
from broker.transports.tls import TlsDoor
from tests.transports.certificates import make_certificate
from tests.transports.fake_broker import FakeBroker

WAIT_S: Final = 30


def test_a_client_that_asks_for_new_keys_is_refused(tmp_path: Path) -> None:
    """OpenSSL's client asks for them at the line "R"; Python's cannot."""
    certificate = make_certificate(tmp_path)
    door = TlsDoor(certificate.cert, certificate.key)
    assert door.context.options & ssl.OP_NO_RENEGOTIATION
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    gateway = TextGateway(FakeBroker(), message_id=lambda: "id")
    try:
        starting = gateway.start("127.0.0.1", 0, guard=door.guard)
        host, port = asyncio.run_coroutine_threadsafe(starting, loop).result(WAIT_S)
        said = subprocess.run(
            ["openssl", "s_client", "-tls1_2", "-connect", f"{host}:{port}"],
            input=b"R\n",
            capture_output=True,
            check=False,
            timeout=WAIT_S,
        )
    finally:
        asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result(WAIT_S)
        door.stop()
        loop.call_soon_threadsafe(loop.stop)
        thread.join(WAIT_S)
        loop.close()
    assert b"RENEGOTIATING" in said.stdout + said.stderr  # it did ask
    assert b"no renegotiation" in said.stderr
    assert said.returncode != 0
