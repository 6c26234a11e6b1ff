"""Building the interposer, and talking with it while a process runs on it."""

from __future__ import annotations

import mmap
import os
import shutil
import subprocess
from contextlib import suppress
from enum import IntEnum, IntFlag
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.proof.disk.journal import Entry, entries

SOURCE: Final = Path(__file__).with_name("interposer.c")
FOR_EVER: Final = 1 << 40
_BUILD_SECONDS_MAX: Final = 120


class AbsentError(Exception):
    """There is nothing to build the interposer with; the text says what to install."""


class Calls(IntFlag):
    """What may fail, as in interposer.c."""

    WRITE = 1
    SYNC = 2
    TRUNCATE = 4
    OPEN = 8
    UNLINK = 16


class _Field(IntEnum):
    """Places in the control page, in the order of `struct control`."""

    WRITES = 0
    SYNCS = 1
    COUNTED = 2
    FAIL_KINDS = 3
    FAIL_AT = 4
    FAIL_CALLS = 5
    FAIL_ERRNO = 6
    FAIL_SHORT = 7
    FAILED = 8
    SYNC_DELAY_US = 9
    BYTES_MAX = 10
    BYTES_USED = 11
    NO_ROOM = 12


def build(folder: Path) -> Path:
    """Compile the interposer into ``folder``. Errors: `AbsentError` without a C compiler."""
    compiler = next(filter(None, map(shutil.which, ("cc", "gcc", "clang"))), None)
    if compiler is None or os.uname().sysname != "Linux":
        raise AbsentError(
            "power cuts and failing disks need Linux and a C compiler: install gcc or clang"
        )
    library = folder / "interposer.so"
    command = [compiler, "-O2", "-shared", "-fPIC", "-o", str(library), str(SOURCE)]
    done = subprocess.run(
        [*command, "-ldl", "-lpthread"],
        capture_output=True,
        text=True,
        check=False,
        timeout=_BUILD_SECONDS_MAX,
    )
    if done.returncode:
        raise AbsentError(f"the interposer does not compile with {compiler}: {done.stderr}")
    return library


class Interposer:
    """The interposer for one folder and one process at a time; a context manager."""

    def __init__(self, library: Path, folder: Path, scratch: Path) -> None:
        self._library = library
        self._folder = folder.resolve()
        self._journal = scratch / "journal"
        self._page_path = scratch / "control"
        self._page_path.write_bytes(bytes(4096))
        with self._page_path.open("r+b") as file:
            self._map = mmap.mmap(file.fileno(), 4096)
        self._page = memoryview(self._map).cast("q")
        self.begin()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._page.release()
        self._map.close()

    def begin(self) -> None:
        """Forget the former process: an empty journal, no faults, counters at 0."""
        with suppress(FileNotFoundError):
            self._journal.unlink()
        for field in _Field:
            self._page[field] = 0
        self._page[_Field.BYTES_MAX] = -1
        self._page[_Field.BYTES_USED] = sum(
            path.stat().st_size for path in self._folder.glob("*") if path.is_file()
        )

    def environment(self) -> dict[str, str]:
        """Return what the process needs in its environment."""
        return {
            "LD_PRELOAD": str(self._library),
            "DISK_FOLDER": str(self._folder),
            "DISK_JOURNAL": str(self._journal),
            "DISK_CONTROL": str(self._page_path),
        }

    def entries(self) -> list[Entry]:
        """Return the journal so far."""
        return entries(self._journal)

    def fail(
        self, calls: Calls, number: int, *, error: int, times: int = 1, short: bool = False
    ) -> None:
        """Let the ``number``-th of these calls from now on fail, and ``times`` - 1 after it.

        ``short``: a write takes half of its bytes first, and the next one fails.
        """
        self._page[_Field.FAIL_AT] = 0  # nothing fails while the rest is being said
        self._page[_Field.COUNTED] = 0
        self._page[_Field.FAIL_KINDS] = calls
        self._page[_Field.FAIL_CALLS] = times
        self._page[_Field.FAIL_ERRNO] = error
        self._page[_Field.FAIL_SHORT] = short
        self._page[_Field.FAIL_AT] = number

    def limit(self, *, more_bytes: int | None) -> None:
        """Let the files of the folder grow by so much and no more; None: as they please."""
        used = self._page[_Field.BYTES_USED]
        self._page[_Field.BYTES_MAX] = -1 if more_bytes is None else used + more_bytes

    def delay_syncs(self, delay_ms: int) -> None:
        self._page[_Field.SYNC_DELAY_US] = delay_ms * 1_000

    @property
    def writes(self) -> int:
        return self._page[_Field.WRITES]

    @property
    def syncs(self) -> int:
        return self._page[_Field.SYNCS]

    @property
    def failed(self) -> int:
        """How many calls were made to fail, for want of room or otherwise."""
        return self._page[_Field.FAILED] + self._page[_Field.NO_ROOM]

    @property
    def counted(self) -> int:
        """How many calls there were of the kinds that `fail` named."""
        return self._page[_Field.COUNTED]

    @property
    def bytes_used(self) -> int:
        return self._page[_Field.BYTES_USED]
