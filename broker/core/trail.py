"""The trail that requests leave in the audit: who asked for what, from where, with what outcome.

An entry bears nothing of a request but the arguments that its `CommandSpec` names. Those of a batch
that was rolled back are dropped: nothing of it happened.
"""

from __future__ import annotations

import re
from typing import Final

from broker.core.handlers import CommandSpec, Context
from broker.core.model import Account, AuditEntry
from broker.core.ports import Audit
from broker.core.sessions import Session
from broker.wire.envelope import Request
from broker.wire.keyfile import is_key

#: Who did what the administrator's token of this run was for: no user can have that name.
ADMINISTRATOR: Final = "!administrator"
#: Stands for an argument that may be a secret in the wrong place.
NOT_SHOWN: Final = "(not shown)"
#: Users, devices, roles, sessions, backups. What a stranger sends must not make the audit grow.
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")
#: Under both names.
_LOGINS: Final = ("login", "auth")


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
        {name: _shown(ctx, request, name) for name in spec.audit or () if name in args},
        "",
    )


def _shown(ctx: Context, request: Request, name: str) -> str | bool:
    """Return an argument as it may be written down.

    A password that was typed where a name belongs is none: hence what does not look like one, and
    of a login what is nobody's, is left out.
    """
    value = request[3][name]
    if isinstance(value, bool):
        return value
    good = isinstance(value, str) and (_NAME.fullmatch(value) or (name == "key" and is_key(value)))
    if good and request[1] in _LOGINS and name == "user":
        good = ctx.store.find(Account, value) is not None
    return str(value) if good else NOT_SHOWN
