"""Where a password may come from: a hidden prompt, a pipe, a variable; never an argument.

Arguments stand in the process list and in the shell's history, where others read them.
"""

from __future__ import annotations

import argparse
import getpass
import os
import warnings
from typing import Final

from broker.wire.limits import PASSWORD_BYTES_MAX

#: A line end of two bytes, and one byte more that shows that a password is too long.
_LINE_BYTES_MAX: Final = PASSWORD_BYTES_MAX + 3


class PasswordInputError(Exception):
    """No password could be had; the text says why and what to do."""


def add_password_options(parser: argparse.ArgumentParser, prefix: str = "") -> None:
    """Add ``--password-stdin``, ``--password-fd``, ``--password-env`` (``--new-...``: a prefix)."""
    what = "new password" if prefix else "password"
    sources = parser.add_mutually_exclusive_group()
    sources.add_argument(
        f"--{prefix}password-stdin",
        dest=f"{prefix}password_fd".replace("-", "_"),
        action="store_const",
        const=0,
        help=f"read the {what} from standard input, up to the end of the line",
    )
    sources.add_argument(
        f"--{prefix}password-fd",
        metavar="N",
        type=int,
        help="the same from descriptor N",
    )
    sources.add_argument(
        f"--{prefix}password-env",
        metavar="NAME",
        help=f"read the {what} from the environment variable NAME",
    )


def read_password(
    prompt: str,
    *,
    descriptor: int | None,
    variable: str | None,
    what: str = "password",
    twice: bool = False,
) -> str:
    """Return a password of 1 to ``PASSWORD_BYTES_MAX`` bytes of UTF-8.

    ``twice`` asks a person to repeat it; ``what`` is its name in errors.

    Errors: `PasswordInputError`.
    """
    if descriptor is not None:
        password = _from_descriptor(descriptor)
    elif variable is not None:
        password = os.environ.get(variable, "")
    else:
        password = _from_terminal(prompt)
        if twice and _from_terminal(f"{prompt}(again) ") != password:
            raise PasswordInputError("the two passwords differ: nothing was changed, try again")
    return _checked(password, what)


def _checked(password: str, what: str) -> str:
    if not password:
        raise PasswordInputError(f"the {what} is empty")
    try:
        length_bytes = len(password.encode())
    except UnicodeEncodeError:
        raise PasswordInputError(f"the {what} is not valid UTF-8") from None
    if length_bytes > PASSWORD_BYTES_MAX:
        raise PasswordInputError(f"a password may have {PASSWORD_BYTES_MAX} bytes at most")
    return password


def _from_descriptor(descriptor: int) -> str:
    """Read one line byte by byte: the next line of the same pipe may be the next password."""
    line = b""
    try:
        while not line.endswith(b"\n") and len(line) < _LINE_BYTES_MAX:
            byte = os.read(descriptor, 1)
            if not byte:
                break
            line += byte
    except OSError as error:
        raise PasswordInputError(
            f"cannot read a password from descriptor {descriptor}: {error.strerror}"
        ) from None
    # Bytes that are no UTF-8 become lone surrogates, which `_checked` refuses.
    return line.removesuffix(b"\n").removesuffix(b"\r").decode(errors="surrogateescape")


def _from_terminal(prompt: str) -> str:
    with warnings.catch_warnings():
        # getpass would rather show the password than fail; we would rather fail.
        warnings.simplefilter("error", getpass.GetPassWarning)
        try:
            return getpass.getpass(prompt)
        except (getpass.GetPassWarning, EOFError):
            raise PasswordInputError(
                "no terminal to ask for the password: use --password-stdin or --password-env NAME"
            ) from None
