"""``kotak user``: its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any, Final

from broker.cli.parsing import Subparsers
from broker.cli.reaching import add_connection, opened


def add_user(commands: Subparsers) -> None:
    """Add ``kotak user`` with its commands."""
    parser = commands.add_parser("user", description="Add, list and remove users.")
    _add_user_commands(parser)


def _add_user_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(
        dest="user_command", metavar="add|list|passwd|role|remove|import|key", required=True
    )

    def command(word: str, text: str, *, user: bool = True) -> argparse.ArgumentParser:
        sub = commands.add_parser(word, help=text.partition(".")[0].rstrip(":"), description=text)
        if user:
            sub.add_argument("user", metavar="NAME", help="the user's name")
        add_connection(sub)
        sub.set_defaults(run=_user)
        return sub

    add = command("add", "Add a user. Asks for the password.")
    add.add_argument("--name", metavar="TEXT", help="the display name (default: NAME)")
    _add_password_options(add)
    _add_password_options(command("passwd", "Set a user's password; its sessions end."))
    role = command("role", _ROLE)
    role.add_argument("role", metavar="user|admin|observer", choices=_ROLES, help="what it may do")
    remove = command("remove", "Remove a user and every message in its mailbox.")
    remove.add_argument("--yes", action="store_true", help="do not ask")
    show = command("list", "List all users.", user=False)
    show.add_argument("--json", action="store_true", help="one JSON array")
    file = command("import", _IMPORT, user=False)
    file.add_argument("file", metavar="FILE", help="the file; - reads it from stdin")
    key_text = "Keys that log a user in, without a password."
    _add_key_commands(commands.add_parser("key", help=key_text[:-1], description=key_text))


def _add_key_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="key_command", metavar="add|list|remove", required=True)
    for word, text in (
        ("add", "Let a key log the user in."),
        ("list", "List the keys that log the user in."),
        ("remove", "Let a key log the user in no more; its sessions end."),
    ):
        sub = commands.add_parser(word, help=text.partition(".")[0], description=text)
        sub.add_argument("user", metavar="NAME", help="the user's name")
        if word != "list":
            sub.add_argument(
                "key", metavar="KEY|FILE", help="the public key, or its file (of kotak keygen)"
            )
        add_connection(sub)
        sub.set_defaults(run=_user)


_ROLES: Final = ("user", "admin", "observer")
_ROLE: Final = """\
Say what a user may do:

  user       read, and write to others: what everybody may who has just been added
  admin      that, and what kotak user and kotak admin do, from any machine
  observer   read its own mailbox, and how the broker stands; write to nobody

It counts from the user's next command on."""

_IMPORT: Final = """\
Add the users of a file.

One user a line:

  user:password
  user:password:display name
  user:$argon2id$...:display name

The first two colons part the fields: a password has none, a display name may. Blank lines and lines
that begin with # are skipped. The whole file is checked first: where a line is wrong, no user is
added. Users that exist are reported and left as they are."""


def _add_password_options(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group()
    source.add_argument(
        "--password-stdin", action="store_true", help="read the password from stdin, one line"
    )
    source.add_argument(
        "--password-env", metavar="NAME", help="read it from an environment variable"
    )


def _user(args: argparse.Namespace) -> int:
    from broker import admin

    run: Callable[[Any, argparse.Namespace], int] = {
        "add": admin.add,
        "list": admin.show,
        "passwd": admin.passwd,
        "remove": admin.remove,
        "import": admin.import_file,
        "key": admin.key,
        "role": admin.role,
    }[args.user_command]
    with opened(args, create=args.user_command in ("add", "import")) as administrator:
        return run(administrator, args)
