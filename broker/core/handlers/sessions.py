"""Coming and going: ``hello``, ``ping``, ``login``, ``logout``, ``user_on``."""

from __future__ import annotations

from typing import Any

from broker.core.handlers.context import Context, Deferred, Result
from broker.core.model import Account
from broker.wire import commands
from broker.wire.errors import Code, WireError
from broker.wire.limits import PROTOCOL_VERSION, USERS_PAGE_MAX, as_hello


def handle_hello(ctx: Context, args: commands.HelloArgs) -> Result:
    """Agree on the protocol version. Errors: ``unsupported_version``."""
    if args.version != PROTOCOL_VERSION:
        raise WireError(
            Code.UNSUPPORTED_VERSION, f"this broker speaks version {PROTOCOL_VERSION} only"
        )
    return {
        "version": PROTOCOL_VERSION,
        "server": ctx.server,
        "durability": ctx.store.durability,
        "limits": as_hello() | {"text_bytes_max": ctx.policy.sends.message_bytes_max},
    }


def handle_ping(ctx: Context, _: commands.NoArgs) -> Result:
    """Answer with the broker's time."""
    return {"now_ms": ctx.now_ms}


def handle_login(ctx: Context, args: commands.LoginArgs) -> Result:
    """Check a password, or the connection's key, and open a session.

    A hash made with other parameters than today's is replaced while the password is at hand.
    Errors: ``bad_credentials``, ``bad_request`` (neither password nor key), ``rate_limited``,
    ``busy``.
    """
    if args.password is None:
        return _log_in_by_key(ctx, args)
    password = args.password
    stored = ctx.accounts.stored_hash(args.user)
    hasher = ctx.hasher

    def work() -> tuple[bool, str | None]:
        verified = hasher.verify(stored, password)
        renew = verified and hasher.needs_rehash(stored)
        return verified, hasher.hash(password) if renew else None

    def finish(ctx: Context, outcome: tuple[bool, str | None]) -> Result:
        verified, renewed = outcome
        account = ctx.accounts.check(args.user, verified, stored)
        if renewed is not None and account.password_hash == stored:
            ctx.accounts.renew_password_hash(account, renewed)
        return _opened(ctx, account, args.device)

    return Deferred(work, finish, tries=args.user)


def _log_in_by_key(ctx: Context, args: commands.LoginArgs) -> Result:
    """Open a session that is good on connections with this one's key only."""
    key = ctx.key_of(ctx.route)
    if key is None:
        raise WireError(
            Code.BAD_REQUEST, "'password' is missing: this connection has no key to log in with"
        )
    return _opened(ctx, ctx.accounts.of_key(args.user, key), args.device, key=key)


def _opened(ctx: Context, account: Account, device: str, *, key: str = "") -> Result:
    session = ctx.sessions.open(account.user, device, ctx.now_ms, key=key)
    ctx.store.acknowledge(account.user, device, 0)  # a new device has its cursor from now on
    return {
        "token": session.token,
        "user": account.user,
        "name": account.name,
        "expires_at_ms": ctx.sessions.ends_ms(session),
    }


def handle_logout(ctx: Context, _: commands.NoArgs) -> Result:
    """End the session of the token."""
    ctx.sessions.close(ctx.session)
    return {}


def handle_user_on(ctx: Context, args: commands.PresenceArgs) -> Result:
    """List who has a live session, in order of login, from the one after ``after`` on."""
    seen = ctx.sessions.online(ctx.now_ms)
    users = list(seen)
    first = users.index(args.after) + 1 if args.after in seen else 0
    page = users[first : first + USERS_PAGE_MAX]
    listed: list[dict[str, Any]] = [
        {"user": user, "name": ctx.accounts.name(user)} for user in page
    ]
    if args.detail:
        oldest_ms = ctx.now_ms - ctx.policy.presence_ms
        elsewhere = ctx.store.heard(page)
        for each in listed:
            each["seen_ms"] = max(seen[each["user"]], elsewhere.get(each["user"], 0))
            each["connected"] = each["seen_ms"] >= oldest_ms
    return {"users": listed, "more": len(users) > first + len(page)}
