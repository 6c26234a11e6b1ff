"""The audit: one line of JSON for each action of an administrator, and for who came and went.

It holds names, addresses and outcomes, and no password, token or message. Its files are bounded:
above ``FILE_BYTES_MAX`` a new one is begun, and the oldest goes. A line that cannot be written is
counted; nothing waits for the disk. Source: docs/SECURITY.md, "The audit".
"""

from __future__ import annotations

import json
import logging
import os
from datetime import UTC, datetime
from io import TextIOWrapper
from logging.handlers import RotatingFileHandler
from pathlib import Path
from typing import Final

from broker.core.model import AuditEntry

log = logging.getLogger("kotak.audit")

#: Of one file: some fifty thousand lines.
FILE_BYTES_MAX: Final = 10_485_760
#: Files behind the one that is written: someone who tries passwords cannot fill the disk.
OLD_FILES_MAX: Final = 9
#: Its owner's alone, as everything that tells who talks here.
_MODE: Final = 0o600


class AuditLog:
    """Appends to ``path``; the ones before are ``path.1`` and so on. One caller at a time."""

    def __init__(self, path: Path, *, bytes_max: int = FILE_BYTES_MAX) -> None:
        self._file = _PrivateFile(path, bytes_max)

    @property
    def dropped(self) -> int:
        """Count the lines that could not be written."""
        return self._file.dropped

    def note(self, entry: AuditEntry) -> None:
        """Write one entry down."""
        at = datetime.fromtimestamp(entry.at_ms / 1_000, UTC)
        line = json.dumps(
            {
                "at": at.isoformat(timespec="milliseconds").replace("+00:00", "Z"),
                "command": entry.command,
                "by": entry.by,
                "from": entry.address,
                "request": entry.request_id,
                "args": entry.args,
                "outcome": entry.outcome,
            }
        )
        self._file.handle(logging.makeLogRecord({"msg": "%s", "args": (line,)}))

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()


class _PrivateFile(RotatingFileHandler):
    """The standard rotation, with files that nobody else may read, and faults that are counted."""

    def __init__(self, path: Path, bytes_max: int) -> None:
        self.dropped = 0
        super().__init__(
            path, maxBytes=bytes_max, backupCount=OLD_FILES_MAX, encoding="ascii", delay=True
        )

    def _open(self) -> TextIOWrapper:
        handle = os.open(self.baseFilename, os.O_WRONLY | os.O_CREAT | os.O_APPEND, _MODE)
        return os.fdopen(handle, "a", encoding="ascii")

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: ARG002, N802 - as logging has it
        """Count, and say so once: whoever reads the audit must know that there are gaps."""
        self.dropped += 1
        if self.dropped == 1:
            log.error("the audit has gaps: %s cannot be written", Path(self.baseFilename).name)
