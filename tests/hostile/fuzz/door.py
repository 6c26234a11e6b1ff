"""The text door without a network: connections of the gateway, fed segments, before a service.

A case is a list of connections to one new world: ``[[segment, ...], ends its side?]`` each.
"""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Callable, Mapping, Sequence
from itertools import count
from random import Random
from typing import Any, Final, Self

from broker.core.service import Finished
from broker.transports.text_gateway import RECEIVE_BYTES_MAX, TextGateway, _Connection
from broker.wire import text
from broker.wire.codec import unpack_reply
from broker.wire.envelope import decode_reply, encode_request, encoder
from broker.wire.errors import WireError
from broker.wire.limits import LINE_BYTES_MAX
from tests.core.fakes import World
from tests.hostile.fuzz import cases
from tests.hostile.fuzz.arcs import Arcs
from tests.hostile.fuzz.breach import require
from tests.hostile.fuzz.desk import LIMITS, POLICIES, USERS
from tests.hostile.fuzz.dispatching import quiet
from tests.hostile.fuzz.lines import WORDS, Lines, segments
from tests.hostile.fuzz.mutate import mutate
from tests.hostile.fuzz.tally import Failure, Tally, resident_bytes
from tests.transports.async_broker import AsyncBroker

TARGET: Final = "door"
#: Connections to one world.
CONNECTIONS: Final = 200
TRACED_FIRST: Final = 1
TRACED: Final = 40
#: Turns of the loop that a connection may take to answer what it was sent.
PATIENCE: Final = 20_000
_encode: Final = encoder()
#: What the text door says where it has a fault.
_INTERNAL: Final = "a fault of the broker"


class Inside(AsyncBroker):
    """The broker behind the door: each request is a turn of the service, and its slow work."""

    def __init__(self) -> None:
        super().__init__()
        self._world = World(POLICIES[0], limits=LIMITS)
        self._ids = count(1)
        for user in USERS:
            self._world.user(user)

    async def request(
        self, command: str, args: Mapping[str, Any], *, token: str | None
    ) -> dict[str, Any]:
        world, number = self._world, next(self._ids)
        world.now_ms += number % 3
        frame = encode_request(_encode, number, command, token, args)
        turn = world.service.turn([(b"door", [frame])], [], world.now_ms)
        if turn.jobs:
            await asyncio.sleep(0)
            finished = [Finished(job, job.deferred.work()) for job in turn.jobs]
            turn = world.service.turn([], finished, world.now_ms)
        reply = decode_reply(turn.replies[b"door"][0])
        require(reply.request_id == number, "the answer is that of the request")
        if reply.error is not None:
            raise reply.error
        result: dict[str, Any] = reply.result
        return result

    def tokens(self) -> list[str]:
        return list(self._world.service._sessions._cache)[-8:]


class Wire(asyncio.Transport):
    """A transport that keeps what is written to it."""

    def __init__(self, peer: socket.socket) -> None:
        super().__init__({"socket": peer})
        self.written = bytearray()
        self.reading = True
        self._closing = False
        self.protocol: _Connection | None = None

    def write(self, data: Any) -> None:
        require(not self._closing, "nothing is written to what is closed")
        self.written += data

    def is_closing(self) -> bool:
        return self._closing

    def close(self) -> None:
        if not self._closing and self.protocol:
            self._closing = True
            asyncio.get_running_loop().call_soon(self.protocol.connection_lost, None)

    abort = close

    def pause_reading(self) -> None:
        self.reading = False

    def resume_reading(self) -> None:
        self.reading = True

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass


class Door:
    """A gateway before a new world; a context manager. ``talk`` is one connection."""

    def __init__(self) -> None:
        self.inside = Inside()
        ids = count()
        self._gateway = TextGateway(self.inside, message_id=lambda: f"id-{next(ids)}")
        self._near, self._far = socket.socketpair()
        self._loop = asyncio.new_event_loop()
        #: Replies that were owed, and came.
        self.answered = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.close()
        self._near.close()
        self._far.close()

    def talk(self, parts: Sequence[bytes], *, ends: bool) -> None:
        """Send segments over one connection, and check what comes back."""
        written = self._loop.run_until_complete(self._talk(parts, ends=ends))
        replies = written.split(text.REPLY_END)
        require(replies.pop() == b"", "the last reply is whole")
        wanted = owed(b"".join(parts), ends=ends)
        require(len(replies) == wanted, f"{wanted} replies are owed, and {len(replies)} came")
        self.answered += wanted
        for reply in replies:
            _check_reply(reply)
        require(not self._gateway.faults, "no line is a fault of the broker")
        require(not self._gateway.connections, "a connection that ended is forgotten")

    async def _talk(self, parts: Sequence[bytes], *, ends: bool) -> bytes:
        peer, wire = _Connection(self._gateway), Wire(self._near)
        wire.protocol = peer
        peer.connection_made(wire)
        for part in parts:
            for start in range(0, len(part), RECEIVE_BYTES_MAX):
                segment = part[start : start + RECEIVE_BYTES_MAX]
                await _until(lambda: wire.reading)
                peer.get_buffer(-1)[: len(segment)] = segment
                peer.buffer_updated(len(segment))
        await _until(lambda: peer.line is None)
        if ends:
            peer.eof_received()
        else:
            wire.close()
        await peer.closed
        return bytes(wire.written)


async def _until(done: Callable[[], bool]) -> None:
    for _ in range(PATIENCE):
        if done():
            return
        await asyncio.sleep(0)
    require(holds=False, sentence="a connection goes on answering")


def owed(stream: bytes, *, ends: bool) -> int:
    """Count the replies that a stream is owed: a line one, but an empty one none."""
    *lines, rest = stream.split(b"\n")
    lines_owed = sum(1 for line in lines if _speaks(line))
    if len(rest) > LINE_BYTES_MAX:
        # Refused as soon as it is too long; then it did not end either.
        return lines_owed + 1 + ends
    return lines_owed + (1 if rest and ends else 0)


def _speaks(line: bytes) -> bool:
    try:
        if len(line) > LINE_BYTES_MAX:  # with its CR
            return True
        return text.parse_line(line.removesuffix(b"\r")) is not None
    except WireError:
        return True


def _check_reply(reply: bytes) -> None:
    require(reply.isascii() and b"\r\n" not in reply, "a reply is one line of ASCII")
    value = json.loads(reply)
    require(value["status"] in ("OK", "ERROR"), "OK or ERROR")
    if value["status"] == "ERROR":
        require(_INTERNAL not in value["message"], "no line is a fault of the broker")


class Knocking:
    """One process's share."""

    def __init__(self, seed: str, *, door: Callable[[], Door] = Door) -> None:
        self._seed = seed
        self._door = door
        self._rng = Random(seed)
        words = (*WORDS, *("login", "chat", "send", "kotakmasuk", "user_on") * 4)
        self._words = words
        self._kept = cases.read_all(cases.CORPUS, "line") or [b"x"]
        self._arcs = Arcs()
        self.tally = Tally("text door")

    def run(self, wanted: int, *, seconds_max: float, told: Callable[[int], None]) -> Tally:
        """Send ``wanted`` lines; ``told`` hears after each world how many have been."""
        tally, began, warm = self.tally, time.monotonic(), 0
        with quiet():
            for number in count():
                if tally.inputs >= wanted or time.monotonic() - began >= seconds_max:
                    break
                traced = number < TRACED_FIRST or not number % TRACED
                self._world(wanted - tally.inputs, traced=traced)
                if not warm and tally.inputs >= wanted // 5:
                    warm = resident_bytes()
                told(tally.inputs)
        tally.seconds = time.monotonic() - began
        tally.arcs = tally.new_arcs = len(self._arcs)
        tally.growth_bytes = max(0, resident_bytes() - warm) if warm else 0
        return tally

    def _world(self, wanted: int, *, traced: bool) -> None:
        taken: list[list[Any]] = []
        try:
            with self._door() as door:
                for number in range(CONNECTIONS):
                    if door.answered >= wanted:
                        break
                    if not number % 10:
                        lines = self._lines(door)
                    taken.append(self._connection(lines))
                    self._talk(door, *taken[-1], traced=traced)
                self.tally.inputs += door.answered
        except Exception as error:  # noqa: BLE001 - whatever it is, it has been found
            self.tally.inputs += len(taken)
            self._failed(taken, error)

    def _lines(self, door: Door) -> Lines:
        return Lines(
            self._rng,
            users=(*USERS, *USERS, "nobody", "#a"),
            passwords=("password", "password", "bad"),
            tokens=(*door.inside.tokens(), "token-99"),
            words=self._words,
        )

    def _connection(self, lines: Lines) -> list[Any]:
        rng, stream = self._rng, lines.stream()
        if rng.random() < 0.3:
            stream = mutate(stream, rng.choice(self._kept), rng.random)
        return [segments(rng, stream), rng.random() < 0.7]

    def _talk(self, door: Door, parts: list[bytes], ends: bool, *, traced: bool) -> None:  # noqa: FBT001 - as a case has it
        if not traced:
            door.talk(parts, ends=ends)
            return
        with self._arcs.watch() as new:
            door.talk(parts, ends=ends)
        if new():
            self._kept.append(b"".join(parts))

    def _failed(self, taken: list[list[Any]], error: Exception) -> None:
        name = cases.signature(TARGET, error)
        case = cases.OPEN.get(name, "")
        if not case and all(each.signature != name for each in self.tally.failures):
            fewest = cases.shrink(taken, lambda some: self._fails(some, name), tries=200)
            path = cases.keep(cases.FOUND, TARGET, _encode(fewest))
            case = f"{TARGET}/{path.name}"
        seed = f"{self._seed} +{self.tally.inputs}"
        self.tally.count(Failure(name, case, seed, known=name in cases.OPEN))

    def _fails(self, connections: list[list[Any]], name: str) -> bool:
        try:
            replay(_encode(connections), door=self._door)
        except Exception as error:  # noqa: BLE001 - as above
            return cases.signature(TARGET, error) == name
        return False


def replay(case: bytes, *, door: Callable[[], Door] = Door) -> None:
    """Feed the connections of a case to a new world. Raises what is wrong."""
    with quiet(), door() as opened:
        for parts, ends in unpack_reply(case):
            opened.talk(parts, ends=ends)
