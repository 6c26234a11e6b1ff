"""Rooms: logs with members, where a message is said once and each member reads it.

    client.rooms.create("#lunch", open=True)
    client.send("#lunch", "hai")

What is said comes with the other messages, from joining to leaving, in `Client.inbox` and
`Client.messages`; its ``room`` names the room. A room's name is ``#`` and 1 to 63 of
``a-z 0-9 . _ -``, a letter or digit first. ``timeout_ms`` is the client's where not given; the
errors of every command are not repeated below. Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from typing import TypeAlias

from clients import exchanges
from clients.exchanges import Ask, AsyncAsk, every_user, every_user_async
from clients.results import Room, User

# Within the classes below "list" is a method.
_RoomList: TypeAlias = list[Room]
_UserList: TypeAlias = list[User]


class Rooms:
    """The rooms of a `Client`'s user: its ``rooms``."""

    def __init__(self, ask: Ask) -> None:
        self._ask = ask

    def list(self, *, timeout_ms: int | None = None) -> _RoomList:
        """Return the rooms that the user is in, and those it is invited to (not ``joined``)."""
        return self._ask(exchanges.rooms(), timeout_ms)

    def create(
        self,
        room: str,
        *,
        open: bool = False,  # noqa: A002 - the protocol's name for it
        history: bool = False,
        timeout_ms: int | None = None,
    ) -> Room:
        """Make a room, with the user as its owner and first member.

        ``open``: anybody may join, not only who is invited. ``history``: members may read what was
        said before they came. Errors: `RoomExists` (also where the answer to a first copy of the
        request was lost: see `list`), `TooMany` (100 rooms a user), `BadRequest` (the name).
        """
        return self._ask(exchanges.room_create(room, anybody=open, history=history), timeout_ms)

    def invite(self, room: str, user: str, *, timeout_ms: int | None = None) -> None:
        """Let ``user`` join a room that one is in; the broker tells that user by a notice.

        Errors: `NoSuchRoom` (also where one is not in it), `NoSuchUser`, `Blocked` (by that user),
        `TooMany` (that user's).
        """
        self._ask(exchanges.room_invite(room, user), timeout_ms)

    def join(self, room: str, *, timeout_ms: int | None = None) -> Room:
        """Become a member; what is said from now on is read. Joining twice is no error.

        Errors: `NoSuchRoom` (also where one is not invited), `TooMany` (100 rooms a user).
        """
        return self._ask(exchanges.room_join(room), timeout_ms)

    def leave(self, room: str, *, timeout_ms: int | None = None) -> None:
        """Leave a room, or decline an invitation; twice is no error.

        The last one to leave removes the room with what was said in it.
        """
        self._ask(exchanges.room_leave(room), timeout_ms)

    def members(self, room: str, *, timeout_ms: int | None = None) -> _UserList:
        """Return who is in a room that one is in, in order of user. Errors: `NoSuchRoom`."""
        return every_user(self._ask, exchanges.room_members(room), timeout_ms)


class AsyncRooms:
    """The rooms of an `AsyncClient`'s user; arguments, results and errors as `Rooms`'."""

    def __init__(self, ask: AsyncAsk) -> None:
        self._ask = ask

    async def list(self, *, timeout_ms: int | None = None) -> _RoomList:
        """Return the rooms that the user is in, and those it is invited to; as `Rooms.list`."""
        return await self._ask(exchanges.rooms(), timeout_ms)

    async def create(
        self,
        room: str,
        *,
        open: bool = False,  # noqa: A002 - the protocol's name for it
        history: bool = False,
        timeout_ms: int | None = None,
    ) -> Room:
        """Make a room; as `Rooms.create`."""
        made = exchanges.room_create(room, anybody=open, history=history)
        return await self._ask(made, timeout_ms)

    async def invite(self, room: str, user: str, *, timeout_ms: int | None = None) -> None:
        """Let ``user`` join; as `Rooms.invite`."""
        await self._ask(exchanges.room_invite(room, user), timeout_ms)

    async def join(self, room: str, *, timeout_ms: int | None = None) -> Room:
        """Become a member; as `Rooms.join`."""
        return await self._ask(exchanges.room_join(room), timeout_ms)

    async def leave(self, room: str, *, timeout_ms: int | None = None) -> None:
        """Leave a room; as `Rooms.leave`."""
        await self._ask(exchanges.room_leave(room), timeout_ms)

    async def members(self, room: str, *, timeout_ms: int | None = None) -> _UserList:
        """Return who is in a room, in order of user; as `Rooms.members`."""
        return await every_user_async(self._ask, exchanges.room_members(room), timeout_ms)
