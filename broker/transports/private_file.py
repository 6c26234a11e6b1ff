"""Files that hold a secret: read where they are their owner's alone, refused where they are not."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

#: What others than the owner may not have.
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO
#: ... of a file that root keeps for a group that we are in (PostgreSQL has the same rule).
_OTHERS_OF_ROOT: Final = _OTHERS & ~stat.S_IRGRP


class SecretFileError(Exception):
    """A file cannot be used; the sentence says which, why, and what to do, and quotes nothing."""


def read_secret(path: Path, *, bytes_max: int) -> bytes:
    """Return what a secret file holds. Errors: `SecretFileError`."""
    content, info = _read(path, bytes_max)
    if (fault := exposure(path, info)) is not None:
        raise SecretFileError(fault)
    return content


def read_public(path: Path, *, bytes_max: int) -> bytes:
    """Return what a file holds that anybody may read. Errors: `SecretFileError`."""
    return _read(path, bytes_max)[0]


def exposure(path: Path, info: os.stat_result) -> str | None:
    """Say how a secret in this file is open to others, and the cure; None where it is not."""
    mode = stat.S_IMODE(info.st_mode)
    if info.st_uid not in (os.geteuid(), 0):
        return f"{path} belongs to another user: make it the broker's own, with mode 0600"
    if mode & (_OTHERS if info.st_uid == os.geteuid() else _OTHERS_OF_ROOT):
        return f"{path} is open to other users (mode {mode:04o}): run 'chmod 600 {path}'"
    return None


def _read(path: Path, bytes_max: int) -> tuple[bytes, os.stat_result]:
    try:
        # O_NONBLOCK: a pipe of that name must not hang the start.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with os.fdopen(descriptor, "rb") as file:
            info = os.fstat(descriptor)
            content = file.read(bytes_max + 1) if stat.S_ISREG(info.st_mode) else b""
    except OSError as error:
        raise SecretFileError(f"cannot read {path}: {error.strerror}") from None
    if not content or len(content) > bytes_max:
        raise SecretFileError(f"{path} is no key file: it is empty, too large, or no plain file")
    return content, info
