"""Who may try a password now: judged before anything is hashed, by user and by address.

What counts is wrong passwords; a right one costs nothing, so that programs may log in as often as
they like. An attempt under way counts as a wrong one until its outcome is known.

Three questions, in this order:

1. *This user from this address.* After a few wrong passwords each next one must wait, 1, 2, 4 ...
   60 s, and everything is forgotten after a while. Whoever shares an address with somebody who
   guesses his password shares the delay: they cannot be told apart.
2. *This address*, over all users: a bucket of wrong passwords. Guessing on from an empty one is
   slow, and so is everything else there, but for users who have logged in from there before.
3. *This user*, and *all users*, over all addresses: here many addresses together are slowed. A
   refusal by these would be a lock-out, since the guessers take whatever comes free before the
   owner does. So one who comes from an address where he never logged in is told once to wait, and
   is let through when he comes back. The price: guessers with a thousand addresses get a thousand
   guesses each half minute, and no limit can take those from them but one that shuts the owner out.

Known and unknown users are judged alike. Nothing here outlives the process. Where several brokers
have one store, each counts what the others tell it, too (`Attempts.hear`).
Source: docs/PROTOCOL.md, "login"; docs/SECURITY.md.
"""

from __future__ import annotations

import ipaddress
from collections import OrderedDict
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from math import ceil
from typing import Final, Generic, TypeVar

from broker.core.shared_limits import UNDECIDED, Claim, Outcome, Tried
from broker.wire.errors import Code, WireError

#: The delay after the last free failure, in milliseconds; each further failure doubles it...
DELAY_MS: Final = 1_000
#: ... up to this: longer would be a lock-out that anybody can bring about.
DELAY_MS_MAX: Final = 60_000
#: Failures are forgotten after so long without another, in milliseconds. Free ones regained this
#: way (5 in 15 minutes) are fewer than those that waiting gives (15 in 15 minutes).
FORGET_MS: Final = 15 * 60_000
#: An address gets one failure back in so many milliseconds: 1200 guesses an hour, over all users.
ADDRESS_REFILL_MS: Final = 3_000
#: A user's failures over all addresses, at once: a household that has forgotten its password; more
#: than one address, with its delays, can bring about.
USER_FAILURES_MAX: Final = 50
#: ... and one back in so many milliseconds: twice as fast as one address can spend them.
USER_REFILL_MS: Final = 30_000
#: All users' failures over all addresses, at once: a university on the first day of its term.
ALL_FAILURES_MAX: Final = 2_000
#: ... and one back in so many milliseconds: a sixth of what two cores can hash.
ALL_REFILL_MS: Final = 100
#: What a newcomer waits while a user, or all users, are guessed at, in milliseconds.
TURN_MS: Final = 30_000
#: For so long after it the turn is kept for the one who was told to wait, in milliseconds.
TURN_KEPT_MS: Final = 10 * 60_000
#: For so long a user who logged in from an address is at home there, in milliseconds: that of the
#: longest session.
HOME_MS: Final = 30 * 86_400_000
#: Accounts that one address may open at once: a course that registers from one room.
REGISTRATIONS_MAX: Final = 100
#: ... and one more in so many milliseconds.
REGISTRATION_REFILL_MS: Final = 10_000
#: When to ask again where only the outcome of other attempts can tell, in milliseconds.
UNDER_WAY_MS: Final = 100
#: Failures that a bucket may owe besides, since brokers that had not yet heard of each other let
#: them through at one moment: paid back by waiting, and no more of it than so many are worth.
OWED_MAX: Final = 10
#: Entries of each table; the one unused for longest goes first. Some 25 MB where it is full, and
#: filling it with failures takes a thousand addresses.
ENTRIES_MAX: Final = 100_000

#: Of an IPv6 address these bits are a subscriber's; the others he chooses himself.
_NETWORK_BITS: Final = 64
#: What is no address is cut to this: the longest address, with a zone, is shorter.
_ADDRESS_CHARS_MAX: Final = 64

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


@dataclass(frozen=True, slots=True, kw_only=True)
class AttemptLimits:
    """What an operator may turn."""

    #: Wrong passwords for one user from one address before the next has to wait; 0: no limit at
    #: all, neither here nor on what follows.
    failures_max: int = 5
    #: Wrong passwords from one address, over all users, at once.
    address_failures_max: int = 100


class _Pair:
    """A user at an address."""

    __slots__ = ("failed_ms", "failures", "running", "turn_ms")

    def __init__(self) -> None:
        self.failures = 0
        self.failed_ms = 0
        self.running = 0
        #: When this newcomer may come back; None: nothing was said.
        self.turn_ms: int | None = None

    def forget(self, now_ms: int) -> None:
        """Drop what is too old to matter."""
        if now_ms - self.failed_ms >= FORGET_MS:
            self.failures = 0
        if self.turn_ms is not None and now_ms - self.turn_ms >= TURN_KEPT_MS:
            self.turn_ms = None


class _Bucket:
    """Failures that are not forgotten yet, and attempts that may become some."""

    __slots__ = ("_at_ms", "_failures_max", "_refill_ms", "_spent", "running")

    def __init__(self, failures_max: int, refill_ms: int, now_ms: int) -> None:
        self._failures_max = failures_max
        self._refill_ms = refill_ms
        self._spent = 0.0
        self._at_ms = now_ms
        self.running = 0

    def wait_ms(self, now_ms: int) -> int:
        """Return how long until one more failure fits in; 0: at once."""
        self._refill(now_ms)
        return max(0, ceil((self._spent + 1 - self._failures_max) * self._refill_ms))

    @property
    def undecided(self) -> bool:
        """Tell whether one more fits in only if those under way turn out to be right."""
        return self._spent + self.running + 1 > self._failures_max

    def spend(self, now_ms: int) -> None:
        """Count a failure; never more than there is room for, so that no debt is left behind."""
        self._refill(now_ms)
        self._spent = max(self._spent, min(float(self._failures_max), self._spent + 1))

    def spend_elsewhere(self, now_ms: int) -> None:
        """Count a failure at another broker, whether or not there was room for it."""
        self._refill(now_ms)
        self._spent = min(float(self._failures_max + OWED_MAX), self._spent + 1)

    def _refill(self, now_ms: int) -> None:
        back = max(0, now_ms - self._at_ms) / self._refill_ms
        self._spent = max(0.0, self._spent - back)
        self._at_ms = now_ms


class _Table(Generic[K, V]):
    """Entries by key, no more than `ENTRIES_MAX`; the one unused for longest goes first."""

    def __init__(self) -> None:
        self._entries: OrderedDict[K, V] = OrderedDict()

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, key: K) -> V | None:
        entry = self._entries.get(key)
        if entry is not None:
            self._entries.move_to_end(key)
        return entry

    def put(self, key: K, entry: V) -> V:
        self._entries[key] = entry
        self._entries.move_to_end(key)
        if len(self._entries) > ENTRIES_MAX:
            self._entries.popitem(last=False)
        return entry

    def remove(self, key: K) -> None:
        self._entries.pop(key, None)

    def get(self, key: K, make: Callable[[], V]) -> V:
        """Return the entry of a key, a new one where there is none."""
        found = self.find(key)
        return self.put(key, make()) if found is None else found


@dataclass(slots=True)
class Attempt:
    """An attempt that was let through. `Attempts.end` it once the outcome is known."""

    key: tuple[str, str]
    pair: _Pair
    buckets: tuple[_Bucket, ...]
    #: The turn that it used up.
    turn_ms: int | None
    open: bool = True

    @property
    def at_home(self) -> bool:
        """Whether the user has logged in from this address before."""
        return not self.buckets


class Attempts:
    """All attempts at one door, or at one broker. One caller at a time."""

    def __init__(self, limits: AttemptLimits) -> None:
        self._limits = limits
        self._pairs: _Table[tuple[str, str], _Pair] = _Table()
        #: Users where they have logged in, and when they did last. A table of its own, so that
        #: failures cannot push these out.
        self._homes: _Table[tuple[str, str], int] = _Table()
        self._addresses: _Table[str, _Bucket] = _Table()
        self._users: _Table[str, _Bucket] = _Table()
        self._all = _Bucket(ALL_FAILURES_MAX, ALL_REFILL_MS, 0)
        self._registrations: _Table[str, _Bucket] = _Table()

    def begin(self, user: str, address: str, now_ms: int) -> Attempt | None:
        """Let a password be tried, or refuse; None where nothing is limited.

        ``user`` is the name that was given, ``address`` as `network` writes it. Errors:
        ``rate_limited`` with the time to wait, `DELAY_MS_MAX` at most; ``busy`` where that depends
        on attempts under way.
        """
        if not self._limits.failures_max:
            return None
        key = (user, address)
        pair = self._pairs.find(key) or _Pair()
        pair.forget(now_ms)
        at_home = self._is_home(key, now_ms)
        self._require_patience(pair, at_home, now_ms)
        buckets: tuple[_Bucket, ...] = ()
        if not at_home:
            buckets = self._require_room(key, pair, now_ms)
        attempt = Attempt(key, self._pairs.put(key, pair), buckets, pair.turn_ms)
        pair.turn_ms = None
        pair.running += 1
        for bucket in buckets:
            bucket.running += 1
        return attempt

    def end(self, attempt: Attempt | None, *, right: bool | None, now_ms: int) -> None:
        """Count what came of an attempt, once: None where nobody will ever know."""
        if attempt is None or not attempt.open:
            return
        attempt.open = False
        pair = attempt.pair
        pair.running -= 1
        for bucket in attempt.buckets:
            bucket.running -= 1
        if right:
            self._came_home(attempt, now_ms)
        elif right is None:
            pair.turn_ms = pair.turn_ms or attempt.turn_ms
            self._drop_if_empty(attempt)
        else:
            pair.failures += 1
            pair.failed_ms = now_ms
            self._pairs.put(attempt.key, pair)  # again: it may have been pushed out meanwhile
            for bucket in attempt.buckets:
                bucket.spend(now_ms)

    def register(self, address: str, now_ms: int) -> None:
        """Count an account that is about to be opened. Errors: ``rate_limited``."""
        if not self._limits.failures_max:
            return
        bucket = self._opened(address, now_ms)
        if wait_ms := bucket.wait_ms(now_ms):
            raise _wait("too many accounts were opened from your address", wait_ms)
        bucket.spend(now_ms)

    def hear(self, tried: Tried, now_ms: int) -> None:
        """Count what came of an attempt, or that an account was opened, at another broker."""
        if not self._limits.failures_max:
            return
        user, address, outcome = tried
        if outcome is Outcome.OPENED:
            self._opened(address, now_ms).spend_elsewhere(now_ms)
        elif outcome is Outcome.RIGHT:
            self._homes.put((user, address), now_ms)
            if pair := self._pairs.find((user, address)):
                pair.failures = 0
        else:
            pair = self._pairs.get((user, address), _Pair)
            pair.forget(now_ms)
            pair.failures += 1
            pair.failed_ms = now_ms
        if outcome is Outcome.WRONG:
            here, users = self._here(address, now_ms), self._over_all(user, now_ms)
            for bucket in (here, users, self._all):
                bucket.spend_elsewhere(now_ms)

    # --- the questions -------------------------------------------------------------------------

    def _require_patience(self, pair: _Pair, at_home: bool, now_ms: int) -> None:  # noqa: FBT001 - an answer
        """Refuse a user at an address who has failed too often, or may be about to."""
        free = self._limits.failures_max
        if pair.failures >= free:
            delay_ms = min(DELAY_MS_MAX, DELAY_MS << min(pair.failures - free, 16))
            if (wait_ms := pair.failed_ms + delay_ms - now_ms) > 0:
                raise _wait("too many wrong passwords", wait_ms)
            if pair.running:
                raise _undecided()
        # Who logs in from here anyway may do so many times at once: it is a program at work.
        elif pair.failures + pair.running >= free and (pair.failures or not at_home):
            raise _undecided()

    def _require_room(
        self, key: tuple[str, str], pair: _Pair, now_ms: int
    ) -> tuple[_Bucket, _Bucket, _Bucket]:
        """Refuse where there were too many failures; return where one more is to be counted."""
        user, address = key
        here = self._here(address, now_ms)
        if wait_ms := here.wait_ms(now_ms):
            raise _wait("too many wrong passwords from your address", wait_ms)
        if here.undecided:
            raise _undecided()
        users = self._over_all(user, now_ms)
        self._require_turn(key, pair, here, users, now_ms)
        return here, users, self._all

    def _require_turn(
        self, key: tuple[str, str], pair: _Pair, here: _Bucket, users: _Bucket, now_ms: int
    ) -> None:
        """Tell a newcomer to wait where a user, or all users, are guessed at; once."""
        if pair.failures and not pair.running and now_ms - pair.failed_ms >= TURN_MS:
            return  # has waited for as long already: delay and turn do not add up
        if users.wait_ms(now_ms) or self._all.wait_ms(now_ms):
            if pair.turn_ms is None:
                # It takes an entry, so it costs the address as much as a wrong password.
                here.spend(now_ms)
                pair.turn_ms = now_ms + TURN_MS
                self._pairs.put(key, pair)
            if now_ms < pair.turn_ms:
                raise _wait("many wrong passwords are being tried", pair.turn_ms - now_ms)
        elif pair.turn_ms is None and (users.undecided or self._all.undecided):
            raise _undecided()

    def _here(self, address: str, now_ms: int) -> _Bucket:
        return self._addresses.get(
            address,
            lambda: _Bucket(self._limits.address_failures_max, ADDRESS_REFILL_MS, now_ms),
        )

    def _over_all(self, user: str, now_ms: int) -> _Bucket:
        return self._users.get(user, lambda: _Bucket(USER_FAILURES_MAX, USER_REFILL_MS, now_ms))

    def _opened(self, address: str, now_ms: int) -> _Bucket:
        return self._registrations.get(
            address, lambda: _Bucket(REGISTRATIONS_MAX, REGISTRATION_REFILL_MS, now_ms)
        )

    # --- who is at home where ------------------------------------------------------------------

    def _is_home(self, key: tuple[str, str], now_ms: int) -> bool:
        at_ms = self._homes.find(key)
        return at_ms is not None and now_ms - at_ms < HOME_MS

    def _came_home(self, attempt: Attempt, now_ms: int) -> None:
        self._homes.put(attempt.key, now_ms)
        attempt.pair.failures = 0
        self._drop_if_empty(attempt)

    def _drop_if_empty(self, attempt: Attempt) -> None:
        pair = attempt.pair
        if not (pair.running or pair.failures or pair.turn_ms is not None):
            self._pairs.remove(attempt.key)


def refusal_of(claim: Claim) -> WireError | None:
    """Return what an attempt is refused with that all brokers together have no room for."""
    if claim.wait_ms == UNDECIDED:
        return _undecided()
    return _wait("too many wrong passwords", claim.wait_ms) if claim.wait_ms else None


def network(address: str) -> str:
    """Return who counts as one: an IPv4 address, or the /64 of an IPv6 one.

    What is no address at all is taken as it is; an empty one, too, is somebody's.
    """
    try:
        found = ipaddress.ip_address(address)
    except ValueError:
        return address[:_ADDRESS_CHARS_MAX]
    if isinstance(found, ipaddress.IPv4Address):
        return str(found)
    if found.ipv4_mapped is not None:
        return str(found.ipv4_mapped)
    prefix = int(found) >> (128 - _NETWORK_BITS) << (128 - _NETWORK_BITS)
    return f"{ipaddress.IPv6Address(prefix)}/{_NETWORK_BITS}"


def _wait(reason: str, wait_ms: int) -> WireError:
    seconds = ceil(wait_ms / 1_000)
    message = f"{reason}: wait {seconds} s, then try again"
    return WireError(Code.RATE_LIMITED, message, wait_ms)


def _undecided() -> WireError:
    return WireError(
        Code.BUSY, "too many passwords are being tried at once: try again", UNDER_WAY_MS
    )
