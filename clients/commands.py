"""The one-shot commands of ``kotak``: each opens a client, does one thing, and says it in a line.

What was asked for goes to standard output, everything else to standard error. The session is kept
between two calls by `clients.session_file`; its token is never printed.
"""

from __future__ import annotations

import contextlib
import io
import select
import sys
import uuid
from functools import partial

from broker.wire.limits import TEXT_BYTES_MAX
from clients.calls import (
    MAY_BE_STORED,
    MESSAGES_PER_RUN_MAX,
    Calls,
    read_inbox,
    watch_inbox,
)
from clients.display import (
    broker_at,
    lost_text,
    message_json,
    message_text,
    person,
    presence_text,
    safe_line,
    user_json,
)
from clients.errors import BadCredentials, ConnectionFailed, KotakError, Unauthorized
from clients.invocation import Invocation, UsageError, may_know
from clients.results import Inbox, Login, Message
from clients.session_file import (
    SavedSession,
    SessionFileError,
    delete_session,
    read_session,
    write_session,
)


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

    The password is asked for where the key that the call encrypts with is not enough.

    Errors: `KotakError`, `PasswordInputError`, `SessionFileError` (docs/PROTOCOL.md, "login").
    """
    device: str | None = call.args.device
    with call.open() as client:
        answer = _log_in(call, client)
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
                curve=call.kept_curve,
            ),
        )
    if replaced:
        # Nobody holds its token any more: end it, so that user_on does not show a ghost.
        with contextlib.suppress(KotakError), call.open(replaced) as client, call.waiting():
            client.logout()
    who = _reader(answer.user, answer.name, device)
    write_line(f"logged in as {who} at {safe_line(call.address)}")


def _log_in(call: Invocation, client: Calls) -> Login:
    user: str = call.args.user
    device: str | None = call.args.device
    if call.has_key() and not call.password_given:
        with contextlib.suppress(BadCredentials), call.waiting():
            return client.login(user, device=device)
    password = call.password(f"Password of {safe_line(user)}: ")
    with call.waiting():
        return client.login(user, password, device=device)


def _reader(user: str, name: str, device: str | None) -> str:
    return person(user, name) + (f", device {safe_line(device)}," if device else "")


def _session_to_end(call: Invocation) -> str | None:
    with contextlib.suppress(SessionFileError):
        saved = read_session(call.path)
        if saved and may_know(saved, call.address):
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
        where = broker_at(call.address)
        say = f"{where} is back" if up else f"waiting for {where}"
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
