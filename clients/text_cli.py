"""``kotak text``: the 2020 client, over the 2020 protocol, in its own words.

It shows what a client of the text door sees, and works with any server of that protocol; for daily
use ``kotak`` alone is the better chat. Source: docs/PROTOCOL.md, "The text door".
"""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Final, NamedTuple, Protocol

from prompt_toolkit import PromptSession, prompt
from prompt_toolkit.completion import WordCompleter

from broker.wire.commands import ALIASES
from clients.chat import NOT_AUTHORIZED, TOO_FEW_WORDS, UNKNOWN_COMMAND
from clients.commands import note, write_line
from clients.display import safe_line, safe_text
from clients.prompt import SafeHistory
from clients.text_connection import TextConnection, TextDoorError, verifying

DEFAULT_HOST: Final = "127.0.0.1"
DEFAULT_PORT: Final = 8889
TIMEOUT_S_DEFAULT: Final = 30.0
TIMEOUT_S_MAX: Final = 3_600.0
USAGE: Final = 2
#: 128 + SIGINT, as shells have it.
INTERRUPTED: Final = 130
#: After a ``chat`` whose reply was not waited for: its line has no message id.
MAY_BE_SENT: Final = "the message may have been sent; typed again, it is a second one"
#: Names kept for completion.
_NAMES_MAX: Final = 1_000


class TextDoor(Protocol):
    """What the chat needs of a `TextConnection`; replies are the door's JSON objects."""

    def login(self, user: str, password: str) -> dict[str, Any]: ...
    def chat(self, token: str, to: str, text: str) -> dict[str, Any]: ...
    def kotakmasuk(self, token: str) -> dict[str, Any]: ...
    def user_on(self, token: str) -> dict[str, Any]: ...
    def logout(self, token: str) -> dict[str, Any]: ...


class Refused(Exception):
    """The line was not carried out; the text is what the user sees."""


class Command(NamedTuple):
    """A command: what it does with its words, and how many words it needs, itself included."""

    run: Callable[[TextChat, list[str]], None]
    words_min: int
    needs_login: bool = True


class TextChat:
    """The client without its terminal: a typed line in, the original's words out through ``say``.

    ``ask_password`` returns what was typed, hidden (None: the user thought better of it); without
    it ``login`` needs its password on the line. ``failed`` says whether any line was refused.
    """

    def __init__(
        self,
        door: TextDoor,
        *,
        say: Callable[[str], None],
        ask_password: Callable[[], str | None] | None = None,
    ) -> None:
        self.token = ""
        self.failed = False
        self.names: dict[str, None] = {}
        self._door = door
        self._say = say
        self._ask_password = ask_password
        #: Whether the line in hand may have sent a message that nobody has confirmed.
        self._in_doubt = False

    @property
    def prompt(self) -> str:
        return f"Command {safe_line(self.token)}:"

    def handle(self, line: str) -> bool:
        """Carry out one line; False where it asks to leave."""
        # Three pieces: the blanks inside a text are the user's.
        words = line.rstrip("\r\n").lstrip(" ").split(" ", 2)
        name = words[0].strip()
        if name in ("quit", "exit"):
            return False
        if name:
            try:
                self._run(name, [word for word in words if word.strip()])
            except (Refused, TextDoorError) as error:
                self.failed = True
                self._say(
                    safe_line(str(error) if isinstance(error, Refused) else f"Error, {error}")
                )
        return True

    def interrupted(self) -> None:
        """Say what is to be said when the line that is being carried out was given up."""
        self.failed = True
        self._say(f"Error, interrupted; {MAY_BE_SENT}" if self._in_doubt else "Error, interrupted")

    def _run(self, name: str, words: list[str]) -> None:
        self._in_doubt = False
        command = self.COMMANDS.get(ALIASES.get(name, name))
        if command is None:
            raise Refused(UNKNOWN_COMMAND)
        if len(words) < command.words_min:
            raise Refused(TOO_FEW_WORDS)
        if command.needs_login and not self.token:
            raise Refused(NOT_AUTHORIZED)
        command.run(self, words)

    def _login(self, words: list[str]) -> None:
        if len(words) == 2 and self._ask_password is None:
            raise Refused(TOO_FEW_WORDS)
        user = words[1]
        password = words[2].split()[0] if len(words) > 2 else self._asked_password()
        reply = _ok(self._door.login(user, password))
        self.token = str(reply.get("tokenid", ""))
        self._remember(user)
        self._say(safe_line(f"username {user} logged in, token {self.token}"))

    def _asked_password(self) -> str:
        password = self._ask_password() if self._ask_password else None
        if not password:
            raise Refused(TOO_FEW_WORDS)
        return password

    def _chat(self, words: list[str]) -> None:
        _, to, text = words
        self._in_doubt = True
        _ok(self._door.chat(self.token, to, text))
        self._remember(to)
        self._say(safe_line(f"message sent to {to}"))

    def _kotakmasuk(self, _: list[str]) -> None:
        messages = _ok(self._door.kotakmasuk(self.token)).get("messages") or []
        for each in messages:
            sender, to = (safe_line(str(each.get(key))) for key in ("msg_from", "msg_to"))
            # A further line of a text must not look like a message of its own.
            text = safe_text(str(each.get("msg"))).replace("\n", "\n    ")
            self._say(f"from {sender} to {to}: {text}")
        if not messages:
            self._say("no messages")

    def _user_on(self, _: list[str]) -> None:
        users = str(_ok(self._door.user_on(self.token)).get("message", ""))
        for user in users.split(", "):
            self._remember(user)
        self._say(safe_line(f"user aktif: {users}"))

    def _logout(self, _: list[str]) -> None:
        _ok(self._door.logout(self.token))
        self.token = ""
        self._say("logout success")

    def _remember(self, user: str) -> None:
        if user and len(self.names) < _NAMES_MAX:
            self.names[user] = None

    COMMANDS: ClassVar[Mapping[str, Command]] = {
        "login": Command(_login, 2, needs_login=False),
        "chat": Command(_chat, 3),
        "kotakmasuk": Command(_kotakmasuk, 1),
        "user_on": Command(_user_on, 1),
        "logout": Command(_logout, 1),
    }


def _ok(reply: dict[str, Any]) -> dict[str, Any]:
    if reply["status"] != "OK":
        raise Refused(f"Error, {reply.get('message', 'the broker gave no reason')}")
    return reply


# --- the command ------------------------------------------------------------------------------


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Add ``[HOST:PORT] [--host HOST] [--port PORT] [--tls] [--ca FILE] [--timeout SECONDS]``."""
    parser.add_argument(
        "address",
        nargs="?",
        metavar="HOST:PORT",
        type=_address,
        help=f"the text door (default: {DEFAULT_HOST}:{DEFAULT_PORT})",
    )
    parser.add_argument("--host", help="its host alone")
    parser.add_argument("--port", type=_port, help="its port alone")
    parser.add_argument(
        "--tls", action="store_true", help="encrypt, and trust what this machine trusts"
    )
    parser.add_argument(
        "--ca",
        metavar="FILE",
        type=Path,
        help="encrypt, and trust the certificate in this file (PEM) and those that it has signed",
    )
    parser.add_argument(
        "--timeout",
        metavar="SECONDS",
        type=_seconds,
        default=TIMEOUT_S_DEFAULT,
        help=f"how long to wait for a reply (default: {TIMEOUT_S_DEFAULT:g})",
    )


def run(args: argparse.Namespace) -> int:
    """Chat at the terminal, or carry out the lines of standard input where it is none.

    Returns 0; 1 where a line of a file or pipe was refused; 2 where the file of an authority cannot
    be used; 130 after Ctrl-C in a file or pipe.
    """
    host, port = args.address or (DEFAULT_HOST, DEFAULT_PORT)
    host, port = args.host or host, args.port or port
    try:
        tls = verifying(args.ca) if args.tls or args.ca else None
    except TextDoorError as error:
        note(f"kotak: {safe_line(str(error))}")
        return USAGE
    with TextConnection(host, port, timeout_ms=int(args.timeout * 1_000), tls=tls) as door:
        if sys.stdin.isatty() and sys.stdout.isatty():
            _run_terminal(door, f"{host}:{port}{', encrypted' if tls else ''}")
            return 0
        return _run_lines(door)


def _run_lines(door: TextDoor) -> int:
    chat = TextChat(door, say=write_line)
    try:
        for line in sys.stdin:
            if not _handle(chat, line):
                break
    except KeyboardInterrupt:
        return INTERRUPTED
    return int(chat.failed)


def _handle(chat: TextChat, line: str) -> bool:
    """As `TextChat.handle`; whoever interrupts it is told what became of the line."""
    try:
        return chat.handle(line)
    except KeyboardInterrupt:
        chat.interrupted()
        raise


def _run_terminal(door: TextDoor, address: str) -> None:
    chat = TextChat(door, say=write_line, ask_password=_ask_password)
    write_line(f"Kotak's text door at {safe_line(address)}. Commands: login USER, chat USER TEXT,")
    write_line("kotakmasuk, user_on, logout; quit or Ctrl-D to leave.")
    for line in _typed_lines(chat):
        # Ctrl-C gives up the reply that is waited for, not the chat.
        with contextlib.suppress(KeyboardInterrupt):
            if not _handle(chat, line):
                break


def _typed_lines(chat: TextChat) -> Iterator[str]:
    """Yield what is typed until Ctrl-D. Ctrl-C drops the line, as in a shell."""

    def words() -> list[str]:
        # As whole lines, so that a name is offered where a name belongs, and nowhere else.
        return [
            *TextChat.COMMANDS,
            *(f"{name} {user}" for name in ("login", "chat") for user in chat.names),
        ]

    session: PromptSession[str] = PromptSession(
        history=SafeHistory(),
        completer=WordCompleter(words, sentence=True),
        complete_while_typing=False,
    )
    while True:
        try:
            yield session.prompt(f"{chat.prompt} ")
        except KeyboardInterrupt:
            continue
        except EOFError:
            return


def _ask_password() -> str | None:
    try:
        return prompt("Password: ", is_password=True)
    except (KeyboardInterrupt, EOFError):
        return None


def _address(given: str) -> tuple[str, int]:
    host, colon, port = given.rpartition(":")
    if not colon or not host:
        raise argparse.ArgumentTypeError("give HOST:PORT, as 127.0.0.1:8889")
    return host.removeprefix("[").removesuffix("]"), _port(port)


def _port(given: str) -> int:
    if not given.isascii() or not given.isdigit() or not 1 <= int(given) <= 65_535:
        raise argparse.ArgumentTypeError("a port is a number from 1 to 65535")
    return int(given)


def _seconds(given: str) -> float:
    seconds = float(given)
    if not 0 < seconds <= TIMEOUT_S_MAX:
        raise argparse.ArgumentTypeError(f"give more than 0 and at most {TIMEOUT_S_MAX:g} seconds")
    return seconds
