"""The commands that are one request and one answer, as methods of both clients.

What each of them sends and gets stands in `clients.exchanges`. Everywhere ``timeout_ms`` is in
milliseconds and the client's own where not given, and a command may fail with what the broker
refuses any command for. Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Generator
from typing import TypeVar

from broker.wire.limits import INBOX_MESSAGES_DEFAULT
from clients import exchanges
from clients.exchanges import Exchange, every_user, every_user_async
from clients.paging import Reading
from clients.results import Hello, History, Inbox, Status, User
from clients.rooms import AsyncRooms, Rooms

T = TypeVar("T")


class Asking:
    """The blocking client's half; ``name`` is what `hello` tells the broker."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    def _ask(self, exchange: Exchange[T], timeout_ms: int | None) -> T:
        raise NotImplementedError

    def _page_by_page(
        self, reading: Reading, timeout_ms: int | None
    ) -> Generator[Inbox, None, None]:
        raise NotImplementedError

    @property
    def rooms(self) -> Rooms:
        """The user's rooms: to make, join and leave them."""
        return Rooms(self._ask)

    def hello(self, *, timeout_ms: int | None = None) -> Hello:
        """Agree on the protocol's version and learn the limits. Errors: `UnsupportedVersion`."""
        return self._ask(exchanges.hello(self._name), timeout_ms)

    def ping(self, *, timeout_ms: int | None = None) -> int:
        """Return the broker's clock in ms since the epoch. Errors: `Unauthorized`."""
        return self._ask(exchanges.ping(), timeout_ms)

    def inbox(
        self,
        *,
        limit: int = INBOX_MESSAGES_DEFAULT,
        after: int | None = None,
        epoch: int | None = None,
        timeout_ms: int | None = None,
    ) -> Inbox:
        """Read without taking: what waits behind the cursor, or behind ``after`` if that is higher.

        ``limit``: 1 to 1000 messages. ``epoch``: the one that ``after`` is of, as an earlier page
        told it; lost history is then reported in the result. Errors: `Unauthorized`.
        """
        return self._ask(exchanges.inbox(limit, after, epoch), timeout_ms)

    def pages(
        self,
        *,
        limit: int = INBOX_MESSAGES_DEFAULT,
        after: int | None = None,
        epoch: int | None = None,
        acknowledge: bool = True,
        timeout_ms: int | None = None,
    ) -> Generator[Inbox, None, None]:
        """Yield what waits, page by page, until nothing does: the quickest way to read it all.

        A page is acknowledged when the next one is asked for; one whose loop body was left by
        ``break`` or an exception stays in the mailbox. The page behind it is on its way meanwhile,
        and is ``redelivered`` to whoever leaves the loop before it. A loop that came to its end has
        acknowledged everything. With ``acknowledge=False`` call `acknowledge` yourself.

        ``limit``, ``after``, ``epoch``: as `inbox`'s. A loss of history is told once, by a page's
        ``history_lost``; where it reaches into what was read already, the reading goes on from the
        cursor, so that what was not acknowledged comes again. ``timeout_ms`` is for each page.
        Errors: `Unauthorized`; whatever was not acknowledged waits.
        """
        return self._page_by_page(Reading(limit, after, epoch, acknowledge), timeout_ms)

    def acknowledge(self, seq: int, *, timeout_ms: int | None = None) -> int:
        """Take every message up to and with ``seq`` out of the mailbox; return the cursor."""
        return self._ask(exchanges.acknowledge(seq), timeout_ms)

    def history(
        self,
        of: str = "inbox",
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = INBOX_MESSAGES_DEFAULT,
        timeout_ms: int | None = None,
    ) -> History:
        """Return a page of what is kept, read or unread, in order of sequence; no cursor moves.

        ``of``: ``"inbox"``, ``"sent"`` or a ``#room``. ``before`` gives the page that ends below
        that sequence, ``after`` the one that begins above it, neither the newest. ``limit``: 1 to
        1000 messages. Errors: `NoSuchRoom`, `BadRequest` (``before`` and ``after``).
        """
        return self._ask(exchanges.history(of, before, after, limit), timeout_ms)

    def status(self, to: str, seq: int, *, timeout_ms: int | None = None) -> Status:
        """Tell where a message stands that one has sent; ``seq`` is its receipt's.

        Errors: `NoSuchMessage`, also where it is no longer kept.
        """
        return self._ask(exchanges.status(to, seq), timeout_ms)

    def users_on(self, *, detail: bool = False, timeout_ms: int | None = None) -> list[User]:
        """Return who is logged in, in order of login; ``detail``: and when each was last heard."""
        return every_user(self._ask, exchanges.users_on(detail=detail), timeout_ms)

    def block(self, user: str, *, timeout_ms: int | None = None) -> None:
        """Refuse what ``user`` sends from now on, and its invitations; twice is no error.

        What waits stays, and rooms that both are in are as before. The sender gets `Blocked`.
        Errors: `NoSuchUser`, `TooMany` (1000), `BadRequest` (oneself).
        """
        self._ask(exchanges.block(user), timeout_ms)

    def unblock(self, user: str, *, timeout_ms: int | None = None) -> None:
        """Take messages of ``user`` again; no error where it was not blocked."""
        self._ask(exchanges.unblock(user), timeout_ms)

    def blocked(self, *, timeout_ms: int | None = None) -> list[str]:
        """Return the names of those whom one blocks, sorted."""
        return self._ask(exchanges.blocked(), timeout_ms)

    def register(
        self, user: str, password: str, *, name: str | None = None, timeout_ms: int | None = None
    ) -> User:
        """Make an account.

        Errors: `Forbidden`, `UserExists`, `RateLimited`, `Busy`, `BadRequest`.
        """
        return self._ask(exchanges.register(user, password, name), timeout_ms)

    def change_password(self, old: str, new: str, *, timeout_ms: int | None = None) -> None:
        """Change the own password; the user's other sessions end.

        Errors: `BadCredentials`, `RateLimited`, `Busy`, `BadRequest`.
        """
        self._ask(exchanges.change_password(old, new), timeout_ms)


class AsyncAsking:
    """The asyncio client's half."""

    def __init__(self, name: str | None) -> None:
        self._name = name

    async def _ask(self, exchange: Exchange[T], timeout_ms: int | None) -> T:
        raise NotImplementedError

    def _page_by_page(
        self, reading: Reading, timeout_ms: int | None
    ) -> AsyncGenerator[Inbox, None]:
        raise NotImplementedError

    @property
    def rooms(self) -> AsyncRooms:
        """The user's rooms: to make, join and leave them."""
        return AsyncRooms(self._ask)

    async def hello(self, *, timeout_ms: int | None = None) -> Hello:
        """Agree on the protocol's version and learn the limits. Errors: `UnsupportedVersion`."""
        return await self._ask(exchanges.hello(self._name), timeout_ms)

    async def ping(self, *, timeout_ms: int | None = None) -> int:
        """Return the broker's clock in ms since the epoch. Errors: `Unauthorized`."""
        return await self._ask(exchanges.ping(), timeout_ms)

    async def inbox(
        self,
        *,
        limit: int = INBOX_MESSAGES_DEFAULT,
        after: int | None = None,
        epoch: int | None = None,
        timeout_ms: int | None = None,
    ) -> Inbox:
        """Read without taking; as `Asking.inbox`."""
        return await self._ask(exchanges.inbox(limit, after, epoch), timeout_ms)

    def pages(
        self,
        *,
        limit: int = INBOX_MESSAGES_DEFAULT,
        after: int | None = None,
        epoch: int | None = None,
        acknowledge: bool = True,
        timeout_ms: int | None = None,
    ) -> AsyncGenerator[Inbox, None]:
        """Yield what waits, page by page, until nothing does; as `Asking.pages`.

        As with `AsyncClient.messages`, `contextlib.aclosing` ends it at a certain place.
        """
        return self._page_by_page(Reading(limit, after, epoch, acknowledge), timeout_ms)

    async def acknowledge(self, seq: int, *, timeout_ms: int | None = None) -> int:
        """Take every message up to and with ``seq`` out of the mailbox; return the cursor."""
        return await self._ask(exchanges.acknowledge(seq), timeout_ms)

    async def history(
        self,
        of: str = "inbox",
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = INBOX_MESSAGES_DEFAULT,
        timeout_ms: int | None = None,
    ) -> History:
        """Return a page of what is kept, read or unread; as `Asking.history`."""
        return await self._ask(exchanges.history(of, before, after, limit), timeout_ms)

    async def status(self, to: str, seq: int, *, timeout_ms: int | None = None) -> Status:
        """Tell where a message stands that one has sent; as `Asking.status`."""
        return await self._ask(exchanges.status(to, seq), timeout_ms)

    async def users_on(self, *, detail: bool = False, timeout_ms: int | None = None) -> list[User]:
        """Return who is logged in, in order of login; as `Asking.users_on`."""
        return await every_user_async(self._ask, exchanges.users_on(detail=detail), timeout_ms)

    async def block(self, user: str, *, timeout_ms: int | None = None) -> None:
        """Refuse what ``user`` sends from now on, and its invitations; as `Asking.block`."""
        await self._ask(exchanges.block(user), timeout_ms)

    async def unblock(self, user: str, *, timeout_ms: int | None = None) -> None:
        """Take messages of ``user`` again; no error where it was not blocked."""
        await self._ask(exchanges.unblock(user), timeout_ms)

    async def blocked(self, *, timeout_ms: int | None = None) -> list[str]:
        """Return the names of those whom one blocks, sorted."""
        return await self._ask(exchanges.blocked(), timeout_ms)

    async def register(
        self, user: str, password: str, *, name: str | None = None, timeout_ms: int | None = None
    ) -> User:
        """Make an account.

        Errors: `Forbidden`, `UserExists`, `RateLimited`, `Busy`, `BadRequest`.
        """
        return await self._ask(exchanges.register(user, password, name), timeout_ms)

    async def change_password(self, old: str, new: str, *, timeout_ms: int | None = None) -> None:
        """Change the own password; the user's other sessions end.

        Errors: `BadCredentials`, `RateLimited`, `Busy`, `BadRequest`.
        """
        await self._ask(exchanges.change_password(old, new), timeout_ms)
