"""What a power cut leaves, by the model alone: no process, no compiler."""

from __future__ import annotations

import random
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.proof.disk.journal import _RECORD, Entry, Kind, UnmodelledError, entries
from tests.proof.disk.model import SECTOR_BYTES, Disk, content_of, put_back

A, B = b"a" * 4096, b"b" * 4096
CUTS = 200
FOLDER_SYNC = Entry(Kind.FOLDER_SYNC, 0, 0, 0, 0, 1 << 40, b"")


def name(text: str, *, file: int = 1, made: int = 0) -> Entry:
    return Entry(Kind.NAME, file, 0, made, 0, 0, text.encode())


def write(data: bytes, offset: int = 0, *, file: int = 1) -> Entry:
    return Entry(Kind.WRITE, file, 0, offset, len(data), 0, data)


def zeros(length: int, offset: int = 0) -> Entry:
    return Entry(Kind.ZEROS, 1, 0, offset, length, 0, b"")


def truncate(length: int) -> Entry:
    return Entry(Kind.TRUNCATE, 1, 0, length, 0, 0, b"")


def sync(before: int = 1 << 40, *, kind: Kind = Kind.SYNC) -> Entry:
    return Entry(kind, 1, 0, 0, 0, before, b"")


def change(kind: Kind, text: str) -> Entry:
    return Entry(kind, 0, 0, 0, 0, 0, text.encode())


def fed(before: dict[str, bytes], *done: Entry, seed: int = 0) -> Disk:
    disk = Disk(before, rng=random.Random(seed))
    for entry in done:
        disk.apply(entry)
    return disk


def cuts(before: dict[str, bytes], *done: Entry, file: str = "f") -> set[bytes | None]:
    """Return every content that `CUTS` power cuts left of a file; None: the file is gone."""
    disk = fed(before, *done)
    return {disk.cut().get(file) for _ in range(CUTS)}


def test_what_was_synced_survives_every_cut() -> None:
    assert cuts({"f": A}, name("f"), write(B), sync()) == {B}


def test_what_was_not_synced_may_survive_or_not_and_may_be_torn() -> None:
    found = cuts({"f": A}, name("f"), write(B))
    assert {A, B} < found
    torn = found - {A, B}
    assert torn
    for content in torn:
        assert content is not None
        for at in range(0, len(A), SECTOR_BYTES):
            assert len(set(content[at : at + SECTOR_BYTES])) == 1, "torn within a sector"


def test_writes_survive_out_of_order() -> None:
    found = cuts({"f": A + A}, name("f"), write(B), write(B, 4096))
    assert {A + B, B + A} < found


def test_a_sync_saves_only_what_came_before_its_beginning() -> None:
    """It began when there were two entries, the name and the first write."""
    found = cuts({"f": A + A}, name("f"), write(B), write(B, 4096), sync(before=2))
    assert {B + A, B + B} < found
    assert all(content is not None and content.startswith(B) for content in found)


def test_after_a_failed_sync_no_later_one_brings_the_pages_back() -> None:
    done = (name("f"), write(B), sync(kind=Kind.SYNC_FAILED), sync())
    assert {fed({"f": A}, *done, seed=seed).cut()["f"] for seed in range(20)} == {A, B}


def test_a_truncation_is_lost_like_a_write() -> None:
    assert cuts({"f": A}, name("f"), truncate(0)) == {A, b""}
    assert cuts({"f": A}, name("f"), truncate(0), sync()) == {b""}


def test_a_file_grows_by_zeros_and_by_truncation() -> None:
    assert cuts({"f": b""}, name("f"), zeros(10), truncate(20), sync()) == {bytes(20)}


def test_a_new_file_is_there_for_certain_once_the_folder_is_synced() -> None:
    new = (name("f", made=1), write(A), sync())
    assert cuts({}, *new) == {None, A}
    assert cuts({}, *new, FOLDER_SYNC) == {A}


def test_a_removed_file_may_come_back_until_the_folder_is_synced() -> None:
    gone = (name("f"), change(Kind.UNLINK, "f"))
    assert cuts({"f": A}, *gone) == {None, A}
    assert cuts({"f": A}, *gone, FOLDER_SYNC) == {None}


def test_a_rename_takes_the_place_of_the_old_file_or_does_not() -> None:
    done = (name("f"), name("g", file=2, made=1), write(B, file=2))
    rename = change(Kind.RENAME, "g/f")._replace(file=2)
    both = (*done, Entry(Kind.SYNC, 2, 0, 0, 0, 9, b""), FOLDER_SYNC, rename)
    assert cuts({"f": A}, *both) == {A, B}
    assert cuts({"f": A}, *both, file="g") == {None, B}


def test_files_that_the_process_never_opened_stay() -> None:
    assert cuts({"f": A}, FOLDER_SYNC) == {A}


def test_a_write_under_way_may_be_there_and_does_not_stay_in_the_model() -> None:
    disk = fed({"f": A}, name("f"))
    assert {disk.cut(under_way=write(B))["f"] for _ in range(CUTS)} > {A, B}
    assert {disk.cut()["f"] for _ in range(CUTS)} == {A}


def test_the_process_itself_sees_everything() -> None:
    disk = fed({"f": A}, name("f"), write(B), change(Kind.UNLINK, "f"), name("g", file=2, made=1))
    assert disk.seen() == {"g": b""}


def test_a_seed_gives_the_same_disk_again() -> None:
    done = [name("f"), *(write(bytes([n]) * 4096, n * 4096) for n in range(1, 20))]
    same = [fed({"f": b""}, *done, seed=7).cut() for _ in range(2)]
    assert same[0] == same[1]
    assert len({fed({"f": b""}, *done, seed=seed).cut()["f"] for seed in range(20)}) > 5


def test_a_folder_is_put_back_as_it_was_and_shared_memory_is_left_out(tmp_path: Path) -> None:
    image = {"f": A + bytes(9_000), "empty": b"", "zeros": bytes(5_000)}
    put_back(tmp_path, {"old": A})
    put_back(tmp_path, image)
    (tmp_path / "f-shm").write_bytes(A)
    assert content_of(tmp_path) == image


def packed(done: Iterable[Entry]) -> bytes:
    return b"".join(_RECORD.pack(*entry[:6], len(entry.data)) + entry.data for entry in done)


def test_a_record_that_the_kill_cut_short_was_never_made(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    done = [name("f"), write(A)]
    whole = packed(done)
    for end in (len(whole), len(whole) - 1, len(whole) - len(A) - 1):
        journal.write_bytes(whole[:end])
        assert entries(journal) == (done if end == len(whole) else done[:1])


def test_a_journal_with_something_unmodelled_is_refused(tmp_path: Path) -> None:
    journal = tmp_path / "journal"
    journal.write_bytes(packed([change(Kind.UNSEEN, "mmap")]))
    with pytest.raises(UnmodelledError, match="mmap"):
        entries(journal)
