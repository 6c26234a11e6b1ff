"""One request on its way, and what is refused before anything of it is sent."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from broker.wire.errors import Code
from broker.wire.limits import TEXT_BYTES_MAX
from clients.errors import (
    BadRequest,
    ConnectionFailed,
    KotakError,
    RequestError,
    RequestTimeout,
    TooLarge,
)
from clients.fleet import Fleet

_NOTHING: Final[dict[str, Any]] = {}

#: What msgpack raises for arguments that it cannot carry.
UNENCODABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)


class Call:
    """One request from its start to its answer. ``done`` with either ``result`` or ``error``."""

    __slots__ = (
        "command",
        "deadline_ms",
        "done",
        "due_ms",
        "error",
        "frame",
        "message_id",
        "on_done",
        "patience",
        "probed",
        "refusal",
        "request_id",
        "result",
        "sends",
        "tries",
    )

    def __init__(
        self, request_id: int, command: str, frame: bytes, deadline_ms: float, due_ms: float
    ) -> None:
        self.request_id = request_id
        self.command = command
        self.frame = frame
        self.deadline_ms = deadline_ms
        #: When to look at it next: probe, repeat or expire.
        self.due_ms = due_ms
        self.message_id: str | None = None
        self.done = False
        self.result: dict[str, Any] = _NOTHING
        self.error: KotakError | None = None
        self.on_done: Callable[[Call], None] | None = None
        #: How often it was handed to a connection that stood; 0: certainly not carried out.
        self.sends = 0
        #: How often the broker asked to repeat it.
        self.tries = 0
        self.patience = 1
        self.probed = False
        #: The last answer, where that was "repeat later" and the repetition is still to come.
        self.refusal: RequestError | None = None

    def finish(self) -> None:
        """Note that the answer, or what stands for it, is there."""
        self.done = True
        if self.on_done is not None:
            self.on_done(self)

    def expired(self, fleet: Fleet, trouble: str) -> RequestError:
        """Return the error of a call whose time is over; ``trouble``: why it was not sent."""
        if self.refusal is not None:
            return fleet.refused(self.refusal)
        if not self.sends:
            return ConnectionFailed(fleet.unreached(trouble), message_id=self.message_id)
        same = "" if self.message_id is None else " with the same message id"
        return RequestTimeout(
            f"{fleet.unanswered()}; whether the request was carried out is unknown, and repeating "
            f"it{same} is safe",
            message_id=self.message_id,
        )

    def value(self) -> dict[str, Any]:
        """Return the result, or raise the error, of a call that is done."""
        if self.error is not None:
            raise self.error
        return self.result


def refused(error: RequestError) -> Call:
    """Return a call that has ended with an error before anything of it was sent."""
    call = Call(0, "", b"", 0, 0)
    call.error, call.done = error, True
    return call


def chat_args(to: str, text: str, message_id: str) -> dict[str, Any]:
    """Return the arguments of a ``chat``; measure its text. Errors: `BadRequest`, `TooLarge`."""
    # Four bytes is the longest character: most texts are judged without being encoded.
    if type(text) is not str or len(text) * 4 > TEXT_BYTES_MAX:
        _check_text(text)
    return {"to": to, "text": text, "id": message_id}


def _check_text(text: object) -> None:
    if not isinstance(text, str):
        raise BadRequest(Code.BAD_REQUEST, "'text' must be a string")
    text_bytes = len(text.encode(errors="replace"))
    if text_bytes > TEXT_BYTES_MAX:
        raise TooLarge(
            Code.TOO_LARGE,
            f"'text' has {text_bytes} bytes of UTF-8, {TEXT_BYTES_MAX} at most are taken: "
            "send it in parts",
        )


def unpackable(error: Exception) -> BadRequest:
    """Name the kind of error only: its text may quote the arguments, and they hold secrets."""
    return BadRequest(
        Code.BAD_REQUEST,
        f"the arguments cannot be encoded ({type(error).__name__}): use strings of valid Unicode, "
        "integers, None, lists and dicts",
    )
