"""The interactive chat without its terminal: a line in, the words of the 2020 client out.

A chat has one session at a time; logging in again changes the user and leaves the earlier session
alive, until the chat ends and with it every session that it opened.
"""

from __future__ import annotations

import contextlib
import uuid
from collections import deque
from collections.abc import Callable, Mapping
from functools import partial
from typing import ClassVar, Final, NamedTuple

from broker.wire.commands import ALIASES
from broker.wire.limits import ROOM_MARK
from clients.block_text import blocked_text, blocks_text, unblocked_text
from clients.calls import MAY_BE_STORED, Calls, read_inbox, sentence, waiting_notice
from clients.chat_help import about, overview
from clients.chat_rooms import Refused, history, room, status
from clients.display import lost_text, message_text, person, presence_text, safe_line
from clients.errors import (
    BadCredentials,
    ConnectionFailed,
    KotakError,
    RequestTimeout,
    Unauthorized,
)
from clients.results import Inbox, Login, Message
from clients.room_text import unquoted

NOT_AUTHORIZED: Final = "Error, not authorized"
UNKNOWN_COMMAND: Final = "*Maaf, command tidak benar"
TOO_FEW_WORDS: Final = "-Maaf, command tidak benar"

#: Characters of a token that tell two sessions apart; the rest is nobody's business.
TOKEN_CHARS_SHOWN: Final = 8
#: Names kept for completion, and sessions to be ended: more than anybody types in an evening.
NAMES_MAX: Final = 1_000
SESSIONS_MAX: Final = 100
#: What was typed is pushed back, by a room, at once or soon.
TYPED_MAX: Final = 100

#: Leaving waits so long for the sessions to be ended; a broker that is gone must not hold it.
LEAVE_MS: Final = 2_000

#: After a message whose answer did not come ...
NOT_KNOWN: Final = "whether the message was sent is not known"
#: ... and what may be done about it, where another line can be typed.
UNKNOWN_OUTCOME: Final = f"{NOT_KNOWN}; type the same line next, and it is sent just once"


def short_token(token: str | None) -> str:
    """Return enough of a token to tell it from another; nothing where there is none."""
    return f"{safe_line(token[:TOKEN_CHARS_SHOWN])}..." if token else ""


def _only_user(words: list[str]) -> str:
    """Return the one name behind a command. Errors: `Refused`."""
    command, user, *more = words
    if more:
        raise Refused(f"{command} takes one user")
    return user


class Unanswered(NamedTuple):
    """A message that may or may not be stored; sending it again under its id settles which."""

    sender: str
    to: str
    text: str
    message_id: str


class Command(NamedTuple):
    """A command of the chat, with the checks that come before it."""

    run: Callable[[Chat, list[str]], None]
    words_min: int
    needs_login: bool = True


class Chat:
    """What the chat knows, and its commands.

    ``say`` prints one line; ``ask_password`` returns what was typed, None where the user thought
    better of it. Without ``ask_password``, ``login`` needs its password on the line.
    """

    def __init__(
        self,
        client: Calls,
        address: str,
        *,
        say: Callable[[str], None],
        ask_password: Callable[[], str | None] | None = None,
        has_key: bool = False,
    ) -> None:
        self._client = client
        self._has_key = has_key
        self._say = say
        self._ask_password = ask_password
        self._waiting = partial(waiting_notice, address)
        self._opened: list[str] = []
        self._unanswered: Unanswered | None = None
        #: Senders and ids of the last messages that were typed here.
        self._typed: deque[tuple[str, str]] = deque(maxlen=TYPED_MAX)
        #: Whether the line in hand may have stored a message that nobody has confirmed.
        self._in_doubt = False
        self.address = address
        #: The session of who is logged in. A secret.
        self.token: str | None = None
        #: Who is logged in, as `person`; empty where nobody is.
        self.who = ""
        self._user = ""
        #: The display name of who is logged in.
        self.reader = ""
        #: Names of users and rooms seen, for completion. A dict keeps their order.
        self.names: dict[str, None] = {}
        #: Whether any line so far ended in an error.
        self.failed = False

    @property
    def prompt(self) -> str:
        return f"Command {short_token(self.token)}:"

    def handle(self, line: str) -> bool:
        """Carry out one line; False when the user wants to leave. Raises nothing of Kotak's."""
        words = line.strip().split(maxsplit=2)
        if not words:
            return True
        if words[0] in ("quit", "exit"):
            return False
        command = self.COMMANDS.get(ALIASES.get(words[0], words[0]))
        if command is None:
            self._fail(UNKNOWN_COMMAND)
        elif len(words) < command.words_min:
            self._fail(TOO_FEW_WORDS)
        elif command.needs_login and not self.token:
            self._fail(NOT_AUTHORIZED)
        else:
            self._attempt(command, words)
        return True

    def show(self, message: Message, *, reader: str) -> None:
        """Say one message to the user whose display name is ``reader``."""
        self._remember(message.room or message.sender)
        self._say(message_text(message, reader))

    def interrupted(self, *, last: bool = False) -> None:
        """Say what is to be said when the line that is being carried out was given up.

        ``last``: no other line follows, nor will its message's id be known to anybody.
        """
        self._fail(f"Error, interrupted{self._doubt(NOT_KNOWN if last else UNKNOWN_OUTCOME)}")

    def arrived(self, message: Message, *, reader: str) -> None:
        """As `show`, of one that was pushed: not what was just typed here, to a room of one's own.

        Called by another thread.
        """
        if not (message.room and (message.sender, message.id) in self._typed):
            self.show(message, reader=reader)

    def end_sessions(self, reopen: Callable[[str], Calls]) -> None:
        """End every session that this chat opened; the first one that fails ends the attempt.

        ``reopen`` makes a client for a session's token.
        """
        try:
            for token in self._opened:
                ended_already = contextlib.suppress(Unauthorized)
                with reopen(token) as client, self._waiting(), ended_already:
                    client.logout(timeout_ms=LEAVE_MS)
        except KotakError:
            self._say("the broker does not answer: the sessions of this chat were not ended")

    def _fail(self, words: str) -> None:
        self.failed = True
        self._say(words)

    def _what(self, error: KotakError) -> str:
        if self._in_doubt and isinstance(error, RequestTimeout):
            return "the broker did not answer in time"  # its own sentence speaks of message ids
        return sentence(error)

    def _doubt(self, words: str = UNKNOWN_OUTCOME) -> str:
        """Return what follows an error, where a message may be stored all the same."""
        return f"; {words}" if self._in_doubt else ""

    def _attempt(self, command: Command, words: list[str]) -> None:
        self._in_doubt = False
        try:
            command.run(self, words)
        except Refused as error:
            self._fail(f"Error, {error}")
        except Unauthorized:
            self._forget_session()
            self._fail(NOT_AUTHORIZED)
        except KotakError as error:
            self._fail(f"Error, {self._what(error)}{self._doubt()}")
        except UnicodeError:
            self._fail("Error, the line is not valid UTF-8")

    def _forget_session(self) -> None:
        self._opened = [token for token in self._opened if token != self.token]
        self.token = None
        self.who = self._user = ""

    def _login(self, words: list[str]) -> None:
        answer = self._answer(words[1], words[2] if len(words) > 2 else None)
        if answer is None:
            return
        self.token = answer.token
        self._opened = [*self._opened, answer.token][-SESSIONS_MAX:]
        self._user, self.who = answer.user, person(answer.user, answer.name)
        self.reader = answer.name or answer.user
        self._remember(answer.user)
        self._say(f"username {safe_line(answer.user)} logged in, token {short_token(answer.token)}")

    def _answer(self, user: str, password: str | None) -> Login | None:
        """Log in; None where there is no password, since nobody can or will give one."""
        if password is None and self._has_key:
            with contextlib.suppress(BadCredentials), self._waiting():
                return self._client.login(user)
        if password is None and self._ask_password is None:
            self._fail(TOO_FEW_WORDS)
        elif password is None and self._ask_password is not None:
            password = self._ask_password()
        if password is None:
            return None
        with self._waiting():
            return self._client.login(user, password)

    def _chat(self, words: list[str]) -> None:
        to, text = unquoted(words[1]), words[2]
        last = self._unanswered
        again = last is not None and last[:3] == (self._user, to, text)
        message_id = last.message_id if last and again else str(uuid.uuid4())
        self._unanswered = None
        self._typed.append((self._user, message_id))
        try:
            with self._waiting():
                self._client.send(to, text, message_id=message_id)
        except (*MAY_BE_STORED, KeyboardInterrupt) as error:
            self._unanswered = Unanswered(self._user, to, text, message_id)
            self._in_doubt = not isinstance(error, ConnectionFailed)  # then it was never sent
            raise
        self._remember(to)
        self._say(f"message sent to {safe_line(to)}")

    def _kotakmasuk(self, _words: list[str]) -> None:
        shown = read_inbox(self._client, self._show, waiting=self._waiting)
        if not shown.messages:
            self._say("no messages")
        if shown.more:
            self._say("more messages are waiting: kotakmasuk again")

    def _show(self, page: Inbox) -> None:
        if page.history_lost:
            self._say(lost_text(*page.history_lost))
        for message in page.messages:
            self.show(message, reader=page.name or page.user)

    def _user_on(self, words: list[str]) -> None:
        if words[1:] == ["detail"]:
            self._detail()
            return
        with self._waiting():
            users = self._client.users_on()
        for user in users:
            self._remember(user.user)
        self._say("user aktif: " + ", ".join(safe_line(user.user) for user in users))

    def _detail(self) -> None:
        with self._waiting():
            users, now_ms = self._client.users_on(detail=True), self._client.ping()
        for user in users:
            self._remember(user.user)
            self._say(presence_text(user, now_ms))

    def _history(self, words: list[str]) -> None:
        self._look_up(history, words)

    def _status(self, words: list[str]) -> None:
        self._look_up(status, words)

    def _room(self, words: list[str]) -> None:
        self._look_up(room, words)

    def _block(self, words: list[str]) -> None:
        user = _only_user(words)
        with self._waiting():
            self._client.block(user)
        self._remember(user)
        self._say(blocked_text(user))

    def _unblock(self, words: list[str]) -> None:
        user = _only_user(words)
        with self._waiting():
            self._client.unblock(user)
        self._say(unblocked_text(user))

    def _blocks(self, _words: list[str]) -> None:
        with self._waiting():
            users = self._client.blocked()
        for user in users:
            self._remember(user)
        self._say(blocks_text(users))

    def _look_up(self, ask: Callable[[Calls, list[str]], list[str]], words: list[str]) -> None:
        words = [unquoted(word) for word in " ".join(words[1:]).split()]
        with self._waiting():
            lines = ask(self._client, words)
        for word in words:
            if word.startswith(ROOM_MARK):
                self._remember(word)
        for line in lines:
            self._say(line)

    def _logout(self, _words: list[str]) -> None:
        with self._waiting():
            self._client.logout()
        self._forget_session()
        self._say("logout success")

    def _help(self, words: list[str]) -> None:
        text = about(words[1]) if len(words) > 1 else overview()
        if text is None:
            self._fail(UNKNOWN_COMMAND)
        else:
            self._say(text)

    def _remember(self, name: str) -> None:
        if len(self.names) < NAMES_MAX:
            self.names[name] = None

    #: By canonical name; `ALIASES` holds the others.
    COMMANDS: ClassVar[Mapping[str, Command]] = {
        "login": Command(_login, 2, needs_login=False),
        "chat": Command(_chat, 3),
        "kotakmasuk": Command(_kotakmasuk, 1),
        "user_on": Command(_user_on, 1),
        "history": Command(_history, 1),
        "status": Command(_status, 1),
        "room": Command(_room, 1),
        "block": Command(_block, 2),
        "unblock": Command(_unblock, 2),
        "blocks": Command(_blocks, 1),
        "logout": Command(_logout, 1),
        "help": Command(_help, 1, needs_login=False),
    }
