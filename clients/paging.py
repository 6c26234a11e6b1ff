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
from clients.results import Fields, Inbox, lost_in, read
from clients.subscription import Requests


class Reading(NamedTuple):
    """What is read: pages of ``limit`` messages, behind ``after`` of ``epoch`` where given."""

    limit: int
    after: int | None
    epoch: int | None
    acknowledge: bool


class _Head(NamedTuple):
    """What is asked next depends on: read first, since parsing a page takes its time."""

    last: int | None
    more: bool
    epoch: int | None
    lost: tuple[int, int] | None

    @classmethod
    def parse(cls, fields: Fields) -> _Head:
        messages = fields["messages"]
        last = messages[-1]["seq"] if messages else None
        return cls(last, fields["more"], fields.get("epoch"), lost_in(fields))


class Paging:
    """The pages of one loop, whose client calls in turn (times in ms on the session's clock).

    while call := paging.advance(now):  wait for the call
    send what has been started
    page = paging.page()                None: nothing waits any more
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
        self._answer: Fields | None = None  # with the page that is to be handed out
        self._lost: tuple[int, int] | None = None  # that the next page shall tell of
        self._told: tuple[int | None, tuple[int, int]] | None = None  # of which epoch, what loss
        # The requests under way.
        self._read: Call | None = None
        self._ahead = False  # the read was started before its page was asked for
        self._acks: list[Call] = []

    def advance(self, now_ms: float) -> Call | None:
        """Start what is called for; return what must be answered before `page` may be called.

        Errors: what the broker refuses the page, or an acknowledgement, with; as `Session.start`.
        """
        while self._answer is None:
            if self._read is None:
                self._acknowledge(now_ms, self._timeout_ms)
                self._read = self._ask(now_ms)
            for call in (self._read, *self._acks):
                if not call.done:
                    return call
            self._receive(self._read, now_ms)
        return None

    def page(self) -> Inbox | None:
        """Hand out the page that has come; None: nothing waits any more.

        What follows it has been asked for by then: to be sent before the page is even parsed.
        """
        answer, self._answer = self._answer, None
        assert answer is not None
        page = read(Inbox.parse, answer)._replace(history_lost=self._lost)
        self._lost = None
        return page if page.messages or page.history_lost else None

    def finish(self) -> None:
        """Note that the reader is done with the page it was given."""
        if self._acknowledges:
            self._finished, self._given = self._given, None

    def leave(self, now_ms: float, timeout_ms: float) -> list[Call]:
        """Drop what was asked for; return the acknowledgement, if any, that may be waited for."""
        if self._read is not None:
            self._requests.abandon(self._read)
        under_way = [ack for ack in self._acks if not ack.done]
        for ack in under_way:  # which may have much more time
            self._requests.abandon(ack)
        if under_way and self._finished is None:
            self._finished = self._acked
        self._acks = []
        with suppress(KotakError):
            self._acknowledge(now_ms, timeout_ms)
        return self._acks

    # --- requests ----------------------------------------------------------------------------

    def _ask(self, now_ms: float, *, ahead: bool = False) -> Call:
        self._ahead = ahead
        exchange = exchanges.inbox(self._limit, self._last, self._epoch)
        return self._start(exchange, now_ms, self._timeout_ms)

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

    def _receive(self, call: Call, now_ms: float) -> None:
        """Take in an answer; what came to nothing is asked again, by `advance`."""
        self._read = None
        acks, self._acks = self._acks, []
        for ack in acks:
            ack.value()
        if self._ahead and call.error is not None:
            return  # its time began before anybody waited: now it has all of it
        answer = call.value()
        head = read(_Head.parse, answer)
        if self._ahead and head.last is None:
            return  # somebody else acknowledged it: the end is told with the last acknowledgement
        self._epoch = head.epoch
        if head.lost is not None and self._is_new(head.epoch, head.lost):
            self._told, self._lost = (head.epoch, head.lost), head.lost
            if self._last is not None and head.lost[0] <= self._last:
                self._begin_anew()
                return
        self._answer = answer
        if head.last is not None:
            self._last = self._given = head.last
        # A page that is here must not be lost to what fails now: that comes up at the next one.
        with suppress(KotakError):
            self._acknowledge(now_ms, self._timeout_ms)
            if head.more:
                self._read = self._ask(now_ms, ahead=True)

    def _is_new(self, epoch: int | None, lost: tuple[int, int]) -> bool:
        """Tell whether the reader must hear of a loss: the broker repeats it until an ack."""
        if self._last is not None and lost[1] < self._last:
            return False  # read messages are kept for a while only, and this reader has got these
        if self._told is None or self._told[0] != epoch:
            return True
        (first, last) = self._told[1]
        return lost[0] < first or lost[1] > last

    def _begin_anew(self) -> None:
        """Go back to the cursor: a position in what was lost is none.

        Nor does it say any more what was handed out: what was not acknowledged comes again.
        """
        self._last = self._finished = None
