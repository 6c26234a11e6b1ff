"""``kotak user``: accounts, through whatever carries out the administrator's commands.

Results go to stdout, everything else to stderr. No password is ever taken from the command line,
where every user of the machine could read it.
"""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import getpass
import json
import os
import sys
import time
from argparse import Namespace
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final, Protocol

from broker.accounts_file import Account, Parsed, parse
from broker.exits import Exit, ExitError
from broker.wire.errors import Code, WireError
from broker.wire.keyfile import KEY_TEXT_BYTES_MAX, is_key, parse_keys

#: Problems of one import file that are shown; the rest are counted.
_PROBLEMS_SHOWN_MAX: Final = 20
#: A progress bar for a short wait is a flicker.
_PROGRESS_AFTER_S: Final = 2.0
#: How often a broker that is busy hashing passwords is asked again, and for how long at most.
_BUSY_TRIES_MAX: Final = 100
_BUSY_WAIT_MS_MAX: Final = 1_000


class Admin(Protocol):
    """Carries out the administrator's commands, ``user_...`` and ``key_...``.

    Raises `WireError` with the codes of PROTOCOL, "Commands".
    """

    def request(self, command: str, args: Mapping[str, Any]) -> dict[str, Any]: ...


def add(admin: Admin, args: Namespace) -> int:
    """Make one account. ``args``: user, name (or None), and where the password comes from."""
    fields = {"user": args.user, "password": _new_password(args)}
    if args.name is not None:
        fields["name"] = args.name
    made = admin.request("user_add", fields)
    print(f"added {_plain(made.get('user', args.user))}")
    return Exit.OK


def passwd(admin: Admin, args: Namespace) -> int:
    """Set a user's password; all sessions of the user end."""
    admin.request("user_passwd", {"user": args.user, "password": _new_password(args)})
    print(f"changed the password of {_plain(args.user)}; its sessions have ended")
    return Exit.OK


def remove(admin: Admin, args: Namespace) -> int:
    """Remove a user and its mailbox, after a question where there is somebody to ask."""
    user = _plain(args.user)
    if not args.yes:
        if not sys.stdin.isatty():
            raise ExitError(Exit.USAGE, f"removing {user} deletes its messages: say --yes")
        question = f"Remove {user} and every message in its mailbox? [y/N] "
        if _ask(question).strip().lower() not in ("y", "yes"):
            raise ExitError(Exit.REFUSED, "nothing was removed")
    admin.request("user_remove", {"user": args.user})
    print(f"removed {user}")
    return Exit.OK


def show(admin: Admin, args: Namespace) -> int:
    """List all users: a table, JSON, or tab-separated where stdout is no terminal."""
    if args.json:
        print(json.dumps(list(_users(admin))))
    elif sys.stdout.isatty():
        _print_table(list(_users(admin)))
    else:
        for user in _users(admin):
            print(f"{_plain(user['user'])}\t{_plain(user.get('name', ''))}")
    return Exit.OK


def _users(admin: Admin) -> Iterator[dict[str, Any]]:
    args: dict[str, str] = {}
    while True:
        page = admin.request("user_list", args)
        yield from page["users"]
        if not page["more"] or not page["users"]:
            return
        args = {"after": page["users"][-1]["user"]}


def _print_table(users: Sequence[Mapping[str, Any]]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD)
    for heading in ("User", "Name"):
        table.add_column(heading, overflow="fold")
    for user in users:
        table.add_row(Text(_plain(user["user"])), Text(_plain(user.get("name", ""))))
    console = Console()
    console.print(table if users else "No users yet: kotak user add NAME makes one.")


# --- Import ----------------------------------------------------------------------------------


def import_file(admin: Admin, args: Namespace) -> int:
    """Make the accounts of a file (``-``: stdin), or none where a line of it is wrong.

    Users that exist already are reported and skipped, so an import that broke off is run again.
    """
    accounts = _checked(args.file)
    added = 0
    existing: list[str] = []
    with _progress(len(accounts)) as advance:
        for account in accounts:
            try:
                _add_patiently(admin, account)
                added += 1
            except WireError as error:
                if error.code != Code.USER_EXISTS:
                    _note(f"line {account.line}: {error.message}")
                    _note(f"added {added} users before that; run it again for the rest")
                    return Exit.REFUSED
                existing.append(account.args["user"])
            advance()
    for user in existing:
        _note(f"{_plain(user)} exists already; left as it is")
    print(f"added {added}, existed already {len(existing)}, of {len(accounts)}")
    return Exit.OK


def _checked(path: str) -> list[Account]:
    if path == "-":
        accounts, problems = parse(sys.stdin.buffer)
    else:
        accounts, problems = _parse_file(Path(path))
    for problem in problems[:_PROBLEMS_SHOWN_MAX]:
        _note(problem)
    if len(problems) > _PROBLEMS_SHOWN_MAX:
        _note(f"... and {len(problems) - _PROBLEMS_SHOWN_MAX} more")
    if problems:
        raise ExitError(Exit.USAGE, f"{len(problems)} bad lines: no user was added")
    return accounts


def _parse_file(path: Path) -> Parsed:
    stream: BinaryIO
    try:
        with path.open("rb") as stream:
            return parse(stream)
    except OSError as error:
        raise ExitError(Exit.USAGE, f"cannot read {path}: {error.strerror}") from None


def _add_patiently(admin: Admin, account: Account) -> None:
    """Hashing is slow on purpose and others log in meanwhile: ask again when the broker says so."""
    for _ in range(_BUSY_TRIES_MAX):
        try:
            admin.request("user_add", account.args)
        except WireError as error:
            if error.code != Code.BUSY:
                raise
            time.sleep(min(error.retry_after_ms or 0, _BUSY_WAIT_MS_MAX) / 1_000)
        else:
            return
    admin.request("user_add", account.args)


@contextmanager
def _progress(total: int) -> Iterator[Any]:
    """Yield what to call after each account; a bar appears on a terminal once it takes long."""
    from rich.console import Console
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    bar = Progress(
        *Progress.get_default_columns()[:2],
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
        transient=True,
        disable=not sys.stderr.isatty(),
    )
    task = bar.add_task("Adding users", total=total)
    began = time.monotonic()

    def advance() -> None:
        bar.advance(task)
        if not bar.live.is_started and time.monotonic() - began > _PROGRESS_AFTER_S:
            bar.start()

    try:
        yield advance
    finally:
        bar.stop()


# --- Keys ------------------------------------------------------------------------------------


def key(admin: Admin, args: Namespace) -> int:
    """Carry out ``args.key_command`` for ``args.user``, and ``args.key`` where that needs one."""
    if args.key_command == "list":
        for each in admin.request("key_list", {"user": args.user})["keys"]:
            print(_plain(each))
        return Exit.OK
    public, user = _public_key(args.key), _plain(args.user)
    admin.request(f"key_{args.key_command}", {"user": args.user, "key": public})
    if args.key_command == "add":
        print(f"{public} logs {user} in")
    else:
        print(f"{public} logs {user} in no more; its sessions have ended")
    return Exit.OK


def _public_key(given: str) -> str:
    """Return the public key, or that of a file, which may hold the secret one too.

    Errors: `ExitError`.
    """
    if is_key(given):
        return given
    path = Path(given).expanduser()
    try:
        with path.open("rb") as file:
            found = parse_keys(file.read(KEY_TEXT_BYTES_MAX).decode()).public
    except OSError as error:
        raise ExitError(
            Exit.USAGE, f"{path} is no key, nor a file that can be read: {error.strerror}"
        ) from None
    except ValueError:
        found = None
    if found is None:
        raise ExitError(Exit.USAGE, f"{path} holds no public key: 'kotak keygen' makes them")
    return found


# --- People ----------------------------------------------------------------------------------


def _new_password(args: Namespace) -> str:
    """Return the password from stdin's first line, an environment variable, or a person, twice."""
    if args.password_env is not None:
        password = os.environ.get(args.password_env, "")
        where = f"the variable {args.password_env}"
    elif args.password_stdin:
        password = _first_line(sys.stdin.buffer)
        where = "stdin"
    elif sys.stdin.isatty():
        password = _ask_password(f"New password for {_plain(args.user)}: ")
        where = "the answer"
        if password and password != _ask_password("The same again: "):
            raise ExitError(Exit.USAGE, "the two passwords differ: nothing was changed")
    else:
        raise ExitError(
            Exit.USAGE,
            "no terminal to ask for the password: use --password-stdin or --password-env",
        )
    if not password:
        raise ExitError(Exit.USAGE, f"{where} holds no password")
    return password


def _first_line(stream: BinaryIO) -> str:
    line = stream.readline(65_536)
    try:
        return line.removesuffix(b"\n").removesuffix(b"\r").decode()
    except UnicodeDecodeError:
        raise ExitError(Exit.USAGE, "the password on stdin is not UTF-8") from None


def _ask_password(prompt: str) -> str:
    try:
        return getpass.getpass(prompt)
    except EOFError:
        raise ExitError(Exit.USAGE, "no password was given") from None


def _ask(question: str) -> str:
    print(question, end="", file=sys.stderr, flush=True)
    return sys.stdin.readline()


def _note(sentence: str) -> None:
    print(f"kotak: {sentence}", file=sys.stderr)


def _plain(text: str) -> str:
    """Show what would move the cursor or hide as an escape: names are what others chose."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
