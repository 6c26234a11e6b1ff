"""A broker of one dictionary, behind the interface of the blocking client."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Generator
from threading import Event
from typing import Self, TypeAlias

from broker.wire.errors import Code, WireError
from clients.curve_keys import Curve
from clients.errors import RequestError, from_wire
from clients.results import History, Inbox, Login, Message, Receipt, Room, Status, User


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
        #: What each connection was to be encrypted with.
        self.curves: list[Curve | None] = []
        #: Users by the public keys that log them in.
        self.keys: dict[str, str] = {}
        self.faults: dict[str, list[BaseException]] = defaultdict(list)
        #: By name; the members are in `members`, whoever may join in `invited`.
        self.rooms: dict[str, Room] = {}
        self.members: dict[str, list[str]] = defaultdict(list)
        self.invited: dict[str, set[str]] = defaultdict(set)
        #: Whom each user takes no messages from.
        self.blocked: dict[str, set[str]] = defaultdict(set)
        #: Those who may only read.
        self.observers: set[str] = set()
        #: What the next page of an inbox tells of lost history.
        self.lost: tuple[int, int] | None = None
        self.now_ms = 1_700_000_000_000
        #: When users were seen last, where they are not connected now.
        self.seen_ms: dict[str, int] = {}
        self.devices: list[str | None] = []
        self.ttls_ms: list[int | None] = []
        self.timeouts_ms: list[int | None] = []

    def connect(
        self, address: str, *, token: str | None, timeout_ms: int, curve: Curve | None = None
    ) -> FakeClient:
        self.connected.append((address, token, timeout_ms))
        self.curves.append(curve)
        return FakeClient(self, token, curve)

    def put(
        self,
        to: str,
        sender: str,
        text: str,
        *,
        name: str | None = None,
        at_ms: int = 1_700_000_000_000,
        room: str | None = None,
        redelivered: bool = False,
    ) -> int:
        seq = sum(map(len, self.mailboxes.values())) + 1
        shown = self.accounts[sender][1] if name is None else name
        message = Message(seq, at_ms, sender, shown, f"id{seq}", text, room, redelivered)
        self.mailboxes[to].append(message)
        return seq

    def room(self, name: str, *members: str, invited: str = "", **kind: bool) -> None:
        """Make a room of the first of ``members``; ``kind``: ``open``, ``history``."""
        opened, history = kind.get("open", False), kind.get("history", False)
        self.rooms[name] = Room(name, members[0], opened, history, len(members), joined=True)
        self.members[name] += members
        if invited:
            self.invited[name].add(invited)

    def as_seen_by(self, user: str, name: str) -> Room:
        members = self.members[name]
        return self.rooms[name]._replace(members=len(members), joined=user in members)

    def waiting(self, user: str) -> list[str]:
        return [m.text for m in self.mailboxes[user] if m.seq > self.cursors[user]]


class FakeClient:
    def __init__(self, broker: FakeBroker, token: str | None, curve: Curve | None) -> None:
        self._broker = broker
        self._curve = curve
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

    @property
    def rooms(self) -> FakeRooms:
        return FakeRooms(self._broker, self._user)

    def login(
        self,
        user: str,
        password: str | None = None,
        *,
        device: str | None = None,
        timeout_ms: int | None = None,
    ) -> Login:
        self._call("login")
        self._broker.devices.append(device)
        account = self._broker.accounts.get(user)
        if account is None or (account[0] != password and not self._by_key(user, password)):
            raise refusal(Code.BAD_CREDENTIALS, "the user name or the password is wrong")
        self.token = f"kt_{len(self._broker.connected)}{len(self._broker.calls):09}secret"
        self._broker.sessions[self.token] = user
        return Login(self.token, user, account[1], 1_800_000_000_000)

    def _by_key(self, user: str, password: str | None) -> bool:
        return (
            password is None
            and self._curve is not None
            and (self._broker.keys.get(self._curve.public) == user)
        )

    def logout(self, *, timeout_ms: int | None = None) -> None:
        self._call("logout")
        self._broker.timeouts_ms.append(timeout_ms)
        self._user()
        assert self.token
        del self._broker.sessions[self.token]
        self.token = None

    def ping(self, *, timeout_ms: int | None = None) -> int:
        self._call("ping")
        self._user()
        return self._broker.now_ms

    def send(
        self,
        to: str,
        text: str,
        *,
        message_id: str | None = None,
        ttl_ms: int | None = None,
        timeout_ms: int | None = None,
    ) -> Receipt:
        assert message_id
        self._broker.sent_ids.append(message_id)
        self._broker.ttls_ms.append(ttl_ms)
        self._call("send")
        user = self._user()
        if user in self._broker.observers:
            raise refusal(Code.FORBIDDEN, "an observer may read, and write to nobody")
        if to.startswith("#"):
            return Receipt(self._say_in_room(user, to, text), "fsync", message_id)
        if to not in self._broker.accounts:
            raise refusal(Code.NO_SUCH_USER, "there is no user of that name")
        if user in self._broker.blocked[to]:
            raise refusal(Code.BLOCKED, "that user takes no messages from you: nothing was stored")
        text.encode()
        return Receipt(self._broker.put(to, user, text), "fsync", message_id)

    def _say_in_room(self, user: str, room: str, text: str) -> int:
        if user not in self._broker.members[room]:
            raise refusal(Code.NO_SUCH_ROOM, "there is no such room, or it is closed to you")
        members = self._broker.members[room]
        first, *_ = [self._broker.put(each, user, text, room=room) for each in members]
        return first

    def inbox(self, *, limit: int = 100, after: int | None = None) -> Inbox:
        self._call("inbox")
        user = self._user()
        cursor = self._broker.cursors[user]
        start = max(cursor, after or 0)
        waiting = [m for m in self._broker.mailboxes[user] if m.seq > start]
        size = min(limit, self._broker.page_max)
        name = self._broker.accounts[user][1]
        more = len(waiting) > size
        return Inbox(user, name, waiting[:size], more, cursor, 1, self._broker.lost)

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

    def history(
        self,
        of: str = "inbox",
        *,
        before: int | None = None,
        after: int | None = None,
        limit: int = 100,
        timeout_ms: int | None = None,
    ) -> History:
        self._call("history")
        found = self._kept(self._user(), of)
        chosen = [m for m in found if m.seq > (after or 0) and (before is None or m.seq < before)]
        page = chosen[:limit] if after is not None else chosen[-limit:]
        return History(page, more=len(chosen) > limit)

    def _kept(self, user: str, of: str) -> list[Message]:
        if of.startswith("#") and user not in self._broker.members[of]:
            raise refusal(Code.NO_SUCH_ROOM, "there is no such room, or it is closed to you")
        kept = [
            message._replace(to=message.room or owner, state=self._state(owner, message))
            for owner, mailbox in self._broker.mailboxes.items()
            for message in mailbox
            if of == "sent" or owner == user
        ]
        if of == "sent":
            return [message for message in kept if message.sender == user]
        chosen = [message for message in kept if of in ("inbox", message.room)]
        return [message._replace(state=None) for message in chosen]

    def _state(self, owner: str, message: Message) -> str:
        return "acknowledged" if message.seq <= self._broker.cursors[owner] else "stored"

    def status(self, to: str, seq: int, *, timeout_ms: int | None = None) -> Status:
        self._call("status")
        for message in self._kept(self._user(), "sent"):
            if (message.to, message.seq) == (to, seq):
                return Status(message.state or "", message.at_ms, message.id)
        raise refusal(Code.NO_SUCH_MESSAGE, "you sent no such message, or it is no longer kept")

    def users_on(self, *, detail: bool = False, timeout_ms: int | None = None) -> list[User]:
        self._call("users_on")
        self._user()
        users = dict.fromkeys(self._broker.sessions.values())
        found = [User(user, self._broker.accounts[user][1]) for user in users]
        if not detail:
            return found
        seen, now_ms = self._broker.seen_ms, self._broker.now_ms
        return [User(*u[:2], u.user not in seen, seen.get(u.user, now_ms)) for u in found]

    def block(self, user: str) -> None:
        self._call("block")
        if user not in self._broker.accounts:
            raise refusal(Code.NO_SUCH_USER, "there is no user of that name")
        self._broker.blocked[self._user()].add(user)

    def unblock(self, user: str) -> None:
        self._call("unblock")
        self._broker.blocked[self._user()].discard(user)

    def blocked(self) -> list[str]:
        self._call("blocks")
        return sorted(self._broker.blocked[self._user()])

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


_RoomList: TypeAlias = list[Room]
_UserList: TypeAlias = list[User]


class FakeRooms:
    def __init__(self, broker: FakeBroker, user: Callable[[], str]) -> None:
        self._broker = broker
        self._user = user

    def _entered(self, room: str) -> str:
        user = self._user()
        if user not in self._broker.members[room]:
            raise refusal(Code.NO_SUCH_ROOM, "there is no such room, or it is closed to you")
        return user

    def list(self) -> _RoomList:
        user, broker = self._user(), self._broker
        near = (room for room in broker.rooms if user in broker.members[room])
        invited = (room for room in broker.rooms if user in broker.invited[room])
        return [broker.as_seen_by(user, room) for room in dict.fromkeys([*near, *invited])]

    def create(self, room: str, *, open: bool = False, history: bool = False) -> Room:  # noqa: A002 - the library's own
        user = self._user()
        if room in self._broker.rooms:
            raise refusal(Code.ROOM_EXISTS, "the name is taken")
        self._broker.room(room, user, open=open, history=history)
        return self._broker.as_seen_by(user, room)

    def invite(self, room: str, user: str) -> None:
        self._entered(room)
        if user not in self._broker.accounts:
            raise refusal(Code.NO_SUCH_USER, "there is no user of that name")
        self._broker.invited[room].add(user)

    def join(self, room: str) -> Room:
        user, broker = self._user(), self._broker
        known = broker.rooms.get(room)
        if known is None or not (known.open or user in broker.invited[room]):
            raise refusal(Code.NO_SUCH_ROOM, "there is no such room, or it is closed to you")
        broker.members[room].append(user)
        broker.invited[room].discard(user)
        return broker.as_seen_by(user, room)

    def leave(self, room: str) -> None:
        self._broker.members[room].remove(self._entered(room))

    def members(self, room: str) -> _UserList:
        self._entered(room)
        names = sorted(self._broker.members[room])
        return [User(name, self._broker.accounts[name][1]) for name in names]
