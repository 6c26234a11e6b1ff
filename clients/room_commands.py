"""``kotak room``: make rooms, let others in, go in and out, and see who and what is there.

The functions bear the names of their commands. Errors of all: `KotakError`, `NotLoggedInError`
(docs/PROTOCOL.md, "rooms").
"""

from __future__ import annotations

from clients.commands import note, write_line
from clients.display import person, user_json
from clients.invocation import Invocation
from clients.room_text import (
    invited_text,
    joined_text,
    left_text,
    made_text,
    room_json,
    room_lines,
)


def list_(call: Invocation) -> None:
    with call.open(call.session().token) as client, call.waiting():
        rooms = client.rooms.list()
    for line in map(room_json, rooms) if call.args.json else room_lines(rooms):
        write_line(line)
    if not rooms and not call.args.json:
        note("no rooms")


def create(call: Invocation) -> None:
    args = call.args
    with call.open(call.session().token) as client, call.waiting():
        room = client.rooms.create(args.room, open=args.open, history=args.history)
    write_line(room_json(room) if args.json else made_text(room))


def invite(call: Invocation) -> None:
    room, user = call.args.room, call.args.user
    with call.open(call.session().token) as client, call.waiting():
        client.rooms.invite(room, user)
    write_line(invited_text(room, user))


def join(call: Invocation) -> None:
    with call.open(call.session().token) as client, call.waiting():
        room = client.rooms.join(call.args.room)
    write_line(room_json(room) if call.args.json else joined_text(room))


def leave(call: Invocation) -> None:
    with call.open(call.session().token) as client, call.waiting():
        client.rooms.leave(call.args.room)
    write_line(left_text(call.args.room))


def members(call: Invocation) -> None:
    with call.open(call.session().token) as client, call.waiting():
        users = client.rooms.members(call.args.room)
    for user in users:
        write_line(user_json(user) if call.args.json else person(user.user, user.name))
