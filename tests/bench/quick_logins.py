"""``kotak`` with password hashing that costs nothing, for trials with thousands of logins.

    python -m tests.bench.quick_logins serve ...

Everything else is the broker's own: what a message costs knows nothing of passwords.
"""

from __future__ import annotations

import sys

from broker import cli, passwords

#: Passes, memory in KiB, lanes: the least that argon2 takes.
_LEAST = (1, 8, 1)


def main() -> int:
    """Run one command line of the broker."""
    for name in ("_SMALL", "_LARGE"):
        assert hasattr(passwords, name), "the passwords' parameters have other names now"
        setattr(passwords, name, _LEAST)
    return cli.main()


if __name__ == "__main__":
    sys.exit(main())
