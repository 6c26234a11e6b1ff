"""The file that ``kotak user import`` reads: one account a line, checked before any is made.

``user:password``, ``user:password:display name`` or ``user:$argon2id$...:display name``. Fields
are parted by the first two colons: a password has none, a display name may. A line that is blank
or begins with ``#`` is skipped; a ``#`` further on belongs to its field. Blanks count, except those
around a user name. UTF-8, with or without a byte order mark.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import BinaryIO, Final, NamedTuple

from argon2 import extract_parameters
from argon2.exceptions import InvalidHashError

from broker.wire.commands import PARSERS
from broker.wire.errors import WireError

#: About a million accounts, in memory at once.
FILE_BYTES_MAX: Final = 64 * 1_048_576
_HASH_PREFIX: Final = "$argon2"


class Account(NamedTuple):
    """One good line: its number, and the arguments for ``user_add`` (PROTOCOL, "Commands")."""

    line: int
    args: Mapping[str, str]


class Parsed(NamedTuple):
    """What a file holds; ``problems`` are sentences with line numbers that quote no password."""

    accounts: list[Account]
    problems: list[str]


def parse(stream: BinaryIO) -> Parsed:
    """Check a whole file. Import only when there are no problems. Errors: OSError of the stream."""
    content = stream.read(FILE_BYTES_MAX + 1)
    if len(content) > FILE_BYTES_MAX:
        return Parsed([], [f"the file is over {FILE_BYTES_MAX // 1_048_576} MiB: split it"])
    accounts: list[Account] = []
    problems: list[str] = []
    first_line: dict[str, int] = {}
    for number, raw in enumerate(content.removeprefix(b"\xef\xbb\xbf").split(b"\n"), start=1):
        try:
            args = _parse_line(raw.removesuffix(b"\r"))
        except _BadLineError as error:
            problems.append(f"line {number}: {error}")
            continue
        if args is None:
            continue
        earlier = first_line.setdefault(args["user"], number)
        if earlier == number:
            accounts.append(Account(number, args))
        else:
            problems.append(f"line {number}: {args['user']} stands in line {earlier} already")
    return Parsed(accounts, problems)


class _BadLineError(Exception):
    pass


def _parse_line(raw: bytes) -> dict[str, str] | None:
    try:
        line = raw.decode()
    except UnicodeDecodeError:
        raise _BadLineError("not UTF-8") from None
    if not line.strip() or line.lstrip().startswith("#"):
        return None
    user, colon, rest = line.partition(":")
    if not colon:
        raise _BadLineError("no colon; a line is user:password or user:password:display name")
    secret, _, name = rest.partition(":")
    args = {"user": user.strip(), _secret_field(secret): secret}
    if name.strip():
        args["name"] = name.strip()
    try:
        PARSERS["user_add"](args)
    except WireError as error:
        raise _BadLineError(error.message) from None
    return args


def _secret_field(secret: str) -> str:
    if not secret.startswith(_HASH_PREFIX):
        return "password"
    try:
        extract_parameters(secret)
    except (InvalidHashError, ValueError):
        raise _BadLineError("the argon2 hash is incomplete") from None
    return "password_hash"
