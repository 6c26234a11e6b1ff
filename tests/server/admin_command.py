"""``kotak admin`` run in this process, and what it said."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest

from broker import cli
from broker.config import Config
from broker.server import Doors, Server
from clients import Client
from clients.errors import RequestError
from tests.server.in_process import PlainHasher


class Said(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


#: Runs ``kotak admin WORDS`` on the broker's machine.
Admin = Callable[..., Said]


@contextmanager
def own_surroundings(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Give commands no setting and no session but this test's; make files for their owner."""
    for name in [name for name in os.environ if name.startswith("KOTAK_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(folder / "session.json"))
    old = os.umask(0o077)
    yield
    os.umask(old)


@contextmanager
def serving(config: Config) -> Iterator[Doors]:
    server = Server(config, hasher=PlainHasher())
    try:
        yield server.start()
    finally:
        server.stop()


def stopped_with_a_message(config: Config) -> Config:
    """Leave behind what a broker leaves that has ended: a session, and a message to fadly."""
    with serving(config) as doors, logged_in(doors, "shafwa", "mks") as client:
        client.send("fadly", "hai")
    return config


def administrator(config: Config, capsys: pytest.CaptureFixture[str]) -> Admin:
    return lambda *words: run(capsys, *words, "--data", str(config.data))


def run(capsys: pytest.CaptureFixture[str], *words: str) -> Said:
    capsys.readouterr()
    code = cli.main(["admin", *words])
    said = capsys.readouterr()
    return Said(code, said.out, said.err)


def logged_in(doors: Doors, user: str, password: str, device: str | None = None) -> Client:
    client = Client(doors.zmq)
    client.login(user, password, device=device)
    return client


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(RequestError) as raised:
        call()
    return raised.value.code
