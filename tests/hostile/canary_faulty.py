"""A broker with faults that quote what they were given, as a careless library would.

Hashing fails with the password in its text, and so does a message whose text begins with `FAULT`:
what the broker's log tells of that is what the canaries are looked for in.
"""

from __future__ import annotations

import sys
from collections.abc import MutableMapping
from dataclasses import replace
from typing import Any, Final, cast

from broker.cli import main
from broker.core.handlers import table
from broker.passwords import Argon2Hasher

FAULT: Final = "fault "


def _failing(method: Any) -> Any:
    def fail_or_hash(hasher: object, *given: str) -> Any:
        # The broker's own first hash is let through: every canary has an accent.
        if not all(text.isascii() for text in given):
            raise RuntimeError(f"cannot work on {given!r}")
        return method(hasher, *given)

    return fail_or_hash


def _quoting(handle: Any) -> Any:
    def handle_or_fail(context: Any, args: Any) -> Any:
        if args.text.startswith(FAULT):
            raise ValueError(f"{args!r} in {context!r}")
        return handle(context, args)

    return handle_or_fail


def break_it() -> None:
    """Put the faults in."""
    for name in ("hash", "verify"):
        setattr(Argon2Hasher, name, _failing(getattr(Argon2Hasher, name)))
    commands = cast("MutableMapping[str, table.CommandSpec]", table.COMMANDS)
    for name in ("chat", "send"):
        commands[name] = replace(commands[name], handle=_quoting(commands[name].handle))


if __name__ == "__main__":
    break_it()
    sys.exit(main())
