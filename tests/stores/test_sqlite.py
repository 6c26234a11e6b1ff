"""The durable store beyond the contract: its file, its settings and its restarts."""

from __future__ import annotations

import errno
import multiprocessing
import os
import sqlite3
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import pytest

from broker.core.dedup import DedupLimits
from broker.core.model import SessionRecord
from broker.core.ports import (
    DEFAULT_LIMITS,
    StoreLimits,
    StoreUnusableError,
)
from broker.stores import open_store, sqlite_schema
from broker.stores.folder import DataFolder, FolderHeldError, was_used
from broker.stores.memory import MemoryStore
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_schema import APPLICATION_ID, MIGRATIONS, open_database
from tests.stores.sqlite_steps import (
    BOB,
    acknowledge,
    as_killed,
    ids,
    make,
    open_at,
    pragma,
    send,
)

#: What lies in the folder after an orderly end.
LEFT = {"kotak.db", "kotak.seen", "kotak.ballast"}
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "kotak.db"


@pytest.fixture
def store(path: Path) -> Iterator[SqliteStore]:
    store = open_at(path)
    with store.batch():
        store.put(BOB)
    yield store
    store.close()


def contents(folder: Path) -> dict[str, bytes]:
    return {each.name: each.read_bytes() for each in folder.iterdir()}


def refused(path: Path, words: str) -> None:
    before = contents(path.parent)
    with pytest.raises(StoreUnusableError, match=words):
        open_at(path)
    assert contents(path.parent) == before, "a refused file must stay as it is"


# --- how it is set ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("journal_mode", "wal"),
        ("synchronous", 2),
        ("foreign_keys", 1),
        ("fullfsync", 1),
        ("checkpoint_fullfsync", 1),
        ("application_id", APPLICATION_ID),
        ("user_version", len(MIGRATIONS)),
    ],
)
def test_what_the_promise_needs_is_set(store: SqliteStore, name: str, value: object) -> None:
    assert pragma(store, name) == value


def test_a_setting_that_does_not_stick_is_refused_and_the_next_start_begins_anew(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sqlite_schema._PRAGMAS, "page_size", 123)
    with pytest.raises(StoreUnusableError, match="would not set page_size"):
        open_at(path)
    monkeypatch.undo()
    make(path, "m1")


@pytest.mark.parametrize(("number", "opens"), [(errno.ENOSPC, True), (errno.EIO, False)])
def test_a_full_disk_lets_the_broker_start_and_a_failing_one_does_not(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, *, opens: bool
) -> None:
    make(path, "m1")

    def fail(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fail)
    if opens:
        store = open_at(path)
        assert ids(store) == ["m1"]
        store.close()
    else:
        with pytest.raises(StoreUnusableError, match="cannot be used"):
            open_at(path)
        monkeypatch.undo()
        open_at(path).close()


def test_a_reader_keeps_its_wal_while_the_store_is_opened(path: Path) -> None:
    make(path, "m1")
    first = open_at(path, journal=False)
    send(first, "m2")
    reader = sqlite3.connect(path, isolation_level=None)
    reader.execute("BEGIN")
    assert reader.execute("SELECT count(*) FROM messages").fetchone() == (2,)
    send(first, "m3")
    second = sqlite3.connect(path, isolation_level=None, timeout=0)
    sqlite_schema._extend_wal(second, path)
    assert reader.execute("SELECT count(*) FROM messages").fetchone() == (2,)
    reader.close()
    second.close()
    first.close()
    again = open_at(path)
    assert ids(again) == ["m1", "m2", "m3"]
    again.close()


def test_damage_within_a_page_is_found_at_the_start(path: Path) -> None:
    make(path, *(str(number) for number in range(2_000)))
    whole = bytearray(path.read_bytes())
    whole[5 * 4096 : 5 * 4096 + 64] = b"\xff" * 64
    path.write_bytes(bytes(whole))
    refused(path, "damaged|cannot be used")


def test_one_connection_does_everything(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[object] = []
    connect = sqlite3.connect

    def counted(*args: Any, **options: Any) -> sqlite3.Connection:
        made.append(args)
        return cast("sqlite3.Connection", connect(*args, **options))

    monkeypatch.setattr(sqlite3, "connect", counted)
    make(path, "m1", "m2")
    assert made == [(path.with_name("kotak.db.new"),), (path,)], "one makes the file, one uses it"


def test_every_file_is_for_its_owner_only(path: Path) -> None:
    before = os.umask(0o022)
    try:
        store = open_at(path)
        with store.batch():
            store.put(BOB)
        modes = {each.name: stat.S_IMODE(each.stat().st_mode) for each in path.parent.iterdir()}
        store.close()
    finally:
        os.umask(before)
    assert set(modes.values()) == {0o600}
    assert set(modes) == {"kotak.db-wal", "kotak.db-shm", "kotak.journal"} | LEFT


def test_closing_empties_wal_and_journal(path: Path) -> None:
    make(path, "m1")
    assert {each.name for each in path.parent.iterdir()} == LEFT


# --- the folder ------------------------------------------------------------------------------


def test_a_folder_is_made_private_and_one_open_to_others_is_refused(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "a" / "b") as folder:
        assert stat.S_IMODE(folder.path.stat().st_mode) == 0o700
        assert folder.admin_file.parent == folder.path
    (tmp_path / "a" / "b").chmod(0o750)
    with pytest.raises(StoreUnusableError, match="chmod 700"):
        DataFolder(tmp_path / "a" / "b")


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreUnusableError, match="cannot be used"):
        DataFolder(tmp_path / "file" / "data")


def test_a_folder_that_cannot_even_be_looked_for_counts_as_unused_and_is_refused(
    tmp_path: Path,
) -> None:
    """Whoever looks first whether a broker runs there must not end in a traceback."""
    unspeakable = tmp_path / ("x" * 300)
    assert not was_used(unspeakable)
    with pytest.raises(StoreUnusableError, match="cannot be used: File name too long"):
        DataFolder(unspeakable)


def test_a_second_broker_on_the_folder_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data"), pytest.raises(FolderHeldError, match="another broker"):
        DataFolder(tmp_path / "data")
    DataFolder(tmp_path / "data").close()


def _hold(path: Path, answers: Any) -> None:
    try:
        DataFolder(path).close()
    except FolderHeldError:
        answers.put("held")
    else:
        answers.put("free")


def test_a_second_process_on_the_folder_is_refused(tmp_path: Path) -> None:
    answers = SPAWN.Queue()
    with DataFolder(tmp_path / "data"):
        other = SPAWN.Process(target=_hold, args=(tmp_path / "data", answers))
        other.start()
        assert answers.get(timeout=30) == "held"
        other.join(30)
        other.close()
    answers.close()
    answers.join_thread()


def test_a_url_names_the_engine(tmp_path: Path) -> None:
    with DataFolder(tmp_path / "data") as folder:
        memory, sqlite = (open_store(url, folder, DEFAULT_LIMITS) for url in ("memory:", "sqlite:"))
        assert isinstance(memory, MemoryStore)
        assert isinstance(sqlite, SqliteStore)
        memory.close()
        sqlite.close()
        assert folder.database.exists()
        with pytest.raises(StoreUnusableError, match="use sqlite:, memory: or redis:"):
            open_store("postgres:", folder, DEFAULT_LIMITS)


# --- files that are not to be opened ---------------------------------------------------------


def test_somebody_elses_database_is_left_alone(path: Path) -> None:
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE theirs (x)")
    foreign.commit()
    foreign.close()
    refused(path, "not a Kotak database")


def test_a_newer_version_is_left_alone(path: Path) -> None:
    make(path, "m1")
    database = sqlite3.connect(path)
    database.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
    database.close()
    refused(path, "newer Kotak")


def test_a_damaged_header_is_left_alone(path: Path) -> None:
    make(path, "m1")
    path.write_bytes(b"garbage!" * 2 + path.read_bytes()[16:])
    refused(path, "cannot be used")


def test_damage_that_lets_it_be_opened_is_found_before_anything_is_written(path: Path) -> None:
    make(path, "m1")
    whole = bytearray(path.read_bytes())
    whole[36:40] = (7).to_bytes(4, "big")  # the header counts free pages that are not there
    path.write_bytes(whole)
    refused(path, "is damaged: restore a backup")


@pytest.mark.parametrize("keep", [0.1, 0.5, 0.9])
def test_a_truncated_file_is_left_alone(path: Path, keep: float) -> None:
    make(path, *(str(number) for number in range(2_000)))
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * keep)])
    refused(path, "damaged|cannot be used")


def test_an_empty_file_is_left_alone(path: Path) -> None:
    path.touch()
    refused(path, "is empty, so it was damaged")


def test_a_wal_without_its_database_is_left_alone(path: Path) -> None:
    path.with_name("kotak.db-wal").write_bytes(b"committed messages")
    refused(path, "is gone but kotak.db-wal is there")


def test_damage_that_shows_only_in_reading_is_told_in_one_sentence(path: Path) -> None:
    make(path, "m1")
    database = sqlite3.connect(path)
    database.execute("DROP TABLE readers")
    database.close()
    with pytest.raises(StoreUnusableError, match="cannot be read"):
        open_at(path, check=False)


def test_a_first_start_that_was_killed_does_not_lock_out_the_second(path: Path) -> None:
    database = sqlite3.connect(path)
    database.execute("PRAGMA journal_mode = wal")  # as far as it came
    database.close()
    assert path.stat().st_size > 0
    make(path, "m1")


def test_a_first_start_that_was_cut_short_leaves_nothing_that_counts(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", (*MIGRATIONS, "broken here;"))
    with pytest.raises(StoreUnusableError, match="cannot be used"):
        open_at(path)
    assert not path.exists()
    monkeypatch.undo()
    path.with_name("kotak.db.new").write_bytes(b"torn by a power cut")
    make(path, "m1")
    assert {each.name for each in path.parent.iterdir()} == LEFT


# --- migrations ------------------------------------------------------------------------------


def test_a_migration_that_breaks_off_leaves_the_old_version_and_all_messages(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make(path, "m1")
    step = "CREATE TABLE next (x);\nDELETE FROM messages;\nbroken here;"
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", (*MIGRATIONS, step))
    with pytest.raises(StoreUnusableError, match="cannot be used"):
        open_database(path)
    monkeypatch.undo()
    store = open_at(path)
    assert pragma(store, "user_version") == len(MIGRATIONS)
    assert ids(store) == ["m1"]
    store.close()


def test_a_new_migration_is_applied_once(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    make(path, "m1")
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", (*MIGRATIONS, "CREATE TABLE next (x);"))
    for _ in range(2):
        store = open_at(path)
        assert pragma(store, "user_version") == len(MIGRATIONS) + 1
        assert ids(store) == ["m1"]
        store.close()


# --- restarts --------------------------------------------------------------------------------


def test_a_kill_loses_nothing_that_was_committed(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    seqs = send(store, "m1", "m2", "m3")
    acknowledge(store, seqs[0])
    with store.batch():
        store.put(SessionRecord(b"d" * 32, "bob", 1, 2))
    after = open_at(as_killed(path, tmp_path / "after"))
    assert ids(after) == ["m2", "m3"]
    assert after.find(SessionRecord, b"d" * 32) is not None
    assert send(after, "m2", "m4") == [seqs[1], seqs[2] + 1], "ids and sequence go on"
    after.close()


def test_a_kill_in_the_middle_of_a_batch_leaves_none_of_it(
    store: SqliteStore, path: Path, tmp_path: Path
) -> None:
    send(store, "m1")
    with store.batch():
        store.append("bob", "ann", "m2", "hi", 1_000)
        store.tidy(1_000)
        assert store._database.execute("SELECT count(*) FROM messages").fetchone() == (2,)
        killed = as_killed(path, tmp_path / "after")
    after = open_at(killed)
    assert ids(after) == ["m1"]
    after.close()


def _send_and_die(path: Path) -> None:
    store = open_at(path)
    send(store, "from a child")
    os._exit(9)


def test_a_process_that_dies_without_closing_loses_nothing(path: Path) -> None:
    make(path, "m1")
    child = SPAWN.Process(target=_send_and_die, args=(path,))
    child.start()
    child.join(30)
    assert child.exitcode == 9
    child.close()
    store = open_at(path)
    assert ids(store) == ["m1", "from a child"]
    store.close()


def test_gaps_in_the_log_change_nothing(path: Path) -> None:
    make(path, *(f"m{number}" for number in range(10)))
    database = sqlite3.connect(path)
    database.execute("DELETE FROM messages WHERE seq IN (1, 2, 5)")
    database.execute("INSERT INTO messages VALUES (20, 999, 'x', 'of nobody', 1, 'hi')")
    database.commit()
    database.close()
    store = open_at(path)
    assert ids(store) == ["m2", "m3", "m5", "m6", "m7", "m8", "m9"]
    assert send(store, "new") == [21]
    store.close()


def test_the_sequence_goes_on_above_a_cursor_whose_messages_are_gone(path: Path) -> None:
    make(path, "m1", "m2")
    store = open_at(path)
    acknowledge(store, 2)
    store.close()
    database = sqlite3.connect(path)
    database.execute("DELETE FROM messages")
    database.commit()
    database.close()
    store = open_at(path)
    assert send(store, "m3") == [3]
    assert ids(store) == ["m3"]
    store.close()


def test_the_ids_of_the_last_messages_are_known_after_a_restart(path: Path) -> None:
    make(path, *(f"m{number}" for number in range(30)))
    store = open_at(path, limits=StoreLimits(dedup=DedupLimits(ids_per_sender=100, ids_max=10)))
    assert send(store, "m29", "m20") == [30, 21]
    assert send(store, "m0") == [31], "older ones are not read back"
    store.close()
