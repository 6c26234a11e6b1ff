"""The table of commands: each with its handler and, as data, the checks that come before it.

Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final

from broker.core.handlers import accounts, keys, mail, rooms, sessions
from broker.core.handlers.context import Context, Result
from broker.wire import commands


class Needs(Enum):
    """Whose token a command needs."""

    NOTHING = auto()
    #: Of no one; but if there is one, it must be good.
    TOKEN_IF_GIVEN = auto()
    USER = auto()
    ADMIN = auto()


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command: its handler, its arguments' parser, and when it may run."""

    handle: Callable[[Context, Any], Result]
    parse: Callable[[dict[str, Any]], Any]
    needs: Needs
    #: Hashes a password: counted against ``SLOW_REQUESTS_MAX``.
    slow: bool
    #: Served while the broker is stopping: what leaves less to be delivered again.
    while_draining: bool
    #: Takes room on the disk: refused while there is none.
    stores: bool


def _spec(
    name: str,
    handle: Callable[[Context, Any], Result],
    needs: Needs,
    *,
    slow: bool = False,
    while_draining: bool = False,
    stores: bool = False,
) -> tuple[str, CommandSpec]:
    return name, CommandSpec(handle, commands.PARSERS[name], needs, slow, while_draining, stores)


_CANONICAL: Final = dict(
    [
        _spec("hello", sessions.handle_hello, Needs.NOTHING, while_draining=True),
        _spec("ping", sessions.handle_ping, Needs.TOKEN_IF_GIVEN, while_draining=True),
        _spec("login", sessions.handle_login, Needs.NOTHING, slow=True, stores=True),
        _spec("logout", sessions.handle_logout, Needs.USER, while_draining=True),
        _spec("chat", mail.handle_chat, Needs.USER, stores=True),
        _spec("kotakmasuk", mail.handle_kotakmasuk, Needs.USER),
        _spec("ack", mail.handle_ack, Needs.USER, while_draining=True),
        _spec("subscribe", mail.handle_subscribe, Needs.USER),
        _spec("unsubscribe", mail.handle_unsubscribe, Needs.USER, while_draining=True),
        _spec("history", mail.handle_history, Needs.USER),
        _spec("status", mail.handle_status, Needs.USER),
        _spec("rooms", rooms.handle_rooms, Needs.USER),
        _spec("room_create", rooms.handle_create, Needs.USER, stores=True),
        _spec("room_invite", rooms.handle_invite, Needs.USER, stores=True),
        _spec("room_join", rooms.handle_join, Needs.USER, stores=True),
        _spec("room_leave", rooms.handle_leave, Needs.USER),
        _spec("room_members", rooms.handle_members, Needs.USER),
        _spec("user_on", sessions.handle_user_on, Needs.USER),
        _spec("register", accounts.handle_register, Needs.NOTHING, slow=True, stores=True),
        _spec("passwd", accounts.handle_passwd, Needs.USER, slow=True),
        _spec("user_add", accounts.handle_user_add, Needs.ADMIN, slow=True, stores=True),
        _spec("user_list", accounts.handle_user_list, Needs.ADMIN),
        _spec("user_passwd", accounts.handle_user_passwd, Needs.ADMIN, slow=True),
        _spec("user_remove", accounts.handle_user_remove, Needs.ADMIN),
        _spec("key_add", keys.handle_add, Needs.ADMIN, stores=True),
        _spec("key_list", keys.handle_list, Needs.ADMIN),
        _spec("key_remove", keys.handle_remove, Needs.ADMIN),
    ]
)

#: Every name that a request may use, aliases included.
COMMANDS: Final[Mapping[str, CommandSpec]] = _CANONICAL | {
    alias: _CANONICAL[name] for alias, name in commands.ALIASES.items()
}
