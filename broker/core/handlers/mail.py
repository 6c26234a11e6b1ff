"""Messages: ``chat``, ``kotakmasuk``, ``ack``, ``subscribe``, ``history``, ``status``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from broker.core.blocks import blocked_by_recipient
from broker.core.handlers.context import (
    PAGED_BYTES_PER_TURN_MAX,
    PAGED_RETRY_MS,
    Context,
    Inbox,
    Result,
)
from broker.core.mailbox import text_bytes
from broker.core.model import Lost, Message, Page, Receipt
from broker.wire import commands
from broker.wire.errors import Code, WireError
from broker.wire.limits import EVENT_BYTES_MAX, INBOX_BYTES_MAX, SEQ_MAX, TEXT_BYTES_MAX


def handle_chat(ctx: Context, args: commands.ChatArgs) -> Receipt:
    """Append one message to a mailbox; a repeated id gets the first answer again.

    Errors: ``no_such_user``, ``no_such_room``, ``blocked``, ``mailbox_full``, ``conflict``,
    ``rate_limited``, ``too_large``, and what nothing new is taken for now (`Context.refusal`).
    """
    to, text, message_id, ttl_ms = args
    sends = ctx.policy.sends
    if sends.message_bytes_max < TEXT_BYTES_MAX:
        _check_size(text, sends.message_bytes_max)
    if ctx.rates is not None:
        ctx.rates.spend(ctx.session.user, ctx.now_ms)
    if to in ctx.subscriptions:
        ctx.subscriptions.wake(to)
    sender, refusal = ctx.session.user, ctx.refusal
    if _is_blocked(ctx, to, sender):
        refusal = blocked_by_recipient()
    # One store step: duplicate check, limits and append must not come apart. Nor may a refusal come
    # before it: it would say of a message that is stored, whose answer was lost, that it is not.
    return ctx.store.append(
        to, sender, message_id, text, ctx.now_ms, ttl_ms=ttl_ms, refusal=refusal
    )


def handle_chats(
    ctx: Context, letters: Sequence[commands.ChatArgs]
) -> Sequence[Receipt | WireError]:
    """As `handle_chat`, for messages that one sender sent one behind the other.

    Hot path. What may be refused to one of them and not to the next is left to `handle_chat`.
    """
    sender, subscriptions = ctx.session.user, ctx.subscriptions
    if (
        ctx.refusal is not None
        or ctx.rates is not None
        or ctx.policy.sends.message_bytes_max < TEXT_BYTES_MAX
        or (ctx.blocks.by_user and any(_is_blocked(ctx, to, sender) for to, *_ in letters))
    ):
        return [_outcome_of(ctx, each) for each in letters]
    if subscriptions:
        for name in {to for to, *_ in letters}:
            subscriptions.wake(name)
    return ctx.store.append_all(sender, letters, ctx.now_ms)


def _outcome_of(ctx: Context, args: commands.ChatArgs) -> Receipt | WireError:
    try:
        return handle_chat(ctx, args)
    except WireError as error:
        return error.bare()


def _is_blocked(ctx: Context, to: str, sender: str) -> bool:
    blocked = ctx.blocks.by_user.get(to)
    return blocked is not None and sender in blocked


def handle_block(ctx: Context, args: commands.UserArgs) -> Result:
    """Take no messages, and no invitations, from a user. Idempotent.

    Errors: ``no_such_user``, ``bad_request`` (oneself), ``too_many``.
    """
    if args.user == ctx.session.user:
        raise WireError(Code.BAD_REQUEST, "you cannot block yourself")
    ctx.accounts.find(args.user)
    ctx.blocks.add(ctx.session.user, args.user)
    return {}


def handle_unblock(ctx: Context, args: commands.UserArgs) -> Result:
    """Take a user's messages again. Idempotent."""
    ctx.blocks.remove(ctx.session.user, args.user)
    return {}


def handle_blocks(ctx: Context, _: commands.NoArgs) -> Result:
    """List whom the user has blocked."""
    return {"users": ctx.blocks.of(ctx.session.user)}


def handle_kotakmasuk(ctx: Context, args: commands.InboxArgs) -> Result:
    """Return a page of what waits, taking nothing. Errors: ``busy``."""
    _check_paged(ctx)
    user, after = ctx.session.user, args.after or 0
    page = ctx.store.read(user, ctx.session.device, after, args.limit, INBOX_BYTES_MAX)
    _count_paged(ctx, page.messages)
    return Inbox(user, page, _lost(ctx, page, after, args.epoch))


def handle_ack(ctx: Context, args: commands.AckArgs) -> Result:
    """Move the cursor: what lies at or below it is gone for good. Idempotent."""
    user = ctx.session.user
    if user in ctx.subscriptions:
        ctx.subscriptions.wake(user)
    return {"cursor": ctx.store.acknowledge(user, ctx.session.device, args.seq)}


def handle_subscribe(ctx: Context, args: commands.SubscribeArgs) -> Result:
    """Push messages to this connection from now on. Errors: ``busy``."""
    session, after = ctx.session, args.after or 0
    page = ctx.store.read(session.user, session.device, SEQ_MAX, 0, EVENT_BYTES_MAX)
    lost = _lost(ctx, page, after, args.epoch)
    subscription = ctx.subscriptions.add(
        ctx.route,
        session.token,
        session.user,
        window=args.window,
        # A position of another history is no position.
        after=max(page.cursor, after if after <= page.last else 0),
        now_ms=ctx.now_ms,
    )
    subscription.told = 0 if page.lost is None else page.lost.last
    ctx.subscriptions.listen(session.user, ctx.rooms.joined(session.user))
    answer = {
        "subscription": subscription.number,
        "user": session.user,
        "name": ctx.accounts.name(session.user),
        "window": args.window,
        "cursor": page.cursor,
        "epoch": ctx.store.epoch.number,
    }
    return answer | {"history_lost": lost._asdict()} if lost else answer


def handle_unsubscribe(ctx: Context, _: commands.NoArgs) -> Result:
    """Push nothing more to this connection for this session."""
    ctx.subscriptions.end(ctx.route, ctx.session.token)
    return {}


def handle_history(ctx: Context, args: commands.HistoryArgs) -> Result:
    """Return a page of what is kept, read or not. Errors: ``no_such_room``, ``busy``."""
    _check_paged(ctx)
    history = ctx.store.history(
        ctx.session.user,
        args.of,
        before=args.before,
        after=args.after,
        limit=args.limit,
        bytes_max=INBOX_BYTES_MAX,
    )
    _count_paged(ctx, history.messages)
    return history


def handle_status(ctx: Context, args: commands.StatusArgs) -> Result:
    """Tell the sender where a message stands. Errors: ``no_such_message``."""
    found = ctx.store.history(
        ctx.session.user, commands.SENT, before=None, after=args.seq - 1, limit=1, bytes_max=0
    )
    for message, state in zip(found.messages, found.states or (), strict=True):
        if (message.seq, message.to) == (args.seq, args.to):
            return {"state": state, "at_ms": message.at_ms, "id": message.message_id}
    raise WireError(
        Code.NO_SUCH_MESSAGE, "you sent no such message, or it is no longer kept by the broker"
    )


def _check_paged(ctx: Context) -> None:
    """Refuse another page to a connection that was given enough in this turn."""
    if ctx.paged.get(ctx.route, 0) >= PAGED_BYTES_PER_TURN_MAX:
        raise WireError(
            Code.BUSY, "you ask for too many pages at once: ask again in a moment", PAGED_RETRY_MS
        )


def _count_paged(ctx: Context, messages: Iterable[Message]) -> None:
    given = text_bytes("".join([message.text for message in messages]))  # measured all at once
    ctx.paged[ctx.route] = ctx.paged.get(ctx.route, 0) + given


def _check_size(text: str, bytes_max: int) -> None:
    if text_bytes(text) > bytes_max:
        raise WireError(Code.TOO_LARGE, f"this broker takes texts of {bytes_max} bytes at most")


def _lost(ctx: Context, page: Page, after: int, epoch: int | None) -> Lost | None:
    """Return what a reader has to be told of, who comes with a position and its epoch."""
    now = ctx.store.epoch
    if epoch is not None and epoch != now.number:
        lost = Lost(now.lost.first, max(now.lost.last, after))
    elif after > page.last and after != SEQ_MAX:
        lost = Lost(page.last + 1, after)
    else:
        return page.lost
    # What was deleted unread comes on top: whoever acknowledges now is not told of it again.
    both = (lost, page.lost or lost)
    return Lost(min(each.first for each in both), max(each.last for each in both))
