"""What the service needs of the world: a store, password hashing, secrets. All are passed in."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, Protocol, TypeVar

from broker.core.dedup import DedupLimits
from broker.core.model import (
    Account,
    AuditEntry,
    BackupTaken,
    Block,
    Depth,
    Epoch,
    History,
    LoginKey,
    Membership,
    Message,
    News,
    Page,
    Receipt,
    Room,
    SessionRecord,
)
from broker.core.shared_limits import SharedLimits
from broker.wire.commands import ChatArgs
from broker.wire.errors import WireError

#: What the directory holds. Keys: the user, the token's digest, the room, (room, user), the key,
#: (user, sender).
Record = Account | SessionRecord | Room | Membership | LoginKey | Block
Key = str | bytes | tuple[str, str]
R = TypeVar("R", Account, SessionRecord, Room, Membership, LoginKey, Block)

#: News of a shared store is late by so much at most, in milliseconds: by then a broker has compared
#: what it remembers with the store, whatever was lost on the way.
NEWS_LATE_MS_MAX: Final = 5_000

_DAY_MS = 86_400_000


class StoreFullError(Exception):
    """The batch was rolled back: no room. Reads and acknowledgements may go on."""


class StoreFailedError(Exception):
    """The batch was rolled back and the engine can no longer be trusted: stop, reopen, recover."""


class StoreUnavailableError(Exception):
    """The engine cannot be reached, or serves nobody for a while; it may come back.

    Of a batch that ended so nobody knows which steps were carried out: all are repeated, and each
    may be (see `Store.undoes`).
    """


class StoreUnusableError(Exception):
    """The engine could not be opened; the text says why and what to do. Nothing was changed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StoreLimits:
    """What every engine keeps, and for how long."""

    #: Unread messages of a mailbox, or messages kept of a room.
    mailbox_messages_max: int = 1_000_000
    #: ... and their text, in bytes of UTF-8.
    mailbox_bytes_max: int = 1_073_741_824
    #: Milliseconds that acknowledged messages are kept, since they were stored.
    retention_read_ms: int = _DAY_MS
    #: ... and unread ones; 0: for ever.
    retention_unread_ms: int = 0
    #: ... and those of a room, read or not.
    retention_room_ms: int = 7 * _DAY_MS
    #: Text of acknowledged messages, in bytes; above it the oldest go before their time.
    retention_bytes_max: int = 1_073_741_824
    dedup: DedupLimits = field(default_factory=DedupLimits)


DEFAULT_LIMITS = StoreLimits()


class Directory(Protocol):
    """Accounts, sessions, rooms and so on: records by their keys. Changes happen in a batch."""

    def find(self, kind: type[R], key: Key) -> R | None:
        """Return one record."""

    def find_all(self, kind: type[R], *, of: str = "", after: str = "", limit: int = 0) -> list[R]:
        """Return records of one kind: accounts in order of user; sessions, oldest first.

        ``of``: sessions, keys or blocks of a user; memberships of a user or (in order of user) of a
        room.
        ``after``: accounts or members above that user. ``limit`` 0: all.
        """

    def put(self, record: Record) -> None:
        """Store a record in place of the one with its key; a new account or room gets a mailbox."""

    def remove(self, kind: type[R], key: Key) -> None:
        """Remove a record, if it is there; an account or room takes its mailbox with it."""


class Neighbours(Protocol):
    """What the brokers over one store learn of each other. A broker that is alone learns nothing.

    The store is the truth, and news only says where to look. It may come twice, or of what this
    broker has done itself; it is late by `NEWS_LATE_MS_MAX` at most and never lost for good.
    """

    @property
    def shared(self) -> bool:
        """Whether other brokers may be using the store.

        Such a store knows itself whom a user has blocked: `append` refuses with ``blocked``.
        """

    def news(self) -> Sequence[News]:
        """Return what has come since it was asked last, without waiting."""

    def listen(self, names: Iterable[str]) -> None:
        """Want news of these mailboxes, users' and rooms', and of no others."""

    def on_news(self, wake: Callable[[], None]) -> None:
        """Have ``wake`` called when there is news: from any thread, and sometimes in vain.

        It must not wait for anything. What was given before is not called any more.
        """

    def hear(self, user: str, now_ms: int) -> None:
        """Let the others know that a user was heard. A step of a batch, never waited for."""

    def heard(self, users: Collection[str]) -> Mapping[str, int]:
        """Return when these users were heard last by any broker, in milliseconds.

        Who was not heard for hours is left out. Also outside of a batch.
        """

    def claim(self, name: str) -> bool:
        """Be the one broker that may make a user or a room of that name, for half a minute.

        False: another one may. To be asked before looking whether the name is taken.
        """


class Upkeep(Protocol):
    """What a broker has its store do now and then, for nobody's request. Within `Store.batch`."""

    def expire(self, now_ms: int) -> list[Message]:
        """Take out what has outlived its ``ttl_ms``, some at a time; return those of them unread.

        Without their texts.
        """

    def tidy(self, now_ms: int) -> bool:
        """Delete a few of the messages that are kept no longer; tell whether more may wait.

        One small step: what it costs must not be felt. Which messages go, and when, stands in
        `StoreLimits`.
        """

    def close(self) -> None:
        """Let go of the engine. Nothing may follow."""


class Store(Directory, Neighbours, SharedLimits, Upkeep, Protocol):
    """Mailboxes, and the directory of who they belong to. One engine, one caller at a time.

    Every step but `find` and `find_all` happens inside `batch`; a step concerns one mailbox or one
    record and is atomic; a batch is durable as a whole when it has ended without an exception, and
    undone as a whole otherwise (but see `undoes`). Steps refuse with `WireError`; they and the end
    of a batch raise `StoreFullError`, `StoreUnavailableError` or `StoreFailedError` when the engine
    gives up.

    A mailbox belongs to an account or to a room and comes and goes with it. It is read by readers:
    the user, and each of the user's devices (``device``, empty for the user), each with a cursor.
    A reader's messages are those of its own mailbox and, from joining on, of the user's rooms.
    """

    @property
    def durability(self) -> str:
        """What the end of a batch achieves: ``fsync`` or ``memory``."""

    @property
    def undoes(self) -> bool:
        """Whether a batch that ended with an exception is undone.

        Where it is not, steps that were carried out stay. Each may be repeated without effect: the
        same id, cursor or record again. Sequences are those of one mailbox there, and a receipt's
        ``seq`` is known, or its refusal raised, when the batch has ended; whoever asks for it
        before makes the engine find out.
        """

    @property
    def epoch(self) -> Epoch:
        """Which history this is: another number after an earlier state was put back."""

    def batch(self) -> AbstractContextManager[None]:
        """Begin a batch; its end commits. Batches do not nest."""

    # --- messages ----------------------------------------------------------------------------

    def append(
        self,
        to: str,
        sender: str,
        message_id: str,
        text: str,
        now_ms: int,
        *,
        ttl_ms: int | None = None,
        refusal: WireError | None = None,
    ) -> Receipt:
        """Append to a mailbox unless (sender, message_id) is there: then answer with the first.

        With a ``refusal`` nothing is appended: what is not there is refused with it. Atomic:
        duplicate check, limits, append. Errors: ``no_such_user``, ``no_such_room`` (also where the
        sender is not in it), ``mailbox_full``, ``conflict`` (the id was used with another text or
        recipient, and its copy still exists); ``blocked`` where the store is `shared`.
        """

    def append_all(
        self, sender: str, letters: Sequence[ChatArgs], now_ms: int
    ) -> Sequence[Receipt | WireError]:
        """Append what one sender sent, in order; each letter is a step of its own, as `append`.

        Return what came of each. For the hot path: what is the same for all is looked up once.
        """

    def read(self, user: str, device: str, after: int, limit: int, bytes_max: int) -> Page:
        """Return what the reader has not acknowledged and is above ``after``, oldest first.

        At most ``limit`` messages and about ``bytes_max`` bytes of text, at least one message
        unless ``limit`` is 0. Nothing changes but that these count as delivered, until a restart.
        """

    def acknowledge(self, user: str, device: str, seq: int) -> int:
        """Move the reader's cursor forward to ``seq``, no further than the last message; return it.

        A device that is not known becomes so, with the cursor of its user.
        """

    def history(
        self,
        user: str,
        of: str,
        *,
        before: int | None,
        after: int | None,
        limit: int,
        bytes_max: int,
    ) -> History:
        """Return messages that are kept, read or not; ``of``: ``inbox``, ``sent`` or a room.

        Those below ``before`` or above ``after`` that are next to it, or the newest. Errors:
        ``no_such_room`` (also where the user is not in it).
        """

    def depth(self, user: str | None = None) -> Depth:
        """Tell what waits in a user's mailbox, or (a walk over them) in all.

        Errors: ``no_such_user``.
        """


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


class Operations(Protocol):
    """What an administrator may ask of the process around the core. Slow: not for who leads."""

    @property
    def started_at_ms(self) -> int:
        """When the broker was started, in milliseconds since the epoch."""

    def reload(self) -> list[str]:
        """Read certificates and enrolled keys anew; return what was. Errors: ``unavailable``."""

    def backup(self, name: str | None) -> BackupTaken:
        """Copy what is committed by now. Errors: `WireError`, ``bad_request``, ``storage_full``."""


class Audit(Protocol):
    """Keeps what administrators did, and who came and went."""

    def note(self, entry: AuditEntry) -> None:
        """Write one entry down. Never fails: what cannot be written is counted."""
