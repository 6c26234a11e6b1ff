"""Keys that log their users in: the administrator's ``key_...``.

Source: docs/PROTOCOL.md, "key_add".
"""

from __future__ import annotations

from broker.core.handlers.context import Context, Result
from broker.core.model import LoginKey
from broker.wire import commands
from broker.wire.errors import Code, WireError
from broker.wire.limits import KEYS_PER_USER_MAX


def handle_add(ctx: Context, args: commands.KeyArgs) -> Result:
    """Let a key log a user in. Idempotent.

    Errors: ``no_such_user``, ``bad_request`` (it is another user's), ``too_many``.
    """
    ctx.accounts.find(args.user)
    found = ctx.store.find(LoginKey, args.key)
    if found is not None:
        if found.user != args.user:
            raise WireError(Code.BAD_REQUEST, f"the key is {found.user}'s: remove it there first")
        return {}
    if len(ctx.store.find_all(LoginKey, of=args.user)) >= KEYS_PER_USER_MAX:
        raise WireError(
            Code.TOO_MANY, f"a user may have {KEYS_PER_USER_MAX} keys: remove one that is not used"
        )
    ctx.store.put(LoginKey(args.key, args.user))
    return {}


def handle_list(ctx: Context, args: commands.UserArgs) -> Result:
    """List a user's keys. Errors: ``no_such_user``."""
    ctx.accounts.find(args.user)
    return {"keys": [each.key for each in ctx.store.find_all(LoginKey, of=args.user)]}


def handle_remove(ctx: Context, args: commands.KeyArgs) -> Result:
    """Let a key log nobody in any more; the sessions that are bound to it end.

    Errors: ``no_such_user``, ``bad_request`` (the user has no such key).
    """
    ctx.accounts.find(args.user)
    found = ctx.store.find(LoginKey, args.key)
    if found is None or found.user != args.user:
        raise WireError(Code.BAD_REQUEST, "the user has no such key: list them")
    ctx.store.remove(LoginKey, args.key)
    ctx.sessions.close_bound(args.user, args.key)
    return {}
