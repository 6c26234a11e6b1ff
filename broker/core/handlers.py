"""The commands: what each does, and the table that carries the checks as data.

A handler knows neither the door that its command came through nor the engine that stores. What it
returns becomes the reply after the batch has been committed. Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import Any, Final, NamedTuple

from broker.core.accounts import Accounts, check_new_password
from broker.core.model import Page, Receipt, Route
from broker.core.ports import Hasher, Store
from broker.core.sessions import Session, Sessions
from broker.core.subscriptions import Subscriptions
from broker.wire import commands
from broker.wire.errors import Code, WireError
from broker.wire.limits import INBOX_BYTES_MAX, PROTOCOL_VERSION, USERS_PAGE_MAX, as_hello


class Deferred(NamedTuple):
    """Slow work: ``work`` runs without the baton, ``finish`` in a later batch with its outcome."""

    work: Callable[[], Any]
    finish: Callable[[Context, Any], Result]


class Inbox(NamedTuple):
    """A page for its reader."""

    user: str
    page: Page


Result = Receipt | Inbox | Deferred | Mapping[str, Any]


@dataclass(slots=True)
class Context:
    """What handlers work on; ``now_ms``, ``route`` and ``session`` are the request's."""

    store: Store
    hasher: Hasher
    sessions: Sessions
    accounts: Accounts
    subscriptions: Subscriptions
    #: May strangers register?
    register: bool
    #: The broker's name and version, for `hello`.
    server: str
    now_ms: int = 0
    #: The connection that the request came through.
    route: Route = b""
    #: Set wherever the command's `Needs` is not NOTHING.
    session: Session = None  # type: ignore[assignment]  # an Optional would be checked everywhere


class Needs(Enum):
    """Whose token a command needs."""

    NOTHING = auto()
    #: Of no one; but if there is one, it must be good.
    TOKEN_IF_GIVEN = auto()
    USER = auto()
    ADMIN = auto()


@dataclass(frozen=True, slots=True)
class CommandSpec:
    """One command: its handler, its arguments' parser, and when it may run."""

    handle: Callable[[Context, Any], Result]
    parse: Callable[[dict[str, Any]], Any]
    needs: Needs
    #: Hashes a password: counted against ``SLOW_REQUESTS_MAX``.
    slow: bool
    #: Served while the broker is stopping: what leaves less to be delivered again.
    while_draining: bool
    #: Takes room on the disk: refused while there is none.
    stores: bool


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
        "limits": as_hello(),
    }


def handle_ping(ctx: Context, _: commands.NoArgs) -> Result:
    """Answer with the broker's time."""
    return {"now_ms": ctx.now_ms}


def handle_login(ctx: Context, args: commands.LoginArgs) -> Result:
    """Check a password and open a session. Errors: ``bad_credentials``, ``busy``.

    A hash made with other parameters than today's is replaced while the password is at hand.
    """
    stored = ctx.accounts.stored_hash(args.user)
    hasher = ctx.hasher

    def work() -> tuple[bool, str | None]:
        verified = hasher.verify(stored, args.password)
        renew = verified and hasher.needs_rehash(stored)
        return verified, hasher.hash(args.password) if renew else None

    def finish(ctx: Context, outcome: tuple[bool, str | None]) -> Result:
        verified, renewed = outcome
        account = ctx.accounts.check(args.user, verified, stored)
        if renewed is not None:
            ctx.accounts.set_password_hash(account, renewed)
        session = ctx.sessions.open(account.user, ctx.now_ms)
        return {
            "token": session.token,
            "user": account.user,
            "name": account.name,
            "expires_at_ms": ctx.sessions.ends_ms(session),
        }

    return Deferred(work, finish)


def handle_logout(ctx: Context, _: commands.NoArgs) -> Result:
    """End the session of the token."""
    ctx.sessions.close(ctx.session)
    return {}


def handle_chat(ctx: Context, args: commands.ChatArgs) -> Result:
    """Append one message to the recipient's mailbox; a repeated id gets the first answer again.

    Errors: ``no_such_user``, ``mailbox_full``, ``conflict``.
    """
    if args.to in ctx.subscriptions:
        ctx.subscriptions.wake(args.to)
    # One store step: duplicate check, depth check and append must not come apart.
    return ctx.store.append(args.to, ctx.session.user, args.message_id, args.text, ctx.now_ms)


def handle_kotakmasuk(ctx: Context, args: commands.InboxArgs) -> Result:
    """Return a page of what waits, taking nothing."""
    user = ctx.session.user
    return Inbox(user, ctx.store.read(user, args.after or 0, args.limit, INBOX_BYTES_MAX))


def handle_ack(ctx: Context, args: commands.AckArgs) -> Result:
    """Move the cursor: what lies at or below it is gone for good. Idempotent."""
    user = ctx.session.user
    if user in ctx.subscriptions:
        ctx.subscriptions.wake(user)
    return {"cursor": ctx.store.acknowledge(user, args.seq)}


def handle_subscribe(ctx: Context, args: commands.SubscribeArgs) -> Result:
    """Push messages to this connection from now on. Errors: ``busy``."""
    user = ctx.session.user
    cursor = ctx.store.acknowledge(user, 0)
    subscription = ctx.subscriptions.add(
        ctx.route,
        ctx.session.token,
        user,
        window=args.window,
        after=max(cursor, args.after or 0),
        now_ms=ctx.now_ms,
    )
    return {
        "subscription": subscription.number,
        "user": user,
        "name": ctx.accounts.name(user),
        "window": args.window,
        "cursor": cursor,
    }


def handle_unsubscribe(ctx: Context, _: commands.NoArgs) -> Result:
    """Push nothing more to this connection for this session."""
    ctx.subscriptions.end(ctx.route, ctx.session.token)
    return {}


def handle_user_on(ctx: Context, args: commands.PageArgs) -> Result:
    """List who has a live session, in order of login, from the one after ``after`` on."""
    users = ctx.sessions.online(ctx.now_ms)
    first = users.index(args.after) + 1 if args.after in users else 0
    page = users[first : first + USERS_PAGE_MAX]
    return {
        "users": [{"user": user, "name": ctx.accounts.name(user)} for user in page],
        "more": len(users) > first + len(page),
    }


def handle_register(ctx: Context, args: commands.RegisterArgs) -> Result:
    """Make an account, where the administrator lets strangers do so.

    Errors: ``forbidden``, ``user_exists``, ``bad_request`` (password too short), ``busy``.
    """
    if not ctx.register:
        raise WireError(Code.FORBIDDEN, "registration is off: ask the administrator for an account")
    check_new_password(args.password)
    return _create_later(ctx, args.user, args.name, args.password)


def handle_passwd(ctx: Context, args: commands.PasswdArgs) -> Result:
    """Change one's own password; every other session of the user ends.

    Errors: ``bad_credentials``, ``bad_request`` (password too short), ``busy``.
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

    return Deferred(work, finish)


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
    page = ctx.store.accounts(args.after or "", USERS_PAGE_MAX + 1)
    return {
        "users": [{"user": each.user, "name": each.name} for each in page[:USERS_PAGE_MAX]],
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


def handle_user_remove(ctx: Context, args: commands.UserArgs) -> Result:
    """Remove an account with its sessions and its mailbox. Errors: ``no_such_user``."""
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


def _spec(
    name: str,
    handle: Callable[[Context, Any], Result],
    needs: Needs,
    *,
    slow: bool = False,
    while_draining: bool = False,
    stores: bool = False,
) -> tuple[str, CommandSpec]:
    return name, CommandSpec(handle, commands.PARSERS[name], needs, slow, while_draining, stores)


_CANONICAL: Final = dict(
    [
        _spec("hello", handle_hello, Needs.NOTHING, while_draining=True),
        _spec("ping", handle_ping, Needs.TOKEN_IF_GIVEN, while_draining=True),
        _spec("login", handle_login, Needs.NOTHING, slow=True, stores=True),
        _spec("logout", handle_logout, Needs.USER, while_draining=True),
        _spec("chat", handle_chat, Needs.USER, stores=True),
        _spec("kotakmasuk", handle_kotakmasuk, Needs.USER),
        _spec("ack", handle_ack, Needs.USER, while_draining=True),
        _spec("subscribe", handle_subscribe, Needs.USER),
        _spec("unsubscribe", handle_unsubscribe, Needs.USER, while_draining=True),
        _spec("user_on", handle_user_on, Needs.USER),
        _spec("register", handle_register, Needs.NOTHING, slow=True, stores=True),
        _spec("passwd", handle_passwd, Needs.USER, slow=True),
        _spec("user_add", handle_user_add, Needs.ADMIN, slow=True, stores=True),
        _spec("user_list", handle_user_list, Needs.ADMIN),
        _spec("user_passwd", handle_user_passwd, Needs.ADMIN, slow=True),
        _spec("user_remove", handle_user_remove, Needs.ADMIN),
    ]
)

#: Every name that a request may use, aliases included.
COMMANDS: Final[Mapping[str, CommandSpec]] = _CANONICAL | {
    alias: _CANONICAL[name] for alias, name in commands.ALIASES.items()
}
