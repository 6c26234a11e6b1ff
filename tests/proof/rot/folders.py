"""Data folders to be damaged, and what stands in them."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

from broker.stores.folder import DATABASE_FILE
from tests.proof.disk.course import DONE, Course
from tests.proof.disk.model import content_of, put_back, used_bytes
from tests.proof.disk.running import live
from tests.proof.disk.store_calls import StoreCalls

_TABLES = {
    "messages": "SELECT seq, mailbox, sender, message_id, stored_ms, text FROM messages",
    "readers": "SELECT mailbox || '/' || device, seq FROM readers",
    "accounts": "SELECT id, user, name, password_hash, since FROM accounts",
}


class Content(NamedTuple):
    """What a database says: rows by key of each table that must not lose any, and its history."""

    rows: dict[str, dict[Any, tuple[Any, ...]]]
    epoch: int
    lost: tuple[int, int]


class Folder(NamedTuple):
    """A folder as it lay there, and what it holds."""

    name: str
    image: dict[str, bytes]
    content: Content


def make_folders(place: Path, seed: int) -> list[Folder]:
    """Make a folder that was left in good order, and three whose broker was killed.

    Of those, one has almost everything in its log, one most of it in the database, and one in its
    journal.
    """
    stopped = Course(seed, batches=60, text_bytes_max=900)
    in_log = Course(seed, text_bytes_max=900, journalled_max=1)
    in_both = Course(seed, text_bytes_max=900, journalled_max=10, checkpoint_pages=100)
    in_journal = Course(seed, text_bytes_max=900, tidies=False)
    return [
        _make(place / "stopped", stopped, 0),
        _make(place / "killed", in_log, 120),
        _make(place / "checkpointed", in_both, 150),
        _make(place / "journalled", in_journal, 150),
    ]


def _make(folder: Path, course: Course, kill_after: int) -> Folder:
    folder.mkdir(mode=0o700, parents=True)
    ended = live(folder, course, {}, kill_after=kill_after)
    assert ended.code in (DONE, -9), ended.complaint
    image = content_of(folder)
    with closing(StoreCalls(folder)) as store:
        content = read_content(store)
    put_back(folder, image)
    return Folder(folder.name, image, content)


def read_content(store: StoreCalls) -> Content:
    """Read all rows back. Errors: `sqlite3.Error`, where the damage is met only now."""
    engine = store._store
    database: sqlite3.Connection = engine._database
    rows = {name: dict(_by_key(database, query)) for name, query in _TABLES.items()}
    lost = engine.epoch.lost
    return Content(rows, engine.epoch.number, (lost.first, lost.last))


def _by_key(database: sqlite3.Connection, query: str) -> Iterator[tuple[Any, tuple[Any, ...]]]:
    for key, *values in database.execute(query):
        yield key, tuple(values)


__all__ = ["DATABASE_FILE", "Content", "Folder", "make_folders", "read_content", "used_bytes"]
