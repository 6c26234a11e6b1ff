"""The chat at a terminal, with history, completion and a toolbar; or line by line without one."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator
from functools import partial

from prompt_toolkit import PromptSession, prompt
from prompt_toolkit.completion import CompleteEvent, Completer, Completion
from prompt_toolkit.document import Document
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.patch_stdout import patch_stdout

from broker.wire.commands import ALIASES
from broker.wire.limits import ROOM_MARK
from clients.calls import Calls
from clients.chat import Chat
from clients.chat_rooms import ROOM_COMMANDS
from clients.commands import write_line
from clients.display import safe_line
from clients.live import LiveInbox

_WORDS = sorted([*Chat.COMMANDS, *ALIASES, "quit"])
_LOGIN = {"login", "auth"}
_USERS, _ROOMS = object(), ROOM_MARK
#: What may follow the words of a line: words, and names of users and rooms that the chat has seen.
_BEHIND: dict[tuple[str, ...], list[object]] = {
    (): [*_WORDS],
    ("login",): [_USERS],
    ("chat",): [_USERS, _ROOMS],
    ("status",): [_USERS, _ROOMS],
    ("user_on",): ["detail"],
    ("history",): ["after", "before", "sent", _ROOMS],
    ("history", "sent"): ["after", "before"],
    ("history", _ROOMS): ["after", "before"],
    ("block",): [_USERS],
    ("unblock",): [_USERS],
    ("help",): [*_WORDS],
    ("room",): [*sorted(["list", *ROOM_COMMANDS])],
    ("room", "create", _ROOMS): ["history", "open"],
    ("room", "invite"): [_ROOMS],
    ("room", "invite", _ROOMS): [_USERS],
    ("room", "join"): [_ROOMS],
    ("room", "leave"): [_ROOMS],
    ("room", "members"): [_ROOMS],
}


class SafeHistory(InMemoryHistory):
    """The lines of this chat, without those that may hold a password.

    Unknown commands are left out as well: a mistyped ``login`` is one of them.
    """

    def append_string(self, string: str) -> None:
        words = string.split()
        if words and words[0] in _WORDS and not (words[0] in _LOGIN and len(words) > 2):
            super().append_string(string)


class ChatCompleter(Completer):
    """Complete the command, then what belongs behind it: names that this chat has seen, words."""

    def __init__(self, chat: Chat) -> None:
        self._chat = chat

    def get_completions(
        self, document: Document, complete_event: CompleteEvent
    ) -> Iterable[Completion]:
        del complete_event
        words = document.text_before_cursor.lstrip().split(" ")
        for word in self._known(words[:-1]):
            if word.startswith(words[-1]):
                yield Completion(f"{word} ", start_position=-len(words[-1]), display=word)

    def _known(self, before: list[str]) -> Iterator[str]:
        """Yield what may stand behind the words ``before``."""
        place = [_ROOMS if word.startswith(ROOM_MARK) else word for word in before]
        place[:1] = [ALIASES.get(word, word) for word in place[:1]]
        names = sorted(self._chat.names)
        for known in _BEHIND.get(tuple(place), ()):
            if known is _USERS:
                yield from (name for name in names if not name.startswith(ROOM_MARK))
            elif known is _ROOMS:
                yield from (name for name in names if name.startswith(ROOM_MARK))
            else:
                yield str(known)


def run_chat(
    open_client: Callable[[str | None], Calls], address: str, *, has_key: bool = False
) -> int:
    """Run the chat on standard input and output until its user leaves.

    ``open_client`` makes a client for a token, ``has_key``: with a key that may log in. At a
    terminal returns 0; from a file or a pipe, 1 where any line ended in an error.
    """
    at_terminal = sys.stdin.isatty() and sys.stdout.isatty()
    with open_client(None) as client:
        ask_password = _ask_password if at_terminal else None
        chat = Chat(client, address, say=write_line, ask_password=ask_password, has_key=has_key)
        try:
            if at_terminal:
                _run_terminal(chat, LiveInbox(open_client, write_line))
            else:
                _run_lines(chat)
        finally:
            chat.end_sessions(open_client)
    return int(chat.failed and not at_terminal)


def _run_lines(chat: Chat) -> None:
    for line in sys.stdin:
        try:
            if not chat.handle(line):
                return
        except KeyboardInterrupt:
            chat.interrupted(last=True)
            raise


def _run_terminal(chat: Chat, live: LiveInbox) -> None:
    # Under the patch, what is written while somebody types appears above the line being typed.
    with patch_stdout(), live:
        write_line(
            f"Kotak at {safe_line(chat.address)}. Type help for the commands, quit to leave."
        )
        for line in _typed_lines(chat):
            if not _handle(chat, line):
                return
            live.follow(chat.token, partial(chat.arrived, reader=chat.reader))


def _handle(chat: Chat, line: str) -> bool:
    """As `Chat.handle`; Ctrl-C gives up the one call that is being waited for, not the chat."""
    try:
        return chat.handle(line)
    except KeyboardInterrupt:
        write_line("")  # behind the terminal's own "^C"
        chat.interrupted()
        return True


def _typed_lines(chat: Chat) -> Iterator[str]:
    """Yield what is typed until Ctrl-D. Ctrl-C drops the line, as in a shell."""
    session: PromptSession[str] = PromptSession(
        history=SafeHistory(), completer=ChatCompleter(chat), complete_while_typing=False
    )
    while True:
        try:
            yield session.prompt(f"{chat.prompt} ", bottom_toolbar=lambda: _toolbar(chat))
        except KeyboardInterrupt:
            write_line("(quit or Ctrl-D to leave)")
        except EOFError:
            return


def _toolbar(chat: Chat) -> str:
    return f" {safe_line(chat.address)} | {chat.who or 'not logged in'} "


def _ask_password() -> str | None:
    try:
        return prompt("Password: ", is_password=True)
    except (KeyboardInterrupt, EOFError):
        return None
