"""The library itself, under small programs: it misses nothing, and fails what it is told to."""

from __future__ import annotations

import errno
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.proof.disk.course import DONE, Course
from tests.proof.disk.interposer import FOR_EVER, Calls, Interposer
from tests.proof.disk.journal import Kind, UnmodelledError
from tests.proof.disk.model import Disk, content_of
from tests.proof.disk.running import live


class Bench:
    """A folder with one file in it, and programs that run in it on the interposer."""

    def __init__(self, library: Path, place: Path) -> None:
        self.data = place / "data"
        self.data.mkdir()
        (self.data / "old").write_bytes(b"old")
        self.before = content_of(self.data)
        self.disk = Interposer(library, self.data, place)

    def run(self, program: str) -> str:
        """Run a program whose ``d`` is the folder's path; return what it prints."""
        done = subprocess.run(
            [sys.executable, "-c", f"import os, errno\nd = {str(self.data)!r}\n{program}"],
            capture_output=True,
            text=True,
            check=False,
            cwd=self.data,
            env={**os.environ, **self.disk.environment()},
            timeout=60,
        )
        assert not done.returncode, done.stderr
        return done.stdout.strip()

    def seen(self) -> dict[str, bytes]:
        disk = Disk(self.before, rng=random.Random(0))
        for entry in self.disk.entries():
            disk.apply(entry)
        return disk.seen()


@pytest.fixture
def bench(library: Path, tmp_path: Path) -> Iterator[Bench]:
    bench = Bench(library, tmp_path.resolve())
    with bench.disk:
        yield bench


WRITES = """
f = os.open("new", os.O_RDWR | os.O_CREAT)           # a relative path
os.write(f, b"one"); os.write(f, b"two"); os.pwrite(f, b"X", 1); os.ftruncate(f, 5)
os.write(f, bytes(8000)); os.fsync(f); os.fdatasync(f); os.close(f)
with open(d + "/old", "ab") as f: f.write(b" and new")   # appends
with open(d + "/old", "ab") as f: f.write(b" again")
with open(d + "/gone", "wb") as f: f.write(b"gone")
os.unlink(d + "/gone")
with open(d + "/tmp", "wb") as f: f.write(b"renamed")
os.rename(d + "/tmp", d + "/name")
with open(d + "/name", "wb") as f: f.write(b"made anew")  # truncates
i = os.open(d, os.O_RDONLY); os.fsync(i); os.close(i)
with open(d + "/x-shm", "wb") as f: f.write(b"left out")
"""


def test_the_journal_tells_everything_that_a_program_did_to_its_folder(bench: Bench) -> None:
    bench.run(WRITES)
    assert bench.seen() == content_of(bench.data)
    kinds = [entry.kind for entry in bench.disk.entries()]
    assert kinds.count(Kind.SYNC) == 2
    assert kinds.count(Kind.FOLDER_SYNC) == 1
    assert bench.disk.syncs == 3


def test_the_journal_tells_everything_that_a_store_did(library: Path, tmp_path: Path) -> None:
    """With checkpoints, deletions and a clean end: the rebuilt folder is the real one."""
    data = tmp_path.resolve() / "data"
    data.mkdir(mode=0o700)
    course = Course(1, batches=40, checkpoint_pages=20, retention_read_ms=1)
    with Interposer(library, data, tmp_path) as disk:
        ended = live(data, course, disk.environment())
        assert ended.code == DONE, ended.complaint
        rebuilt = Disk({}, rng=random.Random(0))
        for entry in disk.entries():
            rebuilt.apply(entry)
        assert rebuilt.seen() == content_of(data)
        assert disk.bytes_used == sum(path.stat().st_size for path in data.iterdir())


def test_files_outside_of_the_folder_are_nobody_s_business(bench: Bench) -> None:
    bench.disk.fail(Calls.WRITE | Calls.OPEN, 1, error=errno.EIO, times=FOR_EVER)
    bench.run("open(d + 'base', 'w').write('x')")
    assert not bench.disk.failed
    assert not bench.disk.entries()


@pytest.mark.parametrize(
    "program",
    [
        "import mmap\nf = open(d + '/old', 'r+b')\nm = mmap.mmap(f.fileno(), 0)",
        "f = os.open(d + '/old', os.O_RDWR)\nos.dup(f)",
        "f = os.open(d + '/old', os.O_RDWR)\nos.posix_fallocate(f, 0, 100)",
        "f = os.open(d + '/old', os.O_RDWR)\nos.writev(f, [b'x'])",
        "f = os.open(d + '/old', os.O_RDWR | os.O_SYNC)",
        "os.rename(d + '/old', d + 'outside')",
    ],
)
def test_what_the_model_does_not_know_is_not_passed_over(bench: Bench, program: str) -> None:
    bench.run(program)
    with pytest.raises(UnmodelledError):
        bench.disk.entries()


COUNTING = """
f = os.open(d + "/old", os.O_RDWR)
said = []
for n in range(1, 6):
    try:
        said.append(str(os.{call}))
    except OSError as error:
        said.append(errno.errorcode[error.errno])
print(*said)
"""


@pytest.mark.parametrize(
    ("calls", "call", "times", "said"),
    [
        (Calls.WRITE, "write(f, b'xy')", 1, "2 2 EIO 2 2"),
        (Calls.WRITE, "pwrite(f, b'xy', 0)", 2, "2 2 EIO EIO 2"),
        (Calls.WRITE, "write(f, b'xy')", FOR_EVER, "2 2 EIO EIO EIO"),
        (Calls.SYNC, "fsync(f)", 1, "None None EIO None None"),
        (Calls.SYNC, "fdatasync(f)", FOR_EVER, "None None EIO EIO EIO"),
        (Calls.TRUNCATE, "ftruncate(f, n)", 1, "None None EIO None None"),
        (Calls.SYNC, "write(f, b'xy')", 1, "2 2 2 2 2"),
    ],
)
def test_the_call_that_is_to_fail_fails_and_no_other(
    bench: Bench, calls: Calls, call: str, times: int, said: str
) -> None:
    bench.disk.fail(calls, 3, error=errno.EIO, times=times)
    assert bench.run(COUNTING.replace("{call}", call)) == said
    assert bench.disk.failed == said.count("EIO")
    assert bench.seen() == content_of(bench.data), "a call that failed was journalled"


def test_a_write_may_be_cut_in_half_before_the_next_fails(bench: Bench) -> None:
    bench.disk.fail(Calls.WRITE, 2, error=errno.ENOSPC, short=True)
    assert bench.run(COUNTING.replace("{call}", "write(f, b'abcd')")) == "4 2 ENOSPC 4 4"
    assert bench.seen() == content_of(bench.data)


def test_a_full_disk_refuses_growth_only(bench: Bench) -> None:
    """Ten bytes more, the file has three: writes of four are taken until 13 are there."""
    bench.disk.limit(more_bytes=10)
    appends = "f = os.open(d + '/old', os.O_RDWR | os.O_APPEND)\n" + COUNTING.split("\n", 2)[2]
    assert bench.run(appends.replace("{call}", "write(f, b'abcd')")) == "4 4 ENOSPC ENOSPC ENOSPC"
    assert bench.run(COUNTING.replace("{call}", "write(f, b'ab')")) == "2 2 2 2 2"
    bench.run("os.unlink(d + '/old')")
    assert bench.disk.bytes_used == 0


def test_a_slow_sync_takes_its_time(bench: Bench) -> None:
    bench.disk.delay_syncs(30)
    timed = "import time\nbegan = time.monotonic()\nf = open(d + '/old')\nos.fsync(f.fileno())\n"
    assert float(bench.run(timed + "print(time.monotonic() - began)")) >= 0.03


def test_children_run_on_the_bare_disk(bench: Bench) -> None:
    bench.run("import subprocess, sys\nsubprocess.run(['sh', '-c', 'echo child > child'])")
    assert "child" not in bench.seen()
