"""``kotak user key``: keys that log a user in."""

# ruff: noqa: T201 - what a command prints is its result

from __future__ import annotations

from argparse import Namespace
from pathlib import Path

from broker.admin.administrator import Admin
from broker.admin.printing import plain
from broker.exits import Exit, ExitError
from broker.wire.keyfile import KEY_TEXT_BYTES_MAX, is_key, parse_keys


def key(admin: Admin, args: Namespace) -> int:
    """Carry out ``args.key_command`` for ``args.user``, and ``args.key`` where that needs one."""
    if args.key_command == "list":
        for each in admin.request("key_list", {"user": args.user})["keys"]:
            print(plain(each))
        return Exit.OK
    public, user = _public_key(args.key), plain(args.user)
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
