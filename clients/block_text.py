"""What is said of users from whom one takes no messages. Source: docs/PROTOCOL.md, "block"."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from clients.display import safe_line

NOBODY_BLOCKED: Final = "nobody is blocked"


def blocked_text(user: str) -> str:
    return safe_line(f"{user}'s messages are refused from now on; those that wait stay")


def unblocked_text(user: str) -> str:
    # True as well where the user was not blocked: the broker does not tell these apart.
    return safe_line(f"{user}'s messages are taken")


def blocks_text(users: Sequence[str]) -> str:
    """Return who is blocked, in one line."""
    return "blocked: " + ", ".join(map(safe_line, users)) if users else NOBODY_BLOCKED
