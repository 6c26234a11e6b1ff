"""A data folder with a journal: what a start makes of it, and of one that is damaged or gone.

Source: docs/DURABILITY.md, "The journal".
"""

from __future__ import annotations

import errno
import os
import sqlite3
import stat
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from broker.core.ports import StoreUnusableError
from broker.stores import sqlite_backup, sqlite_recovery, sqlite_schema
from broker.stores.sqlite_backup import back_up
from broker.stores.sqlite_changes import Changes
from broker.stores.sqlite_epoch import WITNESS_NAME
from broker.stores.sqlite_journal import JOURNAL_BYTES, JOURNAL_NAME
from broker.stores.sqlite_restore import put_back
from broker.stores.sqlite_schema import MIGRATIONS, open_database
from broker.wire.errors import Code, WireError
from tests.stores import steps
from tests.stores.sqlite_steps import (
    FaultyConnection,
    acknowledge,
    after_a_kill,
    as_killed,
    checkpoint,
    ids,
    in_table,
    make,
    open_at,
    send,
)
from tests.stores.steps import with_users


@pytest.fixture
def left(path: Path, tmp_path: Path) -> Path:
    """Return the database of a broker that was killed; only the journal has m2 to m5."""
    store = with_users(open_at(path), "ann", "bob")
    send(store, "m1")
    checkpoint(store)
    for number in range(2, 6):
        send(store, f"m{number}")
    database = as_killed(path, tmp_path / "left")
    store.close()
    return database


def journal_of(path: Path) -> Path:
    return path.with_name(JOURNAL_NAME)


def contents(path: Path) -> dict[str, bytes]:
    """Return the files that count; the index of the log is written by whoever reads."""
    folder = path.parent.iterdir()
    return {each.name: each.read_bytes() for each in folder if not each.name.endswith("-shm")}


# --- a good one ----------------------------------------------------------------------------------


def test_a_start_takes_the_journal_in_and_begins_another(left: Path) -> None:
    store = open_at(left)
    assert in_table(store) == ids(store) == ["m1", "m2", "m3", "m4", "m5"]
    send(store, "m6")
    assert in_table(store) == ["m1", "m2", "m3", "m4", "m5"]
    assert after_a_kill(left) == ["m1", "m2", "m3", "m4", "m5", "m6"]
    store.close()
    assert not journal_of(left).exists()


def test_an_open_store_has_a_journal_of_full_length_for_its_owner_only(path: Path) -> None:
    before = os.umask(0)
    try:
        store = open_at(path)
    finally:
        os.umask(before)
    info = journal_of(path).stat()
    assert (info.st_size, stat.S_IMODE(info.st_mode)) == (JOURNAL_BYTES, 0o600)
    store.close()
    assert not journal_of(path).exists()


def test_a_journal_that_cannot_be_removed_at_the_end_is_of_no_account(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = with_users(open_at(path), "ann", "bob")
    send(store, "m1")

    def fail(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "unlink", fail)
    store.close()
    monkeypatch.undo()
    assert journal_of(path).exists()
    again = open_at(path)
    assert ids(again) == ["m1"]
    again.close()


def test_a_journal_that_a_kill_at_the_very_end_has_left_is_of_no_account(path: Path) -> None:
    """The database names none any more; the file was not removed yet."""
    store = with_users(open_at(path), "ann", "bob")
    send(store, "m1")
    content = journal_of(path).read_bytes()
    store.close()
    journal_of(path).write_bytes(content)
    assert after_a_kill(path) == ["m1"]
    again = open_at(path)
    assert ids(again) == in_table(again) == ["m1"]
    again.close()


@pytest.mark.parametrize("statement", ["INSERT INTO messages", "UPDATE journal", "COMMIT"])
def test_a_start_that_is_killed_as_it_takes_the_journal_in_may_be_repeated(
    left: Path, monkeypatch: pytest.MonkeyPatch, statement: str
) -> None:
    def stop(text: str) -> None:
        if text.startswith(statement):
            copies.append(as_killed(left, left.parent.parent / f"again{len(copies)}"))

    connect, copies = sqlite_schema._connect, list[Path]()

    def watched(path: Path) -> sqlite3.Connection:
        database = connect(path)
        database.set_trace_callback(stop)
        return database

    monkeypatch.setattr(sqlite_schema, "_connect", watched)
    open_at(left).close()
    monkeypatch.undo()
    assert copies
    for copy in copies:
        again = open_at(copy)
        assert ids(again) == ["m1", "m2", "m3", "m4", "m5"]
        again.close()


@pytest.mark.parametrize("killed", [False, True])
def test_a_database_of_the_schema_before_is_taken_over(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, *, killed: bool
) -> None:
    """Whether its broker was stopped, or killed with all of it in the log."""
    monkeypatch.setattr(sqlite_schema, "MIGRATIONS", MIGRATIONS[:4])
    with closing(open_database(path)) as database:
        database.execute("INSERT INTO accounts (user, name, password_hash) VALUES ('bob', '', '')")
        database.execute("INSERT INTO messages VALUES (1, 1, 'ann', 'm1', 1000, 'hi')")
        assert database.execute("PRAGMA user_version").fetchone() == (4,)
        copy = as_killed(path, tmp_path / "killed")
    monkeypatch.undo()
    path = copy if killed else path
    store = open_at(path)
    send(store, "m2")
    assert ids(store) == after_a_kill(path) == ["m1", "m2"]
    store.close()


# --- a bad one -----------------------------------------------------------------------------------


def gone(journal: Path) -> list[str]:
    journal.unlink()
    return []


def cut_short(journal: Path) -> list[str]:
    os.truncate(journal, 1_024)
    return ["m2", "m3"]


def empty(journal: Path) -> list[str]:
    journal.write_bytes(b"")
    return []


def flipped(journal: Path) -> list[str]:
    content = bytearray(journal.read_bytes())
    content[512 + 30] ^= 4
    journal.write_bytes(content)
    return ["m2"]


def zeros(journal: Path) -> list[str]:
    journal.write_bytes(bytes(512) + journal.read_bytes()[512:])
    return []


def begun_by_a_commit_that_is_lost(journal: Path) -> list[str]:
    """The last commit of the log, which named the run, is damaged: as if it had never been."""
    log = bytearray(journal.with_name("kotak.db-wal").read_bytes())
    last = max(
        at for at in range(32, len(log) - 4_119, 4_120) if log[at + 8 : at + 16] == log[16:24]
    )
    log[last + 100] ^= 1
    journal.with_name("kotak.db-wal").write_bytes(log)
    return []


BAD = pytest.mark.parametrize("spoil", [gone, cut_short, empty, flipped, zeros])


@BAD
def test_one_that_is_damaged_or_gone_is_refused_and_nothing_is_touched(
    left: Path, spoil: Callable[[Path], list[str]]
) -> None:
    spoil(journal_of(left))
    before = contents(left)
    for _ in range(2):
        with pytest.raises(
            StoreUnusableError,
            match=r"^kotak\.journal, the journal of .*kotak\.db, is damaged or gone: .*"
            r"Restore a backup; or, to go on without them, remove kotak\.seen beside it: "
            r"clients are told then that messages may be lost\. It was left as it is$",
        ):
            open_at(left)
        assert contents(left) == before


@BAD
def test_whoever_removes_the_witness_goes_on_with_what_can_be_read_and_the_loss_is_told(
    left: Path, spoil: Callable[[Path], list[str]]
) -> None:
    kept = spoil(journal_of(left))
    left.with_name(WITNESS_NAME).unlink()
    store = open_at(left)
    assert ids(store) == ["m1", *kept]
    lost = store.epoch.lost
    assert lost.first == 2 + len(kept)
    assert lost.last >= 5
    (seq,) = send(store, "later")
    assert seq > lost.last
    epoch = store.epoch.number
    store.close()
    again = open_at(left)
    assert again.epoch.number == epoch, "it begins once"
    assert ids(again) == ["m1", *kept, "later"]
    again.close()


@pytest.mark.parametrize("with_records", [False, True])
def test_a_journal_of_records_behind_a_commit_that_is_lost_is_refused(
    path: Path, tmp_path: Path, *, with_records: bool
) -> None:
    """The database alone would be as a power cut leaves it; the records say that it was not one."""
    store = with_users(open_at(path), "ann")
    if with_records:
        steps.send(store, "m0", to="ann")
    with_users(store, "bob")  # its last commit
    send(store, "m1", "m2")
    left = as_killed(path, tmp_path / "left")
    store.close()
    begun_by_a_commit_that_is_lost(journal_of(left))
    before = contents(left)
    with pytest.raises(StoreUnusableError, match="damaged or gone"):
        open_at(left)
    assert contents(left) == before
    left.with_name(WITNESS_NAME).unlink()
    for _ in range(2):  # and the next start finds nothing amiss
        again = open_at(left)
        assert again.epoch.lost.first
        epoch = again.epoch
        left = as_killed(left, left.parent / "again")
        again.close()
    assert open_at(left).epoch == epoch


def test_a_journal_of_another_database_that_was_left_there_is_of_no_account(
    left: Path, tmp_path: Path
) -> None:
    """Somebody has begun anew, and removed only the database."""
    for name in ("kotak.db", "kotak.db-wal", "kotak.seen"):
        left.with_name(name).unlink()
    store = with_users(open_at(left), "ann", "bob")
    copies = [as_killed(left, tmp_path / "before a record")]
    send(store, "new")
    copies.append(as_killed(left, tmp_path / "behind it"))
    store.close()
    for copy, wanted in zip(copies, ([], ["new"]), strict=True):
        again = open_at(copy)
        assert ids(again) == wanted
        again.close()


def test_a_last_record_that_is_torn_is_what_a_power_cut_leaves(left: Path) -> None:
    content = bytearray(journal_of(left).read_bytes())
    content[3 * 512 + 25] ^= 1
    journal_of(left).write_bytes(content)
    store = open_at(left)
    assert ids(store) == ["m1", "m2", "m3", "m4"]
    assert send(store, "m5 again") == [5]
    store.close()


@pytest.mark.parametrize(
    "step", [pytest.param("pwrite", id="laying it"), pytest.param("UPDATE", id="naming it")]
)
def test_a_disk_that_fails_as_a_journal_is_begun_refuses_the_start(
    path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """In one sentence, as every start that cannot be; and nothing is synced behind it."""
    make(path, "m1")
    if step == "pwrite":
        fill = os.write

        def fail(handle: int, content: bytes) -> int:
            if Path(f"/proc/self/fd/{handle}").readlink().name == JOURNAL_NAME:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return fill(handle, content)

        monkeypatch.setattr(os, "write", fail)
    else:
        monkeypatch.setattr(
            "broker.stores.sqlite.open_database",
            lambda *args, **options: FaultyConnection(
                open_database(*args, **options), "UPDATE journal"
            ),
        )
    with pytest.raises(StoreUnusableError, match=r"cannot be read .*restore a backup"):
        open_at(path)
    monkeypatch.undo()
    again = open_at(path)
    assert ids(again) == ["m1"]
    again.close()


# --- backup and restore --------------------------------------------------------------------------


def test_a_backup_names_no_journal_and_has_what_only_the_journal_had(
    path: Path, tmp_path: Path
) -> None:
    store = with_users(open_at(path), "ann", "bob")
    send(store, "m1", "m2", "m3")
    acknowledge(store, 1)
    assert in_table(store) == []
    taken = back_up(path, "one", stopping=lambda: False)
    assert taken.messages == 3
    send(store, "later")
    assert ids(store) == ["m2", "m3", "later"], "the broker goes on with its own"
    assert after_a_kill(path) == ["m2", "m3", "later"]
    store.close()
    with closing(sqlite3.connect(taken.path)) as database:
        assert database.execute("SELECT run FROM journal").fetchall() == [(0,)]
    (tmp_path / "new").mkdir(mode=0o700)
    put_back(taken.path, tmp_path / "new" / "kotak.db", stamp="now")
    again = open_at(tmp_path / "new" / "kotak.db")
    assert ids(again) == ["m2", "m3"]
    again.close()


def test_a_backup_that_began_as_the_journal_was_taken_in_misses_nothing(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of its first look at the database it would find the records overwritten."""
    store = with_users(open_at(path), "ann", "bob")
    send(store, "m1", "m2")
    looks: list[int] = []

    def outstanding(database: sqlite3.Connection, place: Path) -> Changes:
        looks.append(sqlite_recovery.run_of(database))
        if len(looks) == 1:
            checkpoint(store)
            send(store, "m3")
        return sqlite_recovery.outstanding(database, place)

    monkeypatch.setattr(sqlite_backup, "outstanding", outstanding)
    assert back_up(path, "one", stopping=lambda: False).messages == 3
    assert len(set(looks)) == 2
    store.close()


def test_a_journal_that_cannot_be_read_gives_no_backup(path: Path) -> None:
    store = with_users(open_at(path), "ann", "bob")
    send(store, "m1")
    send(store, "m2")
    with journal_of(path).open("r+b") as file:
        file.write(bytes(512))
    with pytest.raises(WireError, match=r"kotak\.journal cannot be read") as caught:
        back_up(path, "one", stopping=lambda: False)
    assert caught.value.code == Code.INTERNAL
    assert list((path.parent / "backups").iterdir()) == []
    store.close()


def test_a_database_in_use_is_no_backup_even_without_its_log(left: Path, tmp_path: Path) -> None:
    """Copied by hand, it lacks what its journal has."""
    copy = tmp_path / "copy.db"
    with closing(sqlite3.connect(left)) as database:
        database.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    copy.write_bytes(left.read_bytes())
    (tmp_path / "new").mkdir(mode=0o700)
    with pytest.raises(StoreUnusableError, match="is a part of a database in use, not a backup"):
        put_back(copy, tmp_path / "new" / "kotak.db", stamp="now")
    assert list((tmp_path / "new").iterdir()) == []


@BAD
def test_a_restore_beside_a_journal_that_is_damaged_keeps_it_as_it_is(
    left: Path, tmp_path: Path, spoil: Callable[[Path], list[str]]
) -> None:
    """That is why somebody restores: an expert may still read it."""
    with closing(sqlite3.connect(tmp_path / "one.db")) as backup:
        store = open_at(as_killed(left, tmp_path / "whole"))
        store._database.backup(backup)
        store.close()
        backup.execute("UPDATE journal SET run = 0")
        backup.commit()
    spoil(journal_of(left))
    before = contents(left)
    put_back(tmp_path / "one.db", left, stamp="now")
    after = contents(left)
    aside = "kotak.db.before-restore-now"
    assert after.get(f"{aside}.journal") == before.get(JOURNAL_NAME)
    assert after[f"{aside}-wal"] == before["kotak.db-wal"]
    assert after[aside] == before["kotak.db"]
    assert JOURNAL_NAME not in after
    store = open_at(left)
    assert ids(store) == ["m1", "m2", "m3", "m4", "m5"], "the backup's, not the journal's"
    store.close()
