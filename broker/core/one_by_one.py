"""One message as a run of one, for engines that keep their index in `Mailboxes`."""

from __future__ import annotations

from collections.abc import Sequence

from broker.core.mailboxes import Mailboxes
from broker.core.model import Receipt
from broker.wire.commands import ChatArgs
from broker.wire.errors import WireError


class OneByOne:
    """`append` by means of `append_all`; see `broker.core.ports.Store`."""

    mailboxes: Mailboxes

    def append_all(
        self, sender: str, letters: Sequence[ChatArgs], now_ms: int
    ) -> Sequence[Receipt | WireError]:
        raise NotImplementedError

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
        if refusal is not None and self.mailboxes.duplicate(sender, message_id) is None:
            raise refusal
        (outcome,) = self.append_all(sender, ((to, text, message_id, ttl_ms),), now_ms)
        if isinstance(outcome, WireError):
            raise outcome
        return outcome
