"""What was said, page by page, and where a message stands: asked for, and as lines for a person.

The commands and the chat show both alike. Source: docs/PROTOCOL.md, "history" and "status".
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from broker.wire.commands import INBOX
from broker.wire.limits import ROOM_MARK
from clients.calls import Calls
from clients.display import body, local_time, message_text, safe_line
from clients.results import History, Message, Status

#: About a screen: whoever wants more says so.
LIMIT_DEFAULT: Final = 20

_STORED: Final = "stored"
#: The states as the answer to the question where a message stands.
_STANDS: Final[Mapping[str, str]] = {
    _STORED: "stored, not delivered yet",
    "delivered": "delivered, not acknowledged yet",
    "acknowledged": "acknowledged",
    "expired": "expired unread",
}


class Wanted(NamedTuple):
    """Which page of which history: ``of`` is ``inbox``, ``sent`` or a ``#room``."""

    of: str = INBOX
    before: int | None = None
    after: int | None = None
    limit: int = LIMIT_DEFAULT

    def fetch(self, client: Calls) -> History:
        """Errors: `KotakError`."""
        return client.history(self.of, before=self.before, after=self.after, limit=self.limit)

    def further(self, page: History) -> tuple[str, int] | None:
        """Return how the page behind this one is asked for, as ("before", 17); None: it is last."""
        if not page.more or not page.messages:
            return None
        if self.after is not None:
            return "after", page.messages[-1].seq
        return "before", page.messages[0].seq


def history_lines(messages: Sequence[Message]) -> list[str]:
    """Return messages behind their sequences; with the state of each where that is told."""
    width = max((len(str(message.seq)) for message in messages), default=0)
    return [f"{message.seq:>{width}}  {_line(message)}" for message in messages]


def _line(message: Message) -> str:
    to = message.room or message.to or ""
    if message.state is None:
        return message_text(message, to)
    # All of these are one's own: who sent them need not be said in every line.
    state = "expired unread" if message.state == "expired" else message.state
    where = safe_line(f"to {to}, {state}")
    return f"[{local_time(message.at_ms)}] {where}: {body(message)}"


def status_text(to: str, seq: int, status: Status) -> str:
    """Say where a message stands that was sent to ``to``, a user or a ``#room``."""
    if to.startswith(ROOM_MARK) and status.state == _STORED:
        words = "stored in the room"  # more is never told of one
    else:
        words = _STANDS.get(status.state, status.state)
    return safe_line(f"message {seq} to {to}, sent {local_time(status.at_ms)}: {words}")


def status_json(status: Status) -> str:
    return json.dumps({"state": status.state, "at_ms": status.at_ms, "id": status.id})
