"""What has outlived its time is taken out, and its senders are told where that is wanted.

Source: docs/PROTOCOL.md, "chat".
"""

from __future__ import annotations

from typing import Final

from broker.core.model import Message
from broker.core.ports import Store
from broker.core.subscriptions import Subscriptions
from broker.wire.errors import WireError
from broker.wire.limits import NOTICE_SENDER

#: Steps of the store's expiry in one batch: some ten thousand messages, 0.2 s at worst.
EXPIRY_STEPS_MAX: Final = 20


class Expiry:
    """Takes out what is late, within a batch. ``notices``: senders are told of what was unread."""

    def __init__(self, store: Store, subscriptions: Subscriptions, *, notices: bool) -> None:
        self._store = store
        self._subscriptions = subscriptions
        self._notices = notices

    def take_out(self, now_ms: int) -> tuple[int, int]:
        """Return how many expired unread, and of how many no notice could be left."""
        expired = unnoticed = 0
        # Until nothing is late, so that nothing late is read.
        for _ in range(EXPIRY_STEPS_MAX):
            late = self._store.expire(now_ms)
            if not late:
                break
            expired += len(late)
            if self._notices:
                for message in late:
                    if message.sender != NOTICE_SENDER:
                        unnoticed += not self._leave_notice(message, now_ms)
        return expired, unnoticed

    def _leave_notice(self, message: Message, now_ms: int) -> bool:
        text = f"expired unread: your message {message.message_id} to {message.to}"
        try:
            self._store.append(
                message.sender, NOTICE_SENDER, f"expired-{message.seq}", text, now_ms
            )
        except WireError:  # the sender is gone, or reads nothing
            return False
        self._subscriptions.wake(message.sender)
        return True
