"""Messages and names as lines for a person or for a program.

Texts and display names are written by strangers. What a person reads therefore has its control
characters escaped: a message cannot move the cursor, recolour the terminal or pretend to be two.
"""

from __future__ import annotations

import json
import re
from datetime import datetime
from typing import Final

from clients.durations import ago
from clients.results import Message, User

#: C0 and C1 controls (but not tab and line feed), lone surrogates, and the invisible characters
#: that reorder, hide or break a line. Joiners stay: emoji and many scripts need them.
_UNSAFE: Final = re.compile(
    "[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b\u200e\u200f\u2028-\u202e\u2060-\u206f\ufeff"
    "\ud800-\udfff\ufff9-\ufffb\U000e0000-\U000e007f]"
)
#: Further lines of a text stand to the right of where a message begins.
_INDENT: Final = "\n    "


def safe_text(text: str) -> str:
    r"""Escape what a terminal would obey rather than show, as ``\x1b`` or ``\u202e``."""
    return _UNSAFE.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), text)


def safe_line(text: str) -> str:
    """As `safe_text`, on one line."""
    return safe_text(text).replace("\n", "\\n").replace("\t", "\\t")


def broker_at(address: str) -> str:
    """Return what to call the broker at an address, or one of several with commas between."""
    return f"{'one of the brokers' if ',' in address else 'the broker'} at {safe_line(address)}"


def person(user: str, name: str) -> str:
    """Return the display name with the user name, which alone is unique."""
    return safe_line(user if name in ("", user) else f"{name} ({user})")


def local_time(at_ms: int) -> str:
    """Return a time (Unix epoch, milliseconds) to the minute, in the reader's time zone."""
    try:
        return f"{datetime.fromtimestamp(at_ms / 1000).astimezone():%Y-%m-%d %H:%M}"
    except (ValueError, OverflowError, OSError):  # a broker with a broken clock
        return "unknown time"


def message_text(message: Message, reader: str) -> str:
    """Return one message for a person: local time, from, to, text. ``reader`` is a display name."""
    where = f"in {message.room}" if message.room else f"to {reader}"
    who = person(message.sender, message.name)
    return f"[{local_time(message.at_ms)}] {who} {safe_line(where)}: {body(message)}"


def body(message: Message) -> str:
    """Return a message's text for a person; further lines are indented."""
    return safe_text(message.text).replace("\n", _INDENT)


def message_json(message: Message) -> str:
    """Return one message for a program: one line of ASCII, with the names of docs/PROTOCOL.md."""
    fields = {
        "seq": message.seq,
        "at_ms": message.at_ms,
        "from": message.sender,
        "name": message.name,
        "id": message.id,
        "text": message.text,
    }
    optional = {"room": message.room, "to": message.to, "state": message.state}
    fields |= {key: value for key, value in optional.items() if value is not None}
    return json.dumps(fields | ({"redelivered": True} if message.redelivered else {}))


def presence_text(user: User, now_ms: int) -> str:
    """Say whether a user is connected, or when it last was; ``now_ms`` is the broker's clock."""
    if user.connected:
        seen = "connected"
    elif user.seen_ms is None:
        seen = "not known"  # a broker that does not tell
    else:
        seen = f"last seen {ago(now_ms - user.seen_ms)}"
    return f"{person(user.user, user.name)}: {seen}"


def user_json(user: User) -> str:
    """Return one user for a program, as `message_json`."""
    fields: dict[str, object] = {"user": user.user, "name": user.name}
    detail = {"connected": user.connected, "seen_ms": user.seen_ms}
    return json.dumps(fields | {key: value for key, value in detail.items() if value is not None})


def lost_text(first: int, last: int) -> str:
    """Say that messages with these sequences may be gone."""
    return (
        f"history was lost: messages from sequence {first} to {last} may be gone; "
        "history shows what there is"
    )
