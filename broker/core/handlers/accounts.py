"""Accounts: ``register``, ``passwd``, and the administrator's ``user_...``."""

from __future__ import annotations

from broker.core.accounts import check_new_password
from broker.core.handlers.context import Context, Deferred, Result
from broker.core.model import Account, LoginKey
from broker.wire import commands
from broker.wire.errors import Code, WireError
from broker.wire.limits import USERS_PAGE_MAX


def handle_register(ctx: Context, args: commands.RegisterArgs) -> Result:
    """Make an account, where the administrator lets strangers do so.

    Errors: ``forbidden``, ``user_exists``, ``bad_request`` (password too short),
    ``rate_limited``, ``busy``.
    """
    if not ctx.policy.register:
        raise WireError(Code.FORBIDDEN, "registration is off: ask the administrator for an account")
    check_new_password(args.password)
    return _create_later(ctx, args.user, args.name, args.password)._replace(registers=True)


def handle_passwd(ctx: Context, args: commands.PasswdArgs) -> Result:
    """Change one's own password; every other session of the user ends.

    Errors: ``bad_credentials``, ``bad_request`` (password too short), ``rate_limited``, ``busy``.
    """
    check_new_password(args.new_password)
    session = ctx.session
    stored = ctx.accounts.stored_hash(session.user)
    hasher = ctx.hasher

    def work() -> str | None:
        verified = hasher.verify(stored, args.password)
        return hasher.hash(args.new_password) if verified else None

    def finish(ctx: Context, new_hash: str | None) -> Result:
        account = ctx.accounts.check(session.user, new_hash is not None, stored)
        assert new_hash is not None
        ctx.accounts.set_password_hash(account, new_hash)
        ctx.sessions.close_all(session.user, keep=session)
        return {}

    return Deferred(work, finish, tries=session.user)


def handle_user_add(ctx: Context, args: commands.UserAddArgs) -> Result:
    """Make an account from a password or from a ready-made hash. Errors: ``user_exists``."""
    if args.password is not None:
        return _create_later(ctx, args.user, args.name, args.password)
    assert args.password_hash is not None
    password_hash = ctx.accounts.checked_hash(args.password_hash)
    account = ctx.accounts.create(args.user, args.name, password_hash)
    return {"user": account.user, "name": account.name}


def handle_user_list(ctx: Context, args: commands.PageArgs) -> Result:
    """List accounts in order of name, from the one after ``after`` on."""
    page = ctx.store.find_all(Account, after=args.after or "", limit=USERS_PAGE_MAX + 1)
    return {
        "users": [
            {"user": each.user, "name": each.name, "role": each.role}
            for each in page[:USERS_PAGE_MAX]
        ],
        "more": len(page) > USERS_PAGE_MAX,
    }


def handle_user_passwd(ctx: Context, args: commands.UserPasswdArgs) -> Result:
    """Set a user's password; all sessions of the user end. Errors: ``no_such_user``."""
    ctx.accounts.find(args.user)
    hasher = ctx.hasher

    def finish(ctx: Context, new_hash: str) -> Result:
        ctx.accounts.set_password_hash(ctx.accounts.find(args.user), new_hash)
        ctx.sessions.close_all(args.user)
        return {}

    return Deferred(lambda: hasher.hash(args.password), finish)


def handle_user_role(ctx: Context, args: commands.UserRoleArgs) -> Result:
    """Say what a user may do, from its next command on. Errors: ``no_such_user``."""
    ctx.accounts.set_role(args.user, args.role)
    ctx.sessions.forget()  # they know the role
    return {}


def handle_user_remove(ctx: Context, args: commands.UserArgs) -> Result:
    """Remove an account with all that is its own: sessions, keys, blocks, rooms, mailbox.

    Errors: ``no_such_user``.
    """
    ctx.accounts.find(args.user)
    ctx.blocks.remove_all(args.user)
    for room, _ in ctx.rooms.of(args.user):
        ctx.rooms.leave(room.room, args.user)
    for each in ctx.store.find_all(LoginKey, of=args.user):
        ctx.store.remove(LoginKey, each.key)
    ctx.accounts.remove(args.user)
    ctx.sessions.close_all(args.user)
    return {}


def _create_later(ctx: Context, user: str, name: str | None, password: str) -> Deferred:
    """Hash a password elsewhere, then make the account."""
    hasher = ctx.hasher

    def finish(ctx: Context, password_hash: str) -> Result:
        account = ctx.accounts.create(user, name, password_hash)
        return {"user": account.user, "name": account.name}

    return Deferred(lambda: hasher.hash(password), finish)
