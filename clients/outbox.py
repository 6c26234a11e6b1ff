"""The unanswered requests of one client: their order, and which of them go out next. No I/O.

What may have been lost is repeated, with everything younger whose order is promised, oldest first;
see `clients.session`, which decides when.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final

from broker.wire.envelope import encode_request, encoder
from broker.wire.errors import Code
from broker.wire.limits import FRAME_BYTES_MAX, FRAMES_PER_MESSAGE_MAX
from clients.errors import Busy, ClientClosed, ConnectionFailed, KotakError, TooLarge
from clients.fleet import Fleet
from clients.request import UNENCODABLE, Call, unpackable
from clients.way import BACKOFF_MS

#: Unanswered requests of one client: bounds what a reconnect repeats, and memory.
PENDING_MAX: Final = 10_000
#: The commands whose order is promised.
ORDERED: Final = frozenset({"chat", "send"})


class Outbox:
    """Requests by id, in the order of their start. Times in ms on the session's clock."""

    def __init__(self, fleet: Fleet, *, retry_ms: float) -> None:
        self.fleet = fleet
        #: When the session has something to do.
        self.due_ms: float = inf
        self._retry_ms = retry_ms
        self._pending: dict[int, Call] = {}  # in order of start, which is the order of repetition
        self._outgoing: list[Call] = []
        self._taken: list[Call] = []
        self._encode = encoder()
        self._next_id = 1
        self._up = False
        self._closed = False
        self._hold_end_ms: float = 0  # chats wait until then; 0: they do not

    @property
    def pending(self) -> int:
        """How many requests are unanswered."""
        return len(self._pending)

    @property
    def outgoing(self) -> int:
        """How many requests wait to be taken."""
        return len(self._outgoing)

    @property
    def up(self) -> bool:
        """Whether a connection stands that takes requests."""
        return self._up

    def by(self, at_ms: float) -> None:
        """Have `tick` called at ``at_ms`` at the latest."""
        self.due_ms = min(self.due_ms, at_ms)

    # --- the start of requests ---------------------------------------------------------------

    def _put(
        self,
        command: str,
        token: str | None,
        args: Mapping[str, Any],
        deadline_ms: float,
        due_ms: float,
    ) -> Call:
        """Begin one request. Errors: as `clients.session.Session.start`."""
        # Hot path, for each request.
        request_id = self._next_id
        try:
            frame = encode_request(self._encode, request_id, command, token, args)
        except UNENCODABLE as error:
            raise unpackable(error) from None
        if len(frame) > FRAME_BYTES_MAX or len(self._pending) >= PENDING_MAX or self._closed:
            raise self._refuse(len(frame))
        self._next_id = request_id + 1
        call = self._pending[request_id] = Call(request_id, command, frame, deadline_ms, due_ms)
        if self._up and not (self._hold_end_ms and command in ORDERED):
            self._outgoing.append(call)
        return call

    def _refuse(self, frame_bytes: int) -> KotakError:
        if self._closed:
            return ClientClosed("the client is closed: make a new one")
        if frame_bytes > FRAME_BYTES_MAX:
            return TooLarge(
                Code.TOO_LARGE,
                f"the request has {frame_bytes} bytes, {FRAME_BYTES_MAX} at most may be sent",
            )
        return Busy(
            Code.BUSY,
            f"{PENDING_MAX} requests of this client are unanswered: wait for some of them",
            BACKOFF_MS,
        )

    def ping_frame(self) -> bytes:
        """Return a request that any broker answers."""
        frame = encode_request(self._encode, self._next_id, "ping", None, {})
        self._next_id += 1
        return frame

    # --- what goes out -----------------------------------------------------------------------

    def take(self) -> list[bytes]:
        """Return the frames of the next ZeroMQ message; empty when there is nothing to send."""
        outgoing = self._outgoing
        if not outgoing or not self._up:
            return []
        frames: list[bytes] = []
        while outgoing and not frames:  # once more where nobody waits for any of them
            self._taken = outgoing[:FRAMES_PER_MESSAGE_MAX]
            del outgoing[:FRAMES_PER_MESSAGE_MAX]
            for call in self._taken:
                if not call.done:
                    call.sends += 1
                    frames.append(call.frame)
        return frames

    def give_back(self) -> None:
        """Undo the last `take`: there was no room for it."""
        for call in self._taken:
            call.sends -= 1
        self._outgoing[:0] = self._taken

    def _quiet_ms(self, left_ms: float) -> float:
        """Return how long silence is borne, twice, before the broker is left."""
        return self.fleet.share(self._retry_ms, left_ms / 2)

    def _queue(self, call: Call, now_ms: float) -> None:
        """Put a call at the end of what goes out next."""
        call.refusal = None
        call.probed = False
        quiet_ms = self._quiet_ms(call.deadline_ms - now_ms)
        call.due_ms = min(now_ms + quiet_ms * call.patience, call.deadline_ms)
        self.by(call.due_ms)
        self._outgoing.append(call)

    def _hold(self, until_ms: float) -> None:
        """Keep chats back: a younger one must not be stored before one that is to be repeated."""
        self._hold_end_ms = max(self._hold_end_ms, until_ms)
        self._outgoing = [call for call in self._outgoing if call.command not in ORDERED]

    def _repeat_chats(self, first_id: int, now_ms: float) -> None:
        """Send the chat ``first_id`` and every younger unanswered one again, in order."""
        if not self._up:
            return  # `connected` will
        queued = [call for call in self._outgoing if call.command in ORDERED]
        first_id = min([first_id, *(call.request_id for call in queued)])
        self._outgoing = [call for call in self._outgoing if call.command not in ORDERED]
        for call in self._pending.values():
            if call.command in ORDERED and call.request_id >= first_id:
                self._queue(call, now_ms)

    # --- the end of requests -----------------------------------------------------------------

    def abandon(self, call: Call) -> None:
        """Forget a call whose answer nobody wants; it may have been sent already."""
        self._pending.pop(call.request_id, None)
        call.done = True

    def fail_all(self, error: Callable[[], KotakError]) -> None:
        """Fail every unanswered call, each with an error of its own."""
        self._outgoing.clear()
        for call in list(self._pending.values()):
            self._fail(call, error())

    def fail_unsent(self, why: str) -> None:
        """Fail every call with a deadline that was never sent: more attempts would end as this."""
        for call in list(self._pending.values()):
            if not call.sends and call.deadline_ms < inf:
                self._fail(call, ConnectionFailed(why, message_id=call.message_id))

    def _fail(self, call: Call, error: KotakError) -> None:
        self._pending.pop(call.request_id, None)
        call.error = error
        call.finish()
