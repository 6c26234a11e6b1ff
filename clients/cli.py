"""``kotak`` as a ZeroMQ client: its arguments, and what each outcome says and returns.

`add_commands` adds the one-shot commands of `clients.commands` to a parser; `interactive` is the
chat that ``kotak`` alone starts.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Callable
from functools import partial
from typing import Final

from broker.wire.limits import INBOX_MESSAGES_MAX
from clients import block_commands, commands, history_commands, room_commands
from clients.argument_types import addresses, limit, seconds, sequence, told_by
from clients.calls import MESSAGES_PER_RUN_MAX, Connect, sentence
from clients.client import Client
from clients.curve_keys import CurveKeyError
from clients.curve_option import add_curve_option
from clients.display import safe_line
from clients.durations import ttl_ms
from clients.errors import (
    ConnectionFailed,
    KotakError,
    RequestError,
    RequestTimeout,
    Unauthorized,
)
from clients.history_text import LIMIT_DEFAULT
from clients.invocation import (
    DEFAULT_ADDRESS,
    TIMEOUT_S_DEFAULT,
    Invocation,
    NotLoggedInError,
    UsageError,
)
from clients.password_input import PasswordInputError, add_password_options
from clients.room_text import recipient, room_name
from clients.session_file import SessionFileError

OK, REFUSED, USAGE, UNREACHABLE = 0, 1, 2, 3
INTERRUPTED, BROKEN_PIPE = 130, 141  # 128 + SIGINT, 128 + SIGPIPE, as shells have it

#: For the end of every ``--help``.
EXIT_CODES: Final = """\
exit codes:
  0    done
  1    refused: the broker said no, or you are not logged in
  2    usage: wrong arguments, no password, an unusable session, keys or output
  3    no answer: the broker cannot be reached, or not in time
  130  interrupted (Ctrl-C)
"""


def add_common_options(parser: argparse.ArgumentParser) -> None:
    """Add the options that every client command takes; absent ones leave no attribute behind."""
    # SUPPRESS: otherwise a sub-parser's default overwrites what stood before the command.
    common = parser.add_argument_group("connection")
    common.add_argument(
        "--broker",
        metavar="tcp://HOST:PORT",
        type=addresses,
        default=argparse.SUPPRESS,
        help="the broker's ZeroMQ door; several brokers of one store with commas between "
        "(default: $KOTAK_BROKER, else where the session is from, "
        f"else {DEFAULT_ADDRESS})",
    )
    common.add_argument(
        "--session",
        metavar="FILE",
        default=argparse.SUPPRESS,
        help="where your login is kept between commands (default: $KOTAK_SESSION_FILE, else "
        "~/.local/state/kotak/session.json)",
    )
    common.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=seconds,
        default=argparse.SUPPRESS,
        help=f"how long to wait for an answer (default: {TIMEOUT_S_DEFAULT:g})",
    )
    add_curve_option(common)


def add_commands(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    *,
    connect: Connect = Client,
) -> None:
    """Add the client's commands; each sets ``run``, a callable from arguments to an exit code."""
    add = partial(_add_command, subparsers, connect)
    _add_mail_commands(add)
    _add_history_commands(add)
    _add_block_commands(add)
    _add_account_commands(add)
    room = subparsers.add_parser(
        "room", help=_ROOM[0].lower() + _ROOM[1:-1], description=_ROOM, epilog=_ROOM_MORE
    )
    rooms = room.add_subparsers(
        dest="room_command", metavar="list|create|invite|join|leave|members", required=True
    )
    _add_room_commands(partial(_add_command, rooms, connect))


_ROOM: Final = "Talk in rooms: what is said in one is read by all its members."
_ROOM_MORE: Final = "kotak room COMMAND --help tells more; kotak send '#team' TEXT speaks in one."


#: `_add_command` but for its first two arguments: what it runs, its help, its aliases.
_Add = Callable[..., argparse.ArgumentParser]


def _add_command(
    subparsers: argparse._SubParsersAction[argparse.ArgumentParser],
    connect: Connect,
    run: Callable[[Invocation], None],
    help_text: str,
    *aliases: str,
) -> argparse.ArgumentParser:
    parser = subparsers.add_parser(
        run.__name__.rstrip("_"),
        aliases=aliases,
        help=help_text,
        description=f"{help_text[0].upper()}{help_text[1:]}.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.set_defaults(run=partial(run_command, run, connect=connect))
    add_common_options(parser)
    return parser


def _add_mail_commands(add: _Add) -> None:
    parser = add(commands.send, "put a message into a user's mailbox or into a room", "chat")
    _add_recipient(parser)
    parser.add_argument(
        "text",
        metavar="TEXT",
        nargs="+",
        help="the message, its words joined by blanks; '-' reads it from standard input; put '--' "
        "before a text that begins with '-'",
    )
    parser.add_argument(
        "--id",
        metavar="ID",
        help="the message's id (default: a new one); sent twice with one id, it is stored once",
    )

    parser.add_argument(
        "--ttl",
        metavar="TIME",
        type=told_by(ttl_ms),
        help="how long it is worth reading, as 30s, 5m, 2h or 7d: what is unread then is not "
        "delivered any more",
    )

    parser = add(commands.inbox, "show the waiting messages, then acknowledge them", "kotakmasuk")
    parser.add_argument("--keep", action="store_true", help="show without acknowledging")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")
    parser.add_argument(
        "--limit",
        metavar="N",
        type=limit,
        help=f"show N messages at most (default: {MESSAGES_PER_RUN_MAX})",
    )

    parser = add(
        commands.watch, "show messages as they arrive, and acknowledge them; Ctrl-C ends it"
    )
    parser.add_argument("--keep", action="store_true", help="show without acknowledging")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")

    parser = add(commands.who, "list the users who are logged in", "user_on")
    parser.add_argument(
        "--detail", action="store_true", help="say who is connected, and when the others last were"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_recipient(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "to",
        metavar="TO",
        type=told_by(recipient),
        help="the recipient's user name, or a room, in quotes: '#team'",
    )


def _add_history_commands(add: _Add) -> None:
    parser = add(
        history_commands.history,
        "show what was sent to you, read or unread, oldest first; nothing is taken",
    )
    of = parser.add_mutually_exclusive_group()
    of.add_argument("--sent", action="store_true", help="what you have sent, and where it stands")
    of.add_argument(
        "--room", metavar="ROOM", type=told_by(room_name), help="what was said in a room"
    )
    page = parser.add_mutually_exclusive_group()
    page.add_argument(
        "--before", metavar="SEQ", type=sequence, help="the page that ends before this sequence"
    )
    page.add_argument(
        "--after", metavar="SEQ", type=sequence, help="the page that begins after this sequence"
    )
    parser.add_argument(
        "--limit",
        metavar="N",
        type=partial(limit, most=INBOX_MESSAGES_MAX),
        default=LIMIT_DEFAULT,
        help=f"N messages at most, the newest where no page is given (default: {LIMIT_DEFAULT})",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object a line")

    parser = add(history_commands.status, "say where a message stands that you have sent")
    _add_recipient(parser)
    parser.add_argument(
        "seq",
        metavar="SEQ",
        type=sequence,
        help="its sequence, as 'kotak send' and 'kotak history --sent' show it",
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")


def _add_block_commands(add: _Add) -> None:
    for run, text in (
        (
            block_commands.block,
            "take no messages from a user, nor invitations; those that wait stay",
        ),
        (block_commands.unblock, "take messages from a user again"),
    ):
        add(run, text).add_argument("user", metavar="USER", help="the user's name")

    parser = add(block_commands.blocks, "list the users from whom you take no messages")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_room_commands(add: _Add) -> None:
    parser = add(room_commands.list_, "list your rooms, and those that you are invited to")
    parser.add_argument("--json", action="store_true", help="one JSON object a line")

    parser = add(room_commands.create, "make a room, with you as its first member")
    _add_room(parser)
    parser.add_argument(
        "--open", action="store_true", help="anybody may join (default: who was invited)"
    )
    parser.add_argument(
        "--history", action="store_true", help="newcomers may read what was said before"
    )
    parser.add_argument("--json", action="store_true", help="one JSON object")

    parser = add(room_commands.invite, "let a user join a room that you are in")
    _add_room(parser)
    parser.add_argument("user", metavar="USER", help="the user's name")

    parser = add(room_commands.join, "become a member: what is said from now on is yours to read")
    _add_room(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object")

    _add_room(add(room_commands.leave, "leave a room; with its last member it goes, and all in it"))

    parser = add(room_commands.members, "list who is in a room that you are in")
    _add_room(parser)
    parser.add_argument("--json", action="store_true", help="one JSON object a line")


def _add_room(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "room",
        metavar="ROOM",
        type=told_by(room_name),
        help="its name, as team; with the '#', in quotes: '#team'",
    )


def _add_account_commands(add: _Add) -> None:
    parser = add(
        commands.login,
        "log in and keep the session; the password is asked for, hidden, unless a key is enough",
        "auth",
    )
    parser.add_argument("user", metavar="USER", help="your user name")
    parser.add_argument(
        "--device",
        metavar="NAME",
        help="read for this device: it gets every message until it has taken it itself (default: "
        "what one session takes is gone for all)",
    )
    add_password_options(parser)

    add(commands.whoami, "say who is logged in here, and ask the broker whether that still holds")
    add(commands.logout, "end the session and forget it")

    parser = add(commands.passwd, "change your password")
    add_password_options(parser)
    add_password_options(parser, "new-")

    parser = add(commands.register, "make an account, where the broker allows it")
    parser.add_argument("user", metavar="USER", help="the user name that you want")
    parser.add_argument("--name", metavar="NAME", help="the name that others see (default: USER)")
    add_password_options(parser)


def interactive(args: argparse.Namespace, *, connect: Connect = Client) -> int:
    """Run the interactive chat until its user leaves. Takes the options of `add_common_options`."""
    codes: list[int] = []

    def chat(call: Invocation) -> None:
        # prompt_toolkit takes longer to load than any other command takes to run.
        from clients.prompt import run_chat

        codes.append(run_chat(call.open, call.address, has_key=call.has_key()))

    return run_command(chat, args, connect=connect) or codes[0]


def run_command(
    command: Callable[[Invocation], None], args: argparse.Namespace, *, connect: Connect
) -> int:
    """Carry out one command; whatever goes wrong becomes a sentence and an exit code."""
    try:
        call = Invocation(args, connect)
    except (UsageError, CurveKeyError) as error:
        commands.note(f"kotak: {safe_line(str(error))}")
        return USAGE
    try:
        command(call)
        sys.stdout.flush()
    except BrokenPipeError:
        _forget_output()
        return BROKEN_PIPE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        outcome = explain(error, call)
        if outcome is None:  # a fault of ours: the traceback is the report
            raise
        code, text = outcome
        commands.note(f"kotak: {text}")
        return code
    return OK


def explain(error: Exception, call: Invocation) -> tuple[int, str] | None:
    """Return the exit code and the sentence for what went wrong; None where we do not know it."""
    outcome: tuple[int, str] | None = None
    match error:
        case Unauthorized() if "," in call.address:
            outcome = REFUSED, f"not logged in: run {call.login_command()}; {sentence(error)}"
        case NotLoggedInError() | Unauthorized():
            outcome = REFUSED, f"not logged in: run {call.login_command()}"
        case ConnectionFailed() | RequestTimeout():
            outcome = UNREACHABLE, sentence(error)
        case RequestError():
            outcome = REFUSED, f"{sentence(error)} ({error.code})"
        case KotakError():
            outcome = REFUSED, sentence(error)
        case UsageError() | PasswordInputError() | SessionFileError() | CurveKeyError():
            outcome = USAGE, safe_line(str(error))
        case UnicodeError():
            outcome = USAGE, "what was given is not valid UTF-8"
        case OSError():
            _forget_output()
            outcome = USAGE, f"cannot read or write: {error.strerror or type(error).__name__}"
    return outcome


def _forget_output() -> None:
    """Let what is still buffered go nowhere, or the interpreter complains when it exits."""
    with contextlib.suppress(OSError):  # standard output is no descriptor
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, sys.stdout.fileno())
        finally:
            os.close(nowhere)
