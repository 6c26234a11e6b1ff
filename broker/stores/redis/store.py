"""The store in Redis or Valkey, one server or a cluster: for any number of brokers at once.

Every step is one script in the slot of one mailbox, and may be repeated. Nothing is kept in this
process but what is on its way.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Final, cast

from broker.core.blocks import blocked_by_recipient
from broker.core.mailbox import fitting
from broker.core.mailboxes import conflict, full, no_such_room, no_such_user
from broker.core.model import (
    Account,
    Depth,
    Epoch,
    History,
    Lost,
    Membership,
    Message,
    News,
    Page,
    Receipt,
    Room,
)
from broker.core.ports import (
    DEFAULT_LIMITS,
    Key,
    R,
    Record,
    StoreFailedError,
    StoreLimits,
    StoreUnavailableError,
    StoreUnusableError,
)
from broker.core.rates import SendLimits
from broker.core.shared_limits import Claim, Grant, Tried
from broker.stores.redis.doubt import Doubts
from broker.stores.redis.keys import MOVING, Keys
from broker.stores.redis.limits import SharedLimits
from broker.stores.redis.link import Call, Link, script
from broker.stores.redis.messages import messages
from broker.stores.redis.news import Listener
from broker.stores.redis.receipts import Promised
from broker.stores.redis.records import Records
from broker.stores.redis.rollcall import BEAT_S, RollCall
from broker.stores.redis.rooms import Gone, Rooms
from broker.stores.redis.sent import Sent
from broker.stores.redis.server import check_server
from broker.stores.redis.telling import Teller
from broker.stores.redis.url import parse_url
from broker.stores.redis.walk import Expiry, Walk
from broker.stores.redis.witness import Witness
from broker.wire.commands import INBOX, SENT, ChatArgs
from broker.wire.errors import WireError
from broker.wire.limits import DEVICES_PER_USER_MAX, ROOM_MARK

log = logging.getLogger("kotak.stores")

#: Mailboxes that are counted in one round trip.
_COUNTED: Final = 500


class RedisStore:
    """One caller at a time. Errors of opening: `StoreUnusableError`."""

    undoes = False
    shared = True

    def __init__(self, url: str, limits: StoreLimits = DEFAULT_LIMITS) -> None:
        where = parse_url(url)
        self._limits = limits
        self._link = Link(where)
        try:
            self.durability: str = check_server(self._link, where)
            self._keys = Keys(where.prefix)
            self._require_moved(where.prefix)
            self.epoch = self._settle_epoch()
            self._losses = self._link.losses
            self._witness = Witness(self._keys, retention_ms=limits.retention_read_ms)
            self._roll = RollCall(
                self._link,
                self._keys,
                syncs=self.durability == "fsync",
                # Two answers that do not come, and what an idle broker takes to notice.
                lease_s=2 * where.timeout_ms / 1_000 + BEAT_S,
                # Where replicas confirm, a failover loses nothing that was answered.
                needed=not where.replicas,
            )
        except BaseException as error:
            self._link.close()
            if isinstance(error, StoreUnavailableError):
                raise StoreUnusableError(f"Redis does not serve now: {error}") from error
            raise
        self._teller = Teller(self._link, self._keys)
        self._listener = Listener(where, self._keys)
        self._doubts = Doubts(where, self._keys)
        self._link.when_changed(self._look)
        self._shared_limits = SharedLimits(self._link, self._keys, self._teller.own)
        self._records = Records(self._link, self._keys, self._teller.changed)
        self._rooms = Rooms(self._link, self._keys)
        self._sent = Sent(self._link, self._keys)
        self._expiry = Expiry(self._link, self._keys, limits)
        self._walking = False
        self._walk = Walk(self._link, self._keys, self._records, self._expiry, limits)

    def _require_moved(self, prefix: str) -> None:
        """Errors: `StoreUnusableError`, where a migration to here has not come to its end."""
        if self._link.one(("HGET", self._keys.migration, "state")) == MOVING.encode():
            raise StoreUnusableError(
                f"what is under the prefix {prefix!r} was begun by kotak migrate and is not"
                " complete: finish it with the same command, or choose another prefix"
                " (?prefix=NAME)"
            )

    def _settle_epoch(self) -> Epoch:
        """Return the number that all brokers of this store give, made by the first of them."""
        key = self._keys.epoch
        kept = self._link.one(("GET", key))
        if kept is None:
            made = f"{1 + secrets.randbelow(2**53 - 1)} {time.time_ns() // 1_000}"
            _, kept = self._link.ask([("SET", key, made, "NX"), ("GET", key)])
        number, begun_us = kept.split()
        return Epoch(int(number), Lost(1, int(begun_us)))

    # --- batches -----------------------------------------------------------------------------

    @contextmanager
    def batch(self) -> Iterator[None]:
        try:
            if self._losses != self._link.losses:
                self._look()
            elif time.monotonic() >= self._roll.due_at:
                self._attend()
            self._sent.tell()  # of the batch before
            yield
            self._link.flush()
            self._teller.publish()  # what has changed, now that it has
        finally:
            self._link.drop()

    def _attend(self) -> None:
        """Sign the roll, and have marked what others leave in doubt; later, where it fails."""
        with suppress(StoreUnavailableError):  # of one server; the batch may concern others
            self._look()
            self._doubts.settle(self._roll.unvouched)

    def _look(self) -> None:
        """Look whether the servers are those that this broker knows; if not, compare."""
        losses = self._link.losses
        if self._roll.call() or losses != self._losses:
            self._compare()
            self._losses = losses

    def _compare(self) -> None:
        """Look whether the servers that are there now have what this broker answered for."""
        self._require_epoch()
        missing = self._link.mend([*self._witness.questions(self._roll.since)]).count(1)
        self._link.mend([*self._witness.repetitions()])
        if missing:
            log.error("Redis has lost messages of %d mailboxes: their readers are told", missing)
        self._roll.vouch(self._witness.remembers)

    def _require_epoch(self) -> None:
        """Errors: `StoreFailedError`, where this is no longer the store that was opened."""
        kept = self._link.one(("GET", self._keys.epoch))
        if kept is None or int(kept.split()[0]) != self.epoch.number:
            raise StoreFailedError("the Redis server has lost its data, or was given other data")

    # --- messages ----------------------------------------------------------------------------

    def append(
        self,
        to: str,
        sender: str,
        message_id: str,
        text: str,
        now_ms: int,
        *,
        ttl_ms: int | None = None,
        refusal: WireError | None = None,
    ) -> Receipt:
        limits, room = self._limits, to.startswith(ROOM_MARK)
        expires_ms = None if ttl_ms is None else now_ms + ttl_ms
        receipt = Promised(self._link.flush)
        self._link.tell(
            script(
                "append",
                self._keys.place(to),
                sender,
                message_id,
                text,
                now_ms,
                limits.mailbox_messages_max,
                limits.mailbox_bytes_max,
                limits.dedup.ids_max,
                limits.dedup.window_ms,
                "" if expires_ms is None else expires_ms,
                "" if refusal is None else "1",
                "1" if room else "",
                self._witness.given(to),
            ),
            partial(self._appended, receipt, to, sender, refusal),
        )
        if expires_ms is not None:
            self._expiry.schedule(to, expires_ms)
        return receipt

    def append_all(
        self, sender: str, letters: Sequence[ChatArgs], now_ms: int
    ) -> Sequence[Receipt | WireError]:
        return [
            self.append(to, sender, message_id, text, now_ms, ttl_ms=ttl_ms)
            for to, text, message_id, ttl_ms in letters
        ]

    def _appended(
        self, receipt: Promised, to: str, sender: str, refusal: WireError | None, reply: Any
    ) -> None:
        if isinstance(reply, int):
            receipt.seq = reply
            self._witness.saw(to, reply)
            self._listener.appended(to, reply)
            self._sent.note(sender, to, reply)
        else:
            receipt.refused = _refusal(reply, refusal, room=to.startswith(ROOM_MARK))

    def read(self, user: str, device: str, after: int, limit: int, bytes_max: int) -> Page:
        place = self._keys.place(user)
        args = (device, after, limit, bytes_max, DEVICES_PER_USER_MAX)
        reading = partial(script, "read", place, *args)
        reply, rooms = self._with_rooms(user, reading)
        found, stale = self._rooms.resolve(user, reply[6])
        while stale:  # some pointers led nowhere and are dropped: again, for a whole page
            reply, rooms = self._with_rooms(user, reading)
            found, stale = self._rooms.resolve(user, reply[6])
        cursor, delivered, last, purged, rows, cut, _, lost, low = reply
        given = self._witness.given(user)
        if last < given and self._link.one(self._witness.question(user, given)):
            return self.read(user, device, after, limit, bytes_max)  # which tells of the loss
        waiting = sorted(messages(rows, user) + found) if found else messages(rows, user)
        taken = fitting(waiting[:limit], bytes_max)
        if taken and reply[6]:
            self._link.tell(script("give", place, device, taken[-1].seq))
        more = bool(cut) or len(waiting) > len(taken)
        if self._roll.took_over:  # what was noted as given before may be lost
            delivered = max(delivered, self._roll.began(place))
        gone = [Gone(0, purged, purged), Gone(0, lost, low), *rooms]
        return Page(taken, more, cursor, delivered, last, _lost(cursor, gone))

    def acknowledge(self, user: str, device: str, seq: int) -> int:
        place = self._keys.place(user)
        acknowledging = partial(script, "acknowledge", place, device, seq, DEVICES_PER_USER_MAX)
        (cursor, more), _ = self._with_rooms(user, acknowledging)
        while more:  # a step counts a thousand messages
            cursor, more = self._link.one(acknowledging("1"))
        self._witness.acknowledged(user, device, cursor)
        return int(cursor)

    def _with_rooms(self, user: str, call: Callable[[str], Call]) -> tuple[Any, list[Gone]]:
        """Make a call on a user's mailbox, and again when its rooms had to be pulled first.

        Errors: ``no_such_user``.
        """
        rooms: list[Gone] = []
        reply = self._link.one(call(""))
        if reply != b"absent" and reply[0] == b"pull":
            rooms = self._rooms.pull(user, reply[1])
            reply = self._link.one(call("1"))
        if reply == b"absent":
            raise no_such_user()
        return reply, rooms

    def history(
        self,
        user: str,
        of: str,
        *,
        before: int | None,
        after: int | None,
        limit: int,
        bytes_max: int,
    ) -> History:
        if of == SENT:
            self._link.flush()  # whose answers say what was sent
            self._sent.tell()
            return self._sent.history(
                user, before=before, after=after, limit=limit, bytes_max=bytes_max
            )
        if of == INBOX:
            self._pull(user)
            name, low = user, 0
        else:
            name, low = of, self._low(user, of)
        forward = after is not None
        bounds = (max(low, after or 0), "" if forward or before is None else before)
        page = ("page", self._keys.place(name), *bounds, limit, bytes_max)
        stale = True
        while stale:  # as in `read`
            reply = self._link.one(script(*page, "" if forward else "1"))
            if reply == b"absent":
                raise no_such_user() if of == INBOX else no_such_room()
            rows, cut, pointers = reply
            found, stale = self._rooms.resolve(user, pointers)
        kept = messages(rows, name) + found
        kept.sort(reverse=not forward)
        taken = fitting(kept[:limit], bytes_max)
        more = bool(cut) or len(kept) > len(taken)
        return History(taken if forward else taken[::-1], None, more)

    def _pull(self, user: str) -> None:
        rooms = self._link.one(("HGETALL", self._keys.of(user, "rooms")))
        if rooms:
            self._rooms.pull(user, rooms)

    def _low(self, user: str, room: str) -> int:
        """Return above what a member may read in a room. Errors: ``no_such_room``."""
        seat = self._rooms.seats(user).get(room)
        record = self._records.find(Room, room)
        if seat is None or not seat.joined or record is None:
            raise no_such_room()
        return 0 if record.history else seat.since

    def depth(self, user: str | None = None) -> Depth:
        everybody = self._records.names("users") if user is None else [user.encode()]
        names = [each.decode() for each in everybody]
        found: list[Sequence[Any]] = []
        for start in range(0, len(names), _COUNTED):
            part = names[start : start + _COUNTED]
            calls = [("HMGET", self._keys.of(name, "meta"), "born", "n", "b") for name in part]
            found += [each for each in self._link.ask(calls) if each[0] is not None]
        if user is not None and not found:
            raise no_such_user()
        counts = [(int(n or 0), int(size or 0)) for _, n, size in found]
        return Depth(len(found), sum(n for n, _ in counts), sum(size for _, size in counts))

    def expire(self, now_ms: int) -> list[Message]:
        return self._expiry.expire(now_ms)

    # --- the directory -----------------------------------------------------------------------

    def find(self, kind: type[R], key: Key) -> R | None:
        if kind is not Membership:
            return self._records.find(kind, key)
        room, user = cast("tuple[str, str]", key)
        found: Any = self._rooms.find(room, user)
        return cast("R | None", found)

    def find_all(self, kind: type[R], *, of: str = "", after: str = "", limit: int = 0) -> list[R]:
        if kind is not Membership:
            return self._records.find_all(kind, of=of, after=after, limit=limit)
        found: Any = self._memberships(of, after, limit)
        return cast("list[R]", found[: limit or None])

    def _memberships(self, of: str, after: str, limit: int) -> list[Membership]:
        if of.startswith(ROOM_MARK):
            return self._rooms.of_room(of, after, limit)
        if of:
            return self._rooms.of_user(of)
        rooms = [each.decode() for each in self._records.names("rooms")]
        return [each for room in rooms for each in self._rooms.of_room(room, "", 0)]

    def put(self, record: Record) -> None:
        if isinstance(record, Membership):
            self._rooms.put(record)
            self._teller.changed(record.user)
        else:
            self._records.put(record)

    def remove(self, kind: type[R], key: Key) -> None:
        if kind is Membership:
            room, user = cast("tuple[str, str]", key)
            self._rooms.remove(room, user)
            self._teller.changed(user)
            return
        if kind in (Account, Room):
            self._remove_mailbox(str(key))
        self._records.remove(kind, key)

    def _remove_mailbox(self, name: str) -> None:
        self._rooms.remove_all(name)
        self._link.flush()  # whose answers are noted as sent
        self._sent.forget(name)
        self._witness.forget(name)
        self._link.tell(("UNLINK", *self._keys.mailbox(name)))

    # --- the other brokers -------------------------------------------------------------------

    def news(self) -> Sequence[News]:
        return self._listener.news()

    def listen(self, names: Iterable[str]) -> None:
        self._listener.listen(names)

    def on_news(self, wake: Callable[[], None]) -> None:
        self._listener.on_news(wake)

    def hear(self, user: str, now_ms: int) -> None:
        self._teller.hear(user, now_ms)

    def heard(self, users: Collection[str]) -> Mapping[str, int]:
        return self._teller.heard(users)

    def claim(self, name: str) -> bool:
        return self._teller.claim(name)

    def draw(
        self, user: str, used: int, wanted: int, limits: SendLimits, *, at_once: bool = False
    ) -> Grant:
        return self._shared_limits.draw(user, used, wanted, limits, at_once=at_once)

    def claim_attempt(self, user: str, address: str, *, at_home: bool, failures_max: int) -> Claim:
        return self._shared_limits.claim_attempt(
            user, address, at_home=at_home, failures_max=failures_max
        )

    def end_attempt(self, tried: Tried) -> None:
        self._shared_limits.end_attempt(tried)

    def tried(self) -> Sequence[Tried]:
        return self._shared_limits.heard(self._listener.tried())

    # --- keeping house -----------------------------------------------------------------------

    def tidy(self, now_ms: int) -> bool:
        if not self._walking:
            self._require_epoch()  # where everything is gone, no connection need have broken
        self._walking = self._walk.step(now_ms)
        return self._walking

    def close(self) -> None:
        """Write down what was noted of the last batch, if the server is there, and hang up."""
        try:
            self._sent.tell()
            self._link.flush()
            self._look()
            self._roll.leave()
        except Exception:  # noqa: BLE001, S110 - best effort: no promise rests on it
            pass
        self._doubts.close()
        self._listener.close()
        self._link.close()


def _refusal(reply: Any, refusal: WireError | None, *, room: bool) -> WireError:
    if reply == b"conflict":
        return conflict()
    if reply == b"full":
        return full(room=room)
    if reply == b"blocked":
        return blocked_by_recipient()
    if reply == b"refused" and refusal is not None:
        return refusal
    return no_such_room() if room else no_such_user()


def _lost(cursor: int, gone: Iterable[Gone]) -> Lost | None:
    told = [each for each in gone if max(cursor, each.since) < each.seq]
    if not told:
        return None
    first = 1 + min(cursor, *(max(each.low, each.since) for each in told))
    return Lost(first, max(each.seq for each in told))
