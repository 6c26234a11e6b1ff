"""Messages as they are stored: one subscription held through reconnects, without I/O.

The broker pushes a window of messages and more of them as they are acknowledged. What is wanted is
kept as state, and `Subscription.advance` starts whatever request that state calls for and that is
not under way: a subscribe, an acknowledgement, a heartbeat. A lost event, a lost connection and a
restarted broker are thus the same case: subscribe again, after the last sequence received and with
the epoch that it is of, so that a broker which lost history says so.
Source: docs/PROTOCOL.md, "subscribe" and "When history was lost".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from math import inf
from typing import Any, Final, NamedTuple, Protocol

from broker.wire.errors import Code, WireError
from broker.wire.limits import SUBSCRIBER_SILENCE_MS
from clients.errors import Busy, ClientClosed, HistoryLost, KotakError, Unauthorized
from clients.request import Call
from clients.results import Message, Subscribed, read

#: The broker ends a silent subscription: two heartbeats may be lost.
HEARTBEAT_MS: Final = SUBSCRIBER_SILENCE_MS // 3
#: A client with too many unanswered requests tries again after this.
FULL_MS: Final = 50


class Loss(NamedTuple):
    """Sequences of an epoch that may be gone, for the reader that has the token."""

    token: str | None
    epoch: int | None
    first: int
    last: int


class Requests(Protocol):
    """The session, as far as a subscription needs it; `clients.session.Session` is one."""

    loss_told: Loss | None

    def start(
        self,
        command: str,
        token: str | None,
        args: Mapping[str, Any],
        now_ms: float,
        timeout_ms: float,
    ) -> Call: ...
    def abandon(self, call: Call) -> None: ...
    def by(self, at_ms: float) -> None: ...


class Subscription:
    """One receiver: at most ``window`` messages that arrived and were not yet asked for."""

    def __init__(
        self,
        requests: Requests,
        token: str | None,
        *,
        window: int,
        after: int | None,
        epoch: int | None,
    ) -> None:
        #: Called when `done` becomes true.
        self.on_done: Callable[[], None] | None = None
        #: Called with False when the connection broke, and with True when messages come again.
        self.on_connection: Callable[[bool], None] | None = None
        #: When `advance` has something to do.
        self.due_ms: float = inf
        self._requests = requests
        self._token = token
        self._window = window
        self._buffer: deque[Message] = deque()
        self._error: KotakError | None = None
        self._loss: Loss | None = None  # ... that the reader has not been told of
        self._last = after or 0  # the last sequence received, or known to be gone
        self._epoch = epoch  # that it is of, as far as is known
        self._number: int | None = None  # of the broker's subscription; None: there is none
        self._stood = False  # the first subscribe was answered
        self._broken = False  # since then the connection was lost, and has not been replaced
        self._down = False  # the reader was told so
        self._beat_ms = inf
        self._finished = 0  # the last sequence that its reader is done with
        self._told = 0  # ... and that an ack was started for
        self._untold = 0  # messages between the two
        # The requests under way, at most one of a kind.
        self._subscribe: Call | None = None
        self._ack: Call | None = None
        self._ping: Call | None = None

    @property
    def done(self) -> bool:
        """True when `next` returns, or raises, at once."""
        return bool(self._buffer) or self._error is not None or self._loss is not None

    # --- the reader's side -------------------------------------------------------------------

    def begin(self, now_ms: float, timeout_ms: float) -> None:
        """Subscribe for the first time; without an answer in time `next` raises.

        Errors, at once: as `Session.start`.
        """
        self._beat_ms = now_ms + HEARTBEAT_MS
        self._subscribe = self._request("subscribe", self._place(), now_ms, timeout_ms)
        self._subscribe.on_done = self._subscribed

    def next(self, now_ms: float) -> Message:
        """Return the next message; only where `done`.

        Errors: `HistoryLost`, after which it goes on; what ended the subscription.
        """
        if self._error is not None:
            raise self._error
        if self._loss is not None:
            loss, self._loss = self._loss, None
            self._requests.loss_told = loss
            raise HistoryLost(loss.first, loss.last)
        message = self._buffer.popleft()
        if not self._buffer and self._number is None:
            self.advance(now_ms)
        return message

    def finish(self, seq: int, now_ms: float) -> None:
        """Note that the reader is done with everything up to ``seq``; the broker is told soon.

        At the latest when nothing more is there to be read, or half the window is untold; while
        one acknowledgement is under way the next one waits, and is then the newest.
        """
        self._finished = seq
        self._untold += 1
        if not self._buffer or self._untold * 2 >= self._window:
            self.advance(now_ms)

    def leave(self, now_ms: float, timeout_ms: float) -> list[Call]:
        """End it; return the requests that tell the broker so, which may be waited for.

        The last of them is the ``unsubscribe``. None where the subscription has failed.
        """
        failed = self._error is not None
        self.fail(ClientClosed("the loop over the messages was left"))
        calls: list[Call] = []
        if not failed:
            try:
                if self._finished and (self._ack is not None or self._finished > self._told):
                    ack = {"seq": self._finished}
                    calls.append(self._request("ack", ack, now_ms, timeout_ms))
                calls.append(self._request("unsubscribe", {}, now_ms, timeout_ms))
            except Busy:  # the broker will notice the silence
                pass
        self._drop_calls()
        return calls

    def fail(self, error: KotakError) -> None:
        """End it with an error for its reader; what was not read stays in the mailbox."""
        if self._error is None:
            self._error = error
            self._buffer.clear()
            self.due_ms = inf
            self._wake()

    def _drop_calls(self) -> None:
        for call in (self._subscribe, self._ack, self._ping):
            if call is not None:
                self._requests.abandon(call)

    def _wake(self) -> None:
        if self.on_done is not None and self.done:
            self.on_done()

    # --- the broker's side -------------------------------------------------------------------

    def received(self, event: Mapping[str, Any]) -> None:
        """Take in one event. Errors: `WireError` where it is not as the protocol has it."""
        try:
            number, kind = event["subscription"], event["kind"]
            # A higher number is that of a subscribe which had been repeated: it replaced ours.
            if self._number is None or number < self._number or self._error is not None:
                return
            self._number = number
            if kind == "ended":
                self._number = None  # perhaps we were silent too long: `advance` asks again
            elif kind == "messages":
                self._add(event["after"], event["messages"])
        except KeyError as error:
            raise WireError(Code.BAD_REQUEST, f"the event lacks the field {error}") from None

    def _add(self, after: int, messages: list[Mapping[str, Any]]) -> None:
        if after > self._last:
            self._number = None  # an event was lost
            return
        for fields in messages:
            message = Message.parse(fields)
            if message.seq <= self._last:
                continue
            if len(self._buffer) >= self._window:
                self._number = None  # more than was asked for: later
                break
            self._last = message.seq
            self._buffer.append(message)
        self._wake()

    def lost(self, now_ms: float, *, told: bool = True) -> None:
        """Note that the connection is gone, and the broker's subscription with it.

        ``told``: the reader is to hear of it, should it be waiting; not where another broker is
        about to go on.
        """
        self._number = None
        self._broken = self._broken or (told and self._stood)
        if self._error is None:
            self.due_ms = now_ms
            self._requests.by(now_ms)

    def _report(self) -> None:
        """Tell the reader what became of the connection.

        Not before somebody waits: a reader that was interrupted in a call, and breaks the
        connection by that, leaves.
        """
        if self._broken is not self._down:
            self._down = self._broken
            if self.on_connection is not None:
                self.on_connection(not self._broken)

    # --- requests ----------------------------------------------------------------------------

    def advance(self, now_ms: float) -> None:
        """Start what is called for."""
        if self._error is not None:
            return
        self._report()
        self.due_ms = self._beat_ms
        try:
            # Not before the reader has caught up, since the broker's new count of what is
            # unacknowledged begins at zero: so the window bounds what waits here.
            if self._number is None and self._subscribe is None and not self._buffer:
                self._subscribe = self._start("subscribe", self._place(), now_ms)
                self._subscribe.on_done = self._subscribed
            if self._finished > self._told and self._ack is None and self._ack_is_due():
                self._ack = self._start("ack", {"seq": self._finished}, now_ms)
                self._ack.on_done = self._acknowledged
                self._told, self._untold = self._finished, 0
            if now_ms >= self._beat_ms:
                self._beat(now_ms)
        except Busy:
            self.due_ms = now_ms + FULL_MS
        self._requests.by(self.due_ms)

    def _beat(self, now_ms: float) -> None:
        self.due_ms = self._beat_ms = now_ms + HEARTBEAT_MS
        if self._ping is None:
            self._ping = self._start("ping", {}, now_ms)
            self._ping.on_done = self._pinged

    def _ack_is_due(self) -> bool:
        return not self._buffer or self._untold * 2 >= self._window

    def _place(self) -> dict[str, int]:
        place = {"window": self._window}
        if self._last:
            place["after"] = self._last
        if self._epoch is not None:
            place["epoch"] = self._epoch
        return place

    def _start(self, command: str, args: Mapping[str, Any], now_ms: float) -> Call:
        """Begin a request that is repeated until it is answered, however long the broker is gone.

        Whatever is sent shows the broker that we live.
        """
        self.due_ms = self._beat_ms = now_ms + HEARTBEAT_MS
        return self._request(command, args, now_ms, inf)

    def _request(
        self, command: str, args: Mapping[str, Any], now_ms: float, timeout_ms: float
    ) -> Call:
        return self._requests.start(command, self._token, args, now_ms, timeout_ms)

    def _subscribed(self, call: Call) -> None:
        self._subscribe = None
        try:
            answer = read(Subscribed.parse, call.value())
        except KotakError as error:
            self.fail(error)
            return
        self._stood, self._broken = True, False
        self._number = answer.subscription
        self._last = max(self._last, answer.cursor)
        self._epoch = answer.epoch
        if answer.history_lost is not None:
            self._note_loss(Loss(self._token, answer.epoch, *answer.history_lost), answer.cursor)
        self._report()

    def _note_loss(self, loss: Loss, cursor: int) -> None:
        if loss.last < self._last:
            return  # read messages are kept for a while only, and this reader has got these
        if loss.first <= self._last:
            self._last = cursor  # a position in what was lost is none: the broker begins there
        # The broker may say it at each subscribe until its reader acknowledges; once is enough.
        if loss != self._requests.loss_told:
            self._loss = loss
            self._wake()

    def _acknowledged(self, call: Call) -> None:
        self._ack = None
        if call.error is not None:
            self.fail(call.error)

    def _pinged(self, call: Call) -> None:
        self._ping = None
        if isinstance(call.error, Unauthorized):
            self.fail(call.error)
