"""The state of the broker and its sessions: ``session_...``, ``mailbox_...``, ``broker_...``.

Source: docs/PROTOCOL.md, "Commands".
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

from broker.wire.commands.fields import Fields, boolean, name_of, only, refuse
from broker.wire.limits import BACKUP_NAME_CHARS_MAX, SESSION_ID_CHARS, USER_CHARS_MAX

_SESSION: Final = re.compile(r"[0-9a-f]*")
_BACKUP: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")


class SessionArgs(NamedTuple):
    """``session_revoke``: whose, and which, as ``session_list`` names it."""

    user: str
    session: str

    @classmethod
    def parse(cls, fields: Fields) -> SessionArgs:
        only(fields, "user", "session")
        user = name_of(fields, "user", USER_CHARS_MAX)
        session: str = name_of(fields, "session", SESSION_ID_CHARS)
        if len(session) != SESSION_ID_CHARS or not _SESSION.fullmatch(session):
            raise refuse(f"'session' must be {SESSION_ID_CHARS} hexadecimal digits: list them")
        return cls(user, session)


class DrainArgs(NamedTuple):
    """``broker_drain``: whether to take nothing new."""

    on: bool

    @classmethod
    def parse(cls, fields: Fields) -> DrainArgs:
        only(fields, "on")
        if "on" not in fields:
            raise refuse("'on' is missing")
        return cls(boolean(fields, "on"))


class BackupArgs(NamedTuple):
    """``broker_backup``: what to call it (None: by the time)."""

    name: str | None

    @classmethod
    def parse(cls, fields: Fields) -> BackupArgs:
        only(fields, "name")
        name: str | None = name_of(fields, "name", BACKUP_NAME_CHARS_MAX, None)
        if name is not None and not _BACKUP.fullmatch(name):
            raise refuse(
                "a backup's name has letters, digits, '.', '_' and '-', a letter or digit first"
            )
        return cls(name)
