"""The trial with canaries: a planted leak is found in each kind of place, and what belongs is not.

That nothing leaks is what the trial itself shows: ``scripts/hostile canary``.
"""

from __future__ import annotations

import secrets
import socket
import sqlite3
import subprocess
import sys
from contextlib import closing
from io import StringIO
from pathlib import Path
from typing import Any, Final

import pytest
from rich.console import Console

from broker.core.trail import NOT_SHOWN
from broker.transports.status import Status
from broker.wire.commands import PARSERS
from broker.wire.errors import WireError
from clients.prompt import SafeHistory
from tests.canaries import Canaries, Kind
from tests.core.fakes import ADMIN, World
from tests.core.test_trail import FakeAudit
from tests.hostile import canary
from tests.hostile.canary_evidence import PLACES, Evidence, Watched, add_database, add_files
from tests.hostile.canary_requests import malformed, meant, not_meant

KEY: Final = "Yne@$w-vo<fVvi]a<NY6T1ed:M$fCG*[IaLV{hID"


@pytest.fixture
def canaries() -> Canaries:
    return Canaries()


@pytest.fixture
def evidence(canaries: Canaries) -> Evidence:
    return Evidence(canaries)


def leaks(evidence: Evidence) -> dict[str, list[str]]:
    """Return the kinds that leaked, by place."""
    return {
        finding.place: [canary.kind.value for canary in finding.leaked]
        for finding in evidence.search()
        if finding.leaked
    }


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("kind", Kind)
def test_a_planted_secret_is_found_in_every_place_where_it_does_not_belong(
    place: str, kind: Kind, evidence: Evidence
) -> None:
    evidence.add(place, f"12:04 failed: {evidence.canaries.make(kind, 'planted')}\n")
    assert leaks(evidence) == ({} if kind in PLACES[place] else {place: [kind.value]})


def test_no_place_may_hold_a_password() -> None:
    assert all(Kind.PASSWORD not in allowed for allowed in PLACES.values())


def test_a_token_that_an_answer_told_is_looked_for_everywhere_else(evidence: Evidence) -> None:
    token = "kt_" + secrets.token_urlsafe(32)
    evidence.add("answers", f'[1, "OK", {{"token": "{token}"}}]')
    evidence.add("database files, raw", token.encode().hex())
    assert leaks(evidence) == {"database files, raw": ["token"]}


def test_a_session_file_may_hold_its_own_token_and_no_other(
    evidence: Evidence, tmp_path: Path
) -> None:
    own, other = ("kt_" + secrets.token_urlsafe(32) for _ in range(2))
    kept = tmp_path / "session.json"
    kept.write_text(f'{{"token": "{own}"}}')
    add_files(evidence, "session files", [kept])
    assert leaks(evidence) == {}
    kept.write_text(f'{{"token": "{own}", "former": "{other}"}}')
    add_files(evidence, "session files", [kept])
    assert leaks(evidence) == {"session files": ["token"]}


def test_each_column_of_a_database_is_a_place_of_its_own(
    evidence: Evidence, canaries: Canaries, tmp_path: Path
) -> None:
    body, password = canaries.make(Kind.BODY, "a text"), canaries.make(Kind.PASSWORD, "a password")
    hashed = f"$argon2id$v=19$m=8,t=1,p=1${secrets.token_hex(16)}${secrets.token_hex(16)}"
    path = tmp_path / "kotak.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE messages (seq INTEGER, sender TEXT, text TEXT)")
        database.execute("CREATE TABLE accounts (user TEXT, password_hash TEXT)")
        database.execute("INSERT INTO messages VALUES (1, 'siti', ?)", [body])
        database.execute("INSERT INTO accounts VALUES ('siti', ?)", [hashed])
    add_database(evidence, "database", path)
    assert leaks(evidence) == {}
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("INSERT INTO messages VALUES (2, ?, ?)", [hashed, password])
    add_database(evidence, "database", path)
    assert leaks(evidence) == {
        "database: messages.text": ["password"],
        "database: all other columns": ["hash"],
    }


def test_a_password_that_is_kept_as_anything_but_a_hash_ends_the_trial(
    evidence: Evidence, tmp_path: Path
) -> None:
    path = tmp_path / "kotak.db"
    with closing(sqlite3.connect(path)) as database, database:
        database.execute("CREATE TABLE accounts (user TEXT, password_hash TEXT)")
        database.execute("INSERT INTO accounts VALUES ('siti', 'plain')")
    with pytest.raises(AssertionError, match="something else"):
        add_database(evidence, "database", path)


def test_what_a_process_is_called_with_and_what_it_says_is_kept(
    evidence: Evidence, canaries: Canaries, tmp_path: Path
) -> None:
    argument, said = (canaries.make(Kind.PASSWORD, name) for name in ("argument", "said"))
    program = f"import sys; sys.stderr.write({said!r}); sys.stdin.read()"
    (tmp_path / "program.py").write_text(program)
    process = Watched(
        evidence, argument, out="commands' output", err="commands' errors",
        env={}, folder=tmp_path, module="program",
    )  # fmt: skip
    assert process.end() == 0
    assert leaks(evidence) == {"command lines": ["password"], "commands' errors": ["password"]}


def test_a_leak_is_told_by_its_name_alone_and_fails_the_trial(evidence: Evidence) -> None:
    secret = evidence.canaries.make(Kind.PASSWORD, "siti's")
    evidence.add("broker's log, text", secret)
    told = StringIO()
    assert canary.report(evidence.search(), Console(file=told, width=100), "1 secret") == 1
    assert "broker's log, text: a password: siti's" in told.getvalue()
    assert secret[:16] not in told.getvalue()


def test_a_run_without_leaks_passes(evidence: Evidence) -> None:
    evidence.add("database: messages.text", evidence.canaries.make(Kind.BODY, "a text"))
    told = StringIO()
    assert canary.report(evidence.search(), Console(file=told, width=100), "1 secret") == 0
    assert "no secret where none belongs; 1 secret" in told.getvalue()


def test_a_wrong_command_line_is_told_apart(tmp_path: Path) -> None:
    assert canary.main(["--nonsense"]) == 2
    (tmp_path / "there").touch()
    assert canary.main(["--keep", str(tmp_path)]) == 2


def test_every_command_is_asked_as_it_is_meant_and_as_it_is_not(canaries: Canaries) -> None:
    people = {"siti": "x", "budi": "y"}
    assert {asked.command for asked in meant(canaries, people, "here")} == set(PARSERS)
    assert {command for command, _ in not_meant(canaries, "here")} == set(PARSERS)
    assert sum(1 for _ in malformed(canaries, "here")) > 15


# --- What it has found -----------------------------------------------------------------------


def test_a_field_that_may_be_a_secret_is_not_repeated_to_who_sent_it() -> None:
    for parse in PARSERS.values():
        with pytest.raises(WireError, match="unknown field; ") as caught:
            parse({"Correct-Horse-7": "x"})
        assert "Horse" not in caught.value.message
        with pytest.raises(WireError, match="unknown field 'pasword'; "):
            parse({"pasword": "x"})


@pytest.mark.parametrize(
    ("command", "args", "told"),
    [
        ("login", {"user": "ann", "password": "x"}, {"user": "ann"}),
        # As good a name as any; but nobody has it.
        ("login", {"user": "horse.staple", "password": "x"}, {"user": NOT_SHOWN}),
        ("login", {"user": "Correct Horse!", "password": "x"}, {"user": NOT_SHOWN}),
        ("login", {"user": ["ann"], "password": "x"}, {"user": NOT_SHOWN}),
        ("key_add", {"user": "ann", "key": "Correct Horse!"}, {"user": "ann", "key": NOT_SHOWN}),
        ("key_add", {"user": "ann", "key": KEY}, {"user": "ann", "key": KEY}),
        ("broker_drain", {"on": False}, {"on": False}),
    ],
)
def test_the_audit_does_not_write_down_what_may_be_a_secret_in_the_wrong_place(
    command: str, args: dict[str, Any], told: dict[str, Any]
) -> None:
    audit = FakeAudit()
    world = World(audit=audit)
    world.user("ann")
    audit.clear()
    world.call(command, None if command == "login" else ADMIN, **args)
    assert [entry.args for entry in audit] == [told]


@pytest.mark.parametrize(
    "request_line", [b"Correct-Horse-7 x y z", b"GET /Correct-Horse-7 HTTP/9", b"Correct-Horse-7"]
)
def test_a_page_does_not_repeat_what_was_asked_for(request_line: bytes) -> None:
    status = Status(exposition=lambda: (b"", "text/plain"), ready=lambda: True)
    address = status.start("127.0.0.1", 0)
    try:
        with socket.create_connection(address, 30) as door:
            door.sendall(request_line + b"\r\n\r\n")
            answer = door.makefile("rb").read()
    finally:
        status.stop()
    assert b"Error code: " in answer
    assert b"Horse" not in answer


@pytest.mark.slow
def test_the_trial_holds(tmp_path: Path) -> None:
    ended = subprocess.run(
        [sys.executable, "-m", "tests.hostile", "canary"],
        check=False, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    assert ended.returncode == 0, ended.stdout + ended.stderr


def test_the_history_of_a_chat_forgets_every_line_that_may_hold_a_password() -> None:
    history = SafeHistory()
    for line in (
        "login siti Horse",
        "auth siti Horse",
        "lgin siti Horse",
        "Horse",
        "chat siti hai",
    ):
        history.append_string(line)
    assert history.get_strings() == ["chat siti hai"]
