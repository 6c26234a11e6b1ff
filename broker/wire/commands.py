"""What each command takes: one class of arguments a command, each with its own checked parser.

A parser accepts exactly the documented fields, with their types and sizes, and refuses the rest
with a sentence that names the field. Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from broker.wire.errors import Code, WireError
from broker.wire.keyfile import KEY_CHARS, is_key
from broker.wire.limits import (
    CLIENT_CHARS_MAX,
    DEVICE_CHARS_MAX,
    INBOX_MESSAGES_DEFAULT,
    INBOX_MESSAGES_MAX,
    MESSAGE_ID_CHARS_MAX,
    NAME_BYTES_MAX,
    PASSWORD_BYTES_MAX,
    PASSWORD_HASH_CHARS_MAX,
    ROOM_MARK,
    SEQ_MAX,
    TEXT_BYTES_MAX,
    TTL_MS_MAX,
    TTL_MS_MIN,
    USER_CHARS_MAX,
    WINDOW_DEFAULT,
    WINDOW_MAX,
)

Fields = dict[str, Any]

#: The original's other dialects; canonical names are the keys of `PARSERS`.
ALIASES: Final[Mapping[str, str]] = {
    "auth": "login",
    "send": "chat",
    "inbox": "kotakmasuk",
    "who": "user_on",
}

_USER: Final = re.compile(r"[a-z0-9][a-z0-9._-]*")
_MISSING: Final = object()
#: A text of so many characters fits whatever they are: none has more than four bytes.
_TEXT_CHARS_SURE: Final = TEXT_BYTES_MAX // 4


def _refuse(message: str) -> WireError:
    return WireError(Code.BAD_REQUEST, message)


def _string(fields: Fields, key: str, bytes_max: int, default: Any = _MISSING) -> Any:
    """Return a non-empty string of at most ``bytes_max`` bytes of UTF-8."""
    value = fields.get(key, default)
    if value is default and default is not _MISSING:
        return value
    if type(value) is not str:
        raise _refuse(f"'{key}' must be a string" if key in fields else f"'{key}' is missing")
    # Four bytes is the longest character: most strings are judged without being encoded.
    if not value or (len(value) * 4 > bytes_max and len(value.encode()) > bytes_max):
        if not value:
            raise _refuse(f"'{key}' must not be empty")
        raise WireError(Code.TOO_LARGE, f"'{key}' may have {bytes_max} bytes of UTF-8 at most")
    return value


def _name(fields: Fields, key: str, chars_max: int, default: Any = _MISSING) -> Any:
    """Return a non-empty string of at most ``chars_max`` characters."""
    value = _string(fields, key, 4 * chars_max, default)
    if value is not default and len(value) > chars_max:
        raise WireError(Code.TOO_LARGE, f"'{key}' may have {chars_max} characters at most")
    return value


def _integer(fields: Fields, key: str, low: int, high: int, default: Any = _MISSING) -> Any:
    value = fields.get(key, default)
    if value is default and default is not _MISSING:
        return value
    if type(value) is not int:
        raise _refuse(f"'{key}' must be an integer" if key in fields else f"'{key}' is missing")
    if not low <= value <= high:
        raise _refuse(f"'{key}' must lie between {low} and {high}")
    return value


def _boolean(fields: Fields, key: str) -> bool:
    value = fields.get(key, False)
    if type(value) is not bool:
        raise _refuse(f"'{key}' must be true or false")
    return value


def _new_user(fields: Fields) -> str:
    """Return a name that may be given to a new account (names to look up need no such check)."""
    user: str = _name(fields, "user", USER_CHARS_MAX)
    if not _USER.fullmatch(user):
        raise _refuse(
            "a user name has small letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return user


def _device(fields: Fields) -> str:
    device: str = _name(fields, "device", DEVICE_CHARS_MAX, None) or ""
    if device and not _USER.fullmatch(device):
        raise _refuse(
            "a device has small letters, digits, '.', '_' and '-', a letter or digit first"
        )
    return device


def _new_room(fields: Fields) -> str:
    """Return a name that may be given to a new room."""
    room: str = _name(fields, "room", USER_CHARS_MAX)
    if room[0] != ROOM_MARK or not _USER.fullmatch(room, 1):
        raise _refuse(
            "a room's name is '#' and small letters, digits, '.', '_' and '-', a letter or digit "
            "first"
        )
    return room


def _only(fields: Fields, *known: str) -> None:
    """Refuse unknown fields: a misspelt option must not be ignored in silence."""
    for key in fields:
        if key not in known:
            allowed = ", ".join(known) or "none"
            raise _refuse(f"unknown field {str(key)[:32]!r}; this command takes: {allowed}")


class NoArgs(NamedTuple):
    """``ping``, ``logout``, ``unsubscribe``, ``rooms``."""

    @classmethod
    def parse(cls, fields: Fields) -> NoArgs:
        _only(fields)
        return cls()


class HelloArgs(NamedTuple):
    """``hello``: the protocol version wanted, and what the client calls itself."""

    version: int
    client: str | None

    @classmethod
    def parse(cls, fields: Fields) -> HelloArgs:
        _only(fields, "version", "client")
        return cls(
            _integer(fields, "version", 0, 2**31),
            _name(fields, "client", CLIENT_CHARS_MAX, None),
        )


class LoginArgs(NamedTuple):
    """``login``: a user name, its password, and which device this is (empty: it does not say).

    None for ``password``: the connection's key is to be enough.
    """

    user: str
    password: str | None
    device: str

    @classmethod
    def parse(cls, fields: Fields) -> LoginArgs:
        _only(fields, "user", "password", "device")
        return cls(
            _name(fields, "user", USER_CHARS_MAX),
            _string(fields, "password", PASSWORD_BYTES_MAX, None),
            _device(fields),
        )


class ChatArgs(NamedTuple):
    """``chat``: the recipient, the text, the client-made id that makes a retry safe, its life.

    None for ``ttl_ms``: it never expires unread.
    """

    to: str
    text: str
    message_id: str
    ttl_ms: int | None

    @classmethod
    def parse(cls, fields: Fields) -> ChatArgs:
        # Hot path: what is plainly good is not looked at closer (0.3 us instead of 0.8).
        to, text, message_id = fields.get("to"), fields.get("text"), fields.get("id")
        if (
            type(to) is type(text) is type(message_id) is str
            and 0 < len(to) <= USER_CHARS_MAX
            and 0 < len(text) <= _TEXT_CHARS_SURE
            and 0 < len(message_id) <= MESSAGE_ID_CHARS_MAX
            and len(fields) == 3
        ):
            return tuple.__new__(cls, (to, text, message_id, None))
        _only(fields, "to", "text", "id", "ttl_ms")
        return cls(
            _name(fields, "to", USER_CHARS_MAX),
            _string(fields, "text", TEXT_BYTES_MAX),
            _name(fields, "id", MESSAGE_ID_CHARS_MAX),
            _integer(fields, "ttl_ms", TTL_MS_MIN, TTL_MS_MAX, None),
        )


class InboxArgs(NamedTuple):
    """``kotakmasuk``: how many messages at most, after which sequence, and of which epoch that is.

    None for ``after``: behind the cursor.
    """

    limit: int
    after: int | None
    epoch: int | None

    @classmethod
    def parse(cls, fields: Fields) -> InboxArgs:
        _only(fields, "limit", "after", "epoch")
        return cls(
            _integer(fields, "limit", 1, INBOX_MESSAGES_MAX, INBOX_MESSAGES_DEFAULT),
            _integer(fields, "after", 0, SEQ_MAX, None),
            _integer(fields, "epoch", 0, SEQ_MAX, None),
        )


class AckArgs(NamedTuple):
    """``ack``: every message up to and with this sequence has been dealt with."""

    seq: int

    @classmethod
    def parse(cls, fields: Fields) -> AckArgs:
        _only(fields, "seq")
        return cls(_integer(fields, "seq", 0, SEQ_MAX))


class SubscribeArgs(NamedTuple):
    """``subscribe``: how many messages may be unacknowledged, where to begin, of which epoch."""

    window: int
    after: int | None
    epoch: int | None

    @classmethod
    def parse(cls, fields: Fields) -> SubscribeArgs:
        _only(fields, "window", "after", "epoch")
        return cls(
            _integer(fields, "window", 1, WINDOW_MAX, WINDOW_DEFAULT),
            _integer(fields, "after", 0, SEQ_MAX, None),
            _integer(fields, "epoch", 0, SEQ_MAX, None),
        )


#: What `history` can be of, beside a room.
INBOX: Final = "inbox"
SENT: Final = "sent"


class HistoryArgs(NamedTuple):
    """``history``: of what, and which page: below ``before``, above ``after``, or the newest."""

    of: str
    before: int | None
    after: int | None
    limit: int

    @classmethod
    def parse(cls, fields: Fields) -> HistoryArgs:
        _only(fields, "of", "before", "after", "limit")
        args = cls(
            _name(fields, "of", USER_CHARS_MAX, INBOX),
            _integer(fields, "before", 0, SEQ_MAX, None),
            _integer(fields, "after", 0, SEQ_MAX, None),
            _integer(fields, "limit", 1, INBOX_MESSAGES_MAX, INBOX_MESSAGES_DEFAULT),
        )
        if args.of not in (INBOX, SENT) and args.of[0] != ROOM_MARK:
            raise _refuse("'of' must be 'inbox', 'sent' or a '#room'")
        if args.before is not None and args.after is not None:
            raise _refuse("give one of 'before' and 'after'")
        return args


class StatusArgs(NamedTuple):
    """``status``: a message, by its recipient and its sequence."""

    to: str
    seq: int

    @classmethod
    def parse(cls, fields: Fields) -> StatusArgs:
        _only(fields, "to", "seq")
        return cls(_name(fields, "to", USER_CHARS_MAX), _integer(fields, "seq", 1, SEQ_MAX))


class PresenceArgs(NamedTuple):
    """``user_on``: where the page begins (None: at the first), and whether to tell more of each."""

    after: str | None
    detail: bool

    @classmethod
    def parse(cls, fields: Fields) -> PresenceArgs:
        _only(fields, "after", "detail")
        return cls(_name(fields, "after", USER_CHARS_MAX, None), _boolean(fields, "detail"))


class RoomArgs(NamedTuple):
    """``room_join``, ``room_leave``: which."""

    room: str

    @classmethod
    def parse(cls, fields: Fields) -> RoomArgs:
        _only(fields, "room")
        return cls(_name(fields, "room", USER_CHARS_MAX))


class RoomCreateArgs(NamedTuple):
    """``room_create``: its name, who may join, and whether newcomers may read what was said."""

    room: str
    open: bool
    history: bool

    @classmethod
    def parse(cls, fields: Fields) -> RoomCreateArgs:
        _only(fields, "room", "open", "history")
        return cls(_new_room(fields), _boolean(fields, "open"), _boolean(fields, "history"))


class RoomInviteArgs(NamedTuple):
    """``room_invite``: whom, to where."""

    room: str
    user: str

    @classmethod
    def parse(cls, fields: Fields) -> RoomInviteArgs:
        _only(fields, "room", "user")
        return cls(_name(fields, "room", USER_CHARS_MAX), _name(fields, "user", USER_CHARS_MAX))


class RoomMembersArgs(NamedTuple):
    """``room_members``: of which room, and where the page begins (None: at the first)."""

    room: str
    after: str | None

    @classmethod
    def parse(cls, fields: Fields) -> RoomMembersArgs:
        _only(fields, "room", "after")
        return cls(
            _name(fields, "room", USER_CHARS_MAX), _name(fields, "after", USER_CHARS_MAX, None)
        )


class PageArgs(NamedTuple):
    """``user_list``: where the page begins (None: at the first)."""

    after: str | None

    @classmethod
    def parse(cls, fields: Fields) -> PageArgs:
        _only(fields, "after")
        return cls(_name(fields, "after", USER_CHARS_MAX, None))


class RegisterArgs(NamedTuple):
    """``register``: a new account, made by its owner."""

    user: str
    password: str
    name: str | None

    @classmethod
    def parse(cls, fields: Fields) -> RegisterArgs:
        _only(fields, "user", "password", "name")
        return cls(
            _new_user(fields),
            _string(fields, "password", PASSWORD_BYTES_MAX),
            _string(fields, "name", NAME_BYTES_MAX, None),
        )


class PasswdArgs(NamedTuple):
    """``passwd``: the old password and the new one."""

    password: str
    new_password: str

    @classmethod
    def parse(cls, fields: Fields) -> PasswdArgs:
        _only(fields, "password", "new_password")
        return cls(
            _string(fields, "password", PASSWORD_BYTES_MAX),
            _string(fields, "new_password", PASSWORD_BYTES_MAX),
        )


class UserAddArgs(NamedTuple):
    """``user_add``: a new account, made by an administrator, from a password or from its hash."""

    user: str
    password: str | None
    password_hash: str | None
    name: str | None

    @classmethod
    def parse(cls, fields: Fields) -> UserAddArgs:
        _only(fields, "user", "password", "password_hash", "name")
        args = cls(
            _new_user(fields),
            _string(fields, "password", PASSWORD_BYTES_MAX, None),
            _name(fields, "password_hash", PASSWORD_HASH_CHARS_MAX, None),
            _string(fields, "name", NAME_BYTES_MAX, None),
        )
        if (args.password is None) == (args.password_hash is None):
            raise _refuse("give one of 'password' and 'password_hash'")
        return args


class UserPasswdArgs(NamedTuple):
    """``user_passwd``: a new password, set by an administrator."""

    user: str
    password: str

    @classmethod
    def parse(cls, fields: Fields) -> UserPasswdArgs:
        _only(fields, "user", "password")
        return cls(
            _name(fields, "user", USER_CHARS_MAX),
            _string(fields, "password", PASSWORD_BYTES_MAX),
        )


class UserArgs(NamedTuple):
    """``user_remove``: whom. ``key_list``: whose."""

    user: str

    @classmethod
    def parse(cls, fields: Fields) -> UserArgs:
        _only(fields, "user")
        return cls(_name(fields, "user", USER_CHARS_MAX))


class KeyArgs(NamedTuple):
    """``key_add``, ``key_remove``: whose, and which: a public CURVE key."""

    user: str
    key: str

    @classmethod
    def parse(cls, fields: Fields) -> KeyArgs:
        _only(fields, "user", "key")
        args = cls(_name(fields, "user", USER_CHARS_MAX), _name(fields, "key", KEY_CHARS))
        if not is_key(args.key):
            raise _refuse(f"'key' must be a public key: {KEY_CHARS} characters of Z85")
        return args


#: Every command of protocol version 1, by its canonical name.
PARSERS: Final[Mapping[str, Callable[[Fields], Any]]] = {
    "hello": HelloArgs.parse,
    "ping": NoArgs.parse,
    "login": LoginArgs.parse,
    "logout": NoArgs.parse,
    "chat": ChatArgs.parse,
    "kotakmasuk": InboxArgs.parse,
    "ack": AckArgs.parse,
    "subscribe": SubscribeArgs.parse,
    "unsubscribe": NoArgs.parse,
    "history": HistoryArgs.parse,
    "status": StatusArgs.parse,
    "user_on": PresenceArgs.parse,
    "rooms": NoArgs.parse,
    "room_create": RoomCreateArgs.parse,
    "room_invite": RoomInviteArgs.parse,
    "room_join": RoomArgs.parse,
    "room_leave": RoomArgs.parse,
    "room_members": RoomMembersArgs.parse,
    "register": RegisterArgs.parse,
    "passwd": PasswdArgs.parse,
    "user_add": UserAddArgs.parse,
    "user_list": PageArgs.parse,
    "user_passwd": UserPasswdArgs.parse,
    "user_remove": UserArgs.parse,
    "key_add": KeyArgs.parse,
    "key_list": UserArgs.parse,
    "key_remove": KeyArgs.parse,
}
