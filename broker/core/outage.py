"""Times at which the store cannot be reached: each told in the log once, however often seen."""

from __future__ import annotations

import logging
from typing import Final

from broker.core.refusals import RETRY_AFTER_MS

log = logging.getLogger("kotak.service")

#: An outage is over when nothing has failed for so long, in milliseconds. Of several servers one
#: may be gone: then some batches fail and some do not.
QUIET_MS: Final = 10_000


class Outage:
    """Whether there is one, and since when."""

    def __init__(self) -> None:
        self._since_ms = 0
        self._until_ms = 0
        self._held_until_ms = 0
        self.active = False

    def refuse(self, error: Exception, now_ms: int) -> None:
        """Note that a whole batch was refused for it."""
        self.note(error, now_ms)
        self._held_until_ms = now_ms + RETRY_AFTER_MS

    def holds(self, now_ms: int) -> bool:
        """Tell whether who was refused is still to come again: nothing sent later may overtake it.

        Source: docs/PROTOCOL.md, "Errors".
        """
        return now_ms < self._held_until_ms

    def note(self, error: Exception, now_ms: int) -> None:
        """Note that the store could not be reached, or would not serve."""
        self._until_ms = now_ms + QUIET_MS
        if not self.active:
            self.active, self._since_ms = True, now_ms
            log.error(
                "the store is unavailable: callers are told to try again",
                extra={"fields": {"reason": str(error)}},
            )

    def pass_by(self, now_ms: int) -> None:
        """Note, of one that is active, that time has passed."""
        if now_ms >= self._until_ms:
            self.active = False
            lasted_ms = self._until_ms - QUIET_MS - self._since_ms
            log.warning(
                "the store is available again", extra={"fields": {"duration_ms": lasted_ms}}
            )
