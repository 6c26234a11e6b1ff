"""What each command takes: one class of arguments a command, each with its own checked parser.

A parser accepts exactly the documented fields, with their types and sizes, and refuses the rest
with a sentence that names the field. Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from broker.wire.commands.accounts import (
    KeyArgs,
    PageArgs,
    PasswdArgs,
    RegisterArgs,
    UserAddArgs,
    UserArgs,
    UserPasswdArgs,
    UserRoleArgs,
)
from broker.wire.commands.administration import BackupArgs, DrainArgs, SessionArgs
from broker.wire.commands.fields import Fields
from broker.wire.commands.mail import (
    INBOX,
    SENT,
    AckArgs,
    ChatArgs,
    HistoryArgs,
    InboxArgs,
    StatusArgs,
    SubscribeArgs,
    parse_chat,
)
from broker.wire.commands.rooms import RoomArgs, RoomCreateArgs, RoomInviteArgs, RoomMembersArgs
from broker.wire.commands.sessions import HelloArgs, LoginArgs, NoArgs, PresenceArgs

__all__ = [
    "ALIASES",
    "INBOX",
    "PARSERS",
    "SENT",
    "AckArgs",
    "BackupArgs",
    "ChatArgs",
    "DrainArgs",
    "HelloArgs",
    "HistoryArgs",
    "InboxArgs",
    "KeyArgs",
    "LoginArgs",
    "NoArgs",
    "PageArgs",
    "PasswdArgs",
    "PresenceArgs",
    "RegisterArgs",
    "RoomArgs",
    "RoomCreateArgs",
    "RoomInviteArgs",
    "RoomMembersArgs",
    "SessionArgs",
    "StatusArgs",
    "SubscribeArgs",
    "UserAddArgs",
    "UserArgs",
    "UserPasswdArgs",
    "UserRoleArgs",
    "parse_chat",
]

#: The original's other dialects; canonical names are the keys of `PARSERS`.
ALIASES: Final[Mapping[str, str]] = {
    "auth": "login",
    "send": "chat",
    "inbox": "kotakmasuk",
    "who": "user_on",
}

#: Every command of protocol version 1, by its canonical name.
PARSERS: Final[Mapping[str, Callable[[Fields], Any]]] = {
    "hello": HelloArgs.parse,
    "ping": NoArgs.parse,
    "login": LoginArgs.parse,
    "logout": NoArgs.parse,
    "chat": parse_chat,
    "kotakmasuk": InboxArgs.parse,
    "ack": AckArgs.parse,
    "subscribe": SubscribeArgs.parse,
    "unsubscribe": NoArgs.parse,
    "history": HistoryArgs.parse,
    "status": StatusArgs.parse,
    "user_on": PresenceArgs.parse,
    "block": UserArgs.parse,
    "unblock": UserArgs.parse,
    "blocks": NoArgs.parse,
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
    "user_role": UserRoleArgs.parse,
    "user_remove": UserArgs.parse,
    "key_add": KeyArgs.parse,
    "key_list": UserArgs.parse,
    "key_remove": KeyArgs.parse,
    "session_list": UserArgs.parse,
    "session_revoke": SessionArgs.parse,
    "session_revoke_all": UserArgs.parse,
    "mailbox_list": PageArgs.parse,
    "mailbox_depth": UserArgs.parse,
    "broker_status": NoArgs.parse,
    "broker_drain": DrainArgs.parse,
    "broker_reload": NoArgs.parse,
    "broker_backup": BackupArgs.parse,
}
