"""One call of the command line: its options, its saved session, its way to the broker.

What a session was begun with is kept with it, the keys too: what follows goes to the same broker,
encrypted in the same way, until somebody says otherwise.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import re
import shlex
from typing import Final

from clients.calls import Calls, Connect, waiting_notice
from clients.curve_keys import read_curve
from clients.curve_option import chosen_curve, curve_value, kept_value
from clients.display import safe_line
from clients.errors import BadRequest
from clients.fleet import parse_addresses
from clients.password_input import read_password
from clients.session_file import SavedSession, SessionFileError, read_session, session_path

DEFAULT_ADDRESS: Final = "tcp://127.0.0.1:8890"
TIMEOUT_S_DEFAULT: Final = 30.0
_ADDRESS: Final = re.compile(r"tcp://(?:\[[\w:.%]+\]|[^\[\]:/\s@]+):(?P<port>\d{1,5})")


class UsageError(Exception):
    """The command cannot be carried out as it was given; the text says what to do."""


class NotLoggedInError(Exception):
    """There is no session at this broker (any more)."""


def broker_address(text: str, source: str = "") -> str:
    """Check a broker's address. Errors: `UsageError` naming ``source``, where that is given."""
    match = _ADDRESS.fullmatch(text)
    if match is None or not 1 <= int(match["port"]) <= 65_535:
        where = f"{source} is {text[:80]!r}: " if source else ""
        raise UsageError(f"{where}a broker's address is tcp://HOST:PORT, as {DEFAULT_ADDRESS}")
    return text


def broker_addresses(text: str, source: str = "") -> str:
    """Check the address of a broker, or several with commas between; return them without blanks.

    Errors: `UsageError`, as `broker_address`.
    """
    try:
        addresses = parse_addresses(text)
    except BadRequest as error:
        raise UsageError(f"{source}: {error.message}" if source else error.message) from None
    return ",".join(broker_address(each, source) for each in addresses)


class Invocation:
    """One call of the command line.

    Errors: `UsageError` (``KOTAK_BROKER`` holds what is no address), `CurveKeyError`.
    """

    def __init__(self, args: argparse.Namespace, connect: Connect) -> None:
        self.args = args
        self.path = session_path(os.environ, getattr(args, "session", None))
        self.timeout_ms = int(1000 * getattr(args, "timeout", TIMEOUT_S_DEFAULT))
        self.chosen: str | None = getattr(args, "broker", None) or _broker_of_environment()
        self._connect = connect
        self._device = ""
        #: Where this call goes: what was asked for, else where the session is from, else the
        #: default; several brokers with commas between.
        self.address = self.chosen or DEFAULT_ADDRESS
        self._curve_value = curve_value(args, os.environ)
        self._curve = chosen_curve(args, os.environ)

    def open(self, token: str | None = None) -> Calls:
        """Return a client. Errors: `CurveKeyError` (of the keys of the saved session)."""
        if token is None:  # a password is worth no less than a token
            self._encrypt_as_before()
        return self._connect(
            self.address, token=token, timeout_ms=self.timeout_ms, curve=self._curve
        )

    def has_key(self) -> bool:
        """Tell whether the call encrypts with a key that may log its user in. Errors: as `open`."""
        self._encrypt_as_before()
        return self._curve is not None and self._curve.lasting

    def session(self) -> SavedSession:
        """Return the saved session.

        Errors: `NotLoggedInError`, `SessionFileError`, `CurveKeyError` (of the session's keys).
        """
        saved = read_session(self.path)
        if saved is None or (self.chosen and not may_know(saved, self.chosen)):
            raise NotLoggedInError
        self.address, self._device = self.chosen or saved.address, saved.device
        self._encrypt_as(saved)
        return saved

    def _encrypt_as_before(self) -> None:
        with contextlib.suppress(SessionFileError):
            saved = read_session(self.path)
            # One of them in common: then what is said to it is said to it as before.
            if saved and _brokers(saved.address) & _brokers(self.address):
                self._encrypt_as(saved)

    def _encrypt_as(self, saved: SavedSession) -> None:
        """Use the session's keys, or its token would go to whoever is at that address, readable."""
        if self._curve_value is None and saved.curve:
            self._curve_value = saved.curve
            self._curve = read_curve(saved.curve)

    @property
    def kept_curve(self) -> str:
        """What a session is to keep of how this call encrypts."""
        return kept_value(self._curve_value)

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        return waiting_notice(self.address)

    def login_command(self, user: str = "USER") -> str:
        """Return what to type in order to log in where this call went."""
        device = f" --device {safe_line(self._device)}" if self._device else ""
        where = f" --broker {safe_line(self.address)}" if self.address != DEFAULT_ADDRESS else ""
        # Said only where it was typed: the variable and the session are still there.
        typed = getattr(self.args, "curve", None)
        keys = f" --curve {safe_line(shlex.quote(typed))}" if typed else ""
        return f"kotak login {safe_line(user)}{device}{where}{keys}"

    @property
    def password_given(self) -> bool:
        """Tell whether an option says where the password is."""
        return self.args.password_fd is not None or self.args.password_env is not None

    def password(self, prompt: str, *, prefix: str = "", twice: bool = False) -> str:
        return read_password(
            prompt,
            descriptor=getattr(self.args, f"{prefix}password_fd"),
            variable=getattr(self.args, f"{prefix}password_env"),
            what="new password" if prefix else "password",
            twice=twice,
        )


def may_know(saved: SavedSession, address: str) -> bool:
    """Tell whether a session's token may be sent to ``address``.

    It goes to the brokers that the session was begun with, to each of them alone, and to no other.
    """
    return _brokers(address) <= _brokers(saved.address)


def _brokers(address: str) -> frozenset[str]:
    return frozenset(parse_addresses(address))


def _broker_of_environment() -> str | None:
    given = os.environ.get("KOTAK_BROKER")
    return broker_addresses(given, "KOTAK_BROKER") if given else None
