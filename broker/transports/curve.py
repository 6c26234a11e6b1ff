"""CURVE keys of the broker: made, kept in files of their own, and whose are admitted.

Keys are 40 characters of Z85 in files and options, and 32 bytes in what libzmq asks the ZAP handler
(`broker.transports.zap`). Source: docs/SECURITY.md, "Encryption"; ZeroMQ RFC 25, 26 and 32.
"""

from __future__ import annotations

import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Self

import zmq
from zmq.utils import z85

from broker.transports.private_file import SecretFileError, read_public, read_secret
from broker.wire.keyfile import (
    KEY_TEXT_BYTES_MAX,
    KeyFile,
    format_keys,
    parse_keys,
    parse_public_keys,
)

#: What the public half of a key file is called, behind the file's own name.
PUBLIC_SUFFIX: Final = ".pub"
#: Files that a folder of enrolled keys may hold.
_FILES_MAX: Final = 100_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A public key and its secret one, each as 40 characters of Z85."""

    public: str
    secret: str = field(repr=False)

    @classmethod
    def make(cls) -> Self:
        """Return a new pair; its public key does not begin as an option does."""
        while True:
            public, secret = zmq.curve_keypair()
            if not public.startswith(b"-"):
                return cls(public=public.decode(), secret=secret.decode())

    @property
    def public_bytes(self) -> bytes:
        """The public key's 32 bytes, as a ZAP request has them."""
        return raw(self.public)


def raw(key: str) -> bytes:
    """Return a key's 32 bytes."""
    return bytes(z85.decode(key))


def read_pair(path: Path) -> Pair:
    """Read the broker's own pair. Errors: `SecretFileError` (also where others may read it)."""
    content = read_secret(path, bytes_max=KEY_TEXT_BYTES_MAX)
    try:
        keys = parse_keys(content.decode())
    except ValueError:
        raise _no_keys(path) from None
    if keys.secret is None:
        raise SecretFileError(
            f"{path} holds no secret key: give the file that has no {PUBLIC_SUFFIX}"
        )
    # libzmq derives nothing by itself, and a pair that does not match refuses every client.
    public = zmq.curve_public(keys.secret.encode()).decode()
    if keys.public not in (None, public):
        raise SecretFileError(
            f"the two keys in {path} are not a pair: make one with 'kotak keygen'"
        )
    return Pair(public=public, secret=keys.secret)


def write_pair(path: Path, pair: Pair, *, server: str | None = None) -> Path:
    """Write a new key file (mode 0600), and its public half beside it; return the latter's path.

    ``server`` is the public key of the broker that the pair is for. A file that exists is left
    alone. Errors: `SecretFileError`.
    """
    public_path = path.with_name(path.name + PUBLIC_SUFFIX)
    secret = KeyFile(public=pair.public, secret=pair.secret, server=server)
    _write(path, 0o600, format_keys(secret, comment="A Kotak key. Keep it secret."))
    public = format_keys(KeyFile(public=pair.public), comment="The public half of a Kotak key.")
    try:
        _write(public_path, 0o644, public)
    except SecretFileError:
        path.unlink(missing_ok=True)
        raise
    return public_path


def read_public_keys(path: Path) -> frozenset[bytes]:
    """Return the keys (32 bytes each) in a file, or in the ``.pub`` files of a folder.

    A file is a key file's public half, or a list with a key a line. All or nothing: one file that
    cannot be read refuses them all. Errors: `SecretFileError`.
    """
    files = _public_halves(path) if path.is_dir() else [path]
    if len(files) > _FILES_MAX:
        raise SecretFileError(f"{path} holds more than {_FILES_MAX} keys")
    return frozenset(raw(key) for file in files for key in _public_keys(file))


class Enrolment:
    """Whose keys are admitted: those under ``path``, or anybody's; and always the ``own`` ones.

    `admits` may be asked from any thread; `reload` takes effect for the next connection.
    Errors: `SecretFileError`.
    """

    def __init__(self, path: Path | None, *, own: bytes) -> None:
        self._path = path
        self._own = own
        self._keys: frozenset[bytes] = frozenset()
        self.reload()

    @property
    def anybody(self) -> bool:
        return self._path is None

    @property
    def count(self) -> int:
        """How many keys are enrolled; the broker's own is none of them."""
        return len(self._keys)

    def admits(self, key: bytes) -> bool:
        """Tell whether a client with this public key, which it has proved to be its own, may in."""
        return self._path is None or key in self._keys or key == self._own

    def reload(self) -> None:
        """Read the keys again; where that fails, the former ones stand. Errors: as the class."""
        if self._path is not None:
            self._keys = read_public_keys(self._path)


def _public_halves(folder: Path) -> list[Path]:
    try:
        # Not glob(): to that a folder that we may not look into is an empty one.
        return [file for file in sorted(folder.iterdir()) if file.name.endswith(PUBLIC_SUFFIX)]
    except OSError as error:
        raise SecretFileError(f"cannot read {folder}: {error.strerror}") from None


def _public_keys(path: Path) -> list[str]:
    content = read_public(path, bytes_max=KEY_TEXT_BYTES_MAX)
    try:
        return parse_public_keys(content.decode())
    except ValueError:
        raise _no_keys(path) from None


def _no_keys(path: Path) -> SecretFileError:
    return SecretFileError(f"{path} is no key file: 'kotak keygen' makes them")


def _write(path: Path, mode: int, text: str) -> None:
    try:
        with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
    except FileExistsError:
        raise SecretFileError(f"{path} exists already: it is left as it is") from None
    except OSError as error:
        with suppress(OSError):  # no file, or no such place
            path.unlink()
        raise SecretFileError(f"cannot write {path}: {error.strerror}") from None
