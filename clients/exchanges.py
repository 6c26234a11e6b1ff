"""What each command sends and what its answer becomes: once, for both clients.

Source: docs/PROTOCOL.md, "Commands". An option that was not given is left out.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from typing import Any, Final, Generic, NamedTuple, Protocol, TypeVar

from broker.wire.limits import PROTOCOL_VERSION
from clients import results
from clients.results import Fields, Hello, History, Inbox, Login, Room, Status, User

T = TypeVar("T")
Args = dict[str, Any]
#: Users of one page, and whether another one follows.
UsersPage = tuple[list[User], bool]

NONE: Final[Args] = {}


class Own(Enum):
    """Stands for "the client's own token" where None means that none is sent."""

    TOKEN = 1


class Exchange(NamedTuple, Generic[T]):
    """One command, its arguments, and how its result is read; ``own``: the client's token goes."""

    command: str
    args: Args
    parse: Callable[[Fields], T]
    own: Own | None = Own.TOKEN


class Ask(Protocol):
    """Carry out an exchange and return its result. Errors: `clients.errors.KotakError`."""

    def __call__(self, exchange: Exchange[T], timeout_ms: int | None) -> T: ...


class AsyncAsk(Protocol):
    """As `Ask`."""

    async def __call__(self, exchange: Exchange[T], timeout_ms: int | None) -> T: ...


#: The exchange for the page of users that begins behind a name (None: for the first one).
PageOfUsers = Callable[[str | None], Exchange[UsersPage]]


def every_user(ask: Ask, page: PageOfUsers, timeout_ms: int | None) -> list[User]:
    """Return the users of all pages; the timeout is for each of them."""
    users: list[User] = []
    more = True
    while more:
        found, more = ask(page(users[-1].user if users else None), timeout_ms)
        users += found
    return users


async def every_user_async(ask: AsyncAsk, page: PageOfUsers, timeout_ms: int | None) -> list[User]:
    """As `every_user`."""
    users: list[User] = []
    more = True
    while more:
        found, more = await ask(page(users[-1].user if users else None), timeout_ms)
        users += found
    return users


def _given(**fields: Any) -> Args:
    return {name: value for name, value in fields.items() if value is not None}


# --- The session -----------------------------------------------------------------------------


def hello(client: str | None) -> Exchange[Hello]:
    args = _given(version=PROTOCOL_VERSION, client=client)
    return Exchange("hello", args, Hello.parse, own=None)


def ping() -> Exchange[int]:
    return Exchange("ping", NONE, results.now_ms)


def login(user: str, password: str | None, device: str | None) -> Exchange[Login]:
    args = _given(user=user, password=password, device=device)
    return Exchange("login", args, Login.parse, own=None)


def logout() -> Exchange[None]:
    return Exchange("logout", NONE, results.nothing)


def register(user: str, password: str, name: str | None) -> Exchange[User]:
    args = _given(user=user, password=password, name=name)
    return Exchange("register", args, User.parse, own=None)


def change_password(old: str, new: str) -> Exchange[None]:
    return Exchange("passwd", {"password": old, "new_password": new}, results.nothing)


def users_on(*, detail: bool) -> PageOfUsers:
    flag = True if detail else None
    return lambda after: Exchange(
        "user_on", _given(after=after, detail=flag), results.page_of("users")
    )


# --- Messages --------------------------------------------------------------------------------


def inbox(limit: int | None, after: int | None, epoch: int | None) -> Exchange[Inbox]:
    args = _given(limit=limit, after=after, epoch=epoch)
    return Exchange("kotakmasuk", args, Inbox.parse)


def acknowledge(seq: int) -> Exchange[int]:
    return Exchange("ack", {"seq": seq}, results.cursor)


def history(of: str, before: int | None, after: int | None, limit: int) -> Exchange[History]:
    args = _given(of=of, before=before, after=after, limit=limit)
    return Exchange("history", args, History.parse)


def status(to: str, seq: int) -> Exchange[Status]:
    return Exchange("status", {"to": to, "seq": seq}, Status.parse)


# --- Blocks ----------------------------------------------------------------------------------


def block(user: str) -> Exchange[None]:
    return Exchange("block", {"user": user}, results.nothing)


def unblock(user: str) -> Exchange[None]:
    return Exchange("unblock", {"user": user}, results.nothing)


def blocked() -> Exchange[list[str]]:
    return Exchange("blocks", NONE, results.names)


# --- Rooms -----------------------------------------------------------------------------------


def rooms() -> Exchange[list[Room]]:
    return Exchange("rooms", NONE, results.rooms)


def room_create(room: str, *, anybody: bool, history: bool) -> Exchange[Room]:
    args: Args = {"room": room, "open": anybody, "history": history}
    return Exchange("room_create", args, results.room)


def room_invite(room: str, user: str) -> Exchange[None]:
    return Exchange("room_invite", {"room": room, "user": user}, results.nothing)


def room_join(room: str) -> Exchange[Room]:
    return Exchange("room_join", {"room": room}, results.room)


def room_leave(room: str) -> Exchange[None]:
    return Exchange("room_leave", {"room": room}, results.nothing)


def room_members(room: str) -> PageOfUsers:
    return lambda after: Exchange(
        "room_members", _given(room=room, after=after), results.page_of("members")
    )
