"""The protocol's error codes, and the one exception that carries them.

Source: docs/PROTOCOL.md, "Errors". Codes are stable; the texts may improve.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final, Self


class Code(StrEnum):
    """Why a request was refused. `RETRYABLE` says which ones a client repeats by itself."""

    BAD_REQUEST = "bad_request"
    UNKNOWN_COMMAND = "unknown_command"
    UNSUPPORTED_VERSION = "unsupported_version"
    TOO_LARGE = "too_large"
    UNAUTHORIZED = "unauthorized"
    BAD_CREDENTIALS = "bad_credentials"
    FORBIDDEN = "forbidden"
    NO_SUCH_USER = "no_such_user"
    NO_SUCH_ROOM = "no_such_room"
    NO_SUCH_MESSAGE = "no_such_message"
    USER_EXISTS = "user_exists"
    ROOM_EXISTS = "room_exists"
    TOO_MANY = "too_many"
    CONFLICT = "conflict"
    BLOCKED = "blocked"
    MAILBOX_FULL = "mailbox_full"
    RATE_LIMITED = "rate_limited"
    STORAGE_FULL = "storage_full"
    BUSY = "busy"
    UNAVAILABLE = "unavailable"
    INTERNAL = "internal"


#: A client repeats these with the same message id; it asks its user about every other one.
RETRYABLE: Final = frozenset({Code.BUSY, Code.UNAVAILABLE, Code.RATE_LIMITED})


class WireError(Exception):
    """A refusal, as it travels: a stable code, a sentence that says what to do, when to retry.

    ``retry_after_ms`` is in milliseconds; None where waiting alone does not help.
    """

    def __init__(self, code: Code, message: str, retry_after_ms: int | None = None) -> None:
        super().__init__(code, message, retry_after_ms)
        self.code = code
        self.message = message
        self.retry_after_ms = retry_after_ms

    def bare(self) -> Self:
        """Let go of the steps that it came through, and return it: for one that is kept.

        They hold it, and the message that it was found in, until a search for cycles comes by.
        """
        self.__traceback__ = self.__context__ = None
        return self

    def __str__(self) -> str:
        return f"{self.code}: {self.message}"
