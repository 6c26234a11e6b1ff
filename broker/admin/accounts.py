"""``kotak user``: accounts, one at a time, and their list."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import sys
from argparse import Namespace
from typing import Final

from broker.admin.administrator import Admin, pages
from broker.admin.new_password import new_password
from broker.admin.printing import Column, ask, plain, print_list
from broker.exits import Exit, ExitError


def add(admin: Admin, args: Namespace) -> int:
    """Make one account. ``args``: user, name (or None), and where the password comes from."""
    fields = {"user": args.user, "password": new_password(args)}
    if args.name is not None:
        fields["name"] = args.name
    made = admin.request("user_add", fields)
    print(f"added {plain(made.get('user', args.user))}")
    return Exit.OK


def passwd(admin: Admin, args: Namespace) -> int:
    """Set a user's password; all sessions of the user end."""
    admin.request("user_passwd", {"user": args.user, "password": new_password(args)})
    print(f"changed the password of {plain(args.user)}; its sessions have ended")
    return Exit.OK


def remove(admin: Admin, args: Namespace) -> int:
    """Remove a user and its mailbox, after a question where there is somebody to ask."""
    user = plain(args.user)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ExitError(Exit.USAGE, f"removing {user} deletes its messages: say --yes")
        question = f"Remove {user} and every message in its mailbox? [y/N] "
        if ask(question).strip().lower() not in ("y", "yes"):
            raise ExitError(Exit.REFUSED, "nothing was removed")
    admin.request("user_remove", {"user": args.user})
    print(f"removed {user}")
    return Exit.OK


_COLUMNS: Final = (
    Column("User", "user"),
    Column("Name", "name"),
    Column("Role", "role"),
)


def show(admin: Admin, args: Namespace) -> int:
    """List all users, in order of user."""
    print_list(
        pages(admin, "user_list", "users"),
        _COLUMNS,
        as_json=args.json,
        empty="No users yet: kotak user add NAME makes one.",
    )
    return Exit.OK


def role(admin: Admin, args: Namespace) -> int:
    """Say what ``args.user`` may do from its next command on: ``args.role``."""
    admin.request("user_role", {"user": args.user, "role": args.role})
    print(f"{plain(args.user)} has the role {args.role} now")
    return Exit.OK
