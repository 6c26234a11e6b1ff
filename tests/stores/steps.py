"""One step each, in a batch of its own: what the tests of the contract are written in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

import pytest

from broker.core.model import Account, History, Lost, Membership, Message, Page, Room
from broker.core.ports import Store
from broker.wire.errors import Code, WireError
from broker.wire.limits import SEQ_MAX

NOW_MS = 1_700_000_000_000
Reopen = Callable[[Store], Store]
S = TypeVar("S", bound=Store)


class Interrupted(Exception):
    """Something that is no store's business ends a batch."""


@contextmanager
def failing_batch(store: Store) -> Iterator[None]:
    """End a batch by an exception, for tests of what has not happened then."""
    if not store.undoes:
        pytest.skip("a batch that fails is not undone here: each of its steps may be repeated")
    with suppress(Interrupted), store.batch():
        yield
        raise Interrupted


def account(user: str, name: str = "", password_hash: str = "hash") -> Account:
    return Account(user, name or user.title(), password_hash)


def with_users(store: S, *users: str) -> S:
    with store.batch():
        for user in users:
            store.put(account(user))
    return store


def with_room(
    store: S, *users: str, room: str = "#den", history: bool = False, owner: str = "ann"
) -> S:
    """Make a room with these users in it; they have accounts already, or get them."""
    with store.batch():
        for user in users:
            if store.find(Account, user) is None:
                store.put(account(user))
        store.put(Room(room, owner, open=False, history=history))
    for user in users:
        join(store, user, room)
    return store


def join(store: Store, user: str, room: str = "#den") -> None:
    with store.batch():
        store.put(Membership(room, user, joined=True))


def leave(store: Store, user: str, room: str = "#den") -> None:
    with store.batch():
        store.remove(Membership, (room, user))


def send(
    store: Store,
    message_id: str,
    text: str = "hi",
    *,
    to: str = "bob",
    sender: str = "ann",
    ttl_ms: int | None = None,
    now_ms: int = NOW_MS,
) -> int:
    with store.batch():
        return store.append(to, sender, message_id, text, now_ms, ttl_ms=ttl_ms).seq


def read(
    store: Store, user: str = "bob", *, device: str = "", after: int = 0, limit: int = 100
) -> Page:
    with store.batch():
        return store.read(user, device, after, limit, 1_000_000)


def ids(
    store: Store, user: str = "bob", *, device: str = "", after: int = 0, limit: int = 100
) -> list[str]:
    page = read(store, user, device=device, after=after, limit=limit)
    return [each.message_id for each in page.messages]


def ack(store: Store, seq: int = SEQ_MAX, user: str = "bob", *, device: str = "") -> int:
    with store.batch():
        return store.acknowledge(user, device, seq)


def login(store: S, *devices: str, user: str = "bob") -> S:
    """Make devices known, as a login does."""
    for device in devices:
        ack(store, 0, user, device=device)
    return store


def history(
    store: Store,
    of: str = "inbox",
    *,
    user: str = "bob",
    before: int | None = None,
    after: int | None = None,
    limit: int = 100,
    bytes_max: int = 1_000_000,
) -> History:
    with store.batch():
        return store.history(user, of, before=before, after=after, limit=limit, bytes_max=bytes_max)


def kept(store: Store, of: str = "inbox", *, user: str = "bob") -> list[str]:
    return [each.message_id for each in history(store, of, user=user).messages]


def expire(store: Store, now_ms: int) -> list[str]:
    with store.batch():
        return [each.message_id for each in store.expire(now_ms)]


def tidy(store: Store, now_ms: int) -> int:
    """Walk to the end and return how many steps it took."""
    for steps in range(1, 10_000):
        with store.batch():
            if not store.tidy(now_ms):
                return steps
    raise AssertionError("the walk has no end")


def lost(store: Store, user: str = "bob", *, device: str = "") -> Lost | None:
    return read(store, user, device=device).lost


def refused(code: Code, step: Callable[[], object]) -> None:
    with pytest.raises(WireError) as caught:
        step()
    assert caught.value.code is code


def message(seq: int, message_id: str, text: str = "hi", *, to: str = "bob") -> Message:
    return Message(seq, NOW_MS, "ann", message_id, text, to)
