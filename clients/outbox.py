"""The unanswered requests of one client: their order, and which of them go out next. No I/O.

What may have been lost is repeated, with everything younger whose order is promised, oldest first;
see `clients.session`, which decides when.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf
from typing import Final

from broker.wire.limits import FRAMES_PER_MESSAGE_MAX
from clients.errors import ConnectionFailed, KotakError
from clients.fleet import Fleet
from clients.request import Call

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
        self._outgoing: deque[Call] = deque()
        self._taken: list[Call] = []
        self._up = False
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

    # --- what goes out -----------------------------------------------------------------------

    def take(self) -> list[bytes]:
        """Return the frames of the next ZeroMQ message; empty when there is nothing to send."""
        outgoing = self._outgoing
        frames: list[bytes] = []
        if not outgoing or not self._up:
            return frames
        taken = self._taken = []
        while outgoing and len(taken) < FRAMES_PER_MESSAGE_MAX:
            call = outgoing.popleft()
            if not call.done:
                call.sends += 1
                taken.append(call)
                frames.append(call.frame)
        return frames

    def give_back(self) -> None:
        """Undo the last `take`: there was no room for it."""
        for call in reversed(self._taken):
            call.sends -= 1
            self._outgoing.appendleft(call)

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
        self._outgoing = deque(call for call in self._outgoing if call.command not in ORDERED)

    def _repeat_chats(self, first_id: int, now_ms: float) -> None:
        """Send the chat ``first_id`` and every younger unanswered one again, in order."""
        if not self._up:
            return  # `connected` will
        queued = [call for call in self._outgoing if call.command in ORDERED]
        first_id = min([first_id, *(call.request_id for call in queued)])
        self._outgoing = deque(call for call in self._outgoing if call.command not in ORDERED)
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
