"""An in-memory broker with the coursework's users, and a text door on a thread in front of it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from typing import Any

from broker.transports.text_gateway import TextGateway
from broker.wire.errors import Code, WireError
from tests.transports.async_broker import AsyncBroker

USERS = {
    "shafwa": ("mks", "Shafwa"),
    "fadly": ("prp", "Fadly"),
    "afif": ("plp", "Afif"),
    "mamang": ("jkt", "mamang"),
}


class FakeBroker(AsyncBroker):
    """Answers as docs/PROTOCOL.md says; ``calls`` records every command, in order.

    ``hold[command]`` is awaited before the command is carried out; ``fail[command]`` is raised.
    """

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.hold: dict[str, asyncio.Event] = {}
        self.fail: dict[str, Exception] = {}
        self.sessions: dict[str, str] = {}
        self.boxes: dict[str, list[dict[str, Any]]] = {user: [] for user in USERS}
        self.rooms: dict[str, list[str]] = {}
        self.users_page_max = 1_000
        self._seq = count(1)

    def commands(self) -> list[str]:
        return [command for command, _ in self.calls]

    def put(
        self, to: str, text: str, sender: str = "shafwa", *, room: str | None = None
    ) -> dict[str, Any]:
        message = {"seq": next(self._seq), "name": USERS[sender][1], "text": text, "from": sender}
        if room is not None:
            message["room"] = room
        self.boxes[to].append(message)
        return message

    async def request(
        self, command: str, args: Mapping[str, Any], *, token: str | None
    ) -> dict[str, Any]:
        self.calls.append((command, dict(args)))
        if command in self.hold:
            await self.hold[command].wait()
        if command in self.fail:
            raise self.fail[command]
        if command == "login":
            return self._login(**args)
        user = self.sessions.get(token or "")
        if user is None:
            raise WireError(Code.UNAUTHORIZED, "log in first")
        if command == "logout":
            del self.sessions[token or ""]
            return {}
        result: dict[str, Any] = getattr(self, f"_{command}")(user, **args)
        return result

    def _login(self, user: str, password: str) -> dict[str, Any]:
        if USERS.get(user, ("", ""))[0] != password:
            raise WireError(Code.BAD_CREDENTIALS, "user name or password is wrong")
        token = f"token-{len(self.sessions)}-{user}"
        self.sessions[token] = user
        return {"token": token, "user": user, "name": USERS[user][1], "expires_at_ms": 0}

    def _chat(self, user: str, *, to: str, text: str, id: str) -> dict[str, Any]:  # noqa: A002 - the field's name on the wire
        if to.startswith("#"):
            return self._say_in_room(user, to, text)
        if to not in self.boxes:
            raise WireError(Code.NO_SUCH_USER, "nobody of that name")
        return {"seq": self.put(to, text, user)["seq"], "durability": "memory"}

    def _say_in_room(self, user: str, room: str, text: str) -> dict[str, Any]:
        if user not in self.rooms.get(room, ()):
            raise WireError(Code.NO_SUCH_ROOM, "no room of that name, or it is closed to you")
        stored = [self.put(member, text, user, room=room) for member in self.rooms[room]]
        return {"seq": stored[0]["seq"], "durability": "memory"}

    def _kotakmasuk(self, user: str, *, limit: int) -> dict[str, Any]:
        page = self.boxes[user][:limit]
        more = len(page) < len(self.boxes[user])
        return {"user": user, "name": USERS[user][1], "messages": page, "more": more, "cursor": 0}

    def _ack(self, user: str, *, seq: int) -> dict[str, Any]:
        self.boxes[user] = [each for each in self.boxes[user] if each["seq"] > seq]
        return {"cursor": seq}

    def _user_on(self, user: str, *, after: str | None = None) -> dict[str, Any]:
        users = list(dict.fromkeys(self.sessions.values()))
        start = users.index(after) + 1 if after else 0
        page = users[start : start + self.users_page_max]
        return {
            "users": [{"user": each, "name": USERS[each][1]} for each in page],
            "more": start + len(page) < len(users),
        }


@contextmanager
def fake_door() -> Iterator[tuple[str, int]]:
    """Run a text door before a `FakeBroker` on a thread of its own, for clients that block."""
    loop = asyncio.new_event_loop()
    ids = count()
    gateway = TextGateway(FakeBroker(), message_id=lambda: f"id-{next(ids)}")
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield asyncio.run_coroutine_threadsafe(gateway.start("127.0.0.1", 0), loop).result(10)
        asyncio.run_coroutine_threadsafe(gateway.stop(), loop).result(30)
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()
