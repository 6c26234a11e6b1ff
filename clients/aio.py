"""The asyncio client: many tasks, one connection, calls told apart by their request ids.

    async with AsyncClient("tcp://127.0.0.1:8890") as client:
        await client.login("shafwa", password)
        await client.send("fadly", "hai dudee")

Requests that tasks make in the same turn of the event loop leave as one ZeroMQ message. A client
belongs to the event loop that it is first used in. Source: docs/PROTOCOL.md.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from math import inf
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from broker.wire.limits import WINDOW_DEFAULT
from clients import exchanges
from clients.asking import AsyncAsking
from clients.client import DEFAULT_ADDRESS, LEAVE_MS, SUBMITTED_MAX, Leave
from clients.curve_keys import Curve
from clients.errors import RequestError, WrongThread
from clients.exchanges import Exchange, Own
from clients.fleet import Addresses
from clients.ids import MessageIds
from clients.link import Link
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
from clients.subscription import Subscription
from clients.window import Window

T = TypeVar("T")

#: Replies taken in before other tasks have their turn.
REPLIES_A_TURN: Final = 1_000


class AsyncClient(AsyncAsking):
    """A client for asyncio; an async context manager; arguments, brokers and errors as `Client`'s.

    It owns no thread: it watches the socket's descriptor. Cancelling a call forgets its answer;
    the request may have been sent.
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
            replies_max=REPLIES_A_TURN,
            opened=self._opened,
            closing=self._closing,
        )
        self._session = self._pump.session
        #: The brokers' addresses, as one string with commas between them.
        self.address = self._session.fleet.text
        self._make_id = MessageIds()
        self._loop: asyncio.AbstractEventLoop | None = None
        self._turn_is_due = False
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms = inf

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    @property
    def broker(self) -> str:
        """The address of the broker that it talks to, or would talk to next."""
        return self._session.address

    @property
    def token(self) -> str | None:
        """The session's token: set by `login`, reset by `logout`. A secret."""
        return self._token

    async def close(self) -> None:
        """Close the connection; what is unanswered fails with `ClientClosed`. Idempotent."""
        if self._owner.forked:
            return  # the sockets are the parent's
        self._owner.check()
        if self._session.subscription is not None:
            await self._leave(partial(self._session.unsubscribe, self._session.subscription))
        if self._timer is not None:
            self._timer.cancel()
        self._pump.close()

    # --- commands ----------------------------------------------------------------------------

    async def request(
        self,
        command: str,
        args: Mapping[str, Any] = exchanges.NONE,
        *,
        token: str | Own | None = Own.TOKEN,
        timeout_ms: int | None = None,
    ) -> dict[str, Any]:
        """Carry out any command and return its result. Errors: `RequestError`, its subclasses."""
        loop = self._enter()
        own = self._token if token is Own.TOKEN else token
        call = self._session.start(
            command, own, args, monotonic_ms(), timeout_ms or self._timeout_ms
        )
        return await self._value(loop, call)

    def begin(
        self,
        command: str,
        args: Mapping[str, Any],
        *,
        token: str | None,
        done: Callable[[Call], None],
    ) -> Callable[[], None]:
        """Carry out any command without a task: ``done`` gets the call, whose `value` is as above.

        It is called in the middle of the client's turn, never before this returns: it may begin
        further commands, and must not raise. Return what forgets the answer, as cancelling does.
        Errors, at once: `BadRequest`, `TooLarge`, `ClientClosed`, `Busy`.
        """
        self._enter()
        call = self._session.start(command, token, args, monotonic_ms(), self._timeout_ms)
        call.on_done = done
        return partial(self._session.abandon, call)

    async def login(
        self,
        user: str,
        password: str | None = None,
        *,
        device: str | None = None,
        timeout_ms: int | None = None,
    ) -> Login:
        """Open a session; later calls carry its token; as `Client.login`."""
        self._enter()
        self._session.prefer(user, monotonic_ms())
        login = await self._ask(exchanges.login(user, password, device), timeout_ms)
        self._token = login.token
        self._session.fleet.login_at = self._session.address
        return login

    async def logout(self, *, timeout_ms: int | None = None) -> None:
        """End the session. Errors: `Unauthorized`."""
        await self._ask(exchanges.logout(), timeout_ms)
        self._token = None

    async def send(
        self,
        to: str,
        text: str,
        *,
        message_id: str | None = None,
        ttl_ms: int | None = None,
        timeout_ms: int | None = None,
    ) -> Receipt:
        """Send one message and return once it is stored; arguments and errors as `Client.send`."""
        loop = self._enter()
        call = self._start_chat(to, text, message_id, ttl_ms, timeout_ms)
        return read_receipt(await self._value(loop, call), call.message_id or "")

    def submit(
        self,
        to: str,
        text: str,
        *,
        message_id: str | None = None,
        ttl_ms: int | None = None,
        timeout_ms: int | None = None,
    ) -> asyncio.Task[Receipt]:
        """Send one message without waiting for its answer: the task's result. Order is kept.

        Errors, at once: `TooLarge`, and `Busy` where too much is unanswered.
        """
        loop = self._enter()
        call = self._start_chat(to, text, message_id, ttl_ms, timeout_ms)
        return loop.create_task(self._receipt(loop, call))

    async def send_many(
        self,
        messages: Iterable[tuple[str, str]],
        *,
        window: int = 1_000,
        timeout_ms: int | None = None,
    ) -> AsyncIterator[Receipt | RequestError]:
        """Send (recipient, text) pairs, ``window`` at a time; as `Client.send_many`."""
        loop = self._enter()
        sending = Window(self._session, self._make_id, messages, min(window, SUBMITTED_MAX))
        while sending.fill(self._token, monotonic_ms(), timeout_ms or self._timeout_ms):
            self._enter()
            if sending.full:
                for outcome in await self._outcomes(loop, sending):
                    yield outcome
        while sending.oldest is not None:
            for outcome in await self._outcomes(loop, sending):
                yield outcome

    async def messages(
        self,
        *,
        window: int = WINDOW_DEFAULT,
        after: int | None = None,
        epoch: int | None = None,
        acknowledge: bool = True,
        timeout_ms: int | None = None,
        on_connection: Callable[[bool], None] | None = None,
    ) -> AsyncGenerator[Message, None]:
        """Yield messages as they arrive, in order, without end; as `Client.messages`.

        Python ends a loop that was left by ``break`` a moment later; to end it, and to have its
        last acknowledgement sent, at a certain place use `contextlib.aclosing`. `close` does too.
        """
        loop = self._enter()
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
        try:
            while True:
                # What it asks for while the connection is gone is not to be sent, but to be due.
                if session.outgoing or session.due_ms < self._timer_ms:
                    self._enter()
                if not subscription.done:
                    await self._arrival(loop, subscription)
                message = subscription.next(monotonic_ms())
                yield message
                if acknowledge:
                    subscription.finish(message.seq, monotonic_ms())
        finally:
            await self._leave(partial(session.unsubscribe, subscription))

    # --- calls -------------------------------------------------------------------------------

    def _enter(self) -> asyncio.AbstractEventLoop:
        """Check whose the client is, and have a turn made once this one of the loop is over."""
        self._owner.check()
        loop = asyncio.get_running_loop()
        if loop is not self._loop:
            if self._loop is not None:
                raise WrongThread(
                    "this client belongs to another event loop: make one client for each loop"
                )
            self._loop = loop
        if not self._turn_is_due:
            self._turn_is_due = True
            loop.call_soon(self._turn)
        return loop

    async def _ask(self, exchange: Exchange[T], timeout_ms: int | None) -> T:
        fields = await self.request(
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
        self._enter()
        return self._session.chat(
            to,
            text,
            message_id=message_id or self._make_id(),
            token=self._token,
            now_ms=monotonic_ms(),
            timeout_ms=timeout_ms or self._timeout_ms,
            ttl_ms=ttl_ms,
        )

    async def _value(self, loop: asyncio.AbstractEventLoop, call: Call) -> dict[str, Any]:
        await self._answered(loop, call)
        return call.value()

    async def _answered(self, loop: asyncio.AbstractEventLoop, call: Call) -> None:
        if not call.done:
            answered: asyncio.Future[None] = loop.create_future()
            # A cancelled future may still be answered in the same turn of the loop.
            call.on_done = lambda _: None if answered.done() else answered.set_result(None)
            try:
                await answered
            except asyncio.CancelledError:
                self._session.abandon(call)
                raise

    async def _arrival(self, loop: asyncio.AbstractEventLoop, subscription: Subscription) -> None:
        arrived: asyncio.Future[None] = loop.create_future()
        subscription.on_done = lambda: None if arrived.done() else arrived.set_result(None)
        await arrived

    async def _page_by_page(
        self, reading: Reading, timeout_ms: int | None
    ) -> AsyncGenerator[Inbox, None]:
        loop = self._enter()
        session = self._session
        paging = Paging(session, self._token, reading, timeout_ms or self._timeout_ms)
        try:
            while True:
                while call := paging.advance(monotonic_ms()):
                    self._enter()
                    await self._answered(loop, call)
                if session.outgoing:
                    self._turn()  # now: the loop's body may not wait for anything
                page = paging.page()
                if page is None:
                    return
                yield page
                paging.finish()
        finally:
            await self._leave(paging.leave)

    async def _leave(self, leave: Leave) -> None:
        """End a loop; wait a moment for the broker to have heard of it."""
        calls = leave(monotonic_ms(), LEAVE_MS)
        if calls:
            loop = self._enter()
            for call in calls:
                await self._answered(loop, call)

    async def _receipt(self, loop: asyncio.AbstractEventLoop, call: Call) -> Receipt:
        return read_receipt(await self._value(loop, call), call.message_id or "")

    async def _outcomes(
        self, loop: asyncio.AbstractEventLoop, sending: Window
    ) -> list[Receipt | RequestError]:
        if sending.oldest is not None:
            await self._answered(loop, sending.oldest)
        return sending.outcomes()

    # --- turns -------------------------------------------------------------------------------

    def _turn(self) -> None:
        """Send what the tasks asked for, take in what has come, and see to the next turn."""
        self._turn_is_due = False
        pump = self._pump
        room = pump.turn()
        link = pump.link
        readable = writable = False
        if link is not None:
            readable, writable = self._take_in(link)
            if link.monitor is not None:
                pump.note_events()
        self._plan(again=readable or bool(self._session.outgoing and (room or writable)))

    def _take_in(self, link: Link) -> tuple[bool, bool]:
        """Take in the replies that are here; return whether more is, and whether there is room.

        The socket's descriptor is edge-triggered: what it reported once and was not dealt with
        stays silent, so ask the socket itself after each use. It is asked before each message, too:
        a third of what a receive costs that finds nothing.
        """
        session, taken = self._session, 0
        readable, writable = link.ready()
        # Until the session has left this connection, as for an answer that is none.
        while readable and taken < REPLIES_A_TURN and session.wanted == link.number:
            frames = link.reply()
            session.received(frames, monotonic_ms())
            taken += len(frames)
            readable, writable = link.ready()
        return readable, writable

    def _plan(self, *, again: bool) -> None:
        """Arrange the next turn."""
        loop = self._loop
        if loop is None:
            return
        if again and not self._turn_is_due:
            self._turn_is_due = True
            loop.call_soon(self._turn)
        due_ms = self._session.due_ms
        if due_ms < self._timer_ms:
            if self._timer is not None:
                self._timer.cancel()
            self._timer_ms = due_ms
            self._timer = loop.call_later(max(due_ms - monotonic_ms(), 0) / 1000, self._on_timer)

    def _on_timer(self) -> None:
        self._timer, self._timer_ms = None, inf
        self._turn()

    def _opened(self, link: Link) -> None:
        if self._loop is not None:
            self._loop.add_reader(link.socket.FD, self._turn)
            if link.monitor is not None:
                self._loop.add_reader(link.monitor.FD, self._turn)

    def _closing(self, link: Link) -> None:
        if self._loop is not None and not self._loop.is_closed():
            self._loop.remove_reader(link.socket.FD)
            if link.monitor is not None:
                self._loop.remove_reader(link.monitor.FD)
