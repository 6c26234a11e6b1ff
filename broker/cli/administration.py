"""``kotak admin``: its options."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from broker.cli.parsing import Subparsers
from broker.cli.reaching import add_connection, opened
from broker.cli.settings import FOLDER_SETTINGS, add_settings, load_settings

_ADMIN: Final = """\
Administer a broker: on its machine through its data folder (--data), as the user that it runs as;
or from anywhere through its ZeroMQ door (--broker), as a user whose role is admin, or observer for
what only looks (kotak user role). Log in first: kotak login USER."""

_DRAIN: Final = """\
Have the broker take nothing new, for maintenance: messages, rooms and accounts are refused, and
clients repeat them later by themselves, while everybody reads and acknowledges. /readyz says 503.
--off ends it, and so does a restart."""

_BACKUP: Final = """\
Copy everything into the folder 'backups' of the data folder, while the broker goes on. All that was
answered OK before is in it. Prints the file; nothing is overwritten, nothing older is removed."""

_RESTORE: Final = """\
Put a backup in the place of the database. Stop the broker first, on whose machine this is; the
folder may also be a new one. The backup is checked before anything is changed, and the former
database stays beside it under another name. Clients are told, at the next start, that messages may
be lost."""

#: What is asked of a broker that runs, and of nothing else.
_OF_A_BROKER: Final = frozenset({"status", "drain", "reload"})


def add_admin(commands: Subparsers) -> None:
    """Add ``kotak admin`` with its commands."""
    parser = commands.add_parser("admin", description=_ADMIN)
    words = "status|sessions|revoke|depth|drain|reload|backup|restore"
    sub = parser.add_subparsers(dest="admin_command", metavar=words, required=True)

    def command(word: str, text: str, more: str = "") -> argparse.ArgumentParser:
        added = sub.add_parser(word, help=text.rstrip("."), description=more or text)
        add_connection(added)
        added.set_defaults(run=_admin)
        return added

    _add_json(command("status", "Say how the broker stands."))
    _add_session_commands(command)
    depth = command("depth", "List what waits to be read, of USER or of everybody.")
    depth.add_argument("user", metavar="USER", nargs="?", help="the user's name")
    depth.add_argument("--all", action="store_true", help="also those for whom nothing waits")
    _add_json(depth)
    drain = command("drain", "Take nothing new, for maintenance.", _DRAIN)
    drain.add_argument("--off", action="store_true", help="take new messages again")
    drain.add_argument("--wait", action="store_true", help="until nothing waits to be read")
    command("reload", "Read certificate and enrolled keys anew, as SIGHUP does.")
    backup = command("backup", "Copy everything, while the broker goes on.", _BACKUP)
    backup.add_argument("name", metavar="NAME", nargs="?", help="its name (default: the time, UTC)")
    _add_json(backup)
    restore = sub.add_parser(
        "restore", help="Put a backup back (broker stopped)", description=_RESTORE
    )
    restore.add_argument("file", metavar="FILE", help="the backup")
    add_settings(restore, FOLDER_SETTINGS)
    restore.set_defaults(run=_restore)


def _add_session_commands(command: Callable[..., argparse.ArgumentParser]) -> None:
    sessions = command("sessions", "List the sessions of USER: who is logged in, and since when.")
    sessions.add_argument("user", metavar="USER", help="the user's name")
    _add_json(sessions)
    revoke = command("revoke", "End a session of USER, or all of them: the token is good no more.")
    revoke.add_argument("user", metavar="USER", help="the user's name")
    revoke.add_argument("session", metavar="SESSION", nargs="?", help="which, as sessions lists it")
    revoke.add_argument("--all", action="store_true", help="all that the user has")


def _add_json(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--json", action="store_true", help="as JSON")


def _admin(args: argparse.Namespace) -> int:
    from broker import admin

    run: Callable[[Any, argparse.Namespace], int] = getattr(admin, args.admin_command)
    running = args.admin_command in _OF_A_BROKER
    with opened(args, create=False, running=running) as administrator:
        return run(administrator, args)


def _restore(args: argparse.Namespace) -> int:
    from broker import admin, server
    from broker.admin.printing import at_work

    config = load_settings(args).config
    with at_work("looking through the backup"):
        restored = server.restore(config, Path(args.file).expanduser())
    return admin.show_restored(restored, config.data)
