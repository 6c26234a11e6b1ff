"""The saved session is whole, private, and never quoted."""

from __future__ import annotations

import json
import os
import stat
from dataclasses import asdict
from pathlib import Path

import pytest

from clients.session_file import (
    SESSION_BYTES_MAX,
    SavedSession,
    SessionFileError,
    delete_session,
    read_session,
    session_path,
    write_session,
)

SESSION = SavedSession(
    address="tcp://127.0.0.1:8890",
    user="shafwa",
    name="Shafwa ✓",
    token="kt_secret",
    expires_at_ms=1_700_000_000_000,
)


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    write_session(path, SESSION)
    assert read_session(path) == SESSION


def test_without_a_file_there_is_no_session(tmp_path: Path) -> None:
    assert read_session(tmp_path / "none" / "session.json") is None


def test_the_file_is_its_owners_alone_and_so_is_a_new_folder(tmp_path: Path) -> None:
    path = tmp_path / "kotak" / "session.json"
    before = os.umask(0)
    try:
        write_session(path, SESSION)
    finally:
        os.umask(before)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_writing_again_replaces_the_file_and_leaves_nothing_beside_it(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    path.write_text("{}")
    path.chmod(0o644)  # an unsafe file is replaced by a safe one, not written into
    write_session(path, SESSION)
    assert read_session(path) == SESSION
    assert [file.name for file in tmp_path.iterdir()] == ["session.json"]


def test_a_failed_write_leaves_the_old_session_and_no_temporary_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "session.json"
    write_session(path, SESSION)

    def full(_descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SessionFileError, match=r"cannot write .*: No space left on device"):
        write_session(path, SESSION)
    monkeypatch.undo()
    assert read_session(path) == SESSION
    assert [file.name for file in tmp_path.iterdir()] == ["session.json"]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o644])
def test_a_file_that_others_can_read_is_refused_with_the_remedy(tmp_path: Path, mode: int) -> None:
    path = tmp_path / "session.json"
    write_session(path, SESSION)
    path.chmod(mode)
    with pytest.raises(SessionFileError, match=r"others may read .*chmod 600") as refused:
        read_session(path)
    assert SESSION.token not in str(refused.value)


def test_a_file_of_another_user_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "session.json"
    write_session(path, SESSION)
    monkeypatch.setattr(os, "geteuid", lambda: path.stat().st_uid + 1)
    with pytest.raises(SessionFileError, match="belongs to another user"):
        read_session(path)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write_session(tmp_path / "real.json", SESSION)
    (tmp_path / "session.json").symlink_to(tmp_path / "real.json")
    with pytest.raises(SessionFileError, match="cannot read"):
        read_session(tmp_path / "session.json")


def test_a_named_pipe_is_refused_at_once(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "session.json", 0o600)
    with pytest.raises(SessionFileError, match="not a plain file"):
        read_session(tmp_path / "session.json")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not json",
        b"[]",
        b"\xff\xfe",
        b"{}",
        json.dumps({**asdict(SESSION), "token": None}).encode(),
        json.dumps({**asdict(SESSION), "expires_at_ms": True}).encode(),
        b"[" * 10_000,
        b" " * (SESSION_BYTES_MAX + 1),
    ],
)
def test_a_file_that_holds_no_session_is_refused_without_a_traceback(
    tmp_path: Path, content: bytes
) -> None:
    path = tmp_path / "session.json"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(SessionFileError, match="is not a Kotak session: delete it"):
        read_session(path)


def test_a_field_of_a_later_version_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    path.touch(0o600)
    path.write_text(json.dumps({**asdict(SESSION), "colour": "blue"}))
    assert read_session(path) == SESSION


def test_deleting_forgets_the_session_and_may_be_repeated(tmp_path: Path) -> None:
    path = tmp_path / "session.json"
    write_session(path, SESSION)
    delete_session(path)
    delete_session(path)
    assert read_session(path) is None


def test_a_folder_that_is_a_file_is_reported_in_words(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    path = tmp_path / "file" / "session.json"
    with pytest.raises(SessionFileError, match="cannot write the session file"):
        write_session(path, SESSION)
    with pytest.raises(SessionFileError, match="cannot read the session file"):
        read_session(path)
    with pytest.raises(SessionFileError, match="cannot delete the session file"):
        delete_session(path)


def test_the_token_is_not_part_of_the_printed_object() -> None:
    assert SESSION.token not in repr(SESSION)


def test_the_place_is_the_option_then_the_variable_then_xdg_then_home() -> None:
    environ = {"KOTAK_SESSION_FILE": "/a/b.json", "XDG_STATE_HOME": "/state", "HOME": "/home/x"}
    assert session_path(environ, "/c.json") == Path("/c.json")
    assert session_path(environ) == Path("/a/b.json")
    del environ["KOTAK_SESSION_FILE"]
    assert session_path(environ) == Path("/state/kotak/session.json")
    assert session_path({"XDG_STATE_HOME": "relative"}) == session_path({})
    assert session_path({}) == Path.home() / ".local/state/kotak/session.json"
