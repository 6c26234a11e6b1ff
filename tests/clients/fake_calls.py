"""A broker of one dictionary, behind the interface of the blocking client."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from threading import Event
from typing import Self

from broker.wire.errors import Code, WireError
from clients.errors import RequestError, from_wire
from clients.results import Inbox, Login, Message, Receipt, User


def refusal(code: Code, message: str) -> RequestError:
    return from_wire(WireError(code, message))


class FakeBroker:
    """Accounts, sessions and mailboxes; ``connect`` is what `Client` is to the real one.

    An exception in ``faults`` is raised once by the method of that name.
    """

    def __init__(self) -> None:
        self.accounts = {
            "shafwa": ("mks", "Shafwa"),
            "fadly": ("prp", "Fadly"),
            "mamang": ("jkt", "mamang"),
        }
        self.sessions: dict[str, str] = {}
        self.mailboxes: dict[str, list[Message]] = defaultdict(list)
        self.cursors: dict[str, int] = defaultdict(int)
        self.page_max = 1_000
        self.calls: list[str] = []
        self.sent_ids: list[str] = []
        self.connected: list[tuple[str, str | None, int]] = []
        self.faults: dict[str, list[BaseException]] = defaultdict(list)

    def connect(self, address: str, *, token: str | None, timeout_ms: int) -> FakeClient:
        self.connected.append((address, token, timeout_ms))
        return FakeClient(self, token)

    def put(
        self,
        to: str,
        sender: str,
        text: str,
        *,
        name: str | None = None,
        at_ms: int = 1_700_000_000_000,
    ) -> int:
        seq = sum(map(len, self.mailboxes.values())) + 1
        shown = self.accounts[sender][1] if name is None else name
        self.mailboxes[to].append(Message(seq, at_ms, sender, shown, f"id{seq}", text))
        return seq

    def waiting(self, user: str) -> list[str]:
        return [m.text for m in self.mailboxes[user] if m.seq > self.cursors[user]]


class FakeClient:
    def __init__(self, broker: FakeBroker, token: str | None) -> None:
        self._broker = broker
        self.token = token

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        return

    def _call(self, name: str) -> None:
        self._broker.calls.append(name)
        if self._broker.faults[name]:
            raise self._broker.faults[name].pop(0)

    def _user(self) -> str:
        user = self._broker.sessions.get(self.token or "")
        if user is None:
            raise refusal(Code.UNAUTHORIZED, "log in first")
        return user

    def login(self, user: str, password: str, *, timeout_ms: int | None = None) -> Login:
        self._call("login")
        account = self._broker.accounts.get(user)
        if account is None or account[0] != password:
            raise refusal(Code.BAD_CREDENTIALS, "the user name or the password is wrong")
        self.token = f"kt_{len(self._broker.connected)}{len(self._broker.calls):09}secret"
        self._broker.sessions[self.token] = user
        return Login(self.token, user, account[1], 1_800_000_000_000)

    def logout(self) -> None:
        self._call("logout")
        self._user()
        assert self.token
        del self._broker.sessions[self.token]
        self.token = None

    def ping(self) -> int:
        self._call("ping")
        self._user()
        return 1_700_000_000_000

    def send(
        self, to: str, text: str, *, message_id: str | None = None, timeout_ms: int | None = None
    ) -> Receipt:
        assert message_id
        self._broker.sent_ids.append(message_id)
        self._call("send")
        user = self._user()
        if to not in self._broker.accounts:
            raise refusal(Code.NO_SUCH_USER, "there is no user of that name")
        text.encode()
        return Receipt(self._broker.put(to, user, text), "fsync", message_id)

    def inbox(self, *, limit: int = 100, after: int | None = None) -> Inbox:
        self._call("inbox")
        user = self._user()
        cursor = self._broker.cursors[user]
        start = max(cursor, after or 0)
        waiting = [m for m in self._broker.mailboxes[user] if m.seq > start]
        size = min(limit, self._broker.page_max)
        name = self._broker.accounts[user][1]
        return Inbox(user, name, waiting[:size], len(waiting) > size, cursor)

    def acknowledge(self, seq: int) -> int:
        self._call("acknowledge")
        user = self._user()
        self._broker.cursors[user] = max(self._broker.cursors[user], seq)
        return self._broker.cursors[user]

    def messages(
        self,
        *,
        window: int = 100,
        after: int | None = None,
        acknowledge: bool = True,
        timeout_ms: int | None = None,
        stop: Event | None = None,
        on_connection: Callable[[bool], None] | None = None,
    ) -> Generator[Message, None, None]:
        """Yield what waits, then what arrives until ``stop`` is set; without it, end there.

        Before it ends the connection breaks and comes back, for whoever wants to know.
        """
        self._call("messages")
        user = self._user()
        last = max(self._broker.cursors[user], after or 0)
        while True:
            for message in [m for m in self._broker.mailboxes[user] if m.seq > last]:
                yield message
                last = message.seq
                if acknowledge:
                    self._broker.cursors[user] = last
            if stop is None or stop.wait(0.02):
                break
            self._user()
        if on_connection is not None:
            on_connection(False)
            on_connection(True)
        self._call("messages end")

    def users_on(self) -> list[User]:
        self._call("users_on")
        self._user()
        users = dict.fromkeys(self._broker.sessions.values())
        return [User(user, self._broker.accounts[user][1]) for user in users]

    def register(self, user: str, password: str, *, name: str | None = None) -> object:
        self._call("register")
        if user in self._broker.accounts:
            raise refusal(Code.USER_EXISTS, "the name is taken")
        self._broker.accounts[user] = (password, name or user)
        return None

    def change_password(self, old: str, new: str) -> None:
        self._call("change_password")
        user = self._user()
        if self._broker.accounts[user][0] != old:
            raise refusal(Code.BAD_CREDENTIALS, "the password is wrong")
        self._broker.accounts[user] = (new, self._broker.accounts[user][1])
