"""How much memory and how many open files this process has, and may have.

Sources: proc(5), ``statm`` and ``fd``; cgroups(7), ``memory.max`` (version 2) and
``memory.limit_in_bytes`` (version 1).
"""

from __future__ import annotations

import ctypes
import errno
import os
import resource
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, NamedTuple

#: What version 1 says where there is no limit is a number near 2**63; no machine has so much.
_BYTES_MAX: Final = 2**60


class Levels(NamedTuple):
    """What was read: resident bytes and open files."""

    memory_bytes: int
    open_files: int


class Readings:
    """Reads the process's own levels, cheaply and also where no file can be opened any more.

    Errors, of making one: `OSError` (no such thing on this system).
    """

    def __init__(self, proc: Path = Path("/proc/self")) -> None:
        self._fds = proc / "fd"
        #: Kept open: at the limit of open files it could not be opened.
        self._statm = os.open(proc / "statm", os.O_RDONLY)
        self._page_bytes = os.sysconf("SC_PAGE_SIZE")

    def read(self) -> Levels:
        resident = int(os.pread(self._statm, 128, 0).split()[1]) * self._page_bytes
        return Levels(resident, self._open_files())

    def _open_files(self) -> int:
        if counted := self._fds.stat().st_size:  # Linux 6.2 and later: without listing them
            return counted
        try:
            return sum(1 for _ in self._fds.iterdir())
        except OSError as error:
            if error.errno != errno.EMFILE:
                raise
            return open_files_max()

    def close(self) -> None:
        os.close(self._statm)


def open_files_max() -> int:
    """Return how many files may be open at once."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else _BYTES_MAX


def allowed_memory_bytes(root: Path = Path("/")) -> int:
    """Return the least of what the machine has and what the control groups allow.

    ``root`` is where proc and sys are found.
    """
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    with suppress(OSError):
        for line in (root / "proc/self/cgroup").read_text().splitlines():
            limits += _limits_of(root / "sys/fs/cgroup", line)
    return min(limits)


def _limits_of(mount: Path, line: str) -> Iterator[int]:
    """Read the limits of one line of /proc/self/cgroup: ``number:controllers:path``."""
    number, controllers, path = line.split(":", 2)
    if number == "0":
        base, name = mount, "memory.max"
    elif "memory" in controllers.split(","):
        base, name = mount / "memory", "memory.limit_in_bytes"
    else:
        return
    group = base / path.lstrip("/")
    # A limit counts for all groups below it. In a container the path may not be there, but the top.
    for folder in (group, *group.parents):
        with suppress(OSError, ValueError):  # no such group here; "max"
            yield min(_BYTES_MAX, int((folder / name).read_text()))
        if folder == base:
            return


def give_back_memory() -> None:
    """Have the C library return what is free to the system, where it knows how (glibc)."""
    with suppress(OSError, AttributeError, TypeError):  # another libc; Windows
        ctypes.CDLL(None).malloc_trim(0)
