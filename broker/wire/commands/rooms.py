"""Rooms: ``room_...``.

Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from typing import NamedTuple

from broker.wire.commands.fields import Fields, boolean, name_of, new_room, only
from broker.wire.limits import USER_CHARS_MAX


class RoomArgs(NamedTuple):
    """``room_join``, ``room_leave``: which."""

    room: str

    @classmethod
    def parse(cls, fields: Fields) -> RoomArgs:
        only(fields, "room")
        return cls(name_of(fields, "room", USER_CHARS_MAX))


class RoomCreateArgs(NamedTuple):
    """``room_create``: its name, who may join, and whether newcomers may read what was said."""

    room: str
    open: bool
    history: bool

    @classmethod
    def parse(cls, fields: Fields) -> RoomCreateArgs:
        only(fields, "room", "open", "history")
        return cls(new_room(fields), boolean(fields, "open"), boolean(fields, "history"))


class RoomInviteArgs(NamedTuple):
    """``room_invite``: whom, to where."""

    room: str
    user: str

    @classmethod
    def parse(cls, fields: Fields) -> RoomInviteArgs:
        only(fields, "room", "user")
        return cls(name_of(fields, "room", USER_CHARS_MAX), name_of(fields, "user", USER_CHARS_MAX))


class RoomMembersArgs(NamedTuple):
    """``room_members``: of which room, and where the page begins (None: at the first)."""

    room: str
    after: str | None

    @classmethod
    def parse(cls, fields: Fields) -> RoomMembersArgs:
        only(fields, "room", "after")
        return cls(
            name_of(fields, "room", USER_CHARS_MAX), name_of(fields, "after", USER_CHARS_MAX, None)
        )
