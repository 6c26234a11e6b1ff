"""The directory in Redis: accounts, sessions, rooms, login keys and blocks.

Each record is a string of JSON at a key of its own. What is listed is found by indexes:

* ``INDEX:users``, ``INDEX:rooms``, ``INDEX:keys``, ``INDEX:blocks``: zsets of scores 0, so in order
  of name; of blocks the users who have any. ``INDEX:sessions``: a zset in order of opening.
* ``USER:sessions``, ``USER:keys``, ``USER:blocks``: zsets of what one user has.

An index is written before what it leads to, and may name what is gone. A session's key expires a
day after the session, for those that nobody ends; all other keys do not expire.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from dataclasses import astuple, replace
from heapq import merge
from typing import Any, Final, cast

from broker.core.model import Account, Block, LoginKey, Room, SessionRecord
from broker.core.ports import Key, R, Record
from broker.stores.redis.keys import Keys
from broker.stores.redis.link import Call, Link, script

_DAY_MS: Final = 86_400_000
#: Records that are fetched in one round trip.
_FETCHED: Final = 500


class Records:
    """All but memberships, which belong to `broker.stores.redis.rooms`.

    ``changed`` hears of users of whom other brokers may remember what is no longer so.
    """

    def __init__(
        self, link: Link, keys: Keys, changed: Callable[[str], None] = lambda _: None
    ) -> None:
        self._link = link
        self._keys = keys
        self._changed = changed
        self._opened = 0

    # --- one ---------------------------------------------------------------------------------

    def find(self, kind: type[R], key: Key) -> R | None:
        if kind is Block:
            found: Any = self._block(key)
            return cast("R | None", found)
        name = _name(key)
        calls: list[Call] = [("GET", self._key(kind, name))]
        if kind is Room:
            calls.append(("SCARD", self._keys.of(name, "joined")))
        text, *members = self._link.ask(calls)
        record = None if text is None else _record(kind, text)
        if isinstance(record, Room):
            return replace(record, members=members[0])
        return record

    def _block(self, key: Key) -> Block | None:
        user, sender = cast("tuple[str, str]", key)
        there = self._link.one(("ZSCORE", self._keys.of(user, "blocks"), sender))
        return None if there is None else Block(user, sender)

    def put(self, record: Record) -> None:
        keys, tell = self._keys, self._link.tell
        if isinstance(record, Account | Room):
            name = record.user if isinstance(record, Account) else record.room
            index = "users" if isinstance(record, Account) else "rooms"
            tell(("ZADD", keys.index(index, name), 0, name))
            tell(script("born", keys.place(name)))
            tell(("SET", self._key(type(record), name), _text(record)))
            if isinstance(record, Account):
                self._changed(name)
        elif isinstance(record, SessionRecord):
            self._put_session(record)
        elif isinstance(record, LoginKey):
            self.remove(LoginKey, record.key)
            tell(("ZADD", keys.index("keys", record.key), 0, record.key))
            tell(("ZADD", keys.of(record.user, "keys"), 0, record.key))
            tell(("SET", keys.login_key(record.key), _text(record)))
        elif isinstance(record, Block):
            tell(("ZADD", keys.index("blocks", record.user), 0, record.user))
            tell(("ZADD", keys.of(record.user, "blocks"), 0, record.sender))

    def _put_session(self, record: SessionRecord) -> None:
        keys, tell, name = self._keys, self._link.tell, record.digest.hex()
        self._opened = opened = max(self._opened + 1, time.time_ns() // 1_000)
        # NX: one that is extended keeps its place.
        tell(("ZADD", keys.index("sessions", name), "NX", opened, name))
        tell(("ZADD", keys.of(record.user, "sessions"), "NX", opened, name))
        lasts_ms = max(0, record.expires_ms - record.opened_ms) + _DAY_MS
        tell(("SET", keys.session(name), _text(record), "PX", lasts_ms))

    def remove(self, kind: type[R], key: Key) -> None:
        """Remove a record and what its indexes say of it; not a mailbox."""
        keys, tell = self._keys, self._link.tell
        if kind is Block:
            user, sender = cast("tuple[str, str]", key)
            tell(("ZREM", keys.of(user, "blocks"), sender))
            return
        name = _name(key)
        if kind is SessionRecord or kind is LoginKey:
            index = "sessions" if kind is SessionRecord else "keys"
            found = cast("SessionRecord | LoginKey | None", self.find(kind, key))
            if found is not None:
                tell(("ZREM", keys.of(found.user, index), name))
                self._changed(found.user)
            tell(("ZREM", keys.index(index, name), name))
        else:
            index = "users" if kind is Account else "rooms"
            tell(("ZREM", keys.index(index, name), name))
            if kind is Account:
                self._changed(name)
        tell(("UNLINK", self._key(kind, name)))

    def _key(self, kind: type, name: str) -> str:
        if kind is SessionRecord:
            return self._keys.session(name)
        if kind is LoginKey:
            return self._keys.login_key(name)
        return self._keys.of(name, "account" if kind is Account else "room")

    # --- many --------------------------------------------------------------------------------

    def find_all(self, kind: type[R], *, of: str, after: str, limit: int) -> list[R]:
        if kind is Block:
            blocks: Any = self._blocks(of)[: limit or None]
            return cast("list[R]", blocks)
        if of:
            index = "sessions" if kind is SessionRecord else "keys"
            names = self._link.one(("ZRANGE", self._keys.of(of, index), 0, -1))
        elif kind is SessionRecord:
            names = self._sessions()
        else:
            index = "users" if kind is Account else "rooms" if kind is Room else "keys"
            names = self.names(index, after=after, limit=limit)
        found: list[R] = []
        for start in range(0, len(names), _FETCHED):
            found += self._fetch(kind, [each.decode() for each in names[start : start + _FETCHED]])
            if limit and len(found) >= limit:
                break
        return found[: limit or None]

    def names(self, index: str, *, after: str = "", limit: int = 0) -> list[bytes]:
        """Return what an index over everything names, in order."""
        low = f"({after}" if after else "-"
        page = ("LIMIT", 0, limit) if limit else ()
        shards = self._keys.shards(index)
        parts = self._link.ask([("ZRANGEBYLEX", shard, low, "+", *page) for shard in shards])
        return list(merge(*parts))[: limit or None]

    def _sessions(self) -> list[bytes]:
        shards = self._keys.shards("sessions")
        parts = self._link.ask([("ZRANGE", shard, 0, -1, "WITHSCORES") for shard in shards])
        scored = [(float(score), name) for part in parts for name, score in _pairs(part)]
        return [name for _, name in sorted(scored)]

    def _blocks(self, of: str) -> list[Block]:
        users = [of] if of else [each.decode() for each in self.names("blocks")]
        calls: list[Call] = [("ZRANGE", self._keys.of(user, "blocks"), 0, -1) for user in users]
        found = self._link.ask(calls)
        return [
            Block(user, sender.decode())
            for user, senders in zip(users, found, strict=True)
            for sender in senders
        ]

    def _fetch(self, kind: type[R], names: list[str]) -> list[R]:
        calls: list[Call] = [("GET", self._key(kind, name)) for name in names]
        if kind is Room:
            calls += [("SCARD", self._keys.of(name, "joined")) for name in names]
        replies = self._link.ask(calls)
        found = [None if each is None else _record(kind, each) for each in replies[: len(names)]]
        if kind is Room:
            counts = replies[len(names) :]
            rooms = cast("Iterable[Room | None]", found)
            counted = [r and replace(r, members=n) for r, n in zip(rooms, counts, strict=True)]
            return cast("list[R]", [each for each in counted if each])
        return [each for each in found if each is not None]


def _pairs(flat: list[Any]) -> Iterable[tuple[bytes, Any]]:
    """Return members with scores, which older protocols tell flat and newer ones in pairs."""
    if flat and isinstance(flat[0], list | tuple):
        return [(member, score) for member, score in flat]
    return list(zip(flat[::2], flat[1::2], strict=True))


def _name(key: Key) -> str:
    return key.hex() if isinstance(key, bytes) else str(key)


def _text(record: Record) -> str:
    values = list(astuple(record))
    if isinstance(record, SessionRecord):
        values[0] = record.digest.hex()
    if isinstance(record, Room):
        values.pop()  # members are counted
    return json.dumps(values, ensure_ascii=False, separators=(",", ":"))


def _record(kind: type[R], text: bytes) -> R:
    values = json.loads(text)
    if kind is SessionRecord:
        values[0] = bytes.fromhex(values[0])
    return cast("Callable[..., R]", kind)(*values)
