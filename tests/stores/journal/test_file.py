"""The journal's file: what a record is, what of it counts, and what is damage."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from broker.stores import sqlite_journal
from broker.stores.sqlite_journal import (
    DUE_BYTES,
    JOURNAL_BYTES,
    NO_RUN,
    RECORD_BYTES_MAX,
    SECTOR_BYTES,
    DamagedError,
    Journal,
    front,
    lay,
    new_run,
    records,
)

HEAD_BYTES = 20
RUN = 0x0123456789ABCDEF
SHORT_BYTES = 131_072


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lay a shorter one: it is looked through some thousand times."""
    monkeypatch.setattr(sqlite_journal, "JOURNAL_BYTES", SHORT_BYTES)
    path = tmp_path / "kotak.journal"
    assert lay(path)
    return path


@pytest.fixture
def whole(tmp_path: Path) -> Path:
    """Lay one of the true length."""
    path = tmp_path / "kotak.journal"
    assert lay(path)
    return path


@pytest.fixture
def journal(path: Path) -> Iterator[Journal]:
    journal = Journal(path)
    journal.restart(RUN)
    yield journal
    journal.close()


def read(path: Path, run: int = RUN) -> tuple[list[bytes], bool]:
    """Return the bodies, and whether damage follows."""
    found: list[bytes] = []
    try:
        for body in records(path, run):
            found.append(body)  # noqa: PERF402 - what comes before the damage is given all the same
    except DamagedError:
        return found, True
    return found, False


def failing(number: int) -> Callable[..., int]:
    def fail(*_: object) -> int:
        raise OSError(number, os.strerror(number))

    return fail


def spoil(path: Path, place: int, content: bytes) -> None:
    with path.open("r+b") as file:
        file.seek(place)
        file.write(content)


# --- what a record is ----------------------------------------------------------------------------


def test_a_record_is_run_number_length_checksum_and_body(path: Path, journal: Journal) -> None:
    """Golden bytes: a broker must read what the one before it has written."""
    assert journal.append(b"first")
    assert journal.append(b"second")
    content = path.read_bytes()
    head = "efcdab8967452301"  # the run, little-endian
    assert content[:25] == bytes.fromhex(f"{head} 00000000 05000000 817bfae9") + b"first"
    assert content[512:538] == bytes.fromhex(f"{head} 01000000 06000000 68b7ecaf") + b"second"
    assert not any(content[25:512]), "the next one begins at a sector"
    assert not any(content[538:])


def test_what_was_appended_is_read_in_order(path: Path, journal: Journal) -> None:
    bodies = [bytes([number]) * (number * 37) for number in range(1, 60)]
    assert all(journal.append(body) for body in bodies)
    assert read(path) == (bodies, False)


@pytest.mark.parametrize("size", [0, 1, 491, 492, 493, 1_003, 1_004, 1_005, 5_000])
def test_records_of_any_length_stand_one_behind_the_other(
    path: Path, journal: Journal, size: int
) -> None:
    """Around the border of a sector: a record that fills one leaves none empty."""
    bodies = [b"x" * size, b"next", b"y" * size]
    assert all(journal.append(body) for body in bodies)
    assert read(path) == (bodies, False)


def test_each_record_is_synced_before_the_call_returns(
    journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    done: list[str] = []
    pwrite, sync = os.pwrite, os.fdatasync

    def written(handle: int, content: bytes, place: int) -> int:
        done.append(f"write at {place}")
        return pwrite(handle, content, place)

    def synced(handle: int) -> None:
        done.append("sync")
        sync(handle)

    monkeypatch.setattr(os, "pwrite", written)
    monkeypatch.setattr(os, "fdatasync", synced)
    for body in (b"a", b"b"):
        assert journal.append(body)
    assert done == ["write at 0", "sync", "write at 512", "sync"]


def test_a_write_that_takes_less_is_gone_on_with(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    pwrite = os.pwrite
    monkeypatch.setattr(
        os, "pwrite", lambda handle, content, place: pwrite(handle, content[:7], place)
    )
    assert journal.append(b"in pieces" * 10)
    assert read(path) == ([b"in pieces" * 10], False)


@pytest.mark.parametrize(
    ("call", "number"),
    [("pwrite", errno.EIO), ("fdatasync", errno.EIO), ("fdatasync", errno.ENOSPC)],
)
def test_a_disk_that_fails_is_heard(
    journal: Journal, monkeypatch: pytest.MonkeyPatch, call: str, number: int
) -> None:
    monkeypatch.setattr(os, call, failing(number))
    with pytest.raises(OSError, match=os.strerror(number)):
        journal.append(b"body")


def test_want_of_room_is_told_like_a_record_that_is_too_large(
    path: Path, journal: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a file system that never overwrites. A sync that finds none is a failure: it may lie."""
    assert journal.append(b"one")
    pwrite = os.pwrite
    monkeypatch.setattr(os, "pwrite", failing(errno.ENOSPC))
    assert not journal.append(b"two")
    monkeypatch.setattr(os, "pwrite", pwrite)
    assert journal.append(b"three")
    assert read(path) == ([b"one", b"three"], False)


# --- what counts ---------------------------------------------------------------------------------


def test_nothing_counts_of_another_run_or_where_the_database_names_none(
    path: Path, journal: Journal
) -> None:
    assert journal.append(b"body")
    assert read(path, RUN + 1) == ([], False)
    assert read(path, NO_RUN) == ([], False)


def test_the_run_at_the_front_is_told_where_a_record_can_be_read_there(
    path: Path, journal: Journal
) -> None:
    assert front(path.with_name("none")) == front(path) == NO_RUN
    assert journal.append(b"body")
    assert front(path) == RUN
    spoil(path, HEAD_BYTES, b"?")
    assert front(path) == NO_RUN


def test_zeros_are_no_records_even_of_the_run_that_is_none(path: Path) -> None:
    assert read(path, NO_RUN) == ([], False)
    assert read(path) == ([], False)


def test_a_restart_begins_at_the_front_and_what_lies_behind_is_of_no_account(
    path: Path, journal: Journal
) -> None:
    for number in range(20):
        assert journal.append(b"former" * number)
    journal.restart(RUN + 1)
    assert not journal.used
    assert front(path) == RUN
    assert read(path, RUN + 1) == ([], False), "not one of the former run's"
    assert journal.append(b"new")
    assert journal.used
    assert front(path) == RUN + 1
    assert read(path, RUN + 1) == ([b"new"], False)
    assert journal.append(b"newer" * 300)
    assert read(path, RUN + 1) == ([b"new", b"newer" * 300], False)
    found, damaged = read(path, RUN)
    assert not found
    assert damaged, "the former run lacks its first"


def test_runs_are_never_alike_and_fit_a_column_of_the_database() -> None:
    runs = {new_run() for _ in range(1_000)}
    assert len(runs) == 1_000
    assert NO_RUN not in runs
    assert max(runs) < 2**63


def test_two_journals_on_one_file_have_different_runs(path: Path) -> None:
    """A start must not take for its own what the one before it has left there."""
    first, second = Journal(path), Journal(path)
    assert first.run != second.run
    first.close()
    second.close()


# --- a power cut ---------------------------------------------------------------------------------


@pytest.fixture
def three(path: Path, journal: Journal) -> list[bytes]:
    """Three records, the last over three sectors."""
    bodies = [b"one", b"two" * 300, bytes(range(256)) * 5]
    assert all(journal.append(body) for body in bodies)
    return bodies


LAST, LAST_BYTES = 512 + 1_024, HEAD_BYTES + 256 * 5


@pytest.mark.parametrize("left", ["zeros", "ones", "a former run's"])
def test_a_last_record_that_is_torn_at_any_byte_leaves_the_earlier_ones(
    path: Path, three: list[bytes], left: str
) -> None:
    """What stood there before, of whatever kind, shows from that byte on."""
    whole = path.read_bytes()
    former = (RUN - 1).to_bytes(8, "little") + whole[LAST + 8 : LAST + LAST_BYTES]
    below = {"zeros": bytes(LAST_BYTES), "ones": b"\xff" * LAST_BYTES, "a former run's": former}
    record = whole[LAST : LAST + LAST_BYTES]
    for cut in range(LAST_BYTES):
        torn = record[:cut] + below[left][cut:]
        if torn == record:
            continue
        spoil(path, LAST, torn)
        assert read(path) == (three[:2], False), cut
    spoil(path, LAST, record)
    assert read(path) == (three, False)


def test_sectors_of_the_last_record_that_came_in_any_order_leave_the_earlier_ones(
    path: Path, three: list[bytes]
) -> None:
    whole = path.read_bytes()
    for kept in range(7):  # of three sectors, not all
        torn = bytearray(whole)
        for sector in range(3):
            if not kept & 1 << sector:
                place = LAST + sector * SECTOR_BYTES
                torn[place : place + SECTOR_BYTES] = bytes(SECTOR_BYTES)
        path.write_bytes(torn)
        assert read(path) == (three[:2], False), kept


# --- damage --------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", [0, 7, 8, 12, 14, 16, HEAD_BYTES, HEAD_BYTES + 2])
@pytest.mark.parametrize("record", [0, 512])
def test_a_bit_that_flipped_in_the_midst_is_damage(
    path: Path, three: list[bytes], record: int, place: int
) -> None:
    """In the run, the number, the length, the checksum or the body."""
    whole = path.read_bytes()
    for bit in range(8):
        spoil(path, record + place, bytes([whole[record + place] ^ 1 << bit]))
        assert read(path) == (three[: 1 if record else 0], True)


def test_each_byte_of_a_record_in_the_midst_is_watched(path: Path, three: list[bytes]) -> None:
    whole = path.read_bytes()
    for place in range(512, 512 + HEAD_BYTES + len(three[1])):
        spoil(path, place, bytes([whole[place] ^ 0x10]))
        assert read(path) == (three[:1], True), place
        spoil(path, place, whole[place : place + 1])


def test_a_record_in_the_place_of_another_is_damage(path: Path, three: list[bytes]) -> None:
    """Its checksum holds; its number says that it does not stand there."""
    whole = path.read_bytes()
    spoil(path, 0, whole[LAST : LAST + LAST_BYTES])
    assert read(path) == ([], True)


def test_a_file_that_is_gone_is_damage_unless_the_database_names_none(path: Path) -> None:
    path.unlink()
    assert read(path) == ([], True)
    assert read(path, NO_RUN) == ([], False)


@pytest.mark.parametrize("kept", [0, 512, 512 + 1_024, SHORT_BYTES - 1])
def test_a_file_that_is_shorter_than_it_was_laid_is_damage(
    path: Path, three: list[bytes], kept: int
) -> None:
    """A power cut shortens no file whose length was synced; what stood behind is not known."""
    os.truncate(path, kept)
    found, damaged = read(path)
    assert damaged
    assert found == [
        body for body, end in zip(three, (512, 1_536, 4_096), strict=True) if end <= kept
    ]


# --- limits --------------------------------------------------------------------------------------


def test_the_largest_record_fits_and_one_byte_more_is_not_written(
    whole: Path,
) -> None:
    journal = Journal(whole)
    journal.restart(RUN)
    largest = b"x" * (RECORD_BYTES_MAX - HEAD_BYTES)
    assert journal.append(b"before")
    before = whole.read_bytes()
    assert not journal.append(largest + b"x")
    assert whole.read_bytes() == before, "nothing is written"
    assert journal.append(largest)
    assert journal.append(b"behind")
    assert read(whole) == ([b"before", largest, b"behind"], False)


def test_a_journal_that_is_not_due_has_room_for_the_largest_record(
    whole: Path,
) -> None:
    journal = Journal(whole)
    journal.restart(RUN)
    largest = b"x" * (RECORD_BYTES_MAX - HEAD_BYTES)
    count = 0
    while not journal.due:
        assert journal.append(largest)
        count += 1
    assert count * RECORD_BYTES_MAX == DUE_BYTES
    while journal.append(b"y" * 10_000):  # whoever goes on meets its end, and no further
        count += 1
    found, damaged = read(whole)
    assert len(found) == count
    assert not damaged
    assert whole.stat().st_size == JOURNAL_BYTES


# --- laying it down ------------------------------------------------------------------------------


def test_it_is_laid_in_its_full_length_for_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0)
    try:
        assert lay(tmp_path / "new")
    finally:
        os.umask(before)
    info = (tmp_path / "new").stat()
    assert info.st_size == JOURNAL_BYTES
    assert info.st_blocks * 512 >= JOURNAL_BYTES, "blocks that it has, not a hole"
    assert stat.S_IMODE(info.st_mode) == 0o600


def test_its_name_is_synced_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[bool] = []
    fsync = os.fsync

    def noted(handle: int) -> None:
        synced.append(stat.S_ISDIR(os.fstat(handle).st_mode))
        fsync(handle)

    monkeypatch.setattr(os, "fsync", noted)
    assert lay(tmp_path / "new")
    assert synced == [False, True]


def test_one_of_the_right_length_is_used_again_and_a_shorter_one_laid_anew(
    path: Path, journal: Journal
) -> None:
    assert journal.append(b"body")
    before = path.read_bytes()
    assert lay(path)
    assert path.read_bytes() == before
    os.truncate(path, 5_000)
    assert lay(path)
    assert path.stat().st_size == SHORT_BYTES


@pytest.mark.parametrize("call", ["write", "fsync"])
def test_a_full_disk_leaves_no_journal_and_a_failing_one_is_heard(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, call: str
) -> None:
    path = tmp_path / "new"
    monkeypatch.setattr(os, call, failing(errno.ENOSPC))
    assert not lay(path)
    assert not path.exists(), "its room is given back"
    monkeypatch.setattr(os, call, failing(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        lay(path)


def test_a_handle_is_let_go_once(path: Path) -> None:
    journal = Journal(path)
    journal.close()
    journal.close()
    journal.remove()
    assert not path.exists()
    journal.remove()
