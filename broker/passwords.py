"""Passwords by argon2id, with parameters chosen by the machine's cores.

OWASP's minimum is 19 MiB, two passes, one lane; with four cores or more RFC 9106's second choice
(64 MiB, three passes, four lanes) is affordable.
"""

from __future__ import annotations

import os
import unicodedata
from typing import Final

from argon2 import PasswordHasher, Type, extract_parameters
from argon2.exceptions import InvalidHashError, VerificationError

#: Passes, memory in KiB, lanes.
_SMALL: Final = (2, 19 * 1024, 1)
_LARGE: Final = (3, 64 * 1024, 4)
#: From this many cores on.
_LARGE_CORES: Final = 4


class Argon2Hasher:
    """The `Hasher` port over argon2-cffi. Any thread may call; the GIL is free meanwhile."""

    def __init__(self, *, cores: int | None = None) -> None:
        many = (cores or os.cpu_count() or 1) >= _LARGE_CORES
        passes, memory_kib, lanes = _LARGE if many else _SMALL
        self._hasher = PasswordHasher(
            time_cost=passes, memory_cost=memory_kib, parallelism=lanes, type=Type.ID
        )

    def hash(self, password: str) -> str:
        return self._hasher.hash(_normalised(password))

    def verify(self, password_hash: str, password: str) -> bool:
        try:
            return self._hasher.verify(password_hash, _normalised(password))
        except (VerificationError, InvalidHashError, UnicodeEncodeError):
            return False

    def needs_rehash(self, password_hash: str) -> bool:
        return self._hasher.check_needs_rehash(password_hash)

    def is_hash(self, password_hash: str) -> bool:
        try:
            extract_parameters(password_hash)
        except InvalidHashError:
            return False
        return password_hash.isascii()


def _normalised(password: str) -> str:
    """Make one of the ways to write a letter with its accents (NFC): keyboards differ."""
    return unicodedata.normalize("NFC", password)
