"""The note through which `kotak user` finds the running broker."""

from __future__ import annotations

import errno
import json
import os
from pathlib import Path

import pytest

from broker.server.access import publish, withdraw
from broker.stores.folder import DataFolder


def test_the_note_is_for_its_owner_only_and_goes_when_it_is_withdrawn(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder:
        publish(folder, "tcp://127.0.0.1:1", "secret")
        publish(folder, "tcp://127.0.0.1:2", "secret")
        assert folder.admin_file.stat().st_mode & 0o777 == 0o600
        assert json.loads(folder.admin_file.read_text())["zmq"] == "tcp://127.0.0.1:2"
        withdraw(folder)
        withdraw(folder)
        assert not folder.admin_file.exists()


def test_a_full_disk_does_not_keep_the_broker_from_starting(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with DataFolder(tmp_path / "data") as folder:
        monkeypatch.setattr(os, "open", full)
        publish(folder, "tcp://127.0.0.1:1", "secret")
        monkeypatch.undo()
        assert not folder.admin_file.exists()
    assert "No space left" in caplog.text
    assert "secret" not in caplog.text
