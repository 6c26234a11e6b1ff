"""The trail that requests leave in the audit: who asked for what, from where, with what outcome.

An entry bears nothing of a request but the arguments that its `CommandSpec` names. Those of a batch
that was rolled back are dropped: nothing of it happened.
"""

from __future__ import annotations

from typing import Final

from broker.core.handlers import CommandSpec, Context
from broker.core.model import AuditEntry
from broker.core.ports import Audit
from broker.core.sessions import Session
from broker.wire.envelope import Request

#: Who did what the administrator's token of this run was for: no user can have that name.
ADMINISTRATOR: Final = "!administrator"
#: Of a text among the arguments: what a stranger sends must not make the audit grow.
_CHARS_MAX: Final = 64


class Trail:
    """The entries of one batch, until it is known to be committed."""

    def __init__(self, audit: Audit | None) -> None:
        self._audit = audit
        self._entries: list[AuditEntry] = []

    def add(self, entry: AuditEntry, at_ms: int, outcome: str) -> None:
        """Keep an entry whose outcome is known now."""
        self._entries.append(entry._replace(at_ms=at_ms, outcome=outcome))

    def write(self) -> None:
        """Write down what the batch did: it is committed."""
        if self._audit is not None:
            for entry in self._entries:
                self._audit.note(entry)
        self._entries.clear()

    def forget(self) -> None:
        """Drop what the batch did: it was rolled back."""
        self._entries.clear()


def entry_of(ctx: Context, spec: CommandSpec, request: Request) -> AuditEntry:
    """Begin an entry, its outcome still to come."""
    request_id, command, token, args = request
    session: Session | None = ctx.session
    return AuditEntry(
        ctx.now_ms,
        command,
        "" if session is None else session.user or ADMINISTRATOR,
        ctx.origin_of(ctx.route, token) or "",
        request_id,
        {
            name: value[:_CHARS_MAX] if isinstance(value, str) else value
            for name in spec.audit or ()
            if isinstance(value := args.get(name), str | bool)
        },
        "",
    )
