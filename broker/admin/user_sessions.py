"""``kotak admin sessions`` and ``revoke``: who is logged in as a user, and ending that."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

from argparse import Namespace
from typing import Final

from broker.admin.administrator import Admin
from broker.admin.printing import Column, counted, local_time, plain, print_list
from broker.exits import Exit, ExitError

_COLUMNS: Final = (
    Column("Session", "session"),
    Column("Device", "device"),
    Column("Key", "bound", lambda bound: "its own" if bound else ""),
    Column("Opened", "opened_at_ms", local_time),
    Column("Last used", "seen_at_ms", local_time),
    Column("Ends", "expires_at_ms", local_time),
)


def sessions(admin: Admin, args: Namespace) -> int:
    """List the live sessions of ``args.user``, oldest first."""
    found = admin.request("session_list", {"user": args.user})["sessions"]
    empty = f"{plain(args.user)} has no session"
    print_list(found, _COLUMNS, as_json=args.json, empty=empty)
    return Exit.OK


def revoke(admin: Admin, args: Namespace) -> int:
    """End ``args.session`` of ``args.user``, or with ``args.all`` all that the user has."""
    user = plain(args.user)
    if (args.session is None) == (not args.all):
        raise ExitError(
            Exit.USAGE,
            f"say which session (kotak admin sessions {user} lists them), or --all for every one",
        )
    if args.all:
        count = admin.request("session_revoke_all", {"user": args.user})["revoked"]
        print(f"ended {counted(count, 'session')} of {user}")
    else:
        session = args.session.lower()
        admin.request("session_revoke", {"user": args.user, "session": session})
        print(f"ended session {plain(session)} of {user}")
    return Exit.OK
