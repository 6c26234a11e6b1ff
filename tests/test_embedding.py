"""A broker inside this process, as other people's tests use it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from broker.config import ConfigError
from broker.embedding import Broker
from clients import BadCredentials, Client
from clients.text_connection import TextConnection


def test_a_message_goes_through_a_broker_of_this_process() -> None:
    with (
        Broker(users={"ann": "secret", "bob": "secret"}) as broker,
        Client(broker.address) as ann,
        Client(broker.address) as bob,
    ):
        ann.login("ann", "secret")
        bob.login("bob", "secret")
        receipt = ann.send("bob", "hi")
        assert receipt.durability == "memory"
        assert [each.text for each in bob.inbox().messages] == ["hi"]


def test_two_of_them_know_nothing_of_each_other() -> None:
    with Broker(users={"ann": "secret"}) as first, Broker() as second:
        assert first.address != second.address
        with Client(second.address) as client, pytest.raises(BadCredentials):
            client.login("ann", "secret")


def test_nothing_is_left_behind(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    before, mask = threading.active_count(), os.umask(0o022)
    try:
        with Broker(users={"ann": "secret"}):
            assert any(tmp_path.iterdir())
        assert not any(tmp_path.iterdir())
        assert threading.active_count() == before
        assert os.umask(0o022) == 0o022, "the program's own files keep their modes"
    finally:
        os.umask(mask)


def test_a_durable_one_finds_its_messages_again(tmp_path: Path) -> None:
    folder = str(tmp_path / "data")
    with (
        Broker(store="sqlite:", data=folder, users={"ann": "secret"}) as broker,
        Client(broker.address) as client,
    ):
        client.login("ann", "secret")
        assert client.send("ann", "to myself").durability == "fsync"
    with Broker(store="sqlite:", data=folder) as broker, Client(broker.address) as client:
        client.login("ann", "secret")
        assert [each.text for each in client.inbox().messages] == ["to myself"]


def test_any_setting_may_be_given_and_a_wrong_one_is_named() -> None:
    with Broker(text="127.0.0.1:0", users={"ann": "secret"}) as broker:
        assert broker.doors.text is not None
        with TextConnection(broker.doors.text.host, broker.doors.text.port) as text:
            assert text.login("ann", "secret")
    with pytest.raises(ConfigError, match="workers"):
        Broker(workers=1_000)


def test_an_address_before_the_start_is_a_sentence() -> None:
    with pytest.raises(RuntimeError, match="with statement"):
        _ = Broker().address
