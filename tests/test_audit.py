"""The audit's file: what a line holds, who may read it, how far it grows, what a fault does."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from broker.audit import OLD_FILES_MAX, AuditLog
from broker.core.model import AuditEntry

ENTRY = AuditEntry(
    1_700_000_000_123, "user_role", "ann", "127.0.0.1", 7, {"user": "bob", "role": "admin"}, "OK"
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "audit.log"


@pytest.fixture
def audit(path: Path) -> Iterator[AuditLog]:
    audit = AuditLog(path, bytes_max=1_000)
    yield audit
    audit.close()


def lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text("ascii").splitlines()]


def test_a_line_says_who_did_what_from_where_and_what_came_of_it(
    audit: AuditLog, path: Path
) -> None:
    audit.note(ENTRY)
    assert lines(path) == [
        {
            "at": "2023-11-14T22:13:20.123Z",
            "command": "user_role",
            "by": "ann",
            "from": "127.0.0.1",
            "request": 7,
            "args": {"user": "bob", "role": "admin"},
            "outcome": "OK",
        }
    ]


def test_nobody_can_begin_a_line_of_their_own(audit: AuditLog, path: Path) -> None:
    audit.note(ENTRY._replace(args={"user": 'x\n{"by": "ann"}\r\u2028\x1b[2J%s'}))
    (line,) = lines(path)
    assert line["args"]["user"].startswith("x\n")
    assert path.read_bytes().count(b"\n") == 1
    assert b"\x1b" not in path.read_bytes()


def test_the_files_are_their_owners_alone_and_bounded(audit: AuditLog, path: Path) -> None:
    for _ in range(200):
        audit.note(ENTRY)
    files = sorted(path.parent.iterdir())
    assert len(files) == 1 + OLD_FILES_MAX
    assert all(each.stat().st_size <= 1_000 for each in files)
    assert {each.stat().st_mode & 0o777 for each in files} == {0o600}


def test_it_goes_on_where_it_ended(audit: AuditLog, path: Path) -> None:
    audit.note(ENTRY)
    audit.close()
    again = AuditLog(path)
    again.note(ENTRY._replace(outcome="forbidden"))
    again.close()
    assert [each["outcome"] for each in lines(path)] == ["OK", "forbidden"]


def test_what_cannot_be_written_is_counted_and_said_once(
    audit: AuditLog, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path.mkdir()
    with caplog.at_level(logging.ERROR, "kotak.audit"):
        audit.note(ENTRY)
        audit.note(ENTRY)
    assert audit.dropped == 2
    assert caplog.messages == ["the audit has gaps: audit.log cannot be written"]
