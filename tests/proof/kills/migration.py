"""Kills in the migrations from schema 1 to the present one, at each statement and within.

    python -m tests.proof.kills.migration FOLDER STATEMENT STEPS     one attempt, which dies there

A process dies before the ``STATEMENT``-th statement of the migration, or once SQLite's machine has
made ``STEPS`` thousand steps in it (0: not so). Then the file must be of one schema or of
another, whole, and a start must find everything that was in it.
"""

from __future__ import annotations

import random
import sqlite3
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from signal import SIGKILL
from typing import Final

from broker.stores import sqlite_schema
from broker.stores.folder import DATABASE_FILE
from tests.proof.disk.course import DONE, USERS
from tests.proof.disk.model import content_of, put_back
from tests.proof.disk.running import ROOT, scratch
from tests.proof.disk.store_calls import StoreCalls, text_of
from tests.proof.disk.verdict import judge
from tests.proof.history import OK, Ack, Read, Record, Seen, Send, digest
from tests.proof.kills.points import Countdown, die

_MESSAGES: Final = 600
#: Cursors of users that have long gone: what the migration copies takes many steps of the machine.
_CURSORS: Final = 3_000
_STEPS_UNIT: Final = 1_000
_SECONDS_MAX: Final = 60


@dataclass
class Migrations:
    """What came of them. ``left`` counts the attempts by the schema that was found afterwards."""

    statements: int = 0
    killed: int = 0
    left: dict[int, int] = field(default_factory=dict)
    breaches: list[str] = field(default_factory=list)


def kill_migrations(
    stride: int, within: int, seed: int, show: Callable[[int, int], None] = lambda *_: None
) -> Migrations:
    """Kill before each ``stride``-th statement, and ``within`` times anywhere in the midst."""
    result, rng = Migrations(), random.Random(seed)
    with scratch() as place:
        data = place / "data"
        data.mkdir(mode=0o700)
        past = _make_version_1(data / DATABASE_FILE)
        image = content_of(data)
        attempt = _Attempts(data, image, past, result)
        result.statements, steps = attempt.count()
        # The last one falls behind the end: the new schema stands, and nothing else was done yet.
        places = {*range(1, result.statements + 1, stride), result.statements + 1}
        moments = [(number, 0) for number in sorted(places)]
        moments += [(0, rng.randint(1, max(1, steps))) for _ in range(within)]
        for number, moment in enumerate(moments, 1):
            attempt.one(*moment)
            show(number, len(moments))
    return result


class _Attempts:
    """Attempts to migrate, each on the same file of version 1."""

    def __init__(
        self, data: Path, image: dict[str, bytes], past: list[Record], result: Migrations
    ) -> None:
        self._data, self._image, self._past, self._result = data, image, past, result

    def count(self) -> tuple[int, int]:
        """Let one come to its end: how many statements it had, and thousands of steps."""
        ended = self._run(0, 0)
        assert ended.returncode == DONE, ended.stderr.decode()
        statements, steps = map(int, ended.stdout.split())
        return statements, steps

    def one(self, statement: int, steps: int) -> None:
        """Let one die there, and judge what it has left."""
        result = self._result
        ended = self._run(statement, steps)
        result.killed += ended.returncode == -SIGKILL
        where = f"statement {statement}" if statement else f"{steps} thousand steps"
        found = [*self._whole(), *judge(self._data, self._past)]
        result.breaches += [f"{where}: {each}" for each in found]

    def _run(self, statement: int, steps: int) -> subprocess.CompletedProcess[bytes]:
        put_back(self._data, self._image)
        words = [str(self._data), str(statement), str(steps)]
        return subprocess.run(
            [sys.executable, "-m", "tests.proof.kills.migration", *words],
            cwd=ROOT,
            capture_output=True,
            check=False,
            timeout=_SECONDS_MAX,
        )

    def _whole(self) -> Iterator[str]:
        """Tell what is of neither schema. Reads a copy, as looking rolls the log back."""
        copy = self._data.with_name("copy")
        put_back(copy, content_of(self._data))
        with closing(sqlite3.connect(copy / DATABASE_FILE)) as database:
            (version,) = database.execute("PRAGMA user_version").fetchone()
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_schema")}
        self._result.left[version] = self._result.left.get(version, 0) + 1
        if not 1 <= version <= len(sqlite_schema.MIGRATIONS):
            yield f"a file of version {version}"
        elif ("cursors" in tables) != (version == 1) or ("readers" in tables) != (version > 1):
            yield f"a file of version {version} with the tables {sorted(tables)}"


def _make_version_1(path: Path) -> list[Record]:
    """Make a file as version 1 wrote it, in use; return what its users know."""
    path.touch(0o600)
    with closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA auto_vacuum = INCREMENTAL")
        database.execute("PRAGMA journal_mode = WAL")
        database.executescript(
            f"BEGIN; {sqlite_schema.MIGRATIONS[0]}; PRAGMA user_version = 1;"
            f" PRAGMA application_id = {sqlite_schema.APPLICATION_ID};"
        )
        for key, user in enumerate(USERS, 1):
            account = (key, user, user, "no password fits")
            database.execute("INSERT INTO accounts VALUES (?, ?, ?, ?)", account)
        for key in range(1_000, 1_000 + _CURSORS):
            name = f"gone{key}"
            database.execute("INSERT INTO accounts VALUES (?, ?, ?, '')", (key, name, name))
            database.execute("INSERT INTO cursors VALUES (?, 1)", (key,))
        records = list(_messages(database))
        database.execute("COMMIT")
    return records


def _messages(database: sqlite3.Connection) -> Iterator[Record]:
    """Store messages by turns, half of them acknowledged."""
    at = 0
    for seq in range(1, _MESSAGES + 1):
        to, sender = USERS[seq % 3], USERS[seq // 3 % 3]
        message_id = f"v1.{seq}-{seq % 200 + 8}"
        text = text_of(message_id)
        database.execute(
            "INSERT INTO messages VALUES (?, ?, ?, ?, 1, ?)",
            (seq, seq % 3 + 1, sender, message_id, text),
        )
        at += 2
        yield Send(sender, to, message_id, seq, digest(text), at, at + 1, OK, seq)
    for key, user in enumerate(USERS, 1):
        half = _MESSAGES // 2 // 3 * 3 - 3 + (key - 1 or 3)
        seen = tuple(
            Seen(seq, USERS[seq // 3 % 3], f"v1.{seq}-{seq % 200 + 8}",
                 digest(text_of(f"v1.{seq}-{seq % 200 + 8}")))
            for seq in range(1, half + 1) if seq % 3 + 1 == key
        )  # fmt: skip
        database.execute("INSERT INTO cursors VALUES (?, ?)", (key, half))
        yield Read(user, at + 1, at + 2, OK, messages=seen)
        yield Ack(user, half, at + 3, at + 4, OK)
        at += 4


def main(folder: Path, statement: int, steps: int) -> int:
    """Migrate, or die on the way. Without either moment: print how long that way is."""
    migrate, statements, made = sqlite_schema._migrate, [0], [0]
    at_statement, at_step = Countdown(statement or -1), Countdown(steps or -1)

    def traced(database: sqlite3.Connection) -> None:
        def step() -> int:
            made[0] += 1
            at_step()
            return 0

        def begun(_: str) -> None:
            statements[0] += 1
            at_statement()

        database.set_trace_callback(begun)
        database.set_progress_handler(step, _STEPS_UNIT)
        migrate(database)
        database.set_progress_handler(None, _STEPS_UNIT)
        database.set_trace_callback(None)

    sqlite_schema._migrate = traced
    store = StoreCalls(folder)
    if statement or steps:
        die()  # it came to its end before: the kill falls right behind it
    store.close()
    sys.stdout.write(f"{statements[0]} {made[0]}\n")
    return DONE


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
