"""A backup is all that was committed when it began, it costs the writer nothing, it leaves nothing.

Source: docs/OPERATIONS.md, "Backup and restore".
"""

from __future__ import annotations

import errno
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from broker.stores import sqlite_backup
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_backup import BACKUPS_FOLDER, Copied, back_up, open_reader
from broker.wire.errors import Code, WireError
from broker.wire.limits import BACKUP_NAME_CHARS_MAX
from tests.stores.sqlite_steps import open_at
from tests.stores.steps import NOW_MS, ack, ids, send, with_users


@pytest.fixture
def path(tmp_path: Path) -> Path:
    (tmp_path / "data").mkdir(mode=0o700)
    return tmp_path / "data" / "kotak.db"


@pytest.fixture(params=[False, True], ids=["log", "journal"])
def store(path: Path, request: pytest.FixtureRequest) -> Iterator[SqliteStore]:
    """Only the log, or only the journal, has what was sent."""
    opened = with_users(open_at(path, journal=request.param), "ann", "bob")
    for number in range(5):
        send(opened, f"m{number}")
    yield opened
    opened.close()


def take(path: Path, name: str = "one") -> Copied:
    return back_up(path, name, stopping=lambda: False)


def code(path: Path, name: str = "one", *, stopping: bool = False) -> Code:
    with pytest.raises(WireError) as raised:
        back_up(path, name, stopping=lambda: stopping)
    return raised.value.code


def left(path: Path) -> list[str]:
    folder = path.parent / BACKUPS_FOLDER
    return sorted(each.name for each in folder.iterdir()) if folder.exists() else []


def found_in(backup: Path, tmp_path: Path) -> list[str]:
    """Start a store on a copy of the backup, and read what is there."""
    folder = tmp_path / f"restored-{backup.stem}"
    folder.mkdir(mode=0o700)
    (folder / "kotak.db").write_bytes(backup.read_bytes())
    opened = SqliteStore(folder / "kotak.db")
    try:
        return ids(opened)
    finally:
        opened.close()


def large(store: SqliteStore, messages: int = 4_000) -> None:
    """Fill it, so that a copy takes many steps."""
    with store.batch():
        for number in range(messages):
            store.append("bob", "ann", f"large{number}", "x" * 2_000, NOW_MS)


# --- what is in it ---------------------------------------------------------------------------


def test_it_holds_what_was_committed_though_the_database_has_it_not(
    path: Path, store: SqliteStore, tmp_path: Path
) -> None:
    taken = take(path)
    assert taken == Copied(
        path.parent / BACKUPS_FOLDER / "one.db",
        taken.path.stat().st_size,
        5,
        store.epoch.number,
    )
    assert found_in(taken.path, tmp_path) == ids(store)


def test_it_holds_nothing_of_a_batch_that_is_under_way(path: Path, store: SqliteStore) -> None:
    with store.batch():
        store.append("bob", "ann", "open", "hi", NOW_MS)
        store.tidy(NOW_MS)  # hands it to SQLite
        assert take(path).messages == 5


def test_what_is_stored_and_acknowledged_meanwhile_is_not_in_it(
    path: Path, store: SqliteStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One moment, whatever happens between two steps: also a moved log and a new one."""
    large(store)
    before = ids(store)
    count = 0

    def meanwhile() -> bool:
        nonlocal count
        count += 1
        send(store, f"meanwhile{count}")
        ack(store)
        store._wal.checkpoint()
        return False

    taken = back_up(path, "one", stopping=meanwhile)
    assert count > 3, "the copy was made in one step: nothing was tried"
    assert taken.messages == 4_005
    assert found_in(taken.path, tmp_path) == before
    assert "meanwhile1" not in found_in(take(path, "two").path, tmp_path), "it was acknowledged"


def test_a_backup_is_one_file_for_its_owner_only_and_holds_together(
    path: Path, store: SqliteStore
) -> None:
    taken = take(path)
    assert left(path) == ["one.db"]
    assert taken.path.stat().st_mode & 0o777 == 0o600
    assert taken.path.parent.stat().st_mode & 0o777 == 0o700
    with closing(sqlite3.connect(taken.path)) as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
        assert database.execute("PRAGMA journal_mode").fetchone() == ("delete",)
    assert left(path) == ["one.db"], "opening it leaves nothing beside it"


# --- what it costs ---------------------------------------------------------------------------


def test_its_connection_cannot_write_move_the_log_or_empty_it(
    path: Path, store: SqliteStore
) -> None:
    """SQLite before 3.51.3 may lose what is written while two connections move the log."""
    wal = path.with_name("kotak.db-wal")
    before = wal.read_bytes()
    with closing(open_reader(path)) as reader:
        assert reader.execute("PRAGMA query_only").fetchone() == (1,)
        assert reader.execute("PRAGMA wal_autocheckpoint").fetchone() == (0,)
        assert reader.execute("PRAGMA mmap_size").fetchone() == (0,)
        for statement in ("DELETE FROM messages", "PRAGMA wal_checkpoint(TRUNCATE)"):
            with pytest.raises(sqlite3.OperationalError):
                reader.execute(statement)
    assert wal.read_bytes() == before, "closing it moved the log"


def test_even_the_last_connection_that_closes_moves_no_log(path: Path, tmp_path: Path) -> None:
    opened = with_users(open_at(path, journal=False), "ann", "bob")
    send(opened, "m")
    killed = tmp_path / "killed"
    killed.mkdir()
    for each in path.parent.iterdir():
        (killed / each.name).write_bytes(each.read_bytes())
    opened.close()
    before = (killed / "kotak.db").read_bytes()
    with closing(open_reader(killed / "kotak.db")) as reader:
        assert reader.execute("SELECT count(*) FROM messages").fetchone() == (1,)
    assert (killed / "kotak.db").read_bytes() == before
    assert (killed / "kotak.db-wal").exists()


def test_the_writer_goes_on_while_a_copy_is_made(path: Path, store: SqliteStore) -> None:
    """Between the first step and the last, batches are committed by another thread."""
    large(store)
    copying, written = threading.Event(), threading.Event()

    def stopping() -> bool:
        copying.set()
        assert written.wait(30), "the writer waits for the copy"
        return False

    done: list[Copied] = []
    thread = threading.Thread(
        target=lambda: done.append(back_up(path, "one", stopping=stopping)), daemon=True
    )
    thread.start()
    assert copying.wait(30)
    send(store, "while it is copied")
    written.set()
    thread.join(30)
    assert done[0].messages == 4_005


# --- what ends it ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "../up", "a b", "a\n", "é", "-x", "x" * 100]
)
def test_a_name_that_is_no_name_is_refused_and_nothing_is_made(
    path: Path, store: SqliteStore, name: str
) -> None:
    assert code(path, name) == Code.BAD_REQUEST
    assert left(path) == []


def test_the_longest_name_is_good(path: Path, store: SqliteStore) -> None:
    assert take(path, "x" * BACKUP_NAME_CHARS_MAX).path.exists()


def test_no_backup_is_overwritten(path: Path, store: SqliteStore) -> None:
    before = take(path).path.read_bytes()
    send(store, "more")
    assert code(path) == Code.CONFLICT
    assert (path.parent / BACKUPS_FOLDER / "one.db").read_bytes() == before


def test_a_broker_that_stops_gives_it_up_and_leaves_nothing(path: Path, store: SqliteStore) -> None:
    assert code(path, stopping=True) == Code.UNAVAILABLE
    assert left(path) == []
    assert take(path).messages == 5


def test_without_room_nothing_is_begun(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite_backup, "_SPARE_BYTES", 2**60)
    assert code(path) == Code.STORAGE_FULL
    assert left(path) == []


def test_a_disk_that_fills_up_meanwhile_leaves_no_half_file(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    large(store)

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fdatasync", full)
    assert code(path) == Code.STORAGE_FULL
    assert left(path) == []
    monkeypatch.undo()
    assert take(path).messages == 4_005


def test_a_disk_that_fails_is_told_and_leaves_no_half_file(
    path: Path, store: SqliteStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(WireError, match="Input/output error") as raised:
        take(path)
    monkeypatch.undo()
    assert raised.value.code == Code.INTERNAL
    assert left(path) == []


def test_a_database_that_cannot_be_opened_a_second_time_is_told_with_the_reason(
    path: Path, store: SqliteStore
) -> None:
    path.rename(path.with_name("taken away"))
    with pytest.raises(WireError, match=r"the backup failed \(SQLITE_CANTOPEN\)") as raised:
        take(path)
    assert raised.value.code == Code.INTERNAL
    assert left(path) == []


def test_a_copy_that_does_not_hold_is_thrown_away(path: Path, store: SqliteStore) -> None:
    large(store)
    store._wal.checkpoint()
    with path.open("rb+") as file:  # pages within the table: quick_check finds them
        file.seek(200 * 4_096)
        file.write(b"\xff" * 40 * 4_096)
    assert code(path) == Code.INTERNAL
    assert left(path) == []


def test_what_a_killed_broker_left_is_removed_by_the_next(path: Path, store: SqliteStore) -> None:
    folder = path.parent / BACKUPS_FOLDER
    folder.mkdir(mode=0o700)
    for name in ("old.partial", "old.partial-journal"):
        (folder / name).write_bytes(b"half")
    (folder / "kept.db").write_bytes(b"whole")
    take(path)
    assert left(path) == ["kept.db", "one.db"]
