"""Where things are kept: the names of all keys, and which of them lie in one slot.

All keys of a user, and all of a room, share a hash tag: one slot of a cluster, so that one script
is one atomic step. What goes over all users is split into `SHARDS`, so that no key grows without
end. The keys of a mailbox are listed, with types and expiries, at the head of each script.

Fields of a mailbox's ``:meta``: ``born``; ``last`` sequence; ``n`` messages and ``b`` bytes that
count against the limits (unread ones, or all that a room keeps), ``rb`` bytes read and kept; ``f``
the furthest cursor; ``given`` the highest sequence given to anybody; ``purged`` the highest deleted
before everybody had read it, ``swept`` the highest that is kept no longer; ``from`` and ``lost``:
what lies above the one and up to the other may be gone, ``doubt``: the name of the last doubt that
said so; ``w`` when the ids' generation began; ``c:DEVICE`` and ``d:DEVICE`` what a reader has
acknowledged and was given, ``c:`` and ``d:`` those of the user.

``:box`` is a sorted set, not a stream: a stream's first node takes 4 KiB. A message of 100 bytes
takes, alone in its mailbox, 1 120 bytes here and 4 350 in a stream; among ten 350 and 435; among a
thousand 254 and 201 (Redis 7.0.15).
"""

from __future__ import annotations

from typing import Final
from zlib import crc32

from broker.wire.limits import ROOM_MARK

#: Changing it leaves everything unfindable: it is part of the format.
SHARDS: Final = 16
#: What ``state`` of `Keys.migration` is until everything is here and was compared.
MOVING: Final = "moving"
#: Keys of a user or a room that are its mailbox, and go with it.
MAILBOX: Final = (
    "meta",
    "box",
    "ids",
    "ids:old",
    "gone",
    "over",
    "ttl",
    "rooms",
    "pulled",
    "sent",
    "members",
    "joined",
)


class Keys:
    """Names under one prefix: stores of different prefixes share a server and nothing else."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self.epoch = f"{prefix}:epoch"
        #: See `broker.stores.migration_target`.
        self.migration = f"{prefix}:migration"

    def place(self, name: str) -> str:
        """Return what all keys of a user or a room begin with."""
        kind = "r" if name.startswith(ROOM_MARK) else "u"
        return f"{self._prefix}:{{{kind}:{name}}}"

    def of(self, name: str, what: str) -> str:
        """Return one key of a user or a room."""
        return f"{self.place(name)}:{what}"

    def mailbox(self, name: str) -> list[str]:
        """Return all keys of a mailbox."""
        return [self.of(name, what) for what in MAILBOX]

    def roll(self, number: int) -> str:
        """Return one of the places that a roll of brokers may have: each in a slot of its own."""
        return f"{self._prefix}:{{b:{number}}}"

    def session(self, digest: str) -> str:
        return f"{self._prefix}:{{s:{digest}}}"

    def login_key(self, key: str) -> str:
        return f"{self._prefix}:{{k:{key}}}"

    def index(self, kind: str, member: str) -> str:
        """Return the part of an index over everything that a member belongs to."""
        return f"{self._prefix}:{{i:{crc32(member.encode()) % SHARDS}}}:{kind}"

    def shards(self, kind: str) -> list[str]:
        """Return all parts of an index."""
        return [f"{self._prefix}:{{i:{number}}}:{kind}" for number in range(SHARDS)]
