"""Messages as the scripts pack them: an array of sequence, time, sender, id and text."""

from __future__ import annotations

from collections.abc import Iterable

from broker.core.model import Message
from broker.wire.codec import unpack_reply


def message(row: bytes, to: str, seq: int | None = None) -> Message:
    """Unpack one message; ``seq`` is another one than it has in its own mailbox."""
    own, at_ms, sender, message_id, text = unpack_reply(row)[:5]
    return Message(own if seq is None else seq, at_ms, sender, message_id, text, to)


def messages(rows: Iterable[bytes], to: str) -> list[Message]:
    """Unpack messages of one mailbox."""
    return [message(row, to) for row in rows]


def without_text(row: bytes, to: str) -> Message:
    return message(row, to)._replace(text="")
