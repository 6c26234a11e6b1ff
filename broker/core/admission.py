"""Who may run a command: what its token is good for.

Source: docs/PROTOCOL.md, "Commands", "Roles".
"""

from __future__ import annotations

from broker.core.handlers import CommandSpec, Context, Needs
from broker.core.sessions import Session, check_key
from broker.wire.errors import Code, WireError
from broker.wire.roles import Role


def authorize(ctx: Context, spec: CommandSpec, token: str | None) -> None:
    """Set the session of a request. Errors: ``unauthorized``, ``forbidden``."""
    if token is None:
        if spec.needs in (Needs.NOTHING, Needs.TOKEN_IF_GIVEN):
            return
        raise WireError(Code.UNAUTHORIZED, "this command needs a token: log in first")
    if spec.needs is Needs.NOTHING:
        return
    ctx.session = session = ctx.sessions.resolve(token, ctx.now_ms)
    if not session.plain:
        check_special(ctx, spec, session)
    if spec.needs is Needs.ADMIN and session.role != Role.ADMIN:
        raise WireError(Code.FORBIDDEN, "only an administrator may do this")
    if spec.needs is Needs.OBSERVER and session.role == Role.USER:
        raise WireError(Code.FORBIDDEN, "only an administrator or an observer may do this")


def check_special(ctx: Context, spec: CommandSpec, session: Session) -> None:
    """Refuse a session that has no mailbox, is bound to another key, or may only read.

    Errors: ``unauthorized``, ``forbidden``.
    """
    if session.key:
        check_key(session, ctx.key_of(ctx.route))
    if spec.own and not session.user:
        raise WireError(Code.FORBIDDEN, "the administrator has no mailbox: log in as a user")
    if spec.needs is Needs.USER and session.role == Role.OBSERVER:
        raise WireError(Code.FORBIDDEN, "an observer may read, and write to nobody")
