"""A mailbox page by page, each page acknowledged when the next one is asked for. No I/O.

As soon as a page has come, the one behind it is asked for, so that broker and reader work at the
same time; the acknowledgement of the page before leaves with that request, in one message. A page
thus costs one round trip, which nobody waits for, and one fsync.
Source: docs/PROTOCOL.md, "Commands" and "When history was lost".
"""

from __future__ import annotations

from contextlib import suppress
from typing import Any, NamedTuple

from clients import exchanges
from clients.errors import KotakError
from clients.exchanges import Exchange
from clients.request import Call
from clients.results import Inbox, read
from clients.subscription import Requests


class Reading(NamedTuple):
    """What is read: pages of ``limit`` messages, behind ``after`` of ``epoch`` where given."""

    limit: int
    after: int | None
    epoch: int | None
    acknowledge: bool


class Paging:
    """The pages of one loop, whose client calls in turn (times in ms on the session's clock).

    while call := paging.advance(now):  wait for the call
    page = paging.page(now)             None: nothing waits any more
    paging.finish()                     when the reader is done with it
    paging.leave(now, timeout)          however the loop ends
    """

    def __init__(
        self,
        requests: Requests,
        token: str | None,
        reading: Reading,
        timeout_ms: float,
    ) -> None:
        self._requests = requests
        self._token = token
        self._limit = reading.limit
        self._acknowledges = reading.acknowledge
        self._timeout_ms = timeout_ms
        self._last = reading.after  # the last sequence received; None: from the cursor on
        self._epoch = reading.epoch  # that it is of, as far as is known
        self._given: int | None = None  # the last sequence of the page that the reader has
        self._finished: int | None = None  # ... that it is done with, and no ack was started for
        self._acked = 0  # the last one that an ack was started for
        self._page: Inbox | None = None  # that has come, and was not handed out
        self._lost: tuple[int, int] | None = None  # that the next page shall tell of
        self._told: tuple[int, int, int] | None = None  # the epoch and the loss that one told of
        # The requests under way.
        self._read: Call | None = None
        self._ahead = False  # the read was started before its page was asked for
        self._acks: list[Call] = []

    def advance(self, now_ms: float) -> Call | None:
        """Start what is called for; return what must be answered before `page` may be called.

        Errors: what the broker refuses the page with, and as `Session.start`.
        """
        while self._page is None:
            if self._read is None:
                self._acknowledge(now_ms, self._timeout_ms)
                self._ask(now_ms)
            elif not self._read.done:
                return self._read
            else:
                self._receive()
        return next((ack for ack in self._acks if not ack.done), None)

    def page(self, now_ms: float) -> Inbox | None:
        """Hand out the page that has come, and ask for what is behind it. None: that was the end.

        Errors: what the broker refuses an acknowledgement with.
        """
        acks, self._acks = self._acks, []
        for ack in acks:
            ack.value()
        page, self._page = self._page, None
        assert page is not None
        if not page.messages and page.history_lost is None:
            return None
        if page.messages:
            self._last = self._given = page.messages[-1].seq
        # A page that is here must not be lost to what fails now: that comes up at the next one.
        with suppress(KotakError):
            self._acknowledge(now_ms, self._timeout_ms)
            if page.more:
                self._ask(now_ms)
                self._ahead = True
        return page

    def finish(self) -> None:
        """Note that the reader is done with the page it was given."""
        if self._acknowledges:
            self._finished, self._given = self._given, None

    def leave(self, now_ms: float, timeout_ms: float) -> list[Call]:
        """Drop what was asked for; return the acknowledgement, if any, that may be waited for."""
        if self._read is not None:
            self._requests.abandon(self._read)
        if self._finished is None and not all(ack.done for ack in self._acks):
            self._finished = self._acked  # again: those that are under way may have much more time
        self._drop_acks()
        with suppress(KotakError):
            self._acknowledge(now_ms, timeout_ms)
        return self._acks

    # --- requests ----------------------------------------------------------------------------

    def _ask(self, now_ms: float) -> None:
        exchange = exchanges.inbox(self._limit, self._last, self._epoch)
        self._read = self._start(exchange, now_ms, self._timeout_ms)
        self._ahead = False

    def _acknowledge(self, now_ms: float, timeout_ms: float) -> None:
        if self._finished is not None:
            exchange = exchanges.acknowledge(self._finished)
            self._acks.append(self._start(exchange, now_ms, timeout_ms))
            self._acked, self._finished = self._finished, None

    def _start(self, exchange: Exchange[Any], now_ms: float, timeout_ms: float) -> Call:
        return self._requests.start(
            exchange.command, self._token, exchange.args, now_ms, timeout_ms
        )

    # --- answers -----------------------------------------------------------------------------

    def _receive(self) -> None:
        """Take in an answer. What came to nothing is asked again, by `advance`."""
        call, self._read = self._read, None
        assert call is not None
        if self._ahead and call.error is not None:
            return  # its time began before anybody waited: now it has all of it
        page = read(Inbox.parse, call.value())
        self._epoch = call.result.get("epoch")
        lost = page.history_lost
        if lost is not None and self._is_new(page.epoch, lost):
            self._told, self._lost = (page.epoch, *lost), lost
            if self._last is not None and lost[0] <= self._last:
                self._begin_anew()
                return
        self._page = page._replace(history_lost=self._lost)
        self._lost = None

    def _is_new(self, epoch: int, lost: tuple[int, int]) -> bool:
        """Tell whether the reader must hear of a loss: the broker repeats it until an ack."""
        if self._last is not None and lost[1] < self._last:
            return False  # read messages are kept for a while only, and this reader has got these
        told = self._told
        return told is None or told[0] != epoch or lost[0] < told[1] or lost[1] > told[2]

    def _begin_anew(self) -> None:
        """Go back to the cursor: a position in what was lost is none.

        Nor does it say any more what was handed out: what was not acknowledged comes again.
        """
        self._last = self._finished = None
        self._drop_acks()

    def _drop_acks(self) -> None:
        for ack in self._acks:
            self._requests.abandon(ack)
        self._acks = []
