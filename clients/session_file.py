"""The session kept between two calls of the command line: one small JSON file, its owner's alone.

Whoever reads the file can act as its user, so it is written with mode 0600 and refused when others
can read it. The token stands here and nowhere else; no error text quotes what the file holds.
"""

from __future__ import annotations

import contextlib
import json
import os
import stat
import tempfile
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final

from clients.errors import BadRequest
from clients.fleet import parse_addresses

#: A session has seven short fields; a larger file is some other file.
SESSION_BYTES_MAX: Final = 16_384
_OTHERS: Final = stat.S_IRWXG | stat.S_IRWXO


class SessionFileError(Exception):
    """The session file cannot be used; the text says which file, why, and what to do."""


@dataclass(frozen=True, kw_only=True)
class SavedSession:
    """One login: at which broker, as whom, and until when (``expires_at_ms``, Unix epoch).

    ``address``: several brokers with commas between; the token is good with each of them.
    ``device``: which of the user's readers it is; empty: the one that all without a device share.
    ``curve``: how the way there is encrypted, as `clients.curve_keys.read_curve` takes it; empty:
    it is not.
    """

    address: str
    user: str
    name: str
    token: str = field(repr=False)
    expires_at_ms: int
    device: str = ""
    curve: str = ""


def session_path(environ: Mapping[str, str], chosen: str | None = None) -> Path:
    """Say where the session is kept.

    ``chosen``, else ``$KOTAK_SESSION_FILE``, else ``$XDG_STATE_HOME/kotak/session.json``, else
    ``~/.local/state/kotak/session.json``.
    """
    explicit = chosen or environ.get("KOTAK_SESSION_FILE")
    if explicit:
        return Path(explicit).expanduser()
    state = environ.get("XDG_STATE_HOME")
    # The XDG specification: a relative path is to be ignored.
    folder = Path(state) if state and Path(state).is_absolute() else Path("~/.local/state")
    return folder.expanduser() / "kotak" / "session.json"


def read_session(path: Path) -> SavedSession | None:
    """Read the saved session; None where there is none.

    Errors: `SessionFileError` when the file is not ours alone, cannot be read, or holds no session.
    """
    try:
        # O_NONBLOCK: a pipe of that name must not hang us before it is refused.
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise SessionFileError(f"cannot read the session file {path}: {error.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        _require_private(path, os.fstat(descriptor))
        content = file.read(SESSION_BYTES_MAX + 1)
    session = _parse(content)
    if session is None:
        raise SessionFileError(f"{path} is not a Kotak session: delete it and log in again")
    return session


def write_session(path: Path, session: SavedSession) -> None:
    """Replace the saved session in one step: a reader sees the old one or the new one, whole.

    Errors: `SessionFileError` when the folder cannot be made or written.
    """
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        descriptor, temporary = tempfile.mkstemp(dir=path.parent, prefix=".session-")  # 0600
        try:
            with os.fdopen(descriptor, "w", encoding="utf-8") as file:
                json.dump(asdict(session), file, indent=2)
                file.write("\n")
                file.flush()
                os.fsync(descriptor)
            Path(temporary).replace(path)
        except BaseException:
            with contextlib.suppress(FileNotFoundError):
                Path(temporary).unlink()
            raise
    except OSError as error:
        raise SessionFileError(f"cannot write the session file {path}: {error.strerror}") from None


def delete_session(path: Path) -> None:
    """Forget the session; nothing happens where there is none. Errors: `SessionFileError`."""
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise SessionFileError(f"cannot delete the session file {path}: {error.strerror}") from None


def _require_private(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise SessionFileError(f"{path} is not a plain file: choose another with --session FILE")
    if status.st_uid != os.geteuid():
        raise SessionFileError(
            f"the session file {path} belongs to another user: choose another with --session FILE"
        )
    if status.st_mode & _OTHERS:
        raise SessionFileError(
            f"others may read or change the session file {path}: "
            f"run 'chmod 600 {path}', or log in again"
        )


def _parse(content: bytes) -> SavedSession | None:
    """Return what the file holds, None where that is no session. Unknown fields are left alone."""
    if len(content) > SESSION_BYTES_MAX:
        return None
    try:
        fields: Any = json.loads(content)
    except (ValueError, RecursionError):
        return None
    if not isinstance(fields, dict):
        return None
    fields = {"device": "", "curve": "", **fields}  # earlier sessions have none
    texts = ("address", "user", "name", "token", "device", "curve")
    if (
        not all(isinstance(fields.get(key), str) for key in texts)
        or type(fields.get("expires_at_ms")) is not int
    ):
        return None
    try:
        parse_addresses(fields["address"])
    except BadRequest:
        return None
    return SavedSession(
        **{key: fields[key] for key in texts}, expires_at_ms=fields["expires_at_ms"]
    )
