"""``kotak admin backup`` and ``restore``: what they ask for, and what they say."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import json
import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import Final, Protocol

from broker.admin.administrator import Admin
from broker.admin.printing import at_work, counted, note, plain, size
from broker.exits import Exit
from broker.wire.errors import Code, WireError

#: A large store on a slow disk takes minutes; a broker that has gone is not waited for without end.
BACKUP_TIMEOUT_MS: Final = 900_000


def backup(admin: Admin, args: Namespace) -> int:
    """Take a backup called ``args.name`` (None: by the time), and say where it is."""
    # Always by a name: where the answer is lost and the request repeated, it is one backup.
    name = args.name or time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    try:
        with at_work("backing up; the broker goes on meanwhile (Ctrl-C does not end it)"):
            taken = admin.request("broker_backup", {"name": name}, timeout_ms=BACKUP_TIMEOUT_MS)
    except WireError as error:
        if error.code == Code.CONFLICT and args.name is None:
            note("there was a backup within this second: try again")
        raise
    if args.json:
        print(json.dumps(taken))
        return Exit.OK
    print(plain(taken["path"]))
    if sys.stdout.isatty():
        seconds = taken["took_ms"] / 1_000
        messages = counted(taken["messages"], "message")
        note(f"{messages}, {size(taken['bytes'])}, in {seconds:.1f} s")
    return Exit.OK


class Restored(Protocol):
    """What was put in, and where the former database is now; None: there was none."""

    @property
    def messages(self) -> int: ...
    @property
    def users(self) -> int: ...
    @property
    def sessions(self) -> int: ...
    @property
    def former(self) -> Path | None: ...


def show_restored(restored: Restored, folder: Path) -> int:
    """Say what was put back, and what that means."""
    messages, users = counted(restored.messages, "message"), counted(restored.users, "user")
    print(f"restored {messages} and {users} into {folder}")
    if restored.former is not None:
        note(f"the former database is {restored.former}: remove it when it is not needed any more")
    note("the next start begins a new epoch: clients are told that messages may be lost")
    if restored.sessions:
        note(
            f"good again: {counted(restored.sessions, 'session')} of the backup, also what was "
            "ended since; kotak admin revoke USER --all ends a user's"
        )
    return Exit.OK
