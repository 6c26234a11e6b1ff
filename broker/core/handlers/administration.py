"""The state of the broker and its sessions: ``session_...``, ``mailbox_...``, ``broker_...``.

Source: docs/PROTOCOL.md, "Administration".
"""

from __future__ import annotations

from typing import Any, Final

from broker.core.handlers.context import Context, Deferred, Result
from broker.core.model import Account, BackupTaken
from broker.core.ports import Operations
from broker.wire import commands
from broker.wire.errors import Code, WireError
from broker.wire.limits import USERS_PAGE_MAX

#: The reason why nothing new is taken where an administrator wants it so.
DRAIN: Final = "drain"


def handle_session_list(ctx: Context, args: commands.UserArgs) -> Result:
    """List a user's sessions, oldest first. Errors: ``no_such_user``."""
    ctx.accounts.find(args.user)
    return {
        "sessions": [
            {
                "session": name,
                "device": record.device,
                "bound": bool(record.key),
                "opened_at_ms": record.opened_ms,
                "seen_at_ms": refreshed_ms,
                "expires_at_ms": record.expires_ms,
            }
            for name, record, refreshed_ms in ctx.sessions.of(args.user, ctx.now_ms)
        ]
    }


def handle_session_revoke(ctx: Context, args: commands.SessionArgs) -> Result:
    """End one session. Errors: ``no_such_user``, ``bad_request`` (the user has no such session)."""
    ctx.accounts.find(args.user)
    if not ctx.sessions.close_named(args.user, args.session):
        raise WireError(Code.BAD_REQUEST, "the user has no such session: list them")
    return {}


def handle_session_revoke_all(ctx: Context, args: commands.UserArgs) -> Result:
    """End all sessions of a user. Errors: ``no_such_user``."""
    ctx.accounts.find(args.user)
    return {"revoked": ctx.sessions.close_all(args.user)}


def handle_mailbox_depth(ctx: Context, args: commands.UserArgs) -> Result:
    """Tell what waits for a user. Errors: ``no_such_user``."""
    return _depth(ctx, args.user)


def handle_mailbox_list(ctx: Context, args: commands.PageArgs) -> Result:
    """Tell what waits for each user, in order of name, from the one after ``after`` on."""
    page = ctx.store.find_all(Account, after=args.after or "", limit=USERS_PAGE_MAX + 1)
    return {
        "mailboxes": [_depth(ctx, each.user) for each in page[:USERS_PAGE_MAX]],
        "more": len(page) > USERS_PAGE_MAX,
    }


def handle_status(ctx: Context, _: commands.NoArgs) -> Result:
    """Tell how the broker stands. Errors: ``unavailable``."""
    all_of_them = ctx.store.depth()
    return {
        "server": ctx.server,
        "durability": ctx.store.durability,
        "epoch": ctx.store.epoch.number,
        "started_at_ms": _operations(ctx).started_at_ms,
        "draining": DRAIN in ctx.closed,
        "mailboxes": all_of_them.mailboxes,
        "waiting": all_of_them.messages,
        "waiting_bytes": all_of_them.bytes,
        "subscriptions": len(ctx.subscriptions),
    }


def handle_drain(ctx: Context, args: commands.DrainArgs) -> Result:
    """Take nothing new until further notice, or again; reading goes on. Idempotent."""
    if args.on:
        ctx.closed.add(DRAIN)
    else:
        ctx.closed.discard(DRAIN)
    return {"draining": args.on, "waiting": ctx.store.depth().messages}


def handle_reload(ctx: Context, _: commands.NoArgs) -> Result:
    """Read certificates and enrolled keys anew. Errors: ``unavailable``, ``busy``."""

    def finish(_: Context, reloaded: list[str]) -> Result:
        return {"reloaded": reloaded}

    return Deferred(_operations(ctx).reload, finish, stores=False)


def handle_backup(ctx: Context, args: commands.BackupArgs) -> Result:
    """Copy all that has been answered by now. Errors: ``storage_full``, ``bad_request``, ``busy``.

    Its work begins after this batch has been committed.
    """
    operations, name = _operations(ctx), args.name

    def finish(_: Context, taken: BackupTaken) -> Result:
        return taken._asdict()

    return Deferred(lambda: operations.backup(name), finish, stores=False)


def _operations(ctx: Context) -> Operations:
    if ctx.operations is None:
        raise WireError(Code.UNAVAILABLE, "the broker does not run: start it first")
    return ctx.operations


def _depth(ctx: Context, user: str) -> dict[str, Any]:
    found = ctx.store.depth(user)
    return {"user": user, "waiting": found.messages, "waiting_bytes": found.bytes}
