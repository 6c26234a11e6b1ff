"""Mailboxes of which nobody knows what they have lost: all of a server are marked.

A thread with a connection of its own, which is there only for as long as that takes. What it has
come to is not written down: a mailbox is marked once for each doubt, and so whoever goes on after a
broker that has ended begins at the beginning. Source: docs/decisions/0014.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable
from typing import Final
from zlib import crc32

from broker.core.ports import (
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnusableError,
)
from broker.stores.redis.keys import Keys
from broker.stores.redis.link import Link, script
from broker.stores.redis.rollcall import Unvouched
from broker.stores.redis.url import RedisUrl

log = logging.getLogger("kotak.redis")

#: Mailboxes that are marked at once, 3 to 4 ms of a server, and the rest afterwards, in seconds.
_AT_ONCE: Final = 200
_REST_S: Final = 0.01
#: What the end of the thread may take.
_END_S: Final = 5.0
_FAILURES: Final = (StoreFailedError, StoreFullError, StoreUnavailableError, StoreUnusableError)


class Doubts:
    """Has mailboxes marked, one server at a time; `close` ends it wherever it is."""

    def __init__(self, url: RedisUrl, keys: Keys) -> None:
        self._url = url
        self._keys = keys
        self._thread: threading.Thread | None = None
        self._closing = threading.Event()

    def settle(self, unvouched: Iterable[Unvouched]) -> None:
        """Begin with the first, unless a server is under way. It is to be told again until done."""
        first = next(iter(unvouched), None)
        if first is None or (self._thread is not None and self._thread.is_alive()):
            return
        self._thread = threading.Thread(
            target=self._run, args=(first,), name="kotak-doubt", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the thread; another broker begins anew."""
        self._closing.set()
        if self._thread is not None:
            self._thread.join(_END_S)

    def _run(self, doubt: Unvouched) -> None:
        try:
            link = Link(self._url)
            try:
                self._mark_all(link, doubt)
            finally:
                link.close()
        except _FAILURES as error:
            log.warning(
                "marking mailboxes is interrupted", extra={"fields": {"reason": str(error)}}
            )
        except Exception:
            log.exception("marking mailboxes met a fault")

    def _mark_all(self, link: Link, doubt: Unvouched) -> None:
        log.error(
            "a Redis server took over, and not all that used the one before tell what they had"
            " answered: the readers of all its mailboxes are told that messages may be lost"
        )
        beside = link.beside(doubt.place)
        marked = sum(
            self._mark(link, doubt, shard, beside)
            for index in ("users", "rooms")
            for shard in self._keys.shards(index)
        )
        if self._closing.is_set():
            return
        here = f"{' '.join(doubt.server)} {doubt.began} {doubt.since}"
        flat = [each for pair in doubt.missing.items() for each in pair]
        link.one(script("settle", doubt.place, here, *flat))
        log.error("%d mailboxes are marked", marked)

    def _mark(self, link: Link, doubt: Unvouched, shard: str, beside: Callable[[str], bool]) -> int:
        """Mark the mailboxes of one part of an index; return how many were not."""
        # Of one taking over: a restart of the same server is none.
        name = crc32(f"{doubt.server.who} {doubt.server.term}".encode())
        marked, after = 0, "-"
        while after and not self._closing.wait(_REST_S):
            names = link.one(("ZRANGEBYLEX", shard, after, "+", "LIMIT", 0, _AT_ONCE))
            after = f"({names[-1].decode()}" if len(names) == _AT_ONCE else ""
            places = [self._keys.place(each.decode()) for each in names]
            here = filter(beside, places)
            marked += sum(link.ask([script("doubt", each, doubt.since, name) for each in here]))
        return marked
