"""What leaves the broker, judged at its door, where more is known than any client can know.

Beside the laws: every request is answered once and to whoever sent it; a window is respected; what
has expired stays away; a mark `redelivered` stands where it must and only where it may; who comes
with an old epoch is told; a status is the truth. Source: docs/PROTOCOL.md.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from broker.core.model import Route
from broker.core.service import Arrival, Finished, Service, Turn
from broker.wire.envelope import EVENT, OK, decode_replies, decode_requests
from clients.session import SLOW
from tests.simulator.broker import Broker
from tests.simulator.journal import Journal, Reader
from tests.simulator.network import Network
from tests.simulator.scheduler import Scheduler

#: Breaches kept a run: the first ones explain it.
BREACHES_MAX: Final = 10


class Breach(NamedTuple):
    """What was broken, and by what."""

    law: str
    sentence: str

    def __str__(self) -> str:
        return f"{self.law}: {self.sentence}"


class Asked(NamedTuple):
    """A request that came in."""

    command: str
    args: Mapping[str, Any]


@dataclass(slots=True)
class _Receiver:
    """A subscription: what was pushed and may be unacknowledged."""

    reader: Reader
    window: int
    ended: bool = False
    #: By sequence: the room that each was said in.
    pushed: dict[int, str | None] = field(default_factory=dict)


class Door:
    """Observes a broker; see `tests.simulator.broker.Observer`."""

    def __init__(self, time: Scheduler, network: Network, broker: Broker, journal: Journal) -> None:
        self.breaches: list[Breach] = []
        #: How long a message lives, by sender and id.
        self.ttl_ms: dict[tuple[str, str], int] = {}
        #: How far each reader has acknowledged, as it was answered.
        self.acknowledged: Counter[Reader] = Counter()
        self._time = time
        self._network = network
        self._broker = broker
        self._company = [broker]
        self._journal = journal
        self._epochs: dict[int, int] = {}
        self._generation = 0
        self._life_began_at = 0  # the first sequence of this life
        self._open: defaultdict[Route, list[tuple[int, Asked]]] = defaultdict(list)
        self._receivers: dict[tuple[Route, int], _Receiver] = {}
        # By reader: what was handed over, what was in this life, and how far reads have gone in it.
        self._given: defaultdict[Reader, set[int]] = defaultdict(set)
        self._given_now: defaultdict[Reader, set[int]] = defaultdict(set)
        self._tried: Counter[Reader] = Counter()
        # Of the turn that is looked at: its time, the states and the cursors that it told.
        self._now_ms = 0
        self._told: list[tuple[Asked, str]] = []
        #: ... how far it has asked to where that may be so and unanswered: nothing is undone, or
        #: it was committed and nobody heard so.
        self._asked: Counter[Reader] = Counter()
        self._acknowledging: list[tuple[Reader, int]] = []
        self._on_the_way: list[tuple[Route, Reader, int]] = []

    def join(self, other: Door) -> None:
        """Judge together with the door of another broker over the same store."""
        self._company = other._company
        self._company.append(self._broker)
        self.breaches, self.ttl_ms = other.breaches, other.ttl_ms
        self.acknowledged, self._epochs = other.acknowledged, other._epochs
        self._given, self._given_now = other._given, other._given_now
        self._tried = other._tried

    @property
    def _unsure(self) -> int:
        """Up to which sequence the store may know more than was answered, if it undoes nothing."""
        if self._broker.engine.undoes:
            return 0
        return max(each.unsure for each in self._company)

    def breach(self, law: str, sentence: str) -> None:
        """Note a breach, the first few in full."""
        self._time.log(f"BREACH {law}: {sentence}")
        if len(self.breaches) < BREACHES_MAX:
            self.breaches.append(Breach(law, sentence))

    # --- lives -----------------------------------------------------------------------------------

    def began(self, life: int, service: Service, first_seq: int) -> None:
        number = self._broker.engine.epoch.number
        known = self._epochs.setdefault(number, self._generation)
        if known != self._generation:
            self.breach("L7", f"the store was put back, and its epoch is still {number}")
        self._life_began_at = first_seq

    def ended(self) -> None:
        self._open.clear()
        self._receivers.clear()
        self._on_the_way.clear()
        if self._broker.engine.undoes:  # else the store knows what was given
            self._given_now.clear()
            self._tried.clear()

    def put_back(self) -> None:
        """Forget what an earlier state cannot know."""
        self._generation += 1
        self.acknowledged.clear()
        self._asked.clear()

    # --- turns -----------------------------------------------------------------------------------

    def turned(
        self, arrivals: Sequence[Arrival], done: Sequence[Finished], turn: Turn, now_ms: int
    ) -> None:
        if not (arrivals or done or turn.replies):
            return
        self._note_requests(arrivals)
        self._now_ms = now_ms
        events: list[tuple[Route, dict[str, Any]]] = []
        for route in turn.replies:
            for request_id, status, body in _replies(turn.replies[route]):
                if status == EVENT:
                    events.append((route, body))
                    continue
                asked = self._take(route, request_id)
                if asked is not None:
                    self._answered(route, asked, status, body)
        for asked, state in self._told:
            self._judge_status(asked, state)
        self._told.clear()
        self._check_all_answered(arrivals, turn)
        for reader, cursor in self._acknowledging:
            self.acknowledged[reader] = max(self.acknowledged[reader], cursor)
        self._acknowledging.clear()
        self._note_company(events)
        for route, body in events:
            self._pushed(route, body)

    def handed(self, turn: Turn, lost: dict[Route, bool]) -> None:
        for route, reader, seq in self._on_the_way:
            if route not in lost:
                self._given[reader].add(seq)
                self._given_now[reader].add(seq)
        self._on_the_way.clear()
        for (route, _), receiver in self._receivers.items() if lost else ():
            if route in lost:  # all of it comes again, but for what has expired meanwhile
                receiver.pushed.clear()

    def _note_requests(self, arrivals: Sequence[Arrival]) -> None:
        for route, frames in arrivals:
            for frame in frames or ():
                for request_id, command, _, args in decode_requests(frame)[0]:
                    self._open[route].append((request_id, Asked(command, args)))
                    if command == "ack" and not self._broker.engine.undoes:
                        self._note_asked(self._reader(route), args["seq"])
                    self._time.log(f"{self._who(route)} asks {request_id}: {command} {args}")

    def _note_asked(self, reader: Reader, seq: int) -> None:
        self._asked[reader] = max(self._asked[reader], seq)

    def _take(self, route: Route, request_id: int | None) -> Asked | None:
        waiting = self._open[route]
        for index, (number, asked) in enumerate(waiting):
            if number == request_id:
                del waiting[index]
                return asked
        self.breach(
            "door", f"{self._who(route)} got an answer {request_id} that it did not ask for"
        )
        return None

    def _check_all_answered(self, arrivals: Sequence[Arrival], turn: Turn) -> None:
        for route, _ in arrivals:
            for request_id, asked in self._open[route]:
                if asked.command not in SLOW:
                    who = self._who(route)
                    self.breach("door", f"{who} got no answer to {request_id}, {asked.command}")
            self._open[route] = [each for each in self._open[route] if each[1].command in SLOW]

    def _answered(self, route: Route, asked: Asked, status: str, body: dict[str, Any]) -> None:
        reader = self._reader(route)
        if status != OK:
            self._time.log(f"{reader} is refused {asked.command}: {body['code']}")
            if body["code"] == "internal":
                self.breach("door", f"a fault of the broker at {asked.command}")
            if asked.command == "ack" and self._broker.faults.unheard:
                self._note_asked(reader, asked.args["seq"])
            return
        self._time.log(f"{reader} is answered {asked.command}: {_short(body)}")
        if asked.command == "ack":
            self._acknowledging.append((reader, body["cursor"]))
        elif asked.command in ("kotakmasuk", "subscribe"):
            self._judge_place(reader, asked, body)
            if "cursor" not in body:
                self.breach("door", f"{reader} got another answer than that to {asked.command}")
            elif asked.command == "kotakmasuk":
                self._judge_messages(route, reader, body["messages"])
            else:
                receiver = _Receiver(reader, body["window"])
                self._receivers[route, body["subscription"]] = receiver
        elif asked.command == "room_leave":
            self._forget_room(reader.user, asked.args["room"])
        elif asked.command == "status":
            self._told.append((asked, body["state"]))

    # --- what readers are told -------------------------------------------------------------------

    def _judge_place(self, reader: Reader, asked: Asked, body: dict[str, Any]) -> None:
        """Judge the cursor, and what is said of lost history."""
        if body.get("user") != reader.user:
            self.breach("L4", f"{reader} was served as {body.get('user')}")
            return
        if body["cursor"] < self.acknowledged[reader]:
            self.breach("L2", f"the cursor of {reader} went back to {body['cursor']}")
        lost = body.get("history_lost")
        if lost is not None:
            now = self._time.now
            self._journal.losses.append((reader, lost["first"], lost["last"], now))
        epoch = asked.args.get("epoch")
        if epoch is not None and self._epochs.get(epoch) != self._generation and lost is None:
            self.breach("L7", f"{reader} came with epoch {epoch} and was not told what is lost")

    def _judge_messages(
        self, route: Route, reader: Reader, messages: Sequence[dict[str, Any]]
    ) -> None:
        before = 0
        for each in messages:
            seq = each["seq"]
            if seq <= before:
                self.breach("L3", f"{reader} got {seq} after {before}")
            if seq <= self.acknowledged[reader]:
                self.breach("L2", f"{reader} got {seq} again, and has acknowledged it")
            before = seq
            self._judge_mark(reader, each)
            self._judge_age(reader, each)
            self._tried[reader] = max(self._tried[reader], seq)
            self._on_the_way.append((route, reader, seq))

    def _judge_mark(self, reader: Reader, message: dict[str, Any]) -> None:
        seq, marked = message["seq"], message.get("redelivered", False)
        if not marked and seq in self._given[reader]:
            self.breach("L7", f"{reader} got {seq} again, without the mark `redelivered`")
        unsure = max(self._broker.faults.unsure, self._unsure)
        may = max(self._tried[reader], self._life_began_at - 1, unsure)
        if marked and seq > may:
            self.breach("L7", f"{reader} got {seq} first with the mark `redelivered`")

    def _judge_age(self, reader: Reader, message: dict[str, Any]) -> None:
        ttl_ms = self.ttl_ms.get((message["from"], message["id"]))
        # Then nothing can expire, or what was appended unheard is looked after later.
        troubled = self._broker.has_no_room or message["seq"] <= self._unsure
        if ttl_ms is not None and message["at_ms"] + ttl_ms <= self._now_ms and not troubled:
            self.breach("expiry", f"{reader} got {message['seq']} after it had expired")

    def _pushed(self, route: Route, body: dict[str, Any]) -> None:
        receiver = self._receivers.get((route, body["subscription"]))
        if receiver is None:
            self.breach("door", f"{self._who(route)} got an event of another's subscription")
            return
        reader = receiver.reader
        self._time.log(f"{reader} is pushed {_short(body)}")
        if body["kind"] == "ended":
            receiver.ended = True  # told again where it had no room for that
            return
        if receiver.ended:
            self.breach("door", f"{reader} is pushed to after the end of its subscription")
        messages = body["messages"]
        self._judge_messages(route, reader, messages)
        pushed_at = self._network.peers[route].pushed_at
        for each in messages:
            pushed_at.setdefault(each["seq"], self._time.now)
        cursor = max(self.acknowledged[reader], self._asked[reader])
        pushed = receiver.pushed | {each["seq"]: each.get("room") for each in messages}
        receiver.pushed = {seq: room for seq, room in pushed.items() if seq > cursor}
        if len(receiver.pushed) > receiver.window:
            count, window = len(receiver.pushed), receiver.window
            self.breach("window", f"{reader} has {count} unacknowledged, its window is {window}")

    def _forget_room(self, user: str, room: str) -> None:
        """What was said in a room is nothing to acknowledge for somebody who has left it."""
        for receiver in self._receivers.values():
            if receiver.reader.user == user:
                kept = {seq: said for seq, said in receiver.pushed.items() if said != room}
                receiver.pushed = kept

    def _note_company(self, events: Sequence[tuple[Route, dict[str, Any]]]) -> None:
        """Of several that share a cursor and are pushed to at once, the order is not known."""
        first: dict[Reader, Route] = {}
        for route, body in events:
            reader = self._reader(route)
            if first.setdefault(reader, route) != route:
                seqs = [each["seq"] for each in body.get("messages", ())]
                self._tried[reader] = max([self._tried[reader], *seqs])

    # --- what senders are told -------------------------------------------------------------------

    def _judge_status(self, asked: Asked, state: str) -> None:
        """Judge a state when all answers of its turn are known: their order is not."""
        to, seq = asked.args["to"], asked.args["seq"]
        readers = [reader for reader in self._journal.readers if reader.user == to]
        if self._generation or to.startswith("#"):
            return
        read = any(self.acknowledged[reader] >= seq for reader in readers)
        reading = read or any(
            cursor >= seq for reader, cursor in self._acknowledging if reader in readers
        )
        unheard = any(self._asked[reader] >= seq for reader in readers)
        given = any(seq in self._given_now[reader] for reader in readers)
        may = max(self._unsure, *(self._tried[reader] for reader in readers))
        truth = {
            "stored": not read and not given,
            "delivered": not read and may >= seq,
            "acknowledged": reading or unheard or self._broker.lives > 1 or seq <= self._unsure,
            "expired": True,
        }
        if not truth[state]:
            self.breach("status", f"{seq} to {to} is told to be {state}, which it is not")

    def _reader(self, route: Route) -> Reader:
        peer = self._network.peers[route]
        return Reader(peer.user, peer.device)

    def _who(self, route: Route) -> str:
        return self._network.peers[route].name


def _replies(frames: Sequence[bytes]) -> Iterator[Any]:
    for frame in frames:
        yield from decode_replies(frame)


def _short(body: Mapping[str, Any]) -> str:
    """Return an answer for the log: sequences for messages, nothing of tokens."""
    fields = {key: value for key, value in body.items() if key not in ("token", "limits", "name")}
    if "messages" in fields:
        fields["messages"] = [
            f"{each['seq']} {each['from']} {each['id']}{' again' * bool(each.get('redelivered'))}"
            for each in fields["messages"]
        ]
    return str(fields)
