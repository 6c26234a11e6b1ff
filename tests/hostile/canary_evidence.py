"""What is kept of a run with canaries: every byte that came out, by the place where it did."""

from __future__ import annotations

import os
import re
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterable, Mapping
from contextlib import closing, suppress
from pathlib import Path
from typing import IO, Final, NamedTuple, TypeVar

from tests.canaries import Canaries, Canary, Kind

ROOT: Final = Path(__file__).resolve().parents[2]
PATIENCE_S: Final = 60.0

_Found = TypeVar("_Found")
#: A token, wherever it stands: those that the broker made are looked for as well.
_TOKEN: Final = re.compile(rb"kt_[A-Za-z0-9_-]{43}")

#: Every place, and which kinds of secrets belong there. A kind that is not named is a leak.
PLACES: Final[Mapping[str, frozenset[Kind]]] = {
    "broker's log, text": frozenset(),
    "broker's log, JSON": frozenset(),
    "broker's output": frozenset(),
    "log and crash dump of a faulty broker": frozenset(),
    "gateway's log and output": frozenset(),
    "core dumps": frozenset(),
    "audit log": frozenset(),
    "metrics and health": frozenset(),
    "refusals": frozenset(),
    "answers": frozenset({Kind.BODY, Kind.TOKEN}),
    "commands' errors": frozenset(),
    "commands' output": frozenset({Kind.BODY}),
    # The words of 2020: "username USER logged in, token TOKEN".
    "kotak text's output": frozenset({Kind.BODY, Kind.TOKEN}),
    # Who gives a text as an argument has put it there.
    "command lines": frozenset({Kind.BODY}),
    "history of the chats": frozenset({Kind.BODY}),
    "home folder": frozenset(),
    # A token and a pair of keys of this broker's life; as the session files, its own and no other.
    "admin.json": frozenset(),
    "session files": frozenset(),
    "key files": frozenset({Kind.KEY}),
    "database: messages.text": frozenset({Kind.BODY}),
    "database: accounts.password_hash": frozenset({Kind.HASH}),
    "database: all other columns": frozenset(),
    "database files, raw": frozenset({Kind.BODY, Kind.HASH}),
    "journal, raw": frozenset({Kind.BODY}),
    "backups: messages.text": frozenset({Kind.BODY}),
    "backups: accounts.password_hash": frozenset({Kind.HASH}),
    "backups: all other columns": frozenset(),
    "backups, raw": frozenset({Kind.BODY, Kind.HASH}),
    "other files of the data folder": frozenset(),
}


class Item(NamedTuple):
    """Bytes from one place; ``own`` are the secrets that this very item may hold."""

    data: bytes
    own: frozenset[bytes] = frozenset()


class Finding(NamedTuple):
    """What was found in one place."""

    place: str
    searched_bytes: int
    allowed: list[Canary]
    leaked: list[Canary]


class Evidence:
    """What came out, by place. Any thread may add."""

    def __init__(self, canaries: Canaries) -> None:
        self.canaries = canaries
        self._items: dict[str, list[Item]] = {place: [] for place in PLACES}

    def add(self, place: str, data: bytes | str, *, own: Iterable[bytes] = ()) -> None:
        """Keep ``data``. Errors: `KeyError` for a place that is not in `PLACES`."""
        text = data.encode(errors="backslashreplace") if isinstance(data, str) else data
        self._items[place].append(Item(text, frozenset(own)))

    def learn_tokens(self, data: bytes) -> None:
        """Look for every token that stands in ``data`` from now on."""
        for token in _TOKEN.findall(data):
            self.canaries.know(Kind.TOKEN, "a token of the run", token)

    def search(self, show: Callable[[str], None] = lambda _: None) -> list[Finding]:
        """Look for every canary in every place."""
        for items in self._items.values():
            for item in items:
                self.learn_tokens(item.data)
        return [self._search(place, show) for place in PLACES]

    def _search(self, place: str, show: Callable[[str], None]) -> Finding:
        show(place)
        allowed: dict[Canary, None] = {}
        leaked: dict[Canary, None] = {}
        for item in self._items[place]:
            for canary in self.canaries.found_in(item.data):
                fits = canary.kind in PLACES[place] or canary.text in item.own
                (allowed if fits else leaked)[canary] = None
        size = sum(len(item.data) for item in self._items[place])
        return Finding(place, size, list(allowed), list(leaked))


# --- Processes -------------------------------------------------------------------------------


class Watched:
    """A process of the run: what it was called with, and all that it said; a context manager."""

    def __init__(
        self,
        evidence: Evidence,
        *words: str,
        out: str,
        err: str,
        env: Mapping[str, str],
        folder: Path,
        module: str = "broker.cli",
    ) -> None:
        """``out``, ``err``: the places of its output."""
        self._evidence, self._places = evidence, (out, err)
        self.process = subprocess.Popen(
            [sys.executable, "-m", module, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            cwd=folder, env={**env, "PYTHONPATH": str(ROOT)}, start_new_session=True,
        )  # fmt: skip
        evidence.add("command lines", _command_line(self.process))
        self.said = (bytearray(), bytearray())
        streams = (self.process.stdout, self.process.stderr)
        self._readers = [
            threading.Thread(target=_collect, args=pair)
            for pair in zip(streams, self.said, strict=True)
        ]
        for reader in self._readers:
            reader.start()

    def end(self, typed: bytes = b"") -> int:
        """Give it ``typed``, wait for its end, keep what it said, and return its exit code."""
        assert self.process.stdin
        with suppress(BrokenPipeError):
            self.process.stdin.write(typed)
            self.process.stdin.close()
        try:
            code = self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise
        finally:
            self.process.wait()
            for reader in self._readers:
                reader.join()
            for place, said in zip(self._places, self.said, strict=True):
                self._evidence.add(place, bytes(said))
        return code

    def wait_for(self, pattern: re.Pattern[bytes]) -> re.Match[bytes]:
        """Wait until ``pattern`` stands in its output. Errors: `AssertionError` where it ends."""

        def look() -> re.Match[bytes] | None:
            gone = self.process.poll() is not None
            found = pattern.search(bytes(self.said[0]))
            assert found or not gone, self.said[1].decode(errors="replace")
            return found

        return eventually(look)


def eventually(look: Callable[[], _Found | None]) -> _Found:
    """Return what ``look`` finds, as soon as it finds something."""
    pause = threading.Event()
    for _ in range(int(PATIENCE_S * 50)):
        found = look()
        if found:
            return found
        pause.wait(0.02)
    raise AssertionError("it did not come")


def _command_line(process: subprocess.Popen[bytes]) -> bytes:
    """Return what everybody on the machine can read of a process, once it is the program."""
    path = Path(f"/proc/{process.pid}/cmdline")
    while process.poll() is None:
        # Empty for a moment, while the kernel puts the program in its place.
        if found := path.read_bytes():
            return found
    return b""


def _collect(stream: IO[bytes] | None, said: bytearray) -> None:
    assert stream
    with stream:
        while received := os.read(stream.fileno(), 65_536):
            said += received


# --- Files -----------------------------------------------------------------------------------


def add_files(evidence: Evidence, place: str, paths: Iterable[Path]) -> None:
    """Keep what each file holds. A session's file, or `admin.json`, may hold its own secrets."""
    for path in paths:
        content = path.read_bytes()
        evidence.add(place, content, own=_TOKEN.findall(content)[:1])


def add_database(evidence: Evidence, kind: str, path: Path) -> None:
    """Keep every column of every table, and learn the hashes that stand in it; not the files.

    ``kind``: ``database`` or ``backups``. Nobody else has it open: it is read through its log.
    """
    with closing(sqlite3.connect(path)) as database:
        tables = [
            name
            for (name,) in database.execute("SELECT name FROM sqlite_schema WHERE type = 'table'")
        ]
        for table in tables:
            rows = database.execute(f'SELECT * FROM "{table}"')
            columns = [column[0] for column in rows.description]
            for column, values in zip(columns, zip(*rows, strict=True), strict=False):
                _add_column(evidence, kind, f"{table}.{column}", values)


def _add_column(evidence: Evidence, kind: str, column: str, values: Iterable[object]) -> None:
    content = [value if isinstance(value, bytes) else str(value).encode() for value in values]
    if column == "accounts.password_hash":
        for value in content:
            assert value.startswith(b"$argon2id$"), "a password is kept as something else"
            evidence.canaries.know(Kind.HASH, "a password's hash", value)
    place = f"{kind}: {column}"
    evidence.add(place if place in PLACES else f"{kind}: all other columns", b"\n".join(content))
