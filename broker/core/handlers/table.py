"""The table of commands: each with its handler and, as data, the checks that come before it.

Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from broker.core.handlers import accounts, administration, keys, mail, rooms, sessions
from broker.core.handlers.context import Context, Result
from broker.wire import commands


class Needs(Enum):
    """Whose token a command needs."""

    NOTHING = auto()
    #: Of no one; but if there is one, it must be good.
    TOKEN_IF_GIVEN = auto()
    #: Of anybody with a mailbox.
    READER = auto()
    #: Of a user or an administrator who has a mailbox, not of an observer.
    USER = auto()
    #: Of an administrator or an observer.
    OBSERVER = auto()
    ADMIN = auto()


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command: its handler, its arguments' parser, and when it may run."""

    handle: Callable[[Context, Any], Result]
    parse: Callable[[dict[str, Any]], Any]
    needs: Needs
    #: Works for the user of its token.
    own: bool
    #: Waits for a password hash or a disk: counted against ``SLOW_REQUESTS_MAX``.
    slow: bool
    #: Served while the broker is stopping: what leaves less to be delivered again.
    while_draining: bool
    #: Takes room on the disk: refused while there is none.
    stores: bool
    #: Brings in something new: refused while nothing new is taken.
    adds: bool
    #: The arguments that the audit bears; None: it is not for the audit.
    audit: tuple[str, ...] | None


def _spec(
    name: str,
    handle: Callable[[Context, Any], Result],
    needs: Needs,
    *,
    slow: bool = False,
    while_draining: bool = False,
    stores: bool = False,
    adds: bool = False,
    audit: tuple[str, ...] | None = None,
) -> tuple[str, CommandSpec]:
    own = needs in (Needs.READER, Needs.USER)
    stores = stores or adds
    parse = commands.PARSERS[name]
    return name, CommandSpec(handle, parse, needs, own, slow, while_draining, stores, adds, audit)


_WHOM: Final = ("user",)

_OF_ANYBODY: Final = [
    _spec("hello", sessions.handle_hello, Needs.NOTHING, while_draining=True),
    _spec("ping", sessions.handle_ping, Needs.TOKEN_IF_GIVEN, while_draining=True),
    _spec(
        "login",
        sessions.handle_login,
        Needs.NOTHING,
        slow=True,
        stores=True,
        audit=("user", "device"),
    ),
    _spec("register", accounts.handle_register, Needs.NOTHING, slow=True, adds=True, audit=_WHOM),
]

_OF_USERS: Final = [
    _spec("logout", sessions.handle_logout, Needs.READER, while_draining=True, audit=()),
    # Takes room and is new, but judges that itself: a repeated id has its answer already.
    _spec("chat", mail.handle_chat, Needs.USER),
    _spec("kotakmasuk", mail.handle_kotakmasuk, Needs.READER),
    _spec("ack", mail.handle_ack, Needs.READER, while_draining=True),
    _spec("subscribe", mail.handle_subscribe, Needs.READER),
    _spec("unsubscribe", mail.handle_unsubscribe, Needs.READER, while_draining=True),
    _spec("history", mail.handle_history, Needs.READER),
    _spec("status", mail.handle_status, Needs.READER),
    _spec("block", mail.handle_block, Needs.READER, stores=True),
    _spec("unblock", mail.handle_unblock, Needs.READER),
    _spec("blocks", mail.handle_blocks, Needs.READER),
    _spec("rooms", rooms.handle_rooms, Needs.READER),
    _spec("room_create", rooms.handle_create, Needs.USER, adds=True),
    _spec("room_invite", rooms.handle_invite, Needs.USER, adds=True),
    _spec("room_join", rooms.handle_join, Needs.USER, stores=True),
    _spec("room_leave", rooms.handle_leave, Needs.READER),
    _spec("room_members", rooms.handle_members, Needs.READER),
    _spec("user_on", sessions.handle_user_on, Needs.READER),
    _spec("passwd", accounts.handle_passwd, Needs.READER, slow=True, audit=()),
]

_OF_ADMINISTRATORS: Final = [
    _spec("user_add", accounts.handle_user_add, Needs.ADMIN, slow=True, adds=True, audit=_WHOM),
    _spec("user_list", accounts.handle_user_list, Needs.OBSERVER),
    _spec("user_passwd", accounts.handle_user_passwd, Needs.ADMIN, slow=True, audit=_WHOM),
    _spec("user_role", accounts.handle_user_role, Needs.ADMIN, audit=("user", "role")),
    _spec("user_remove", accounts.handle_user_remove, Needs.ADMIN, audit=_WHOM),
    _spec("key_add", keys.handle_add, Needs.ADMIN, stores=True, audit=("user", "key")),
    _spec("key_list", keys.handle_list, Needs.OBSERVER),
    _spec("key_remove", keys.handle_remove, Needs.ADMIN, audit=("user", "key")),
    _spec("session_list", administration.handle_session_list, Needs.OBSERVER),
    _spec(
        "session_revoke",
        administration.handle_session_revoke,
        Needs.ADMIN,
        audit=("user", "session"),
    ),
    _spec("session_revoke_all", administration.handle_session_revoke_all, Needs.ADMIN, audit=_WHOM),
    _spec("mailbox_list", administration.handle_mailbox_list, Needs.OBSERVER),
    _spec("mailbox_depth", administration.handle_mailbox_depth, Needs.OBSERVER),
    _spec("broker_status", administration.handle_status, Needs.OBSERVER),
    _spec("broker_drain", administration.handle_drain, Needs.ADMIN, audit=("on",)),
    _spec("broker_reload", administration.handle_reload, Needs.ADMIN, slow=True, audit=()),
    _spec("broker_backup", administration.handle_backup, Needs.ADMIN, slow=True, audit=("name",)),
]

_CANONICAL: Final = dict(_OF_ANYBODY + _OF_USERS + _OF_ADMINISTRATORS)

#: Every name that a request may use, aliases included.
COMMANDS: Final[Mapping[str, CommandSpec]] = _CANONICAL | {
    alias: _CANONICAL[name] for alias, name in commands.ALIASES.items()
}
