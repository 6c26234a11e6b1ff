"""Brokers of one store and their clients, without a socket: a fake clock, and faults at will.

The store is one mailbox, as the real one keeps it: a message id is stored once, the cursor never
goes back. Each broker is in one `State`; connections are queues of frames that may be cut at any
moment, before or after what was sent on them has been carried out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable
from enum import Enum
from typing import Any

from broker.wire.envelope import Request, decode_request, encode_error, encode_event, encode_ok
from broker.wire.envelope import encoder as make_encoder
from broker.wire.errors import Code, WireError
from clients.session import Session
from clients.subscription import Subscription

RETRY_MS = 1_000
#: Later than any test goes on.
PATIENT_MS = 3_600_000
_encode = make_encoder()


class State(Enum):
    """What a broker does; what reached one that is `FROZEN` it carries out when it wakes up."""

    UP = "serves"
    DOWN = "refuses connections"
    FROZEN = "takes connections and requests, and answers nothing"
    HOLE = "does not even refuse a connection"
    STOPPING = "says unavailable, but for acknowledgements and pings"
    FOREIGN = "has another store: it knows nobody's session"


class Wire:
    """One connection: frames on their way to the broker, and to the client."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.requests: deque[bytes] = deque()
        self.replies: deque[bytes] = deque()
        self.cut = False


class World:
    """The brokers, their store, and the time."""

    def __init__(self, *addresses: str) -> None:
        self.now: float = 1_000_000
        self.states = dict.fromkeys(addresses, State.UP)
        self.stored: list[tuple[str, str]] = []  # message id and text; the sequence is the place
        self.cursor = 0
        self.wires: list[Wire] = []
        #: What was asked of whom.
        self.asked: list[tuple[str, str]] = []
        #: How long requests lie until a broker turns to them, where it is no quick one.
        self.pauses_ms: dict[str, float] = {}
        self._worked_ms: dict[str, float] = {}
        self._subscriptions: dict[Wire, list[int]] = {}  # number, last pushed, window
        self._numbers = 0

    @property
    def texts(self) -> list[str]:
        return [text for _, text in self.stored]

    def connect(self, address: str) -> Wire | None:
        """Return a connection; None where nobody says anything. Cut: refused."""
        state = self.states[address]
        wire = Wire(address)
        wire.cut = state is State.DOWN
        self.wires.append(wire)
        return None if state is State.HOLE else wire

    def become(self, address: str, state: State, *, answers_lost: bool = False) -> None:
        """Change a broker's state; ``answers_lost``: it works up to its end, unheard."""
        if answers_lost:
            self.work(answers_lost=True)
        self.states[address] = state
        if state in (State.DOWN, State.HOLE):
            for wire in self.wires:
                if wire.address == address:
                    self.cut(wire)

    def cut(self, wire: Wire) -> None:
        """End a connection, with all that is on its way in both directions."""
        wire.cut = True
        wire.requests.clear()
        wire.replies.clear()
        self._subscriptions.pop(wire, None)

    def work(self, *, answers_lost: bool = False) -> None:
        """Have every broker that can carry out what has reached it, and push."""
        if answers_lost:
            self._worked_ms.clear()
        working = [each for each in self.states if self._turns_to_work(each)]
        for wire in self.wires:
            if wire.address in working:
                while wire.requests:
                    request = decode_request(wire.requests.popleft())
                    reply = self._answer(wire, request)
                    if not wire.cut:
                        wire.replies.append(reply)
        self._push()
        if answers_lost:
            for wire in self.wires:
                wire.replies.clear()
                self._subscriptions.pop(wire, None)  # the connection will be cut as well
                wire.cut = True

    def _turns_to_work(self, address: str) -> bool:
        able = self.states[address] in (State.UP, State.STOPPING, State.FOREIGN)
        begins = self._worked_ms.get(address, 0) + self.pauses_ms.get(address, 0) <= self.now
        if able and begins:
            self._worked_ms[address] = self.now
        return able and begins

    def _answer(self, wire: Wire, request: Request) -> bytes:
        request_id, command, token, args = request
        self.asked.append((wire.address, command))
        state = self.states[wire.address]
        if state is State.STOPPING and command not in ("ack", "ping"):
            refusal = WireError(Code.UNAVAILABLE, "the broker is stopping", 1_000)
            return encode_error(_encode, request_id, refusal)
        if state is State.FOREIGN and token is not None:
            return encode_error(_encode, request_id, WireError(Code.UNAUTHORIZED, "log in"))
        result: dict[str, Any] = {}
        if command == "chat":
            result = {"seq": self._store(args["id"], args["text"]), "durability": "fsync"}
        elif command == "ack":
            self.cursor = max(self.cursor, min(args["seq"], len(self.stored)))
            result = {"cursor": self.cursor}
        elif command == "subscribe":
            self._numbers += 1
            last = max(self.cursor, args.get("after", 0))
            self._subscriptions[wire] = [self._numbers, last, args["window"]]
            result = {"subscription": self._numbers, "cursor": self.cursor, "epoch": 5}
        return encode_ok(_encode, request_id, result)

    def _store(self, message_id: str, text: str) -> int:
        if (message_id, text) not in self.stored:
            self.stored.append((message_id, text))
        return self.stored.index((message_id, text)) + 1

    def _push(self) -> None:
        for wire, subscription in self._subscriptions.items():
            number, last, window = subscription
            end = min(len(self.stored), max(self.cursor, last - window) + window)
            if self.states[wire.address] is State.UP and not wire.cut and end > last:
                messages = [self._message(seq) for seq in range(last + 1, end + 1)]
                fields = {"after": last, "messages": messages}
                wire.replies.append(encode_event(_encode, number, "messages", fields))
                subscription[1] = end

    def _message(self, seq: int) -> dict[str, Any]:
        message_id, text = self.stored[seq - 1]
        return {"seq": seq, "at_ms": 1, "from": "s", "name": "", "id": message_id, "text": text}


class Node:
    """A client: its session, and the connections that a `Pump` would hold for it."""

    def __init__(
        self,
        world: World,
        *,
        key: str | None = "shafwa",
        random: Callable[[], float] = lambda: 0.5,
        addresses: Iterable[str] | None = None,
    ) -> None:
        self.world = world
        given = tuple(world.states if addresses is None else addresses)
        self.session = Session(given, retry_ms=RETRY_MS, random=random, key=key)
        self.link: Wire | None = None
        self.scout: Wire | None = None
        self.received: list[str] = []
        self.subscription: Subscription | None = None
        self._link_number = self._scout_number = 0
        self._sent = 0

    @property
    def at(self) -> str:
        return self.session.address

    def chat(self, text: str, *, timeout_ms: float = PATIENT_MS) -> Any:
        self._sent += 1
        return self.session.chat(
            "fadly",
            text,
            message_id=f"id{self._sent}",
            token="t",
            now_ms=self.world.now,
            timeout_ms=timeout_ms,
        )

    def ask(self, command: str, *, timeout_ms: float = PATIENT_MS) -> Any:
        return self.session.start(command, "t", {}, self.world.now, timeout_ms)

    def subscribe(self, window: int = 5) -> Subscription:
        self.subscription = self.session.subscribe(
            "t", window=window, after=None, epoch=None, now_ms=self.world.now, timeout_ms=PATIENT_MS
        )
        return self.subscription

    def turn(self) -> None:
        """Take in what has come, do what is due, and send."""
        now = self.world.now
        if self.link is not None:
            replies, self.link.replies = self.link.replies, deque()
            self.session.received(replies, now)
            if self.link.cut and self._link_number == self.session.wanted:
                self.session.lost(now, "the broker closed the connection")
        if self.scout is not None and self.session.way.scouting == self._scout_number:
            if self.scout.replies:
                self.session.tried_out([self.scout.replies.popleft()], now)
            elif self.scout.cut:
                self.session.tried_out((), now)
        self._read()
        self.session.tick(now)
        self._follow()
        while self.link is not None and (frames := self.session.take()):
            if not self.link.cut:
                self.link.requests.extend(frames)

    def _read(self) -> None:
        while self.subscription is not None and self.subscription.done:
            message = self.subscription.next(self.world.now)
            self.received.append(message.text)
            self.subscription.finish(message.seq, self.world.now)

    def _follow(self) -> None:
        session, way = self.session, self.session.way
        if self._link_number != session.wanted:
            self._leave(self.link)
            self.link, self._link_number = None, session.wanted
            if session.wanted and session.wanted == self._scout_number:
                self.link, self.scout, self._scout_number = self.scout, None, 0
                session.connected(self.world.now)
            elif session.wanted:
                self.link = self.world.connect(session.address)
                if self.link is not None and not self.link.cut:
                    session.connected(self.world.now)
        if self._scout_number != way.scouting:
            self._leave(self.scout)
            self.scout, self._scout_number = None, way.scouting
            if way.scouting:
                self.scout = self.world.connect(way.scout_address)
                if self.scout is not None and not self.scout.cut:
                    self.scout.requests.append(session.ping_frame())

    def _leave(self, wire: Wire | None) -> None:
        """Close a connection: what was sent arrives all the same, and is answered to nobody."""
        if wire is not None:
            wire.cut = True
            wire.replies.clear()


def run(world: World, *nodes: Node, ms: float, step_ms: float = 10) -> None:
    """Let time pass for everybody, in steps."""
    end = world.now + ms
    while world.now < end:
        for node in nodes:
            node.turn()
        world.work()
        world.now += step_ms


def run_until(
    world: World, *nodes: Node, done: Callable[[], object], at_most_ms: float = 600_000
) -> float:
    """Let time pass until ``done``; return how much that was."""
    begin = world.now
    while not done():
        assert world.now - begin < at_most_ms, "it did not come to pass"
        run(world, *nodes, ms=10)
    return world.now - begin
