"""The nouns: what is stored, and what a step of the store answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

#: Where a reply goes: opaque to the core, the transport's routing id.
Route = bytes


@dataclass(frozen=True, slots=True)
class Account:
    """A user: ``user`` is the name that messages are sent to, ``name`` the one that people see."""

    user: str
    name: str
    password_hash: str


@dataclass(frozen=True, slots=True)
class SessionRecord:
    """A session as it is stored: by the token's digest (SHA-256, 32 bytes), never by the token.

    ``opened_ms`` and ``expires_ms`` are milliseconds since the epoch.
    """

    digest: bytes
    user: str
    opened_ms: int
    expires_ms: int


class Message(NamedTuple):
    """One stored message. ``at_ms`` is the time of storing; ``seq`` grows within a mailbox."""

    seq: int
    at_ms: int
    sender: str
    message_id: str
    text: str


class Page(NamedTuple):
    """Messages in order of ``seq``; ``more`` wait behind the last; ``cursor`` is acknowledged."""

    messages: list[Message]
    more: bool
    cursor: int


class Receipt:
    """What an append achieved. It counts once the batch has been committed, not before."""

    __slots__ = ("seq",)

    def __init__(self, seq: int) -> None:
        self.seq = seq
