"""Live push: who is to be told of new messages, how far each one is, and how much is in flight.

Nothing is queued here: a subscription is a position in its mailbox and a list of what was pushed
and is not yet acknowledged. A receiver that stops reading stops being sent to, and costs no more.
Source: docs/PROTOCOL.md, "subscribe".
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import chain, count
from typing import Final, TypeVar

from broker.core.mailbox import text_bytes
from broker.core.model import Message, Route
from broker.wire.errors import Code, WireError
from broker.wire.limits import SUBSCRIBER_SILENCE_MS, SUBSCRIPTIONS_PER_USER_MAX

_Key = TypeVar("_Key")

#: Text in flight to one subscription, above which nothing more is pushed; one event may cross it.
IN_FLIGHT_BYTES_MAX: Final = 1_048_576
#: Between looks for silent subscribers and for those whose peer had no room, in milliseconds.
TICK_MS: Final = 1_000
#: Between looks for room that acknowledgements through other brokers have made.
CROWDED_MS: Final = 5_000


class Subscription:
    """One receiver: a session on one connection. ``sent`` is the last sequence pushed.

    ``told`` is the last of what it was told to be lost.
    """

    __slots__ = (
        "_arrived",
        "_bytes",
        "_in_flight",
        "number",
        "route",
        "seen_ms",
        "sent",
        "token",
        "told",
        "user",
        "window",
    )

    def __init__(
        self,
        number: int,
        route: Route,
        token: str,
        user: str,
        *,
        window: int,
        sent: int,
        now_ms: int,
    ) -> None:
        self.number = number
        self.route = route
        self.token = token
        self.user = user
        self.window = window
        self.sent = sent
        self.seen_ms = now_ms
        self.told = 0
        #: What is in flight was pushed after this one.
        self._arrived = sent
        self._in_flight: deque[tuple[int, int, str]] = deque()  # sequence, bytes, mailbox
        self._bytes = 0

    @property
    def idle(self) -> bool:
        """Tell whether nothing is in flight."""
        return not self._in_flight

    def room(self, cursor: int) -> int:
        """Return how many more messages may be pushed, now that ``cursor`` is acknowledged."""
        self.sent = max(self.sent, cursor)
        while self._in_flight and self._in_flight[0][0] <= cursor:
            self._arrived, size, _ = self._in_flight.popleft()
            self._bytes -= size
        return self.window - len(self._in_flight) if self._bytes < IN_FLIGHT_BYTES_MAX else 0

    def push(self, messages: Sequence[Message]) -> None:
        """Note what is being pushed."""
        if not self._in_flight:
            self._arrived = self.sent
        for message in messages:
            size = text_bytes(message.text)
            self._in_flight.append((message.seq, size, message.to))
            self._bytes += size
        self.sent = messages[-1].seq

    def rewind(self) -> None:
        """Begin again at the oldest message in flight: it is unknown which of them arrived."""
        self.sent = self._arrived
        self._in_flight.clear()
        self._bytes = 0

    def left(self, room: str) -> None:
        """Wait no longer for acknowledgements of what was said in a room: none may ever come."""
        self._in_flight = deque(each for each in self._in_flight if each[2] != room)
        self._bytes = sum(size for _, size, _ in self._in_flight)


class Subscriptions:
    """All receivers, by user and by connection, and those that may have something to receive."""

    def __init__(self) -> None:
        self.due: set[Subscription] = set()
        self._by_user: dict[str, list[Subscription]] = {}
        self._by_route: dict[Route, list[Subscription]] = {}
        #: Of users with subscriptions: who is in which room, and back.
        self._rooms: dict[str, frozenset[str]] = {}
        self._listeners: dict[str, set[str]] = {}
        self._numbers = count(1)
        self._stalled: set[Subscription] = set()
        #: Whose windows are full, and may be emptied by another broker.
        self._crowded: set[Subscription] = set()
        self._next_tick_ms = self._next_crowded_ms = 0
        #: Set when `names` may have changed; for whoever looks to reset.
        self.names_changed = False
        # Of this batch: begun (True) and ended ones; whose rooms may have changed; who left which.
        self._changes: list[tuple[Subscription, bool]] = []
        self._moved: set[str] = set()
        self._left: list[tuple[str, str]] = []
        # Whose receivers were told in this turn that they have ended, and must be told again.
        self._parting: list[Subscription] = []
        self._parted_unheard: list[Subscription] = []

    def __len__(self) -> int:
        return sum(map(len, self._by_user.values()))

    def __bool__(self) -> bool:
        """Tell whether there are any."""
        return bool(self._by_user)

    def __contains__(self, name: str) -> bool:
        """Tell whether somebody is to be woken for a user or a room."""
        return name in self._by_user or name in self._listeners

    def names(self) -> Iterator[str]:
        """Return whose mailboxes somebody is to be woken for: users and rooms."""
        return chain(self._by_user, self._listeners)

    def users(self) -> list[str]:
        """Return who has subscriptions."""
        return list(self._by_user)

    def add(
        self, route: Route, token: str, user: str, *, window: int, after: int, now_ms: int
    ) -> Subscription:
        """Begin a subscription in place of the one of the same token and route.

        Errors: ``busy`` where the user has too many.
        """
        self.end(route, token)
        mine = self._by_user.get(user, [])
        if len(mine) >= SUBSCRIPTIONS_PER_USER_MAX:
            raise WireError(
                Code.BUSY,
                f"the user has {SUBSCRIPTIONS_PER_USER_MAX} subscriptions: end one of them",
                SUBSCRIBER_SILENCE_MS,
            )
        subscription = Subscription(
            next(self._numbers), route, token, user, window=window, sent=after, now_ms=now_ms
        )
        self._put(subscription)
        self._changes.append((subscription, True))
        return subscription

    def _put(self, subscription: Subscription) -> None:
        self._by_user.setdefault(subscription.user, []).append(subscription)
        self._by_route.setdefault(subscription.route, []).append(subscription)
        self.due.add(subscription)
        self.names_changed = True

    def end(self, route: Route, token: str) -> None:
        """End the subscription of a token on one connection, if there is one."""
        for each in self._by_route.get(route, ()):
            if each.token == token:
                self.remove(each)
                self._changes.append((each, False))
                return

    def remove(self, subscription: Subscription) -> None:
        """Forget one subscription."""
        self.due.discard(subscription)
        self._stalled.discard(subscription)
        self._crowded.discard(subscription)
        self.names_changed = True
        _take_out(self._by_user, subscription.user, subscription)
        if subscription.user not in self._by_user:
            self.listen(subscription.user, ())
        _take_out(self._by_route, subscription.route, subscription)

    def part(self, subscription: Subscription) -> None:
        """Forget one subscription, whose receiver is being told so: see `lost`."""
        self.remove(subscription)
        self._parting.append(subscription)

    def listen(self, user: str, rooms: Iterable[str]) -> None:
        """Wake the user's subscriptions for these rooms too, and for no others."""
        self._moved.add(user)
        now = frozenset(rooms) if user in self._by_user else frozenset()
        before = self._rooms.get(user, frozenset())
        self.names_changed |= now != before
        for room in before - now:
            self._left.append((user, room))
            self._listeners[room].discard(user)
            if not self._listeners[room]:
                del self._listeners[room]
        for room in now - before:
            self._listeners.setdefault(room, set()).add(user)
        if now:
            self._rooms[user] = now
        else:
            self._rooms.pop(user, None)

    def keep(self) -> None:
        """Keep what this batch has changed: it is committed."""
        for user, room in self._left:
            for subscription in self._by_user.get(user, ()):
                subscription.left(room)
                self._look_after(subscription)
        self._changes.clear()
        self._moved.clear()
        self._left.clear()

    def take_back(self, joined: Callable[[str], Iterable[str]]) -> frozenset[str]:
        """Undo what this batch has changed; ``joined`` tells which rooms a user is in after all.

        Return whom it was asked for.
        """
        for subscription, begun in reversed(self._changes):
            if begun:
                self.remove(subscription)
            else:
                self._put(subscription)
                self._moved.add(subscription.user)
        moved = frozenset(user for user in self._moved if user in self._by_user)
        for user in moved:
            self.listen(user, joined(user))
        self._left.clear()
        self.keep()
        return moved

    def wake(self, name: str) -> None:
        """Look after the subscriptions of a user, or of a room, when this batch is committed."""
        for subscription in self._by_user.get(name, ()):
            self._look_after(subscription)
        for user in self._listeners.get(name, ()):
            for subscription in self._by_user[user]:
                self._look_after(subscription)

    def _look_after(self, subscription: Subscription) -> None:
        if subscription not in self._stalled:  # whose turn comes with the next tick
            self.due.add(subscription)

    def await_room(self, subscription: Subscription) -> None:
        """Look after a subscription again in a while: acknowledgements may come elsewhere."""
        self._crowded.add(subscription)

    def heard(self, route: Route, now_ms: int) -> None:
        """Note that a connection lives."""
        for subscription in self._by_route.get(route, ()):
            subscription.seen_ms = now_ms

    def lost(self, routes: Mapping[Route, bool]) -> None:
        """Take back what was pushed to connections that are gone (True) or had no room (False).

        Whoever has not heard of its end would go on waiting: it is told again, see `tick`.
        """
        self._parted_unheard += [each for each in self._parting if routes.get(each.route) is False]
        for route, gone in routes.items():
            for subscription in list(self._by_route.get(route, ())):
                if gone:
                    self.remove(subscription)
                else:
                    subscription.rewind()
                    self._stalled.add(subscription)
                    self.due.discard(subscription)

    def tick(self, now_ms: int) -> list[Subscription]:
        """Begin a turn's events. Every second: try those again that had no room.

        Return those to be told of their end: silent for too long, or told in vain.
        """
        self._parting.clear()
        if now_ms < self._next_tick_ms:
            return []
        self._next_tick_ms = now_ms + TICK_MS
        self.due |= self._stalled
        self._stalled.clear()
        if now_ms >= self._next_crowded_ms:
            self._next_crowded_ms = now_ms + CROWDED_MS
            self.due |= self._crowded
            self._crowded.clear()
        oldest_ms = now_ms - SUBSCRIBER_SILENCE_MS
        everybody = (each for mine in self._by_user.values() for each in mine)
        unheard, self._parted_unheard = self._parted_unheard, []
        return [*unheard, *(each for each in everybody if each.seen_ms < oldest_ms)]


def _take_out(table: dict[_Key, list[Subscription]], key: _Key, subscription: Subscription) -> None:
    mine = table.get(key, [])
    if subscription in mine:
        mine.remove(subscription)
        if not mine:
            del table[key]
