"""What each line of the text door asks of the broker, and how it is answered. No I/O.

A command is a generator: it yields requests, is sent each one's result, and returns the answer.
Not a coroutine, since a task for each line would cost as much as all that is done for the line.
Source: docs/PROTOCOL.md, "The text door".
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from typing import Any, Final, NamedTuple

from broker.wire import text
from broker.wire.limits import LINE_INBOX_MESSAGES_MAX

#: Pages of `user_on` in one reply (a page has 1000 names): bounds what one line may cost.
USER_PAGES_MAX: Final = 100

#: Command, arguments and token of one request. A plain tuple: one is made for each line.
Request = tuple[str, Mapping[str, Any], str | None]


class Answer(NamedTuple):
    """One reply, and the sequence to acknowledge once the peer's system has it (None: nothing)."""

    frame: bytes
    taken: int | None = None


Steps = Generator[Request, dict[str, Any], Answer]

_SENT: Final = Answer(text.chat_reply())
_LOGGED_OUT: Final = Answer(text.logout_reply())
_INBOX: Final = {"limit": LINE_INBOX_MESSAGES_MAX}


class Commands:
    """The commands of lines. ``message_id`` and ``token_for`` are `TextGateway`'s."""

    def __init__(
        self, message_id: Callable[[], str], token_for: Callable[[str], str | None]
    ) -> None:
        self._message_id = message_id
        self._token_for = token_for
        self._steps: Final[Mapping[str, Callable[[text.Line], Steps]]] = {
            "chat": self._chat,
            "kotakmasuk": self._kotakmasuk,
            "user_on": self._user_on,
            "logout": self._logout,
        }

    def steps(self, line: text.Line, address: Callable[[], str]) -> Steps:
        """Return the steps of a line, not begun; ``address`` tells where it came from."""
        if line.command == "login":
            return self._login(line, address())
        return self._steps[line.command](line)

    def _login(self, line: text.Line, address: str) -> Steps:
        result = yield "login", line.args, self._token_for(address)
        return Answer(text.login_reply(result["token"]))

    def _chat(self, line: text.Line) -> Steps:
        yield "chat", {**line.args, "id": self._message_id()}, line.token
        return _SENT

    def _kotakmasuk(self, line: text.Line) -> Steps:
        result = yield "kotakmasuk", _INBOX, line.token
        reader, messages = result["name"], result["messages"]
        frame = text.inbox_reply((m["name"], m.get("room", reader), m["text"]) for m in messages)
        return Answer(frame, taken=messages[-1]["seq"] if messages else None)

    def _user_on(self, line: text.Line) -> Steps:
        # A dict, since a user who logs in again between two pages would be listed twice.
        users: dict[str, None] = {}
        args: dict[str, str] = {}
        for _ in range(USER_PAGES_MAX):
            result = yield "user_on", args, line.token
            users.update((each["user"], None) for each in result["users"])
            if not result["more"]:
                break
            args = {"after": result["users"][-1]["user"]}
        return Answer(text.users_reply(users))

    def _logout(self, line: text.Line) -> Steps:
        yield "logout", {}, line.token
        return _LOGGED_OUT
