"""The blocking client: one thread, one connection, calls that return when they are answered.

    with Client("tcp://127.0.0.1:8890") as client:
        client.login("shafwa", password)
        client.send("fadly", "hai dudee")

A client belongs to the thread that made it and does not survive ``os.fork``. Busy brokers, lost
connections and lost replies are dealt with until a call's timeout; whatever ends otherwise is
raised as one of `clients.errors`. Source: docs/PROTOCOL.md.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import suppress
from functools import partial
from math import ceil
from threading import Event
from types import TracebackType
from typing import Any, Final, Protocol, Self, TypeVar

import zmq

from broker.wire.limits import WINDOW_DEFAULT
from clients import exchanges
from clients.asking import Asking
from clients.curve_keys import Curve
from clients.errors import RequestError
from clients.exchanges import Exchange, Own
from clients.fleet import Addresses
from clients.ids import MessageIds
from clients.link import REPLY_WAIT_MS, Link
from clients.outbox import PENDING_MAX
from clients.owner import Owner
from clients.paging import Paging, Reading
from clients.pump import Context, Pump, monotonic_ms
from clients.request import Call
from clients.results import (
    Inbox,
    Login,
    Message,
    Receipt,
    read,
    read_receipt,
)
from clients.window import Window

T = TypeVar("T")

DEFAULT_ADDRESS: Final = "tcp://127.0.0.1:8890"
#: What was submitted is handed to the socket so many at a time, as one ZeroMQ message.
BATCH_FRAMES: Final = 64
#: `Client.submit` waits for answers once so many are missing.
SUBMITTED_MAX: Final = PENDING_MAX // 2
#: The longest that one wait on the socket lasts: nothing hangs on it.
_WAIT_MS_MAX: Final = 60_000
#: ... where somebody may set `Client.messages`'s ``stop`` meanwhile.
_STOP_MS: Final = 100
#: Whoever leaves the messages waits so long for the last acknowledgement to be answered.
LEAVE_MS: Final = 2_000


#: How a loop is ended, from the time and the milliseconds that there are: the requests of its end.
Leave = Callable[[float, float], list[Call]]


class Awaited(Protocol):
    """What a turn can wait for: a `Call`, or a `Subscription`."""

    @property
    def done(self) -> bool: ...


class Pending:
    """A message on its way. Not for another thread than the client's."""

    __slots__ = ("_call", "_client")

    def __init__(self, client: Client, call: Call) -> None:
        self._client = client
        self._call = call

    @property
    def done(self) -> bool:
        """True when `result` will not wait. Looks at the socket, and does not block."""
        if not self._call.done:
            self._client.flush()
        return self._call.done

    def result(self) -> Receipt:
        """Wait for the answer. Errors: as `Client.send`."""
        return self._client._receipt(self._call)  # noqa: SLF001 - two halves of one thing


class Client(Asking):
    """A blocking client of a broker, or of several that share a store; a context manager.

    ``address``: ``tcp://HOST:PORT``; several with commas between them, or a sequence of addresses
    (64 at most). One of several is talked to at a time: the first one in an order that follows from
    the user of `login`, else from ``token``, else by lot. Where it is lost, silent, or says
    ``unavailable``, the next one is gone on to, with the same requests and message ids, and
    messages go on behind the last one received; a better one that failed is tried again after 15 to
    45 s, when nothing is under way. A call fails only once its own time is over, and names what
    each broker said. No share of a call's time is spent on one broker alone, so the fewer
    milliseconds a call has, the sooner it goes on.

    ``timeout_ms`` is the default for each call, repetitions included. ``retry_ms`` of silence make
    it probe the connection, and as much again make it reconnect. ``context`` is shared and
    left alone where given. ``name`` is what `hello` tells the broker. ``curve``
    (`clients.curve_keys.read_curve`) encrypts, with one key for all brokers of the list. No
    connection is made before the first call.

    Errors: `BadRequest`, where there is no address, or too many.
    """

    def __init__(
        self,
        address: Addresses = DEFAULT_ADDRESS,
        *,
        token: str | None = None,
        timeout_ms: int = 30_000,
        retry_ms: int = 2_000,
        context: Context | None = None,
        name: str | None = None,
        curve: Curve | None = None,
    ) -> None:
        self._token = token
        self._timeout_ms = timeout_ms
        super().__init__(name)
        self._owner = Owner()
        self._pump = Pump(
            address,
            key=token,
            retry_ms=retry_ms,
            context=context,
            curve=curve,
            replies_max=2 * PENDING_MAX,
            opened=self._opened,
            closing=self._closing,
        )
        self._session = self._pump.session
        #: The brokers' addresses, as one string with commas between them.
        self.address = self._session.fleet.text
        self._make_id = MessageIds()
        self._poller = zmq.Poller()
        self._unsent = 0  # messages that were started since the last turn

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def broker(self) -> str:
        """The address of the broker that it talks to, or would talk to next."""
        return self._session.address

    @property
    def token(self) -> str | None:
        """The session's token: set by `login`, reset by `logout`. A secret."""
        return self._token

    def close(self) -> None:
        """Close the connection; what is unanswered fails with `ClientClosed`. Idempotent."""
        if self._owner.forked:
            return  # the sockets are the parent's
        self._owner.check()
        if self._session.subscription is not None:
            self._leave(partial(self._session.unsubscribe, self._session.subscription))
        self._pump.close()

    # --- commands ----------------------------------------------------------------------------

    def request(
        self,
        command: str,
        args: Mapping[str, Any] = exchanges.NONE,
        *,
        token: str | Own | None = Own.TOKEN,
        timeout_ms: int | None = None,
    ) -> dict[str, Any]:
        """Carry out any command and return its result. Errors: `RequestError`, its subclasses."""
        self._owner.check()
        own = self._token if token is Own.TOKEN else token
        call = self._session.start(
            command, own, args, monotonic_ms(), timeout_ms or self._timeout_ms
        )
        return self._value(call)

    def login(
        self,
        user: str,
        password: str | None = None,
        *,
        device: str | None = None,
        timeout_ms: int | None = None,
    ) -> Login:
        """Open a session; later calls carry its token.

        Without a password by the key of ``curve``, where that logs the user in; the session is then
        good with that key only.
        ``device`` (1 to 32 of ``a-z 0-9 . _ -``, a letter or digit first) gives it a reading
        position of its own; without one all sessions of the user share theirs.
        Errors: `BadCredentials`, `RateLimited`, `Busy`, `BadRequest`. Source: docs/PROTOCOL.md,
        "Readers".
        """
        self._owner.check()
        self._session.prefer(user, monotonic_ms())
        login = self._ask(exchanges.login(user, password, device), timeout_ms)
        self._token = login.token
        self._session.fleet.login_at = self._session.address
        return login

    def logout(self, *, timeout_ms: int | None = None) -> None:
        """End the session. Errors: `Unauthorized`."""
        self._ask(exchanges.logout(), timeout_ms)
        self._token = None

    def send(
        self,
        to: str,
        text: str,
        *,
        message_id: str | None = None,
        ttl_ms: int | None = None,
        timeout_ms: int | None = None,
    ) -> Receipt:
        """Send one message to a user or a ``#room`` and return once it is stored.

        ``text``: 1 to 65 536 bytes of UTF-8. ``message_id``: made when not given; give that of a
        `RequestTimeout` to repeat its message. ``ttl_ms`` (a second to ten years): what is unread
        after so long is never delivered. Errors: `NoSuchUser`, `NoSuchRoom`, `Blocked`,
        `Conflict`, `MailboxFull`, `RateLimited`, `StorageFull`, `TooLarge`, `Unauthorized`,
        `Forbidden` (an observer).
        """
        call = self._start_chat(to, text, message_id, ttl_ms, timeout_ms)
        return read_receipt(self._value(call), call.message_id or "")

    def submit(
        self,
        to: str,
        text: str,
        *,
        message_id: str | None = None,
        ttl_ms: int | None = None,
        timeout_ms: int | None = None,
    ) -> Pending:
        """Send one message without waiting for its answer; order is kept; arguments as `send`'s.

        Submissions go out in batches: at every 64th, or when a result is asked for, or by
        `flush`. Waits while `SUBMITTED_MAX` answers are missing. Errors: `TooLarge`.
        """
        call = self._start_chat(to, text, message_id, ttl_ms, timeout_ms)
        if self._unsent >= BATCH_FRAMES:
            self._hand_over()
            while self._session.pending >= SUBMITTED_MAX:
                self._turn(call)
        return Pending(self, call)

    def flush(self) -> None:
        """Hand over what was submitted, and take in what has been answered; do not wait."""
        self._owner.check()
        self._turn()

    def send_many(
        self,
        messages: Iterable[tuple[str, str]],
        *,
        window: int = 1_000,
        timeout_ms: int | None = None,
    ) -> Iterator[Receipt | RequestError]:
        """Send (recipient, text) pairs, ``window`` at a time; yield one outcome each, in order.

        A message that fails gives its error in its place, and the others go on. Memory is bounded
        by the window. Whoever stops iterating leaves up to a window of messages under way.
        """
        self._owner.check()
        sending = Window(self._session, self._make_id, messages, min(window, SUBMITTED_MAX))
        while sending.fill(self._token, monotonic_ms(), timeout_ms or self._timeout_ms):
            if sending.full:
                yield from self._outcomes(sending)
            else:
                self._hand_over()
            self._owner.check()
        while sending.oldest is not None:
            yield from self._outcomes(sending)

    def messages(
        self,
        *,
        window: int = WINDOW_DEFAULT,
        after: int | None = None,
        epoch: int | None = None,
        acknowledge: bool = True,
        timeout_ms: int | None = None,
        stop: Event | None = None,
        on_connection: Callable[[bool], None] | None = None,
    ) -> Generator[Message, None, None]:
        """Yield messages as they arrive, beginning with those that wait, in order, without end.

        A message is acknowledged when the next one is asked for; one whose loop body was left by
        ``break`` or an exception stays in the mailbox. With ``acknowledge=False`` call
        `acknowledge` yourself: the broker sends no more than ``window`` (1 to 1000) messages ahead.
        ``after``: begin behind that sequence, where it is above the cursor; ``epoch``: the one that
        it is of, as `inbox` told it.

        ``timeout_ms`` is for the broker's first answer; from then on lost connections and
        restarted brokers are waited for without end, and ``on_connection`` is called with False and
        True when messages stop and come again (of several brokers: when none answers any more);
        it must not raise, nor use the client. Setting ``stop``, from any thread, ends the loop. The
        client may be used within it; one loop a client. It ends with the client at the latest, or
        with its last reference: to end it at a certain place use `contextlib.closing`. Errors:
        `Unauthorized`, also when the session ends later; `Busy`, `ConnectionFailed`,
        `RequestTimeout`; `HistoryLost`, once for each loss: call `messages` again to go on.
        """
        self._owner.check()
        session = self._session
        subscription = session.subscribe(
            self._token,
            window=window,
            after=after,
            epoch=epoch,
            now_ms=monotonic_ms(),
            timeout_ms=timeout_ms or self._timeout_ms,
        )
        subscription.on_connection = on_connection
        wait_ms = _WAIT_MS_MAX if stop is None else _STOP_MS
        try:
            while stop is None or not stop.is_set():
                if session.outgoing or not subscription.done:
                    self._turn(subscription, wait_ms)
                if subscription.done:
                    message = subscription.next(monotonic_ms())
                    yield message
                    self._owner.check()
                    if acknowledge:
                        subscription.finish(message.seq, monotonic_ms())
        finally:
            self._leave(partial(session.unsubscribe, subscription))

    # --- waiting -----------------------------------------------------------------------------

    def _ask(self, exchange: Exchange[T], timeout_ms: int | None) -> T:
        fields = self.request(
            exchange.command, exchange.args, token=exchange.own, timeout_ms=timeout_ms
        )
        return read(exchange.parse, fields)

    def _start_chat(
        self,
        to: str,
        text: str,
        message_id: str | None,
        ttl_ms: int | None,
        timeout_ms: int | None,
    ) -> Call:
        self._owner.check()
        self._unsent += 1
        return self._session.chat(
            to,
            text,
            message_id=message_id or self._make_id(),
            token=self._token,
            now_ms=monotonic_ms(),
            timeout_ms=timeout_ms or self._timeout_ms,
            ttl_ms=ttl_ms,
        )

    def _receipt(self, call: Call) -> Receipt:
        self._owner.check()
        return read_receipt(self._value(call), call.message_id or "")

    def _outcomes(self, sending: Window) -> list[Receipt | RequestError]:
        """Wait for the oldest message's outcome; return it, and those behind it that are there."""
        self._owner.check()
        if sending.oldest is not None:
            self._wait(sending.oldest)
        return sending.outcomes()

    def _value(self, call: Call) -> dict[str, Any]:
        self._wait(call)
        return call.value()

    def _wait(self, call: Call) -> None:
        try:
            while not call.done:
                self._turn(call)
        except BaseException:  # Ctrl-C: nobody waits for the answer any longer
            self._session.abandon(call)
            raise

    def _page_by_page(
        self, reading: Reading, timeout_ms: int | None
    ) -> Generator[Inbox, None, None]:
        self._owner.check()
        session = self._session
        paging = Paging(session, self._token, reading, timeout_ms or self._timeout_ms)
        try:
            while True:
                while call := paging.advance(monotonic_ms()):
                    self._wait(call)
                if session.outgoing:
                    self._turn()
                page = paging.page()
                if page is None:
                    return
                yield page
                self._owner.check()
                paging.finish()
        finally:
            self._leave(paging.leave)

    def _leave(self, leave: Leave) -> None:
        """End a loop; wait a moment for the broker to have heard of it."""
        if self._owner.forked or sys.is_finalizing():
            return  # the sockets are the parent's, or gone: a forgotten loop ends with the program
        self._owner.check()
        for call in leave(monotonic_ms(), LEAVE_MS):
            self._wait(call)

    def _hand_over(self) -> None:
        """Send a batch; what has come is only looked for where the connection takes nothing."""
        self._unsent = 0
        if not (self._session.up and self._pump.turn()):
            self._turn()

    def _turn(self, waits: Awaited | None = None, at_most_ms: int = _WAIT_MS_MAX) -> None:
        """Send what there is and take in what has come; wait for it while ``waits`` is not done."""
        pump, session = self._pump, self._pump.session
        self._unsent = 0
        room = pump.turn()
        wait_ms = 0.0
        if waits is not None and not waits.done:  # the turn may have brought its end
            wait_ms = min(max(session.due_ms - monotonic_ms(), 0), at_most_ms)
            # Most answers are here within moments; a poller is for what takes longer.
            if room and session.up and wait_ms > REPLY_WAIT_MS:
                if pump.await_reply():
                    return
                wait_ms -= REPLY_WAIT_MS
        link = pump.link
        if link is None:
            time.sleep(wait_ms / 1000)
            return
        self._poller.register(link.socket, zmq.POLLIN if room else zmq.POLLIN | zmq.POLLOUT)
        ready = dict(self._poller.poll(ceil(wait_ms)))
        if link.socket in ready:
            pump.receive()
        if link.monitor in ready:
            pump.note_events()

    def _opened(self, link: Link) -> None:
        if link.monitor is not None:
            self._poller.register(link.monitor, zmq.POLLIN)

    def _closing(self, link: Link) -> None:
        for socket in (link.socket, link.monitor):
            with suppress(KeyError):
                self._poller.unregister(socket)
