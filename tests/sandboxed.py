"""``kotak`` under what the service unit forbids: ``python -m tests.sandboxed kotak's words``.

Applies the unit's ``SystemCallFilter`` (by libseccomp, of the groups that systemd names) and what
``MemoryDenyWriteExecute`` asks for, and then becomes ``kotak``. Exits with 77 where this machine
lacks what that takes, and says what.
"""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

UNIT: Final = Path(__file__).resolve().parent.parent / "packaging/kotak.service"
CANNOT: Final = 77
_ALLOW: Final = 0x7FFF_0000
_REFUSE: Final = 0x0005_0001  # EPERM
_SET_MDWE, _REFUSE_EXEC_GAIN, _SET_NO_NEW_PRIVS = 65, 1, 38  # linux/prctl.h


def unit_options() -> dict[str, list[str]]:
    """Return the unit's options with their values, in order."""
    found: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if match := re.fullmatch(r"([A-Z]\w+)=(.*)", line):
            found.setdefault(match[1], []).append(match[2])
    return found


def allowed_calls() -> set[str]:
    """Return the system calls that the unit's filter lets through."""
    allowed: set[str] = set()
    for value in unit_options()["SystemCallFilter"]:
        names = {call for word in value.lstrip("~").split() for call in _expanded(word)}
        allowed = allowed - names if value.startswith("~") else allowed | names
    return allowed


def _expanded(word: str) -> Iterator[str]:
    if not word.startswith("@"):
        yield word
        return
    command = ("systemd-analyze", "syscall-filter", "--no-pager", word)
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    for line in listed.splitlines()[1:]:
        member = line.strip()
        if member and not member.startswith("#"):
            yield from _expanded(member)


def _confine(calls: set[str]) -> None:
    # execve comes last, and is let through; what the filter refuses, it refuses from here on.
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.prctl(_SET_NO_NEW_PRIVS, 1, 0, 0, 0) or libc.prctl(
        _SET_MDWE, _REFUSE_EXEC_GAIN, 0, 0, 0
    ):
        raise OSError(ctypes.get_errno(), "the kernel knows no PR_SET_MDWE")
    seccomp = ctypes.CDLL("libseccomp.so.2")
    seccomp.seccomp_init.restype = ctypes.c_void_p
    rules = ctypes.c_void_p(seccomp.seccomp_init(_REFUSE))
    for call in calls:
        number = seccomp.seccomp_syscall_resolve_name(call.encode())
        if number >= 0:  # others are of other machines
            seccomp.seccomp_rule_add(rules, _ALLOW, number, 0)
    if seccomp.seccomp_load(rules):
        raise OSError("the filter cannot be loaded")


def main() -> None:
    try:
        _confine(allowed_calls())
    except (OSError, subprocess.CalledProcessError) as error:
        sys.stderr.write(f"this machine cannot confine: {error}\n")
        sys.exit(CANNOT)
    os.execv(sys.executable, [sys.executable, "-m", "broker.cli", *sys.argv[1:]])


if __name__ == "__main__":
    main()
