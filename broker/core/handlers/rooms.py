"""Rooms: ``rooms`` lists them, ``room_...`` makes, fills and leaves them."""

from __future__ import annotations

from typing import Any

from broker.core.handlers.context import Context, Result
from broker.core.model import Room
from broker.wire import commands
from broker.wire.limits import USERS_PAGE_MAX


def handle_rooms(ctx: Context, _: commands.NoArgs) -> Result:
    """List the user's rooms, and those it is invited to."""
    found = ctx.rooms.of(ctx.session.user)
    return {"rooms": [_written(room, joined=each.joined) for room, each in found]}


def handle_create(ctx: Context, args: commands.RoomCreateArgs) -> Result:
    """Make a room. Errors: ``room_exists``, ``too_many``."""
    room = ctx.rooms.create(Room(args.room, ctx.session.user, args.open, args.history, members=1))
    _listen(ctx)
    return {"room": _written(room, joined=True)}


def handle_invite(ctx: Context, args: commands.RoomInviteArgs) -> Result:
    """Let a user come in, and tell it.

    Errors: ``no_such_room``, ``no_such_user``, ``blocked``, ``too_many``, ``mailbox_full``.
    """
    ctx.rooms.check_member(args.room, ctx.session.user)
    ctx.accounts.find(args.user)
    ctx.blocks.check(args.user, ctx.session.user)
    ctx.rooms.invite(args.room, args.user, by=ctx.session.user, now_ms=ctx.now_ms)
    ctx.subscriptions.wake(args.user)
    return {}


def handle_join(ctx: Context, args: commands.RoomArgs) -> Result:
    """Begin to read what is said in a room. Errors: ``no_such_room``, ``too_many``."""
    room = ctx.rooms.join(args.room, ctx.session.user)
    _listen(ctx)
    return {"room": _written(room, joined=True)}


def handle_leave(ctx: Context, args: commands.RoomArgs) -> Result:
    """Read a room no longer, or decline an invitation. Idempotent."""
    ctx.rooms.leave(args.room, ctx.session.user)
    _listen(ctx)
    return {}


def handle_members(ctx: Context, args: commands.RoomMembersArgs) -> Result:
    """List the members, for one of them. Errors: ``no_such_room``."""
    found = ctx.rooms.members(args.room, ctx.session.user, args.after or "")
    page = found[:USERS_PAGE_MAX]
    return {
        "members": [{"user": user, "name": ctx.accounts.name(user)} for user in page],
        "more": len(found) > len(page),
    }


def _listen(ctx: Context) -> None:
    """Let the user's subscriptions hear of the rooms that it is in now."""
    user = ctx.session.user
    if user in ctx.subscriptions:
        ctx.subscriptions.listen(user, ctx.rooms.joined(user))


def _written(room: Room, *, joined: bool) -> dict[str, Any]:
    return {
        "room": room.room,
        "owner": room.owner,
        "open": room.open,
        "history": room.history,
        "members": room.members,
        "joined": joined,
    }
