"""Any history of requests, failures, restarts and time, against `tests.core.reference`.

Whole turns of the service: request frames in, reply and event frames out, over each engine. A
history is drawn from a seed, and each of its steps stands alone, so that one that fails is made
short by leaving steps out. The failure prints what is left, and the line that replays it.
"""

from __future__ import annotations

import logging
import os
import secrets
import sys
import time
from collections.abc import Iterator
from random import Random
from typing import Any

import pytest

from broker.core.handlers import Policy
from broker.core.ports import StoreFailedError, StoreFullError
from broker.stores import sqlite_ballast, sqlite_checkpoint
from broker.wire.envelope import Reply
from tests.core.engines import LIMITS, PLACES, ROOMS, USERS, stop_server
from tests.core.fakes import World
from tests.core.reference import Reader, Reference
from tests.core.sequences import NEVER

SESSIONS = 9
#: What may come, the frequent ones several times.
KINDS = (
    ["send"] * 6
    + ["read", "ack", "subscribe"] * 3
    + ["history", "status", "join"] * 2
    + ["again", "unsubscribe", "create", "invite", "leave", "rooms", "members"]
)
#: None: the batch grows. Else it is handled: so much time passes, it fails, or what comes after it.
EVENTS: list[str | int | None] = [
    *([None] * 60),
    *([1] * 24),
    *(400, 1_000, 3_000, 30_000, 62_000, "full", "full twice", "failed", "restart"),
    *("no room", "no room", "gone", "login", "logout"),
]
#: Kind, who asks, two numbers to be made into arguments, and what happens thereupon.
Step = tuple[str, int, int, int, str | int | None]
#: (command, arguments, who asks)
Request = tuple[str, dict[str, Any], int]

STEPS = 400
SHORTEN_S = 20
SEED = "KOTAK_MODEL_SEED"


def history(seed: int) -> list[Step]:
    """Draw one."""
    draw = Random(seed)
    return [
        (
            draw.choice(KINDS),
            draw.randrange(SESSIONS),
            draw.randrange(32),
            draw.randrange(32),
            draw.choice(EVENTS),
        )
        for _ in range(STEPS)
    ]


class Core:
    """The service and the reference side by side. Nine sessions, each with its connection."""

    def __init__(self, *, engine: str, notices: bool) -> None:
        self.place = PLACES[engine]()
        self.store = self.place.open()
        self.world = World(Policy(expiry_notices=notices), engine=self.store)
        most = LIMITS.mailbox_messages_max
        one_log = self.place.one_log
        self.ref = Reference(USERS, most=most, notices=notices, one_log=one_log)
        self.sessions: list[tuple[str, Reader]] = []
        for user in USERS:
            self.sessions.append((self.world.user(user), (user, "")))
            self.sessions.append((self.world.login(user), (user, "")))
            self.login(user, "phone")
        self.sent = 0
        self.batch: list[Request] = []

    def close(self) -> None:
        self.store.close()
        self.place.close()

    def login(self, user: str, device: str) -> None:
        """Log in a device; one that is new begins where its user stands."""
        self.sessions.append((self.world.login(user, device=device), (user, device)))
        self.ref.cursor.setdefault((user, device), self.ref.cursor[user, ""])

    # --- one turn ----------------------------------------------------------------------------

    def ask(self, kind: str, who: int, x: int, y: int, event: str | int | None) -> None:
        """Add a request to the batch that is to come; something may happen thereupon."""
        self.batch.append(self.request(kind, who, x, y))
        if event is None:
            return
        self.exchange(self.batch, str(event))
        self.batch = []
        if isinstance(event, int):
            self.world.now_ms += event
        else:
            self.after(event, who)

    def exchange(self, requests: list[Request], fault: str) -> None:
        faults: dict[str, list[Exception | None]] = {
            "full": [StoreFullError()],
            "full twice": [StoreFullError(), StoreFullError()],
            "failed": [StoreFailedError()],
        }
        self.ref.now_ms = self.world.now_ms
        self.store.commit_faults = faults.get(fault, [])
        fault = fault if fault in faults else ""
        frames = []
        for command, args, who in requests:
            token = self.sessions[who][0]
            asked = self.place.sequences.asked(args)
            frames.append((self.route(who), [self.world.frame(command, token, **asked)]))
        replies = self.world.turn(*frames)
        results = (reply.result for each in replies.values() for reply in each)
        # Those of a room that was left in the same turn are nowhere any more.
        self.place.learn(each["seq"] for each in results if each and "durability" in each)
        self.store.commit_faults = []
        assert self.world.failed == (fault == "failed")
        self.judge(requests, replies, fault)

    def judge(self, requests: list[Request], replies: dict[bytes, list[Reply]], fault: str) -> None:
        for _, _, who in requests:
            if fault != "failed" and (fault != "full twice" or self.store.undoes):
                self.ref.heard(self.route(who))
        refused = {"full twice": "storage_full", "failed": "unavailable"}.get(fault)
        self.ref.full = fault == "full"
        if not fault:
            self.ref.expire()
        for command, args, who in requests:
            reply = replies[self.route(who)].pop(0)
            if refused:
                assert reply.error is not None
                assert reply.error.code == refused
            else:
                self.compare(command, args, who, reply)
        if fault == "failed":
            self.restart()
        else:
            self.look_at_events()

    def compare(self, command: str, args: dict[str, Any], who: int, reply: Reply) -> None:
        token, reader = self.sessions[who]
        code = reply.error and reply.error.code.value
        result = self.place.sequences.told(reply.result)
        expected = self.ref.answer(command, reader, args)
        if command == "kotakmasuk" and result:
            for each in result["messages"]:
                each.setdefault("redelivered", False)
        assert expected == (code or result), (command, args)
        if code is not None:
            return
        if command == "ack":
            self.ref.cursor[reader] = result["cursor"]
        elif command == "subscribe":
            begin = {"window": args["window"], "after": args.get("after", 0)}
            number = result["subscription"]
            self.ref.subscribed(self.route(who), token, number, reader, **begin)
        elif command == "unsubscribe":
            self.ref.unsubscribed(self.route(who), token)

    def look_at_events(self) -> None:
        self.place.learn()  # what was left when something had expired
        told = self.place.sequences.told
        events = [(route, told(body)) for route, body in self.world.events]
        self.world.events = []
        for _, body in events:
            for each in body.get("messages", ()):
                each.setdefault("redelivered", False)
        self.ref.all_pushed([body for _, body in events])

    def after(self, then: str, which: int) -> None:
        if then == "restart":
            self.restart()
        elif then in ("no room", "gone"):
            gone = then == "gone"
            self.world.service.lost({self.route(which): gone})
            self.ref.lost(self.route(which), gone=gone)
        elif then == "login" and len(self.sessions) < 20:
            self.login(USERS[which % 3], f"tab{which}")
            self.ref.expire()
            self.look_at_events()
        elif then == "logout":
            token, (user, device) = self.sessions[which]
            self.world.ok("logout", token)
            self.ref.logged_out(token)
            again = self.world.login(user, **({"device": device} if device else {}))
            self.sessions[which] = (again, (user, device))
            self.ref.expire()
            self.look_at_events()

    def restart(self) -> None:
        self.store = self.place.restart(self.store)
        self.world.restart(self.store)
        self.world.events.clear()
        self.ref.restarted(forgets=self.place.durable)

    def route(self, who: int) -> bytes:
        return f"route of {who}".encode()

    # --- numbers made into requests ----------------------------------------------------------

    def request(self, kind: str, who: int, x: int, y: int) -> Request:
        reader = self.sessions[who][1]
        args: dict[str, Any] = getattr(self, f"draw_{kind}")(reader, x, y)
        return args.pop("command", COMMANDS.get(kind, kind)), args, who

    def draw_send(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        self.sent += 1
        to = [*USERS, *USERS, *ROOMS, *ROOMS, *ROOMS, "nobody"][x % 16]
        args: dict[str, Any] = {"to": to, "text": f"text {y}", "id": f"m{self.sent}"}
        return args | ({"ttl_ms": 1_000 + 500 * (y % 4)} if y >= 24 else {})

    def draw_again(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        """Repeat one of the last messages of this sender, sometimes with another text."""
        mine = [m for m in self.ref.log if m.sender == reader[0]][-8:]
        if not mine:
            return self.draw_send(reader, x, y) | {"command": "chat"}
        m = mine[x % len(mine)]
        return {"to": m.to, "text": m.text if y % 4 else "other", "id": m.id}

    def draw_read(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        return {"limit": 1 + x} | self.position(y)

    def draw_ack(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        """Acknowledge mostly what was given, sometimes anything."""
        given = sorted(self.ref.given[reader])[-6:]
        if given and x < 24:
            return {"seq": given[x % len(given)]}
        return {"seq": self.near(3 - y % 8)}

    def draw_subscribe(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        return {"window": (1, 2, 3, 100)[x % 4]} | self.position(y)

    def position(self, y: int) -> dict[str, Any]:
        return {"after": self.near(2 - y % 8)} if y < 8 else {}

    def near(self, distance: int, low: int = 0) -> int:
        """Return a sequence at a distance from the last; where it is a time, none is just above."""
        seq = max(low, self.ref.last + distance)
        return seq if self.place.one_log or seq <= self.ref.last else NEVER + seq

    def draw_history(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        of = ["inbox", "sent", *ROOMS][x % 5]
        edge = self.near(1 - y % 10)
        return {"of": of, "limit": 1 + y % 7} | [{}, {"before": edge}, {"after": edge}][x % 3]

    def draw_status(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        mine = [m for m in self.ref.log if m.sender == reader[0]][-10:]
        if not mine or x == 0:
            return {"to": USERS[y % 3], "seq": self.near(-y, 1)}
        m = mine[y % len(mine)]
        return {"to": m.to, "seq": m.seq}

    def draw_create(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        return {"room": ROOMS[x % 3], "open": y % 4 > 0, "history": y % 3 == 0}

    def draw_invite(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        return {"room": ROOMS[x % 3], "user": [*USERS, "nobody"][y % 4]}

    def draw_room(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        return {"room": ROOMS[x % 3]}

    draw_join = draw_leave = draw_members = draw_room

    def draw_rooms(self, reader: Reader, x: int, y: int) -> dict[str, Any]:
        return {}

    draw_unsubscribe = draw_rooms


#: Kinds of requests whose command has another name.
COMMANDS = {
    "send": "chat",
    "again": "chat",
    "read": "kotakmasuk",
    "create": "room_create",
    "invite": "room_invite",
    "join": "room_join",
    "leave": "room_leave",
    "members": "room_members",
}


def play(steps: list[Step], *, engine: str, notices: bool) -> None:
    core = Core(engine=engine, notices=notices)
    try:
        for step in steps:
            core.ask(*step)
    finally:
        core.close()


def failure(steps: list[Step], engine: str, *, notices: bool) -> Exception | None:
    try:
        play(steps, engine=engine, notices=notices)
    except Exception as error:  # noqa: BLE001 - whatever it is, it must not be
        return error
    return None


def shortened(steps: list[Step], engine: str, *, notices: bool) -> list[Step]:
    """Leave out steps, many at a time at first, as long as it still fails."""
    end = time.monotonic() + SHORTEN_S
    size = len(steps) // 2
    while size:
        start = 0
        while start < len(steps) and time.monotonic() < end:
            fewer = steps[:start] + steps[start + size :]
            if failure(fewer, engine, notices=notices):
                steps = fewer
            else:
                start += size
        size //= 2
    return steps


@pytest.fixture(autouse=True)
def _quiet(caplog: pytest.LogCaptureFixture) -> None:
    """Faults are what this is about: the broker need not say each time that there is one."""
    caplog.set_level(logging.CRITICAL + 1, "kotak")


def check(seeds: range, engine: str) -> None:
    """Play the histories of these seeds, or of the one that the environment names."""
    if SEED in os.environ:
        seeds = range(int(os.environ[SEED]), int(os.environ[SEED]) + 1)
    for seed in seeds:
        steps = history(seed)
        notices = seed % 2 == 0
        if failure(steps, engine, notices=notices):
            short = shortened(steps, engine, notices=notices)
            lines = "\n".join(map(repr, short))
            sys.stdout.write(f"replay with {SEED}={seed}; it fails with these steps:\n{lines}\n")
            play(short, engine=engine, notices=notices)


@pytest.fixture(autouse=True)
def _room_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A disk that was full for one commit is not taken for full at the next one.

    Its reserve and its log are small: writing 32 MiB at each start is most of what a history does.
    """
    monkeypatch.setattr(sqlite_ballast, "RETRY_S", 0)
    monkeypatch.setattr(sqlite_ballast, "BALLAST_BYTES", 4_096)
    monkeypatch.setattr(sqlite_checkpoint, "WAL_BYTES", 4_096)


@pytest.fixture(scope="module", autouse=True)
def _stopped_server() -> Iterator[None]:
    yield
    stop_server()


#: Engines, and how many histories there is time for.
ENGINES = pytest.mark.parametrize(
    ("engine", "histories"), [("memory", 100), ("sqlite", 50), ("redis", 8)]
)


@ENGINES
def test_any_history_agrees_with_the_protocol(engine: str, histories: int) -> None:
    first = secrets.randbelow(2**32)
    check(range(first, first + histories), engine)


@pytest.mark.slow
@pytest.mark.timeout(3_600)
@ENGINES
def test_many_histories_agree_with_the_protocol(engine: str, histories: int) -> None:
    first = secrets.randbelow(2**32)
    check(range(first, first + (60 if engine == "redis" else 20) * histories), engine)
