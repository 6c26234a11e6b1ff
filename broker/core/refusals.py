"""What the service itself refuses with, beside its handlers. Source: docs/PROTOCOL.md, "Errors"."""

from __future__ import annotations

import logging
import traceback
from typing import Final

from broker.wire.envelope import BadRequest, check_request, decode_requests
from broker.wire.errors import Code, WireError
from broker.wire.limits import FRAMES_PER_MESSAGE_MAX

log = logging.getLogger("kotak.service")

#: When to come back after ``busy`` or ``unavailable``, in milliseconds.
RETRY_AFTER_MS: Final = 1_000


def fault(error: Exception) -> WireError:
    """Log a bug by its type and place, never by its text, which may quote a request."""
    place = "".join(traceback.format_tb(error.__traceback__))
    log.error("a request met a fault of the broker: %s\n%s", type(error).__name__, place)
    return WireError(
        Code.INTERNAL, "the broker has a fault and has logged it: try once more", RETRY_AFTER_MS
    )


def unavailable(message: str) -> WireError:
    """Refuse for now, whatever was asked."""
    return WireError(Code.UNAVAILABLE, message, RETRY_AFTER_MS)


def closed() -> WireError:
    """Refuse something new where only what waits is dealt with."""
    return unavailable("the broker takes nothing new for now: try again later, with the same id")


def being_made() -> WireError:
    """Refuse a name that another broker is giving away at this moment."""
    return WireError(
        Code.BUSY, "that name is being taken by somebody else: try again", RETRY_AFTER_MS
    )


def storage_full() -> WireError:
    """Refuse what takes room on the disk."""
    return WireError(Code.STORAGE_FULL, "the broker's disk is full: nothing was stored, try later")


def too_many_frames() -> WireError:
    """Refuse a message as a whole."""
    return WireError(
        Code.BAD_REQUEST,
        f"a message may carry {FRAMES_PER_MESSAGE_MAX} requests at most, in a frame each or all in "
        "one frame: none was carried out",
    )


def refused(frame: bytes, *, alone: bool, error: WireError) -> list[tuple[int | None, WireError]]:
    """Answer each request of a frame with one error, and what is no request with its own.

    ``alone``: it is the only frame of its message, so it may carry several requests.
    """
    try:
        requests, together = decode_requests(frame)
    except BadRequest as bad:
        return [(None, bad.bare())]
    if together and not alone:
        return [(None, too_many_frames())]
    return [_refused(request, error) for request in requests]


def _refused(request: object, error: WireError) -> tuple[int | None, WireError]:
    try:
        return check_request(request)[0], error
    except BadRequest as bad:
        return bad.request_id, bad.bare()
