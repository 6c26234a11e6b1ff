"""What the commands return: one class a result, each made from the map in a reply.

Source: docs/PROTOCOL.md, "Commands". Fields that this version does not know are ignored.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple, TypeVar

from broker.wire.errors import Code
from clients.errors import InternalError

T = TypeVar("T")
Fields = Mapping[str, Any]
_new: Final = tuple.__new__


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

    ``at_ms`` is the time of storing, in milliseconds since the Unix epoch. ``room`` is where it was
    said; None: it was sent to the reader alone. ``redelivered``: this reader may have got it before
    and has not acknowledged it. In a `History` only: ``to``, a user or a ``#room``, and, of what
    was sent, ``state``, as `Status` has it.
    """

    seq: int
    at_ms: int
    sender: str
    name: str
    id: str
    text: str
    room: str | None = None
    redelivered: bool = False
    to: str | None = None
    state: str | None = None

    @classmethod
    def parse(cls, fields: Fields) -> Message:
        get = fields.get
        return cls(
            fields["seq"],
            fields["at_ms"],
            fields["from"],
            fields["name"],
            fields["id"],
            fields["text"],
            get("room"),
            get("redelivered", False),
            get("to"),
            get("state"),
        )


def _messages(fields: Fields) -> list[Message]:
    return [Message.parse(message) for message in fields["messages"]]


def _lost(fields: Fields) -> tuple[int, int] | None:
    """Return the first and the last sequence that may be gone; None: history is whole."""
    lost = fields.get("history_lost")
    return None if lost is None else (lost["first"], lost["last"])


class Inbox(NamedTuple):
    """A page of the reader's mailbox. ``more``: further messages waited behind the last one.

    ``epoch`` names the history that the sequences belong to (0: the broker tells none);
    ``history_lost`` is the first and the last sequence of what may be gone of it.
    Source: docs/PROTOCOL.md, "When history was lost".
    """

    user: str
    name: str
    messages: list[Message]
    more: bool
    cursor: int
    epoch: int = 0
    history_lost: tuple[int, int] | None = None

    @classmethod
    def parse(cls, fields: Fields) -> Inbox:
        return cls(
            fields["user"],
            fields["name"],
            _messages(fields),
            fields["more"],
            fields["cursor"],
            fields.get("epoch", 0),
            _lost(fields),
        )


class History(NamedTuple):
    """A page of what is kept, in order of sequence; ``more``: the same direction has further."""

    messages: list[Message]
    more: bool

    @classmethod
    def parse(cls, fields: Fields) -> History:
        return cls(_messages(fields), fields["more"])


class Status(NamedTuple):
    """Where a message that was sent stands.

    ``state``: ``"stored"``, ``"delivered"``, ``"acknowledged"`` or ``"expired"``. ``at_ms`` is in
    milliseconds since the Unix epoch, ``id`` the message id that its sender gave.
    """

    state: str
    at_ms: int
    id: str

    @classmethod
    def parse(cls, fields: Fields) -> Status:
        return cls(fields["state"], fields["at_ms"], fields["id"])


class Subscribed(NamedTuple):
    """The answer to ``subscribe``: the number that its events bear, and the mailbox's cursor.

    ``epoch`` (None: the broker tells none) and ``history_lost`` as in `Inbox`.
    """

    subscription: int
    cursor: int
    epoch: int | None
    history_lost: tuple[int, int] | None

    @classmethod
    def parse(cls, fields: Fields) -> Subscribed:
        return cls(fields["subscription"], fields["cursor"], fields.get("epoch"), _lost(fields))


class User(NamedTuple):
    """An account: the user name and the display name.

    Where details were asked for: ``connected``, whether the user was heard within the last 60
    seconds, and ``seen_ms``, when that was, in milliseconds since the Unix epoch.
    """

    user: str
    name: str
    connected: bool | None = None
    seen_ms: int | None = None

    @classmethod
    def parse(cls, fields: Fields) -> User:
        return cls(fields["user"], fields["name"], fields.get("connected"), fields.get("seen_ms"))


class Room(NamedTuple):
    """A room: its name with the ``#``, who made it, and how many ``members`` it has.

    ``open``: anybody may join. ``history``: members may read what was said before they came.
    ``joined`` is False where the user is only invited.
    """

    room: str
    owner: str
    open: bool
    history: bool
    members: int
    joined: bool

    @classmethod
    def parse(cls, fields: Fields) -> Room:
        return cls(
            fields["room"],
            fields["owner"],
            fields["open"],
            fields["history"],
            fields["members"],
            fields["joined"],
        )


def room(fields: Fields) -> Room:
    """Return the room from the answer to ``room_create`` or ``room_join``."""
    return Room.parse(fields["room"])


def rooms(fields: Fields) -> list[Room]:
    """Return the rooms from the answer to ``rooms``."""
    return [Room.parse(each) for each in fields["rooms"]]


def page_of(key: str) -> Callable[[Fields], tuple[list[User], bool]]:
    """Return how the users of one page are read, and whether another one follows."""

    def parse(fields: Fields) -> tuple[list[User], bool]:
        users = [User.parse(user) for user in fields[key]]
        return users, bool(fields["more"]) and bool(users)

    return parse


def names(fields: Fields) -> list[str]:
    """Return the user names from the answer to ``blocks``."""
    return [*fields["users"]]


def nothing(_: Fields) -> None:
    """Read the answer to a command that has none but OK."""


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
    """As `read`, for a chat; on the hot path: no closure, nor the named tuple's own ``__new__``.

    That one is a function in Python, and half of what this costs.
    """
    try:
        return _new(Receipt, (fields["seq"], fields["durability"], message_id))
    except KeyError:
        raise InternalError(
            Code.INTERNAL, "the broker's answer lacks 'seq' or 'durability'"
        ) from None
