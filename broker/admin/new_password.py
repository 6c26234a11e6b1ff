"""Where a new password comes from: never from the command line, where others could read it."""

from __future__ import annotations

import getpass
import os
import sys
from argparse import Namespace
from typing import BinaryIO

from broker.admin.printing import plain
from broker.exits import Exit, ExitError


def new_password(args: Namespace) -> str:
    """Return the password from stdin's first line, an environment variable, or a person, twice."""
    if args.password_env is not None:
        password = os.environ.get(args.password_env, "")
        where = f"the variable {args.password_env}"
    elif args.password_stdin:
        password = _first_line(sys.stdin.buffer)
        where = "stdin"
    elif sys.stdin.isatty():
        password = _ask_password(f"New password for {plain(args.user)}: ")
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
