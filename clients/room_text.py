"""Rooms as lines for a person or for a program. Source: docs/PROTOCOL.md, "rooms"."""

from __future__ import annotations

import json
from collections.abc import Sequence

from broker.wire.limits import ROOM_MARK
from clients.display import safe_line
from clients.results import Room


def room_name(text: str) -> str:
    """Return a room's name, where nothing but a room can stand, with the mark that it may lack.

    To a shell, a word that begins with the mark is a comment, so it is good to do without.
    Errors: `ValueError` with a sentence, where there is no name.
    """
    name = text.removeprefix(ROOM_MARK)
    if not name:
        raise ValueError("the room's name is missing: in a shell, write it in quotes, as '#team'")
    return f"{ROOM_MARK}{name}"


def unquoted(word: str) -> str:
    """Return a room's name without the quotes that a shell wants and a chat does not."""
    inner = word[1:-1]
    quoted = word[:1] in ("'", '"') and word[-1:] == word[:1] and inner.startswith(ROOM_MARK)
    return inner if quoted else word


def recipient(text: str) -> str:
    """Return ``text``. Errors: `ValueError` with a sentence, where it is empty."""
    if not text:
        raise ValueError("the recipient is empty: give a user's name, or a room's, as '#team'")
    return text


def room_lines(rooms: Sequence[Room]) -> list[str]:
    """Return rooms for a person, their names in a column."""
    width = max((len(safe_line(room.room)) for room in rooms), default=0)
    return [f"{safe_line(room.room):<{width}}  {_about(room)}" for room in rooms]


def _about(room: Room) -> str:
    about = [_members(room), "open" if room.open else "by invitation"]
    if room.history:
        about.append("newcomers read what was said before")
    about.append(f"owner {safe_line(room.owner)}")
    return ", ".join(about) + ("" if room.joined else "; you are invited")


def _members(room: Room) -> str:
    return "1 member" if room.members == 1 else f"{room.members} members"


def made_text(room: Room) -> str:
    who = "anybody may join" if room.open else "its members may invite others"
    return f"room {safe_line(room.room)} made: {who}"


def joined_text(room: Room) -> str:
    before = "; its history shows what was said before" if room.history else ""
    return f"joined {safe_line(room.room)} ({_members(room)}){before}"


def invited_text(room: str, user: str) -> str:
    return safe_line(f"{user} may join {room} now")


def left_text(room: str) -> str:
    # True as well where one was not in it: the broker does not tell these apart.
    return safe_line(f"you are not in {room} any more")


def room_json(room: Room) -> str:
    """Return one room for a program: one line, with the names of docs/PROTOCOL.md."""
    return json.dumps(room._asdict())
