"""What an account may do. Source: docs/PROTOCOL.md, "Roles"."""

from __future__ import annotations

from enum import StrEnum


class Role(StrEnum):
    """The role of an account; each has a mailbox."""

    USER = "user"
    #: May do what the administrator may, through any connection.
    ADMIN = "admin"
    #: Reads: its own mailbox, and how the broker stands. Writes to nobody.
    OBSERVER = "observer"
