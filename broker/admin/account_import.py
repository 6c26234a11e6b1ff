"""``kotak user import``: many accounts from a file."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

import sys
import time
from argparse import Namespace
from pathlib import Path
from typing import BinaryIO, Final

from broker.accounts_file import Account, Parsed, parse
from broker.admin.administrator import Admin
from broker.admin.printing import late_bar, note, plain
from broker.exits import Exit, ExitError
from broker.wire.errors import Code, WireError

#: Problems of one import file that are shown; the rest are counted.
_PROBLEMS_SHOWN_MAX: Final = 20
#: How often a broker that is busy hashing passwords is asked again, and for how long at most.
_BUSY_TRIES_MAX: Final = 100
_BUSY_WAIT_MS_MAX: Final = 1_000


def import_file(admin: Admin, args: Namespace) -> int:
    """Make the accounts of a file (``-``: stdin), or none where a line of it is wrong.

    Users that exist already are reported and skipped, so an import that broke off is run again.
    """
    accounts = _checked(args.file)
    added = 0
    existing: list[str] = []
    with late_bar() as tell:
        for done, account in enumerate(accounts, start=1):
            try:
                _add_patiently(admin, account)
                added += 1
            except WireError as error:
                if error.code != Code.USER_EXISTS:
                    note(f"line {account.line}: {error.message}")
                    note(f"added {added} users before that; run it again for the rest")
                    return Exit.REFUSED
                existing.append(account.args["user"])
            tell("Adding users", len(accounts), done)
    for user in existing:
        note(f"{plain(user)} exists already; left as it is")
    print(f"added {added}, existed already {len(existing)}, of {len(accounts)}")
    return Exit.OK


def _checked(path: str) -> list[Account]:
    if path == "-":
        accounts, problems = parse(sys.stdin.buffer)
    else:
        accounts, problems = _parse_file(Path(path))
    for problem in problems[:_PROBLEMS_SHOWN_MAX]:
        note(problem)
    if len(problems) > _PROBLEMS_SHOWN_MAX:
        note(f"... and {len(problems) - _PROBLEMS_SHOWN_MAX} more")
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
