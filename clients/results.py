"""What the commands return: one class a result, each made from the map in a reply.

Source: docs/PROTOCOL.md, "Commands". Fields that this version does not know are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple, TypeVar

from broker.wire.errors import Code
from clients.errors import InternalError

T = TypeVar("T")
Fields = Mapping[str, Any]


class Login(NamedTuple):
    """A session: its token, whose it is, and when it ends at the latest (ms since the epoch)."""

    token: str
    user: str
    name: str
    expires_at_ms: int

    @classmethod
    def parse(cls, fields: Fields) -> Login:
        return cls(fields["token"], fields["user"], fields["name"], fields["expires_at_ms"])

    def __repr__(self) -> str:
        """Leave the token out: representations end up in logs."""
        return f"Login(user={self.user!r}, name={self.name!r}, expires_at_ms={self.expires_at_ms})"


class Hello(NamedTuple):
    """What the broker says of itself; ``limits`` by the names of docs/PROTOCOL.md, "Limits"."""

    version: int
    server: str
    durability: str
    limits: dict[str, int]

    @classmethod
    def parse(cls, fields: Fields) -> Hello:
        return cls(fields["version"], fields["server"], fields["durability"], fields["limits"])


class Receipt(NamedTuple):
    """A stored message: its sequence in the mailbox, ``"fsync"`` or ``"memory"``, and its id."""

    seq: int
    durability: str
    message_id: str


class Message(NamedTuple):
    """A message in a mailbox; ``sender`` is a user name, ``name`` its display name.

    ``at_ms`` is the time of storing, in milliseconds since the Unix epoch.
    """

    seq: int
    at_ms: int
    sender: str
    name: str
    id: str
    text: str

    @classmethod
    def parse(cls, fields: Fields) -> Message:
        return cls(
            fields["seq"],
            fields["at_ms"],
            fields["from"],
            fields["name"],
            fields["id"],
            fields["text"],
        )


class Inbox(NamedTuple):
    """A page of the reader's mailbox. ``more``: further messages waited behind the last one."""

    user: str
    name: str
    messages: list[Message]
    more: bool
    cursor: int

    @classmethod
    def parse(cls, fields: Fields) -> Inbox:
        messages = [Message.parse(message) for message in fields["messages"]]
        return cls(fields["user"], fields["name"], messages, fields["more"], fields["cursor"])


class Subscribed(NamedTuple):
    """The answer to ``subscribe``: the number that its events bear, and the mailbox's cursor."""

    subscription: int
    cursor: int

    @classmethod
    def parse(cls, fields: Fields) -> Subscribed:
        return cls(fields["subscription"], fields["cursor"])


class User(NamedTuple):
    """An account: the user name and the display name."""

    user: str
    name: str

    @classmethod
    def parse(cls, fields: Fields) -> User:
        return cls(fields["user"], fields["name"])


def users_page(fields: Fields) -> tuple[list[User], bool]:
    """Return the users of one page, and whether another one follows."""
    users = [User.parse(user) for user in fields["users"]]
    return users, bool(fields["more"]) and bool(users)


def now_ms(fields: Fields) -> int:
    """Return the broker's clock from the answer to a ``ping``."""
    return int(fields["now_ms"])


def cursor(fields: Fields) -> int:
    """Return where the mailbox's cursor stands, from the answer to an ``ack``."""
    return int(fields["cursor"])


def read(parse: Callable[[Fields], T], fields: Fields) -> T:
    """Parse a result. Errors: `InternalError` when the broker left out what the protocol says."""
    try:
        return parse(fields)
    except (KeyError, TypeError):
        raise InternalError(
            Code.INTERNAL,
            "the broker's answer lacks a field of docs/PROTOCOL.md: compare its version with "
            "the client's",
        ) from None


def read_receipt(fields: Fields, message_id: str) -> Receipt:
    """As `read`, for a chat: without a closure, since it stands on the hot path."""
    try:
        return Receipt(fields["seq"], fields["durability"], message_id)
    except KeyError:
        raise InternalError(
            Code.INTERNAL, "the broker's answer lacks 'seq' or 'durability'"
        ) from None
