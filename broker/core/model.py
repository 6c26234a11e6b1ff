"""The nouns: what is stored, and what a step of the store answers."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

from broker.wire.roles import Role

#: Where a reply goes: opaque to the core, the transport's routing id.
Route = bytes


@dataclass(frozen=True, slots=True)
class Account:
    """A user: ``user`` is the name that messages are sent to, ``name`` the one that people see."""

    user: str
    name: str
    password_hash: str
    role: str = Role.USER


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it is stored: by the token's digest (SHA-256, 32 bytes), never by the token.

    ``opened_ms`` and ``expires_ms`` are milliseconds since the epoch. ``device`` is empty for a
    session that shares the user's cursor, ``key`` for one that is not bound to a `LoginKey`.
    """

    digest: bytes
    user: str
    opened_ms: int
    expires_ms: int
    device: str = ""
    key: str = ""


@dataclass(frozen=True, slots=True)
class LoginKey:
    """A public CURVE key (40 characters of Z85) that logs its user in, without a password."""

    key: str
    user: str


@dataclass(frozen=True, slots=True)
class Block:
    """``user`` takes no messages from ``sender``, whoever has that name."""

    user: str
    sender: str


@dataclass(frozen=True, slots=True)
class Room:
    """A log with members. ``room`` begins with ``#``; ``owner`` made it.

    ``open``: anybody may join. ``history``: members may read what was said before they came.
    ``members`` is how many there are, counted by the store when it is asked.
    """

    room: str
    owner: str
    open: bool
    history: bool
    members: int = 0


@dataclass(frozen=True, slots=True)
class Membership:
    """A user in a room, or (not ``joined``) one who may come in."""

    room: str
    user: str
    joined: bool


class Message(NamedTuple):
    """One stored message. ``at_ms`` is the time of storing; ``seq`` grows within a mailbox.

    ``to`` is the mailbox: a user, or a room.
    """

    seq: int
    at_ms: int
    sender: str
    message_id: str
    text: str
    to: str


class Lost(NamedTuple):
    """Sequences that may be gone, unread by whoever is told."""

    first: int
    last: int


class Page(NamedTuple):
    """What waits for one reader, in order of ``seq``; ``more`` wait behind the last.

    ``cursor``: up to it the reader has acknowledged. ``delivered``: messages up to it may have been
    given to this reader before. ``last`` is the highest sequence given out. ``lost``: what was
    deleted before this reader had read it.
    """

    messages: list[Message]
    more: bool
    cursor: int
    delivered: int
    last: int
    lost: Lost | None


class State(StrEnum):
    """Where a message stands, as its sender is told."""

    STORED = "stored"
    DELIVERED = "delivered"
    ACKNOWLEDGED = "acknowledged"
    EXPIRED = "expired"


class Depth(NamedTuple):
    """What waits, unread by any reader: in one user's mailbox, or in all. Bytes of text."""

    mailboxes: int
    messages: int
    bytes: int


class BackupTaken(NamedTuple):
    """A copy of the store that is whole on the disk, at ``path`` on the broker's machine."""

    path: str
    bytes: int
    messages: int
    epoch: int
    took_ms: int


class AuditEntry(NamedTuple):
    """An administrator's action, or somebody's coming and going, with what came of it.

    ``by`` is the user who did it, ``!administrator`` of this machine, or empty for who had no
    session; ``address`` is where from (empty: not known), ``outcome`` "OK" or the error's code.
    """

    at_ms: int
    command: str
    by: str
    address: str
    request_id: int
    args: dict[str, str | int | bool]
    outcome: str


class History(NamedTuple):
    """Messages in order of ``seq``, with their states where they are the asker's own."""

    messages: list[Message]
    states: list[State] | None
    more: bool


class Epoch(NamedTuple):
    """Which history the sequences belong to; ``lost`` may have been, when it began."""

    number: int
    lost: Lost


class Kind(StrEnum):
    """What news is about."""

    #: Something was appended to the mailbox of a user, or to a room.
    MAILBOX = "mailbox"
    #: An account, its sessions, keys or rooms have changed.
    USER = "user"
    #: Nobody knows what has changed in the meantime: anything may have. The name is empty.
    ALL = "all"


class News(NamedTuple):
    """What another broker over the same store has done; ``name``: of the user or the room."""

    kind: Kind
    name: str


class Receipt:
    """What an append achieved. It counts once the batch has been committed, not before."""

    __slots__ = ("seq",)

    def __init__(self, seq: int) -> None:
        self.seq = seq
