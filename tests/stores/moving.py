"""Steps of tests of the move from SQLite to Redis."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

from broker.core.model import Account, Block, LoginKey, Membership, Room, SessionRecord
from broker.core.ports import Store, StoreLimits, StoreUnavailableError
from broker.stores.migration import Moved, move
from broker.stores.migration_source import Source
from broker.stores.migration_target import Target
from broker.stores.redis import RedisStore
from broker.stores.redis.link import Link
from broker.stores.redis.url import parse_url
from broker.wire.errors import WireError
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.steps import history, read

NUMBERS = count(1)
ROOMS = ["#a", "#b"]
DEVICES = ["", "phone", "desk"]
#: Pages of a history.
BOUNDS: list[dict[str, Any]] = [{}, {"before": 12, "limit": 3}, {"after": 5, "limit": 3}]


def fresh_url(*, cluster: bool = False) -> str:
    """Return an empty place in the server, or cluster, of all tests."""
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")
    server = redis_server.shared_cluster() if cluster else redis_server.shared_server()
    return f"{server.url}?prefix=moved{next(NUMBERS)}"


def run(
    path: Path, url: str, *, limits: StoreLimits | None = None, asks: int | None = None
) -> Moved:
    """Move; ``asks``: the server goes away after so many round trips."""
    limits = limits or StoreLimits()
    where = parse_url(url)
    link = Link(where) if asks is None else FailingLink(url, asks)
    try:
        with Source(path, ids_max=limits.dedup.ids_max) as source:
            return move(source, Target(link, where.prefix, limits), watch=lambda *_: None)
    finally:
        link.close()


class FailingLink(Link):
    """Gives up in the midst: what it was asked last may have been done, or not."""

    def __init__(self, url: str, asks: int) -> None:
        super().__init__(parse_url(url))
        self._asks = asks

    def ask(self, calls: Any) -> list[Any]:
        self._asks -= 1
        if self._asks < 0:
            raise StoreUnavailableError("gone")
        found = super().ask(calls)
        if self._asks == 0:
            raise StoreUnavailableError("gone, once it was done")
        return found


@contextmanager
def opened(url: str, limits: StoreLimits | None = None) -> Iterator[RedisStore]:
    store = RedisStore(url, limits or StoreLimits())
    try:
        yield store
    finally:
        store.close()


def outcome(step: Callable[[], Any]) -> Any:
    try:
        return step()
    except WireError as error:
        return error.code


def told(store: Store) -> dict[str, Any]:
    """Return all that the port tells, to every reader."""
    found: dict[str, Any] = {"epoch": store.epoch.number, "depth": batched(store, store.depth)}
    found["keys"] = sorted(store.find_all(LoginKey), key=repr)
    kinds: list[type[Any]] = [Account, Room, Membership, Block, SessionRecord]
    found |= {kind.__name__: store.find_all(kind) for kind in kinds}
    for user in [each.user for each in store.find_all(Account)]:
        found[user] = batched(store, partial(store.depth, user))
        for of in ("inbox", "sent", *ROOMS):
            for bounds in BOUNDS:
                step = partial(history, store, of, user=user, **bounds)
                found[f"{user} {of} {bounds}"] = outcome(step)
        for device in DEVICES:
            found[f"{user} {device}"] = page(store, user, device, 0, 100)
            found[f"{user} {device} paged"] = page(store, user, device, 4, 2)
    return found


def batched(store: Store, step: Callable[[], Any]) -> Any:
    with store.batch():
        return step()


def page(store: Store, user: str, device: str, after: int, limit: int) -> Any:
    found = read(store, user, device=device, after=after, limit=limit)
    # To a device that nobody has logged in from, nothing was ever given: there is no telling.
    return found._replace(delivered=0) if device else found
