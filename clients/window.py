"""A window of messages under way: which are begun next, and what became of the oldest. No I/O.

Both clients' `send_many` is this and a way of waiting. Messages are begun, and their outcomes
told, by the batch: what a message costs beyond its own frame and receipt is paid once for many.
"""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Final

from clients.errors import RequestError
from clients.ids import MessageIds
from clients.request import Call
from clients.results import Receipt, read_receipt
from clients.session import Session

#: So many are begun, and handed to the socket, at a time: each hand-over wakes two threads here and
#: two at the broker, so that a window of 100 in one piece costs both a tenth less than in two.
BATCH_MESSAGES: Final = 128


class Window:
    """The messages of one `send_many`; ``size`` of them are unanswered at most."""

    def __init__(
        self,
        session: Session,
        make_ids: MessageIds,
        messages: Iterable[tuple[str, str]],
        size: int,
    ) -> None:
        self._session = session
        self._make_ids = make_ids
        self._messages = iter(messages)
        self._size = max(1, size)
        self._waiting: list[Call] = []

    @property
    def full(self) -> bool:
        """Whether nothing more is begun before the oldest message is answered."""
        return len(self._waiting) >= self._size

    @property
    def oldest(self) -> Call | None:
        """The message whose outcome is told next; None where all were told."""
        return self._waiting[0] if self._waiting else None

    def fill(self, token: str | None, now_ms: float, timeout_ms: float) -> bool:
        """Begin the next messages, as many as there is room for; False where there are no more.

        Errors: what the messages' iterator raises; the messages before that were begun.
        """
        letters: list[tuple[str, str]] = []
        room = min(self._size - len(self._waiting), BATCH_MESSAGES)
        try:
            letters.extend(islice(self._messages, room))
        finally:
            ids = self._make_ids.many(len(letters))
            self._waiting += self._session.chats(letters, ids, token, now_ms, timeout_ms)
        return bool(letters)

    def outcomes(self) -> list[Receipt | RequestError]:
        """Return what became of the oldest messages, in order, up to the first unanswered one.

        Errors: `ClientClosed`, where that is what became of the very oldest.
        """
        # Hot path, for each message: no call but the one that makes its receipt.
        outcomes: list[Receipt | RequestError] = []
        for call in self._waiting:
            if not call.done:
                break
            error = call.error
            if error is None:
                try:
                    outcomes.append(read_receipt(call.result, call.message_id or ""))
                except RequestError as bad:
                    outcomes.append(bad)
            elif isinstance(error, RequestError):
                outcomes.append(error)
            elif outcomes:
                break
            else:
                raise error
        del self._waiting[: len(outcomes)]
        return outcomes
