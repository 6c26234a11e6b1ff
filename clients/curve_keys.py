"""The keys that a client encrypts its connection with, and where they are read from.

One value says it all (`read_curve`): the broker's public key itself, the file that it stands in, or
a key file of the client's own that names the broker's key too (``kotak keygen FILE --broker KEY``).
Without a pair of its own a client makes one for the occasion: enough for a broker that asks for
passwords, not for one that admits enrolled keys only. Source: docs/SECURITY.md, "Encryption".
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

import zmq

from broker.wire.keyfile import KEY_TEXT_BYTES_MAX, KeyFile, is_key, parse_keys

_OTHERS = stat.S_IRWXG | stat.S_IRWXO


class CurveKeyError(Exception):
    """The keys cannot be used; the sentence says which file, why, and what to do. Quotes none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Curve:
    """The broker's public key and the client's pair, each as 40 characters of Z85.

    ``lasting``: the pair is kept, so that the broker may know whose it is.
    """

    server: str
    public: str
    secret: str = field(repr=False)
    lasting: bool = field(default=False, compare=False)

    @classmethod
    def to(cls, server: str) -> Self:
        """Return keys for a broker that admits any client which knows its public key."""
        public, secret = zmq.curve_keypair()
        return cls(server=server, public=public.decode(), secret=secret.decode())

    def apply(self, socket: zmq.Socket[bytes]) -> None:
        """Have a socket that is not connected yet encrypt."""
        socket.setsockopt(zmq.CURVE_SERVERKEY, self.server.encode())
        socket.setsockopt(zmq.CURVE_PUBLICKEY, self.public.encode())
        socket.setsockopt(zmq.CURVE_SECRETKEY, self.secret.encode())


def read_curve(value: str) -> Curve:
    """Return the keys that ``value`` stands for: a key, or the path of a file. See the module.

    Errors: `CurveKeyError`.
    """
    if is_key(value):
        return Curve.to(value)
    path = Path(value).expanduser()
    keys = _read(path)
    if keys.secret is None:
        if keys.server or keys.public:
            return Curve.to(keys.server or keys.public or "")
    elif keys.server is None:
        raise CurveKeyError(
            f"{path} does not name the broker's key: make one that does with "
            "'kotak keygen FILE --broker KEY', or give the broker's public key"
        )
    elif keys.public is not None:
        return Curve(server=keys.server, public=keys.public, secret=keys.secret, lasting=True)
    raise CurveKeyError(f"{path} has no public key: make it anew with 'kotak keygen'")


def _read(path: Path) -> KeyFile:
    try:
        # O_NONBLOCK: a pipe of that name must not hang us.
        with os.fdopen(os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb") as file:
            mode = os.fstat(file.fileno()).st_mode
            content = file.read(KEY_TEXT_BYTES_MAX + 1) if stat.S_ISREG(mode) else b""
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or "not a path"
        raise CurveKeyError(f"cannot read the keys in {path}: {reason}") from None
    try:
        keys = parse_keys(content[:KEY_TEXT_BYTES_MAX].decode())
    except ValueError:
        raise CurveKeyError(
            f"{path} is no key file: give the broker's public key, or a file of 'kotak keygen'"
        ) from None
    if keys.secret is not None and mode & _OTHERS:
        raise CurveKeyError(f"others may read the secret key in {path}: run 'chmod 600 {path}'")
    return keys
