"""What the service needs of the world: a store, password hashing, secrets. All are passed in."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager
from typing import Protocol

from broker.core.model import Account, Page, Receipt, SessionRecord


class StoreFullError(Exception):
    """The batch was rolled back: no room. Reads and acknowledgements may go on."""


class StoreFailedError(Exception):
    """The batch was rolled back and the engine can no longer be trusted: stop, reopen, recover."""


class StoreUnusableError(Exception):
    """The engine could not be opened; the text says why and what to do. Nothing was changed."""


class Store(Protocol):
    """Accounts, sessions and mailboxes. One engine, one caller at a time.

    Every step but ``account(s)`` and ``session(s)`` happens inside `batch`; a step concerns one
    mailbox or one session and is atomic; a batch is durable as a whole when it has ended without an
    exception, and undone as a whole otherwise. Steps refuse with `WireError`; they and the end
    of a batch raise `StoreFullError` or `StoreFailedError` when the engine gives up.
    """

    @property
    def durability(self) -> str:
        """What the end of a batch achieves: ``fsync`` or ``memory``."""

    def batch(self) -> AbstractContextManager[None]:
        """Begin a batch; its end commits. Batches do not nest."""

    def append(self, to: str, sender: str, message_id: str, text: str, now_ms: int) -> Receipt:
        """Append to a mailbox unless (sender, message_id) is there: then answer with the first.

        Atomic: duplicate check, depth check, append. Errors: ``no_such_user``, ``mailbox_full``,
        ``conflict`` (the id was used with another text or recipient, and its copy still exists).
        """

    def read(self, user: str, after: int, limit: int, bytes_max: int) -> Page:
        """Return what is not acknowledged and above ``after``, oldest first, changing nothing.

        At most ``limit`` messages and about ``bytes_max`` bytes of text, at least one message.
        """

    def acknowledge(self, user: str, seq: int) -> int:
        """Move the cursor forward to ``seq``, no further than the last message; return it."""

    def account(self, user: str) -> Account | None:
        """Return one account."""

    def accounts(self, after: str, limit: int) -> list[Account]:
        """Return accounts in order of ``user``, those above ``after``."""

    def put_account(self, user: str, account: Account | None) -> None:
        """Store an account, making its mailbox where it is new; None removes both."""

    def session(self, digest: bytes) -> SessionRecord | None:
        """Return one session, expired or not."""

    def sessions(self, user: str | None = None) -> Iterable[SessionRecord]:
        """Return the sessions of one user, or of all, oldest first, expired or not."""

    def put_session(self, digest: bytes, record: SessionRecord | None) -> None:
        """Store a session, or with None remove it."""

    def tidy(self, now_ms: int) -> bool:
        """Delete a few of the messages that nobody can read any more; tell whether more may wait.

        One small step inside `batch`: what it costs must not be felt. Which messages go, and when,
        is the engine's configuration.
        """
        ...

    def close(self) -> None:
        """Let go of the engine. Nothing may follow."""


class Hasher(Protocol):
    """Password hashing: slow on purpose, hence never done by the thread that leads."""

    def hash(self, password: str) -> str:
        """Return the encoded hash, with its parameters and salt in it."""

    def verify(self, password_hash: str, password: str) -> bool:
        """Tell whether the password fits; False for a hash that cannot be read."""

    def needs_rehash(self, password_hash: str) -> bool:
        """Tell whether the hash was made with parameters that are no longer ours."""

    def is_hash(self, password_hash: str) -> bool:
        """Tell whether the text is an encoded hash that `verify` understands."""
