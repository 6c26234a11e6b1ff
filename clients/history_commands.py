"""``kotak history`` and ``kotak status``: what was said, read or unread, and where it stands."""

from __future__ import annotations

from broker.wire.commands import INBOX, SENT
from clients.commands import note, write_line
from clients.display import message_json
from clients.history_text import Wanted, history_lines, status_json, status_text
from clients.invocation import Invocation


def history(call: Invocation) -> None:
    """``kotak history``: write one page, oldest first; nothing is taken, no cursor moves.

    Errors: `KotakError`, `NotLoggedInError` (docs/PROTOCOL.md, "history").
    """
    args = call.args
    of = SENT if args.sent else args.room or INBOX
    wanted = Wanted(of, before=args.before, after=args.after, limit=args.limit)
    with call.open(call.session().token) as client, call.waiting():
        page = wanted.fetch(client)
    lines = map(message_json, page.messages) if args.json else history_lines(page.messages)
    for line in lines:
        write_line(line)
    if not page.messages and not args.json:
        note("no messages")
    if further := wanted.further(page):
        direction, seq = further
        note(f"there are {'newer' if direction == 'after' else 'older'} ones: --{direction} {seq}")


def status(call: Invocation) -> None:
    """``kotak status``: say where a message stands that was sent.

    Errors: `KotakError`, `NotLoggedInError` (docs/PROTOCOL.md, "status").
    """
    to: str = call.args.to
    seq: int = call.args.seq
    with call.open(call.session().token) as client, call.waiting():
        answer = client.status(to, seq)
    write_line(status_json(answer) if call.args.json else status_text(to, seq, answer))
