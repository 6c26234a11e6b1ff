"""What a committed batch means for those who subscribed: the events to send.

The store is the truth: each look reads what lies after the last message pushed, so a wake-up
that is lost, or one too many, changes nothing but the time. Source: docs/PROTOCOL.md, "subscribe".
"""

from __future__ import annotations

from itertools import islice
from typing import Final

from broker.core.model import Page
from broker.core.ports import Store, StoreUnavailableError
from broker.core.replies import Frames, Replies
from broker.core.sessions import Sessions
from broker.core.subscriptions import Subscription, Subscriptions
from broker.wire.errors import WireError
from broker.wire.limits import EVENT_BYTES_MAX

#: Subscriptions that are looked after in one turn where each look is a way to a server: news that
#: concerns all of them must not hold up the requests.
LOOKS_PER_TURN_MAX: Final = 256


class Push:
    """Makes events for the subscriptions that are due."""

    def __init__(
        self, store: Store, sessions: Sessions, subscriptions: Subscriptions, replies: Replies
    ) -> None:
        self._store = store
        self._sessions = sessions
        self._subscriptions = subscriptions
        self._replies = replies
        self._looks_max = LOOKS_PER_TURN_MAX if store.shared else None

    def add_events(self, frames: Frames, now_ms: int) -> None:
        """Add the events that are due to ``frames``, one a subscription; the rest stays due.

        Errors: `StoreUnavailableError`; then nothing was added, and all of it comes later.
        """
        for silent in self._subscriptions.tick(now_ms):
            self._end(frames, silent)
        due = self._subscriptions.due
        if not due:
            return
        events: Frames = {}
        try:
            with self._store.batch():  # which only reads, so that it cannot fail for room
                for subscription in tuple(islice(due, self._looks_max)):
                    self._look_after(events, subscription, now_ms)
        except StoreUnavailableError:
            # Nobody knows whether it is noted as given: so it is not given, and comes again.
            self._subscriptions.lost(dict.fromkeys(events, False))
            raise
        for route, made in events.items():
            frames.setdefault(route, []).extend(made)

    def _look_after(self, frames: Frames, subscription: Subscription, now_ms: int) -> None:
        # With nothing in flight all of the window is free, whatever is acknowledged: one look.
        limit = subscription.window if subscription.idle else 0
        try:
            device = self._sessions.find(subscription.token, now_ms).device
            page = self._read(subscription, device, limit)
            room = subscription.room(page.cursor)
            lost = page.lost
            if lost is not None and lost.last > max(subscription.sent, subscription.told):
                # Deleted before its turn came: the answer to the next subscribe says so.
                self._end(frames, subscription)
                return
            if not limit and room > 0:
                page = self._read(subscription, device, room)
        except WireError:  # logged out, expired, or the account is gone
            self._end(frames, subscription)
            return
        if page.messages:
            # First the event, which looks up names: what cannot be told must not be in flight.
            event = self._replies.messages_event(subscription, subscription.sent, page)
            subscription.push(page.messages)
            frames.setdefault(subscription.route, []).append(event)
        elif room == 0 and self._store.shared:
            self._subscriptions.await_room(subscription)
        if room == 0 or not page.more:
            self._subscriptions.due.discard(subscription)

    def _read(self, subscription: Subscription, device: str, limit: int) -> Page:
        return self._store.read(
            subscription.user, device, subscription.sent, limit, EVENT_BYTES_MAX
        )

    def _end(self, frames: Frames, subscription: Subscription) -> None:
        self._subscriptions.part(subscription)
        event = self._replies.ended_event(subscription)
        frames.setdefault(subscription.route, []).append(event)
