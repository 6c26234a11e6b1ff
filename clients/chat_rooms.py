"""The chat's commands on rooms and on what was said: the words of a line in, lines out."""

from __future__ import annotations

import difflib
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from broker.wire.commands import INBOX, SENT
from broker.wire.limits import ROOM_MARK, SEQ_MAX
from clients.calls import Calls
from clients.display import safe_line
from clients.history_text import Wanted, history_lines, status_text
from clients.room_text import (
    invited_text,
    joined_text,
    left_text,
    made_text,
    room_lines,
    room_name,
)


class Refused(Exception):
    """The line was not carried out; the text says why, for whoever typed it."""


def _sequence(word: str) -> int:
    if not word.isdecimal() or len(word) > len(str(SEQ_MAX)) or not 1 <= int(word) <= SEQ_MAX:
        raise Refused(f"{safe_line(word[:32])!r} is no sequence: give the number of a message")
    return int(word)


# --- what was said -----------------------------------------------------------------------------


def history(client: Calls, words: list[str]) -> list[str]:
    """Carry out ``history [sent | #ROOM] [before SEQ | after SEQ]``. Errors: `Refused`."""
    wanted = _wanted(words)
    page = wanted.fetch(client)
    lines = history_lines(page.messages) or ["no messages"]
    if further := wanted.further(page):
        direction, seq = further
        of = "" if wanted.of == INBOX else f"{safe_line(wanted.of)} "
        newer = "newer" if direction == "after" else "older"
        lines.append(f"there are {newer} ones: history {of}{direction} {seq}")
    return lines


def _wanted(words: list[str]) -> Wanted:
    of = INBOX
    if words and (words[0] == SENT or words[0].startswith(ROOM_MARK)):
        of, *words = words
    match words:
        case []:
            return Wanted(of)
        case ["before", word]:
            return Wanted(of, before=_sequence(word))
        case ["after", word]:
            return Wanted(of, after=_sequence(word))
    raise Refused("history takes sent or a #room, then before or after and a sequence")


def status(client: Calls, words: list[str]) -> list[str]:
    """Carry out ``status TO SEQUENCE``. Errors: `Refused`."""
    if len(words) != 2:
        raise Refused("status takes whom the message was sent to, and its sequence")
    to, seq = words[0], _sequence(words[1])
    return [status_text(to, seq, client.status(to, seq))]


# --- rooms -------------------------------------------------------------------------------------


class RoomCommand(NamedTuple):
    """What stands behind ``room NAME``, for the eye, and what it does with the room's name."""

    takes: str
    run: Callable[[Calls, str, list[str]], list[str]]
    #: The words that may follow the room's name.
    may_follow: tuple[int, ...] = (0,)


def room(client: Calls, words: list[str]) -> list[str]:
    """Carry out ``room COMMAND ...``. Errors: `Refused`."""
    name, *rest = words or [""]
    if name == "list":
        return room_lines(client.rooms.list()) or ["no rooms"]
    command = ROOM_COMMANDS.get(name)
    if command is None:
        raise Refused(_unknown(name))
    if not rest or len(rest) - 1 not in command.may_follow:
        raise Refused(f"room {name} takes {command.takes}".rstrip())
    try:
        where = room_name(rest[0])
    except ValueError:
        raise Refused("'#' is no room: a room is called as #team") from None
    return command.run(client, where, rest[1:])


def _unknown(name: str) -> str:
    known = ["list", *ROOM_COMMANDS]
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"; did you mean {close[0]}?" if close else ""
    return f"room takes list, create, invite, join, leave or members{hint}"


def _create(client: Calls, name: str, words: list[str]) -> list[str]:
    if not set(words) <= {"open", "history"}:
        raise Refused("a new room may be open, history or both: nothing else may follow its name")
    made = client.rooms.create(name, open="open" in words, history="history" in words)
    return [made_text(made)]


def _invite(client: Calls, name: str, words: list[str]) -> list[str]:
    client.rooms.invite(name, words[0])
    return [invited_text(name, words[0])]


def _join(client: Calls, name: str, _words: list[str]) -> list[str]:
    return [joined_text(client.rooms.join(name))]


def _leave(client: Calls, name: str, _words: list[str]) -> list[str]:
    client.rooms.leave(name)
    return [left_text(name)]


def _members(client: Calls, name: str, _words: list[str]) -> list[str]:
    users = ", ".join(user.user for user in client.rooms.members(name))
    return [safe_line(f"members of {name}: {users}")]


ROOM_COMMANDS: Final[Mapping[str, RoomCommand]] = {
    "create": RoomCommand("a #room, then open or history or both", _create, (0, 1, 2)),
    "invite": RoomCommand("a #room and a user", _invite, (1,)),
    "join": RoomCommand("a #room", _join),
    "leave": RoomCommand("a #room", _leave),
    "members": RoomCommand("a #room", _members),
}
