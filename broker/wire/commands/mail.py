"""Messages: ``chat``, ``kotakmasuk``, ``ack``, ``subscribe``, ``history``, ``status``.

Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from typing import Final, NamedTuple

from broker.wire.commands.fields import Fields, integer, name_of, only, refuse, string
from broker.wire.limits import (
    INBOX_MESSAGES_DEFAULT,
    INBOX_MESSAGES_MAX,
    MESSAGE_ID_CHARS_MAX,
    ROOM_MARK,
    SEQ_MAX,
    TEXT_BYTES_MAX,
    TTL_MS_MAX,
    TTL_MS_MIN,
    USER_CHARS_MAX,
    WINDOW_DEFAULT,
    WINDOW_MAX,
)

#: A text of so many characters fits whatever they are: none has more than four bytes.
_TEXT_CHARS_SURE: Final = TEXT_BYTES_MAX // 4
#: What `history` can be of, beside a room.
INBOX: Final = "inbox"
SENT: Final = "sent"


#: ``chat``: the recipient, the text, the client-made id that makes a retry safe, its life in
#: milliseconds (None: it never expires unread). A plain tuple: to make a named one, and to unpack
#: it, costs 0.15 us a message on the hot path.
ChatArgs = tuple[str, str, str, int | None]


def parse_chat(fields: Fields) -> ChatArgs:
    """Read a `ChatArgs`."""
    # Hot path: what is plainly good is not looked at closer (0.2 us instead of 0.8).
    try:
        to, text, message_id = fields["to"], fields["text"], fields["id"]
    except KeyError:
        return _parse_chat_closely(fields)
    if (
        type(to) is type(text) is type(message_id) is str
        and 0 < len(to) <= USER_CHARS_MAX
        and 0 < len(text) <= _TEXT_CHARS_SURE
        and 0 < len(message_id) <= MESSAGE_ID_CHARS_MAX
        and len(fields) == 3
    ):
        return to, text, message_id, None
    return _parse_chat_closely(fields)


def _parse_chat_closely(fields: Fields) -> ChatArgs:
    only(fields, "to", "text", "id", "ttl_ms")
    return (
        name_of(fields, "to", USER_CHARS_MAX),
        string(fields, "text", TEXT_BYTES_MAX),
        name_of(fields, "id", MESSAGE_ID_CHARS_MAX),
        integer(fields, "ttl_ms", TTL_MS_MIN, TTL_MS_MAX, None),
    )


class InboxArgs(NamedTuple):
    """``kotakmasuk``: how many messages at most, after which sequence, and of which epoch that is.

    None for ``after``: behind the cursor.
    """

    limit: int
    after: int | None
    epoch: int | None

    @classmethod
    def parse(cls, fields: Fields) -> InboxArgs:
        only(fields, "limit", "after", "epoch")
        return cls(
            integer(fields, "limit", 1, INBOX_MESSAGES_MAX, INBOX_MESSAGES_DEFAULT),
            integer(fields, "after", 0, SEQ_MAX, None),
            integer(fields, "epoch", 0, SEQ_MAX, None),
        )


class AckArgs(NamedTuple):
    """``ack``: every message up to and with this sequence has been dealt with."""

    seq: int

    @classmethod
    def parse(cls, fields: Fields) -> AckArgs:
        only(fields, "seq")
        return cls(integer(fields, "seq", 0, SEQ_MAX))


class SubscribeArgs(NamedTuple):
    """``subscribe``: how many messages may be unacknowledged, where to begin, of which epoch."""

    window: int
    after: int | None
    epoch: int | None

    @classmethod
    def parse(cls, fields: Fields) -> SubscribeArgs:
        only(fields, "window", "after", "epoch")
        return cls(
            integer(fields, "window", 1, WINDOW_MAX, WINDOW_DEFAULT),
            integer(fields, "after", 0, SEQ_MAX, None),
            integer(fields, "epoch", 0, SEQ_MAX, None),
        )


class HistoryArgs(NamedTuple):
    """``history``: of what, and which page: below ``before``, above ``after``, or the newest."""

    of: str
    before: int | None
    after: int | None
    limit: int

    @classmethod
    def parse(cls, fields: Fields) -> HistoryArgs:
        only(fields, "of", "before", "after", "limit")
        args = cls(
            name_of(fields, "of", USER_CHARS_MAX, INBOX),
            integer(fields, "before", 0, SEQ_MAX, None),
            integer(fields, "after", 0, SEQ_MAX, None),
            integer(fields, "limit", 1, INBOX_MESSAGES_MAX, INBOX_MESSAGES_DEFAULT),
        )
        if args.of not in (INBOX, SENT) and args.of[0] != ROOM_MARK:
            raise refuse("'of' must be 'inbox', 'sent' or a '#room'")
        if args.before is not None and args.after is not None:
            raise refuse("give one of 'before' and 'after'")
        return args


class StatusArgs(NamedTuple):
    """``status``: a message, by its recipient and its sequence."""

    to: str
    seq: int

    @classmethod
    def parse(cls, fields: Fields) -> StatusArgs:
        only(fields, "to", "seq")
        return cls(name_of(fields, "to", USER_CHARS_MAX), integer(fields, "seq", 1, SEQ_MAX))
