"""``kotak block``, ``unblock`` and ``blocks``: from whom one takes no messages.

The functions bear the names of their commands. Errors of all: `KotakError`, `NotLoggedInError`
(docs/PROTOCOL.md, "block").
"""

from __future__ import annotations

import json
import sys

from clients.block_text import NOBODY_BLOCKED, blocked_text, unblocked_text
from clients.commands import note, write_line
from clients.display import safe_line
from clients.invocation import Invocation


def block(call: Invocation) -> None:
    user: str = call.args.user
    with call.open(call.session().token) as client, call.waiting():
        client.block(user)
    write_line(blocked_text(user))


def unblock(call: Invocation) -> None:
    user: str = call.args.user
    with call.open(call.session().token) as client, call.waiting():
        client.unblock(user)
    write_line(unblocked_text(user))


def blocks(call: Invocation) -> None:
    """``kotak blocks``: write who is blocked, at a terminal as a table, else a name a line."""
    with call.open(call.session().token) as client, call.waiting():
        users = client.blocked()
    if users and sys.stdout.isatty() and not call.args.json:
        _write_table(users)
        return
    for user in users:
        write_line(json.dumps({"user": user}) if call.args.json else safe_line(user))
    if not users and not call.args.json:
        note(NOBODY_BLOCKED)


def _write_table(users: list[str]) -> None:
    from rich import box  # at a terminal only: it takes its time to load
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("Blocked", overflow="fold")
    for user in users:
        table.add_row(Text(safe_line(user)))
    Console().print(table)
