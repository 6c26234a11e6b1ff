"""The one-shot commands of ``kotak``: each opens a client, does one thing, and says it in a line.

What was asked for goes to standard output, everything else to standard error. The session is kept
between two calls by `clients.session_file`; its token is never printed.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import re
import select
import sys
import uuid
from functools import partial
from typing import Final

from broker.wire.limits import TEXT_BYTES_MAX
from clients.calls import (
    MAY_BE_STORED,
    MESSAGES_PER_RUN_MAX,
    Calls,
    Connect,
    read_inbox,
    waiting_notice,
    watch_inbox,
)
from clients.display import (
    lost_text,
    message_json,
    message_text,
    person,
    presence_text,
    safe_line,
    user_json,
)
from clients.errors import ConnectionFailed, KotakError, Unauthorized
from clients.password_input import read_password
from clients.results import Inbox, Message
from clients.session_file import (
    SavedSession,
    SessionFileError,
    delete_session,
    read_session,
    session_path,
    write_session,
)

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


class Invocation:
    """One call of the command line: its options, its saved session, its way to the broker.

    Errors: `UsageError` (``KOTAK_BROKER`` is no address).
    """

    def __init__(self, args: argparse.Namespace, connect: Connect) -> None:
        self.args = args
        self.path = session_path(os.environ, getattr(args, "session", None))
        self.timeout_ms = int(1000 * getattr(args, "timeout", TIMEOUT_S_DEFAULT))
        self.chosen: str | None = getattr(args, "broker", None) or _broker_of_environment()
        self._connect = connect
        self._device = ""
        #: Where this call goes: what was asked for, else the session's broker, else the default.
        self.address = self.chosen or DEFAULT_ADDRESS

    def open(self, token: str | None = None) -> Calls:
        return self._connect(self.address, token=token, timeout_ms=self.timeout_ms)

    def session(self) -> SavedSession:
        """Return the saved session. Errors: `NotLoggedInError`, `SessionFileError`."""
        saved = read_session(self.path)
        # A token is sent to the broker that gave it and to no other.
        if saved is None or (self.chosen and saved.address != self.chosen):
            raise NotLoggedInError
        self.address, self._device = saved.address, saved.device
        return saved

    def waiting(self) -> contextlib.AbstractContextManager[None]:
        return waiting_notice(self.address)

    def login_command(self, user: str = "USER") -> str:
        """Return what to type in order to log in where this call went."""
        device = f" --device {safe_line(self._device)}" if self._device else ""
        where = f" --broker {safe_line(self.address)}" if self.address != DEFAULT_ADDRESS else ""
        return f"kotak login {safe_line(user)}{device}{where}"

    def password(self, prompt: str, *, prefix: str = "", twice: bool = False) -> str:
        return read_password(
            prompt,
            descriptor=getattr(self.args, f"{prefix}password_fd"),
            variable=getattr(self.args, f"{prefix}password_env"),
            what="new password" if prefix else "password",
            twice=twice,
        )


def _broker_of_environment() -> str | None:
    given = os.environ.get("KOTAK_BROKER")
    return broker_address(given, "KOTAK_BROKER") if given else None


def write_line(line: str) -> None:
    """Write one line of what was asked for, at once: a reader that has gone is noticed early."""
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


def note(line: str) -> None:
    """Say something beside what was asked for."""
    sys.stderr.write(f"{line}\n")


def require_reader() -> None:
    """Make sure that the pipe behind standard output, if it is one, still has its reader.

    A pipe takes what nobody will read: ``kotak inbox | head -1`` must not pass for a reading.
    Errors: `BrokenPipeError`.
    """
    with contextlib.suppress(io.UnsupportedOperation):  # not a descriptor: nothing to look at
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)
        if any(event & select.POLLERR for _, event in poll.poll(0)):
            raise BrokenPipeError


def login(call: Invocation) -> None:
    """``kotak login``: open a session, keep it, and end the one that stood in its place.

    Errors: `KotakError`, `PasswordInputError`, `SessionFileError` (docs/PROTOCOL.md, "login").
    """
    user: str = call.args.user
    device: str | None = call.args.device
    password = call.password(f"Password of {safe_line(user)}: ")
    with call.open() as client, call.waiting():
        answer = client.login(user, password, device=device)
        replaced = _session_to_end(call)
        write_session(
            call.path,
            SavedSession(
                address=call.address,
                user=answer.user,
                name=answer.name,
                token=answer.token,
                expires_at_ms=answer.expires_at_ms,
                device=device or "",
            ),
        )
    if replaced:
        # Nobody holds its token any more: end it, so that user_on does not show a ghost.
        with contextlib.suppress(KotakError), call.open(replaced) as client, call.waiting():
            client.logout()
    who = _reader(answer.user, answer.name, device)
    write_line(f"logged in as {who} at {safe_line(call.address)}")


def _reader(user: str, name: str, device: str | None) -> str:
    return person(user, name) + (f", device {safe_line(device)}," if device else "")


def _session_to_end(call: Invocation) -> str | None:
    with contextlib.suppress(SessionFileError):
        saved = read_session(call.path)
        if saved and saved.address == call.address:
            return saved.token
    return None


def logout(call: Invocation) -> None:
    ended_already = contextlib.suppress(Unauthorized)  # then all is as it was wanted
    with call.open(call.session().token) as client, call.waiting(), ended_already:
        client.logout()
    delete_session(call.path)
    write_line("logout success")


def send(call: Invocation) -> None:
    """``kotak send``: store one message of 1 to ``TEXT_BYTES_MAX`` bytes of UTF-8.

    Errors: `KotakError`, `NotLoggedInError`, `UsageError`, `UnicodeError`; where the message may
    be stored all the same, the way to repeat it is told first (docs/PROTOCOL.md, "chat").
    """
    to: str = call.args.to
    text = _text(call.args.text)
    message_id: str = call.args.id or str(uuid.uuid4())
    with call.open(call.session().token) as client, call.waiting():
        try:
            receipt = client.send(to, text, message_id=message_id, ttl_ms=call.args.ttl)
        except ConnectionFailed:
            raise  # certainly not stored
        except (*MAY_BE_STORED, KeyboardInterrupt):
            note(
                "the message is stored once or not at all; to repeat it without fear of a second "
                f"copy, add --id {safe_line(message_id)}"
            )
            raise
    # With the sequence, the sender can ask where the message stands.
    write_line(f"message sent to {safe_line(to)} (sequence {receipt.seq})")


def _text(words: list[str]) -> str:
    """Return the words, or what standard input holds where the only word is ``-``."""
    if words != ["-"]:
        text = " ".join(words)
        text.encode()  # an argument may hold bytes that are no UTF-8: raises UnicodeError
        return text
    content = sys.stdin.buffer.read(TEXT_BYTES_MAX + 2)
    text = content.decode().removesuffix("\n")
    if len(content) > TEXT_BYTES_MAX + 1 or len(text.encode()) > TEXT_BYTES_MAX:
        raise UsageError(f"a message may have {TEXT_BYTES_MAX} bytes at most: send it in parts")
    if not text:
        raise UsageError("there is nothing to send: standard input is empty")
    return text


def inbox(call: Invocation) -> None:
    """``kotak inbox``: write the waiting messages, and acknowledge each page once it is written.

    Errors: `KotakError`, `NotLoggedInError`, `OSError` when the output fails: the page that was
    being written then stays in the mailbox (docs/PROTOCOL.md, "kotakmasuk").
    """
    keep: bool = call.args.keep
    with call.open(call.session().token) as client:
        try:
            shown = read_inbox(
                client,
                partial(_show_page, as_json=call.args.json),
                waiting=call.waiting,
                keep=keep,
                messages_max=call.args.limit or MESSAGES_PER_RUN_MAX,
            )
        except KotakError:
            note("stopped; what was not acknowledged will be shown again")
            raise
    if not call.args.json:
        what = "no messages" if not shown.messages else f"messages: {shown.messages}"
        note(what + (", kept" if shown.messages and keep else ""))
    if shown.more:
        note("more messages are waiting: raise --limit" if keep else "more messages are waiting")


def _show_page(page: Inbox, *, as_json: bool) -> None:
    """Write one page and make sure that somebody is there to read it."""
    reader = page.name or page.user
    if page.history_lost:
        note(lost_text(*page.history_lost))
    for message in page.messages:
        write_line(message_json(message) if as_json else message_text(message, reader))
    require_reader()


def watch(call: Invocation) -> None:
    """``kotak watch``: write messages as they arrive, until Ctrl-C; acknowledge what was written.

    Errors: `KotakError`, `NotLoggedInError`, `OSError` when the output fails: the message that was
    being written then stays in the mailbox (docs/PROTOCOL.md, "subscribe").
    """
    saved = call.session()
    reader = saved.name or saved.user
    as_json: bool = call.args.json

    def show(message: Message) -> None:
        write_line(message_json(message) if as_json else message_text(message, reader))
        require_reader()

    def note_connection(up: bool) -> None:  # noqa: FBT001 - a callback's only argument
        where = safe_line(call.address)
        say = f"the broker at {where} is back" if up else f"waiting for the broker at {where}"
        with contextlib.suppress(OSError, ValueError):  # nobody is left to read it
            note(say)

    with call.open(saved.token) as client:
        with call.waiting():
            client.ping()  # says early that the session, or the broker, is gone
        if not as_json:
            note(f"messages to {person(saved.user, saved.name)} as they arrive; Ctrl-C to end")
        with contextlib.suppress(KeyboardInterrupt):
            watch_inbox(
                client,
                show,
                on_connection=note_connection,
                on_lost=lambda lost: note(lost_text(lost.first, lost.last)),
                keep=call.args.keep,
            )


def who(call: Invocation) -> None:
    """``kotak who``: list who is logged in, and with ``--detail`` how long ago each was heard.

    Errors: `KotakError`, `NotLoggedInError` (docs/PROTOCOL.md, "user_on").
    """
    detail: bool = call.args.detail
    with call.open(call.session().token) as client, call.waiting():
        users = client.users_on(detail=detail)
        # Not our own clock, which may be another one.
        now_ms = client.ping() if detail else 0
    for user in users:
        text = presence_text(user, now_ms) if detail else person(user.user, user.name)
        write_line(user_json(user) if call.args.json else text)


def whoami(call: Invocation) -> None:
    saved = call.session()
    with call.open(saved.token) as client, call.waiting():
        client.ping()
    who = _reader(saved.user, saved.name, saved.device)
    write_line(f"{who} at {safe_line(call.address)}")


def register(call: Invocation) -> None:
    user: str = call.args.user
    password = call.password(f"New password of {safe_line(user)}: ", twice=True)
    with call.open() as client, call.waiting():
        client.register(user, password, name=call.args.name)
    write_line(f"account {safe_line(user)} made; now: {call.login_command(user)}")


def passwd(call: Invocation) -> None:
    saved = call.session()
    old = call.password(f"Password of {safe_line(saved.user)}: ")
    new = call.password("New password: ", prefix="new_", twice=True)
    with call.open(saved.token) as client, call.waiting():
        client.change_password(old, new)
    write_line("password changed; your other sessions have ended")
