"""A broker as a program, and everything sent to it over real sockets, with an honest client beside.

Three ways in: DEALER sockets, whose frames are hostile; bare TCP connections to the ZeroMQ door,
whose bytes are; and connections of the text door. Each block of inputs ends with the honest client
on both doors.
"""

from __future__ import annotations

import json
import select
import socket
import struct
import time
from collections.abc import Callable
from contextlib import suppress
from itertools import count
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
from typing import Any, Final, Self

from broker.wire import text
from broker.wire.codec import unpack_reply
from broker.wire.envelope import encode_request, encoder
from broker.wire.errors import Code
from broker.wire.limits import FRAME_BYTES_MAX, FRAMES_PER_MESSAGE_MAX, LINE_BYTES_MAX
from clients import Client
from tests.e2e.program import Serving, connect
from tests.e2e.raw_peer import RawPeer
from tests.e2e.zmtp import GREETING
from tests.hostile.fuzz.breach import Breach, require
from tests.hostile.fuzz.door import owed
from tests.hostile.fuzz.grammar import COMMANDS, Grammar
from tests.hostile.fuzz.lines import WORDS, Lines
from tests.hostile.fuzz.mutate import mutate
from tests.hostile.fuzz.tally import GROWTH_BYTES_MAX, Failure, Tally, resident_bytes

#: Inputs of one kind in a row.
BLOCK: Final = 250
#: Messages of the largest size, before memory is measured.
LARGEST: Final = 5
#: How often each way in is taken.
_WAYS: Final = {"dealer": 6, "text": 3, "tcp": 1}
#: For what an honest client asks, and for what must come to rest at the end.
PATIENCE_S: Final = 30.0
#: Small tables, so that growth is a leak and not what was stored.
OPTIONS: Final = (
    "--demo",
    "--log-json",
    *("--mailbox-messages-max", "50", "--retention-bytes-max", "100000"),
    *("--dedup-ids-per-sender", "100", "--dedup-ids-max", "1000"),
)
#: The hostile have accounts too. Sessions are kept: without one most commands end early.
HOSTILE: Final = (("mamang", "jkt"), ("afif", "plp"))
SESSIONS: Final = 2
#: What hashes passwords is asked seldom: it costs tens of milliseconds of all cores.
_TIMES: Final = {
    **dict.fromkeys(COMMANDS, 20),
    **dict.fromkeys(("login", "auth", "passwd", "register"), 1),
    "logout": 0,
}
_encode: Final = encoder()
_READY: Final = b"\x05READY\x0bSocket-Type\x00\x00\x00\x06DEALER"
_FAULTS: Final = frozenset({"ERROR", "CRITICAL"})


class Siege:
    """One broker under fire; a context manager. ``fire`` takes the next block."""

    def __init__(self, seed: str, folder: Path) -> None:
        self._rng = rng = Random(seed)
        self.broker = Serving(folder, *OPTIONS)
        self._honest: list[Client] = []
        try:
            self._honest = [connect(self.broker), connect(self.broker, "fadly", "prp")]
            tokens = [self._token(*each) for each in HOSTILE for _ in range(SESSIONS)]
        except BaseException:
            self.__exit__()
            raise
        users = ("mamang", "afif", "nobody", "#a")
        self._grammar = Grammar(
            rng,
            users=users[:3],
            tokens=(*tokens, *tokens, None, "x"),
            passwords=("bad", "x" * 9),
            commands=[word for word in COMMANDS for _ in range(_TIMES[word])],
            oddity=0.08,
        )
        words = [word for word in WORDS for _ in range(1 if word in ("login", "auth") else 10)]
        self._lines = Lines(
            rng,
            users=users,
            passwords=("bad", "x" * 9),
            tokens=tokens,
            words=[word for word in words if word != "logout"],
        )
        self._numbers = count(2**62)
        self._ways: dict[str, Callable[[int], int]] = {
            "dealer": self._dealer,
            "text": self._text,
            "tcp": self._tcp,
        }

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for client in self._honest:
            client.close()
        self.broker.__exit__(None, None, None)

    @property
    def threads(self) -> int:
        return sum(1 for _ in Path(f"/proc/{self.broker.process.pid}/task").iterdir())

    @property
    def resident_bytes(self) -> int:
        return resident_bytes(self.broker.process.pid)

    def warm_up(self) -> None:
        """Send the largest that there is, by every way in: what that takes is not growth."""
        args = {"to": "nobody", "text": "x" * (FRAME_BYTES_MAX - 100), "id": "x"}
        largest = encode_request(_encode, 1, "chat", None, args)
        wrong = {"user": "nobody", "password": "bad"}
        login = encode_request(_encode, 1, "login", None, wrong)
        with RawPeer(self.broker.zmq) as peer:
            for _ in range(LARGEST):
                peer.send([largest] * FRAMES_PER_MESSAGE_MAX)
                self._drain(peer)
            peer.send([login] * LARGEST)
            self._drain(peer)
        for _ in range(LARGEST):
            self._talk(b"login x " + b"x" * LINE_BYTES_MAX + b"\r\n")
        for way in self._ways.values():
            way(BLOCK)
        self.serve_honestly()

    def fire(self) -> int:
        """Send the next block; return how many inputs it was. Raises what did not hold."""
        (way,) = self._rng.choices(tuple(_WAYS), tuple(_WAYS.values()))
        sent = self._ways[way](BLOCK)
        self.serve_honestly()
        return sent

    def serve_honestly(self) -> None:
        """Send, read and acknowledge on one door, ask on the other: all of it must go well."""
        sender, reader = self._honest
        said = f"honest {next(self._numbers)}"
        sender.send("fadly", said)
        inbox = reader.inbox()
        require(
            [message.text for message in inbox.messages] == [said], "the honest have their message"
        )
        reader.acknowledge(inbox.messages[-1].seq)
        written = self._talk(f"user_on {reader.token} \r\n".encode())
        require(b'"status": "OK"' in written and b"fadly" in written, "the text door serves them")

    def _token(self, user: str, password: str) -> str:
        with RawPeer(self.broker.zmq) as peer:
            return peer.login(user, password)

    # --- the ways in ---------------------------------------------------------------------------

    def _dealer(self, wanted: int) -> int:
        """Send messages of frames; everything that is answered must be an answer."""
        sent = 0
        with RawPeer(self.broker.zmq) as peer:
            while sent < wanted:
                message = self._grammar.message()
                if self._rng.random() < 0.4:
                    message = [mutate(frame, message[0], self._rng.random) for frame in message]
                # libzmq cuts off who sends more: that is for the bare connections.
                if message and all(len(frame) <= FRAME_BYTES_MAX for frame in message):
                    peer.send(message)
                    sent += len(message)
                if self._rng.random() < 0.1:
                    self._drain(peer)
            self._drain(peer)
        return sent

    def _drain(self, peer: RawPeer) -> None:
        """Read replies up to that of a ping, which comes after all that was not slow."""
        number = next(self._numbers)
        peer.send([encode_request(_encode, number, "ping", None, {})])
        while True:
            require(peer.socket.poll(int(PATIENCE_S * 1_000)), "the broker answers")
            for frame in peer.socket.recv_multipart():
                values = unpack_reply(frame)
                together = bool(values) and isinstance(values[0], list)
                for value in values if together else [values]:
                    _judge(value)
                    if value[0] == number:
                        return

    def _tcp(self, wanted: int) -> int:
        """Open bare connections and send bytes that are nearly ZeroMQ's protocol."""
        host, _, port = self.broker.zmq.removeprefix("tcp://").rpartition(":")
        for _ in range(wanted):
            with socket.create_connection((host, int(port)), PATIENCE_S) as peer:
                with suppress(ConnectionError):
                    peer.sendall(self._zmtp())
                    if self._rng.random() < 0.1:
                        peer.settimeout(0.01)
                        peer.recv(4_096)
                with suppress(OSError):
                    if self._rng.random() < 0.5:  # by a reset
                        peer.setsockopt(
                            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
                        )
        return wanted

    def _zmtp(self) -> bytes:
        rng = self._rng
        parts = [GREETING, b"\x04" + bytes([len(_READY)]) + _READY]
        for frame in self._grammar.message()[:5]:
            short = len(frame) < 256
            size = bytes([len(frame)]) if short else struct.pack(">Q", len(frame))
            parts.append(bytes([rng.choice((0, 0, 1, 4)) | (0 if short else 2)]) + size + frame)
        if rng.random() < 0.8:
            at = rng.randrange(len(parts))
            parts[at] = mutate(parts[at], rng.choice(parts), rng.random)
        return b"".join(parts)

    def _text(self, wanted: int) -> int:
        """Open connections of the text door; each stream gets as many replies as it is owed."""
        for start in range(0, wanted, 10):
            streams = [self._lines.stream() for _ in range(min(10, wanted - start))]
            whole = b"".join(
                mutate(each, streams[0], self._rng.random) if self._rng.random() < 0.4 else each
                for each in streams
            )
            replies = self._talk(whole).split(text.REPLY_END)
            require(replies.pop() == b"", "the last reply is whole")
            wanted_replies = owed(whole, ends=True)
            require(
                len(replies) == wanted_replies,
                f"{wanted_replies} replies are owed, and {len(replies)} came",
            )
            for reply in replies:
                said = json.loads(reply).get("message", "")
                require("a fault of the broker" not in said, "no line is a fault of the broker")
        return wanted

    def _talk(self, stream: bytes) -> bytes:
        """Send a stream to the text door while reading; return all that came until its end."""
        with socket.create_connection(self.broker.text_address, PATIENCE_S) as peer:
            left, received, deadline = (
                memoryview(stream),
                bytearray(),
                time.monotonic() + PATIENCE_S,
            )
            peer.setblocking(False)
            while True:
                require(time.monotonic() < deadline, "the text door answers")
                readable, writable, _ = select.select([peer], [peer] if left else [], [], 1)
                if writable:
                    left = left[peer.send(left) :]
                    if not left:
                        peer.shutdown(socket.SHUT_WR)
                if readable:
                    some = peer.recv(65_536)
                    if not some:
                        return bytes(received)
                    received += some

    # --- the end -------------------------------------------------------------------------------

    def rest(self, holds: Callable[[], bool]) -> bool:
        """Wait until something holds again; tell whether it does."""
        deadline = time.monotonic() + PATIENCE_S
        while not holds():
            if time.monotonic() > deadline:
                return False
            time.sleep(0.2)
        return True

    def stop(self) -> None:
        """End the broker, which must end well and must have logged no fault."""
        ended = self.broker.stop()
        require(ended.code == 0, f"it ended with {ended.code}")
        faults = [line for line in ended.err.splitlines() if _is_fault(line)]
        require(not faults, f"{len(faults)} faults in its log: {' '.join(faults)[:1_000]}")


def _judge(reply: Any) -> None:
    require(isinstance(reply, list) and len(reply) == 3, "a reply has three parts")
    if reply[1] == "ERROR" and reply[2]["code"] == Code.INTERNAL.value:
        raise Breach("no request is a fault of the broker")


def _is_fault(line: str) -> bool:
    try:
        return json.loads(line)["level"] in _FAULTS
    except (ValueError, LookupError, TypeError):
        return bool(line.strip())  # what the log did not write is a traceback


def besiege(seed: str, wanted: int, *, seconds_max: float, told: Callable[[int], None]) -> Tally:
    """Send ``wanted`` inputs to one broker, and see what is left of it."""
    tally, began = Tally("sockets"), time.monotonic()
    with (
        TemporaryDirectory(prefix="kotak-fuzz-") as folder,
        Siege(seed, Path(folder, "d")) as siege,
    ):
        try:
            _besiege(siege, tally, wanted, began + seconds_max, told)
        except Exception as error:  # noqa: BLE001 - whatever it is, it has been found
            sentence = f"sockets {type(error).__name__} ({error})"
            tally.count(Failure(sentence, "", f"{seed} +{tally.inputs}"))
    tally.seconds = time.monotonic() - began
    return tally


def _besiege(
    siege: Siege, tally: Tally, wanted: int, deadline: float, told: Callable[[int], None]
) -> None:
    siege.warm_up()
    threads, warm = siege.threads, siege.resident_bytes
    while tally.inputs < wanted and time.monotonic() < deadline:
        tally.inputs += siege.fire()
        told(tally.inputs)
    siege.rest(lambda: siege.threads == threads)
    tally.dead = max(0, threads - siege.threads)
    siege.rest(lambda: siege.resident_bytes - warm < GROWTH_BYTES_MAX)
    tally.growth_bytes = max(0, siege.resident_bytes - warm)
    require(siege.threads == threads, "the broker has as many threads as before")
    siege.serve_honestly()
    siege.stop()
