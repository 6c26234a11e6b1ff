"""The side that is moved to: an empty prefix of a Redis, every step of which may be repeated.

A hash ``PREFIX:migration`` (no expiry) says whose data is coming and how far it has come:
``source``, its identity; ``state`` (`MOVING`, ``moved``); ``phase`` and ``done``, rows of it that
are written; ``begun_ms`` and ``ended_ms``. It stays, so that nothing is moved twice, and no broker
starts on it before its end.
"""

from __future__ import annotations

import time
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from broker.core.model import Account, Epoch
from broker.core.ports import DEFAULT_LIMITS, StoreFailedError, StoreLimits
from broker.stores.migration_source import PHASES, Owner, Part, Seat, Stored
from broker.stores.redis.keys import MOVING, Keys
from broker.stores.redis.link import Link, script
from broker.stores.redis.records import Records
from broker.stores.redis.sent import SENT_MAX

#: Indexes of which at least one names whatever a store holds.
_INDEXES: Final = ("users", "rooms", "sessions", "keys", "blocks", "due")
_MOVED: Final = "moved"


class TargetTakenError(Exception):
    """The prefix holds something else; the text says what, and what to do."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Record:
    """How far a migration has come; ``ended_ms`` (since the epoch): it has come to its end."""

    source: str
    phase: str
    done: int
    ended_ms: int | None


class Target:
    """One prefix. ``limits``: those of the brokers that will serve it.

    Errors of all steps: as `Link.ask`.
    """

    def __init__(self, link: Link, prefix: str, limits: StoreLimits = DEFAULT_LIMITS) -> None:
        self.link = self._link = link
        self.prefix = prefix
        self._keys = Keys(prefix)
        self._key = self._keys.migration
        self._limits = limits
        self._records = Records(link, self._keys, lambda _: None)

    # --- whose it is -------------------------------------------------------------------------

    def look(self, source: str) -> Record | None:
        """Return what was moved here from this source so far. Errors: `TargetTakenError`."""
        flat = self._link.one(("HGETALL", self._key))
        found = {name.decode(): value.decode() for name, value in pairs(flat)}
        if not found:
            self._require_empty()
            return None
        record = Record(
            source=found["source"],
            # A run that was cut short as it began may have left the source alone.
            phase=found.get("phase", next(iter(PHASES))),
            done=int(found.get("done", 0)),
            ended_ms=int(found["ended_ms"]) if found.get("state") == _MOVED else None,
        )
        if record.source != source:
            raise _not_ours(record)
        return record

    def _require_empty(self) -> None:
        keys = [self._keys.epoch]
        keys += [key for index in _INDEXES for key in self._keys.shards(index)]
        there = self._link.ask([("EXISTS", key) for key in keys])
        if any(there[1:]):
            raise TargetTakenError(
                "the target holds other data: choose another prefix (?prefix=NAME), or another"
                " server"
            )
        if there[0]:
            raise TargetTakenError(
                "a broker was started on the target, which is empty but has an epoch: stop it, and"
                f" remove the key {self._keys.epoch} (redis-cli del), or choose another prefix"
            )

    def claim(self, source: str, phase: str) -> tuple[Record, bool]:
        """Begin, or go on; tell whether a run before had begun. Errors: `TargetTakenError`."""
        found = self.look(source)
        if found is not None:
            return found, True
        begun = {"source": source, "phase": phase, "done": 0, "begun_ms": _now_ms()}
        begun["state"] = MOVING
        # Of two that begin at once the first wins, and the other finds whose it is.
        self._link.ask([("HSETNX", self._key, *field) for field in begun.items()])
        record = self.look(source)
        assert record is not None
        return record, False

    def note(self, phase: str, done: int) -> None:
        """Note that all before is written, and so many rows of a phase."""
        self._link.one(("HSET", self._key, "phase", phase, "done", done))

    def finish(self) -> None:
        """Note that everything is here, and was compared."""
        self._link.one(("HSET", self._key, "state", _MOVED, "ended_ms", _now_ms()))

    # --- writing -----------------------------------------------------------------------------

    def take(self, parts: Sequence[Part], last: int) -> None:
        """Write parts of one phase; ``last`` is the highest sequence of the source."""
        stored = []
        for part in parts:
            if isinstance(part, Stored):
                stored.append(part)
            elif isinstance(part, Owner):
                self._own(part, last)
            elif isinstance(part, Seat):
                self._seat(part, last)
            else:
                self._records.put(part)
        self._append(stored)
        self._link.flush()

    def settle(self, epoch: Epoch) -> None:
        """Let the history be the same one: clients keep their positions.

        Errors: `TargetTakenError`: a broker was started here meanwhile and has made its own.
        """
        ours = f"{epoch.number} {epoch.lost.last}"
        _, there = self._link.ask(
            [("SET", self._keys.epoch, ours, "NX"), ("GET", self._keys.epoch)]
        )
        if there.decode() != ours:
            raise TargetTakenError(
                "a broker was started on the target while it was being filled: stop it, and move"
                " everything again, under another prefix (?prefix=NAME)"
            )

    def _own(self, owner: Owner, last: int) -> None:
        self._records.put(owner.record)
        user = isinstance(owner.record, Account)
        name = owner.record.user if isinstance(owner.record, Account) else owner.record.room
        # Older than all of its sequences, so that one which is missing later is a loss; and nothing
        # new comes at or below any position that a client may have kept.
        fields: dict[str, int] = {"born": 0, "last": last}
        if user:  # Whatever is there may have been delivered before, as after any restart.
            fields["d:"] = last
        for device, cursor in owner.cursors.items():
            fields[f"c:{device}"], fields[f"d:{device}"] = cursor, last
        if owner.cursors:
            fields["f"] = max(owner.cursors.values())
        if owner.purged:
            fields["purged"] = owner.purged
        flat = [each for pair in fields.items() for each in pair]
        self._link.tell(("HSET", self._keys.of(name, "meta"), *flat))

    def _seat(self, seat: Seat, last: int) -> None:
        room, user, joined = seat.membership.room, seat.membership.user, seat.membership.joined
        # Pulled up to the end: the pointers come with the messages.
        self._link.tell(("HSET", self._keys.of(user, "rooms"), room, seat.standing(last)))
        what = "1" if joined else "0"
        self._link.tell(script("member", self._keys.place(room), user, what), _require_there)

    def _append(self, stored: Iterable[Stored]) -> None:
        boxes: defaultdict[str, list[Any]] = defaultdict(list)
        sent: defaultdict[str, list[Any]] = defaultdict(list)
        pointers: defaultdict[str, list[Any]] = defaultdict(list)
        due: dict[str, int] = {}
        for each in stored:
            message = each.message
            seq, at_ms, sender, message_id, text, to = message
            expires_ms, expired_ms = _text(each.expires_ms), _text(each.expired_ms)
            known = "1" if each.remembered else ""
            boxes[to] += (seq, at_ms, sender, message_id, text, expires_ms, expired_ms, known)
            if each.sent:
                sent[sender] += (to, seq)
            if each.expired_ms is not None:
                continue
            if each.expires_ms is not None:
                due[to] = min(due.get(to, each.expires_ms), each.expires_ms)
            for user in each.readers:
                pointers[user] += (seq, f"{to} {seq}")
        self._tell(boxes, sent, pointers, due)

    def _tell(
        self,
        boxes: dict[str, list[Any]],
        sent: dict[str, list[Any]],
        pointers: dict[str, list[Any]],
        due: dict[str, int],
    ) -> None:
        keys, limits, tell = self._keys, self._limits, self._link.tell
        since = (_now_ms(), limits.dedup.window_ms, limits.retention_read_ms)
        for name, flat in boxes.items():
            tell(script("adopt", keys.place(name), *since, *flat), _require_there)
        for user, flat in sent.items():
            tell(script("sent", keys.place(user), SENT_MAX, *flat))
        for user, flat in pointers.items():
            tell(("ZADD", keys.of(user, "pulled"), *flat))
        for name, expires_ms in due.items():
            tell(("ZADD", keys.index("due", name), "LT", expires_ms, name))


def pairs(flat: Any) -> list[tuple[Any, Any]]:
    """Return the pairs of a hash or of scored members, in whichever shape they were told."""
    if isinstance(flat, dict):
        return list(flat.items())
    if flat and isinstance(flat[0], list | tuple):
        return [(one, other) for one, other in flat]
    return list(zip(flat[::2], flat[1::2], strict=True))


def _require_there(reply: object) -> None:
    if reply == b"absent":
        raise StoreFailedError(
            "a mailbox that was just moved is gone: somebody else writes to the target. Stop what"
            " does, and begin anew with another prefix"
        )


def _not_ours(record: Record) -> TargetTakenError:
    if record.ended_ms is None:
        return TargetTakenError(
            "the target holds the beginning of another migration, or of this source before it was"
            " changed: choose another prefix (?prefix=NAME), and remove what is under this one"
        )
    return TargetTakenError(
        "another source was moved to the target, or this one, on which a broker has run since:"
        " nothing was done. Choose another prefix (?prefix=NAME) to move it anew"
    )


def _text(number: int | None) -> str:
    return "" if number is None else str(number)


def _now_ms() -> int:
    return time.time_ns() // 1_000_000
