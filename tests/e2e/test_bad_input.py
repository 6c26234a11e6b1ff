"""Bad input at every door of one real broker, beside an honest client who must not notice.

After each test the honest client, connected all the time, is answered at once and in full; the log
tells of no fault and quotes nothing of what anybody wrote.
"""

from __future__ import annotations

import random
import socket
import struct
from collections.abc import Iterator
from contextlib import suppress
from typing import Any

import msgpack
import pytest
import zmq

from broker.wire.commands import PARSERS
from broker.wire.errors import Code
from broker.wire.limits import (
    FRAME_BYTES_MAX,
    FRAMES_PER_MESSAGE_MAX,
    LINE_BYTES_MAX,
    SEQ_MAX,
    TEXT_BYTES_MAX,
)
from clients import Client
from clients.text_connection import TextConnection
from tests.e2e.program import Serving
from tests.e2e.raw_peer import RawPeer

CANARY = "kenari-dalam-tambang"  # stands in every text, password and name that is sent here
TIMEOUT_S = 60
REFUSED = {Code.BAD_REQUEST, Code.TOO_LARGE, Code.UNKNOWN_COMMAND, Code.UNAUTHORIZED}


class Honest:
    """A client on each door, connected before anything bad arrives."""

    def __init__(self, broker: Serving) -> None:
        self.broker = broker
        self.client = Client(broker.zmq, timeout_ms=30_000)
        self.client.login("shafwa", "mks")
        self.text = TextConnection(*broker.text_address)
        self.text_token: str = self.text.login("fadly", "prp")["tokenid"]
        self._sent = 0

    def close(self) -> None:
        self.client.close()
        self.text.close()

    def is_served(self) -> None:
        """Send, read and take one message, on a connection that has never broken."""
        self._sent += 1
        words = f"{CANARY} {self._sent}"
        self.client.send("fadly", words)
        messages = self.text.kotakmasuk(self.text_token)["messages"]
        assert [message["msg"] for message in messages] == [words]
        with RawPeer(self.broker.zmq) as peer:  # all workers' work: a password among others
            frames = [peer.request("login", user="afif", password=CANARY) for _ in range(4)]
            peer.send([*frames, peer.request("ping")])
            replies = [peer.reply() for _ in range(5)]
            assert sum(reply.error is None for reply in replies) == 1

    def secrets(self) -> list[str]:
        return [CANARY, str(self.client.token), self.text_token, "mks", "prp"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Honest]:
    data = tmp_path_factory.mktemp("bad_input") / "data"
    options = ("--demo", "--store", "memory:", "--log-level", "debug", "--text-line-ms", "500")
    with Serving(data, *options) as broker:
        person = Honest(broker)
        yield person
        person.close()
        ended = broker.stop()
        assert ended.code == 0


@pytest.fixture
def broker(honest: Honest) -> Iterator[Serving]:
    broker = honest.broker
    yield broker
    assert broker.process.poll() is None
    honest.is_served()
    assert broker.metric("kotak_text_faults_total") == 0
    for trouble in ("uncaught", "Traceback", "fault"):
        assert trouble not in broker.err
    for secret in honest.secrets():
        assert secret not in broker.err


@pytest.fixture
def peer(broker: Serving) -> Iterator[RawPeer]:
    with RawPeer(broker.zmq) as opened:
        yield opened


# --- frames --------------------------------------------------------------------------------------

MALFORMED = {
    "empty": b"",
    "text": CANARY.encode(),
    "http": b"GET / HTTP/1.1\r\n\r\n",
    "never used byte": b"\xc1",
    "cut short": msgpack.packb([1, "ping", None, {}])[:-1],
    "trailing bytes": msgpack.packb([1, "ping", None, {}]) + b"\0",
    "two values": msgpack.packb([1, "ping", None, {}]) * 2,
    "array header of 4 Gi": b"\xdd\xff\xff\xff\xff",
    "map header of 4 Gi": b"\xdf\xff\xff\xff\xff",
    "bytes header of 4 Gi": b"\xc6\xff\xff\xff\xff",
    "string header of 4 Gi": b"\xdb\xff\xff\xff\xff",
    "extension header of 4 Gi": b"\xc9\xff\xff\xff\xff\x01",
    "extension": msgpack.packb([1, "ping", None, {"x": msgpack.ExtType(5, b"x")}]),
    "timestamp": msgpack.packb([1, "ping", None, {"x": msgpack.Timestamp(1, 0)}]),
    "depth": b"\x91" * 100_000,
    "amplification": b"\xdc\xff\xff" + b"\x80" * 65_535,
    "17 fields": msgpack.packb([1, "ping", None, {str(n): n for n in range(17)}]),
    "integer keys": msgpack.packb([1, "ping", None, {1: 2}]),
    "bad UTF-8": b"\x94\x01\xa4p\xff\xfeg\xc0\x80",
    "lone surrogate": b"\x94\x01\xa4ping\xc0\x81\xa1x\xa3\xed\xa0\x80",
    "unhashable key": b"\x94\x01\xa4ping\xc0\x81\x90\x01",
    "a map": msgpack.packb({"id": 1}),
    "a number": msgpack.packb(7),
    "three parts": msgpack.packb([1, "ping", None]),
    "five parts": msgpack.packb([1, "ping", None, {}, CANARY]),
    "id nil": msgpack.packb([None, "ping", None, {}]),
    "id negative": msgpack.packb([-1, "ping", None, {}]),
    "id string": msgpack.packb(["1", "ping", None, {}]),
    "id true": msgpack.packb([True, "ping", None, {}]),
    "id NaN": msgpack.packb([float("nan"), "ping", None, {}]),
    "command number": msgpack.packb([1, 5, None, {}]),
    "command bytes": msgpack.packb([1, b"ping", None, {}]),
    "token number": msgpack.packb([1, "ping", 5, {}]),
    "token bytes": msgpack.packb([1, "ping", CANARY.encode(), {}]),
    "token too long": msgpack.packb([1, "ping", CANARY * 4, {}]),
    "args nil": msgpack.packb([1, "ping", None, None]),
    "args array": msgpack.packb([1, "ping", None, []]),
    "args text": msgpack.packb([1, "ping", None, CANARY]),
    "NaN": msgpack.packb([1, "hello", None, {"version": float("nan")}]),
    "float": msgpack.packb([1, "hello", None, {"version": 1.0}]),
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_frame_is_a_bad_request(peer: RawPeer, name: str) -> None:
    assert peer.refusal(MALFORMED[name]) == Code.BAD_REQUEST
    assert peer.ask(peer.request("ping")).error is None


def test_bad_frames_do_not_spoil_the_good_ones_beside_them(peer: RawPeer) -> None:
    good = [peer.request("ping") for _ in range(len(MALFORMED))]
    peer.send([frame for pair in zip(good, MALFORMED.values(), strict=True) for frame in pair])
    replies = [peer.reply() for _ in range(2 * len(MALFORMED))]
    assert [reply.error is None for reply in replies] == [True, False] * len(MALFORMED)


def test_a_repeated_key_counts_once_and_harms_nobody(peer: RawPeer) -> None:
    twice = b"\x94\x01\xa5hello\xc0\x82\xa7version\x02\xa7version\x01"
    assert peer.ask(twice).error is None


def test_random_bytes_and_damaged_requests_are_all_answered(peer: RawPeer) -> None:
    chance = random.Random(20_20)
    good = peer.request("chat", CANARY, to="fadly", text=CANARY, id="1")
    for _ in range(40):
        frames = []
        for _ in range(50):
            frame = bytearray(good if chance.random() < 0.7 else chance.randbytes(30))
            for _ in range(chance.randint(1, 4)):
                frame[chance.randrange(len(frame))] = chance.randrange(256)
            frames.append(bytes(frame))
        peer.send(frames)
        for _ in frames:
            reply = peer.reply()
            assert reply.error
            assert reply.error.code in REFUSED


@pytest.mark.parametrize("frames", [FRAMES_PER_MESSAGE_MAX + 1, 1_000])
def test_a_message_of_too_many_frames_is_refused_whole(
    peer: RawPeer, honest: Honest, frames: int
) -> None:
    token = honest.client.token
    send = [peer.request("chat", token, to="fadly", text=CANARY, id=str(n)) for n in range(frames)]
    peer.send(send)
    reply = peer.reply()
    assert reply.request_id is None
    assert reply.error
    assert reply.error.code == Code.BAD_REQUEST
    assert peer.silent(100)
    # That none was carried out is seen by `is_served`: fadly's mailbox holds nothing of it.


def test_the_most_frames_allowed_are_all_answered(peer: RawPeer) -> None:
    peer.send([peer.request("ping") for _ in range(FRAMES_PER_MESSAGE_MAX)])
    replies = [peer.reply() for _ in range(FRAMES_PER_MESSAGE_MAX)]
    assert [reply.request_id for reply in replies] == list(range(1, FRAMES_PER_MESSAGE_MAX + 1))


def test_bombs_of_empty_frames_cost_bounded_memory(peer: RawPeer, broker: Serving) -> None:
    before = broker.memory_mib()
    for _ in range(5):
        peer.send([b""] * 100_000)
        reply = peer.reply()
        assert reply.error
        assert reply.error.code == Code.BAD_REQUEST
    assert broker.memory_mib() - before < 100


def test_a_frame_over_the_limit_breaks_the_connection_of_its_sender_only(
    peer: RawPeer, broker: Serving
) -> None:
    peer.ask(peer.request("ping"))
    events = peer.socket.get_monitor_socket(zmq.EVENT_DISCONNECTED)
    try:
        peer.send([b"x" * (FRAME_BYTES_MAX + 1)])
        assert events.poll(TIMEOUT_S * 1_000)
    finally:
        peer.socket.disable_monitor()
        events.close()
    with RawPeer(broker.zmq) as other:
        assert other.refusal(b"x" * FRAME_BYTES_MAX) == Code.BAD_REQUEST


# --- commands ------------------------------------------------------------------------------------

LONG = CANARY * 4_000
#: Good arguments for each command, and for each field a value that is too large.
GOOD: dict[str, dict[str, Any]] = {
    "hello": {"version": 1, "client": CANARY},
    "ping": {},
    "login": {"user": "mamang", "password": CANARY},
    "logout": {},
    "chat": {"to": "fadly", "text": CANARY, "id": "1"},
    "kotakmasuk": {"limit": 1, "after": 0},
    "ack": {"seq": 0},
    "user_on": {"after": CANARY},
    "subscribe": {"window": 1, "after": 0},
    "unsubscribe": {},
    "history": {"of": "sent", "before": 9, "limit": 1},
    "status": {"to": "fadly", "seq": 1},
    "rooms": {},
    "room_create": {"room": "#new"},
    "room_invite": {"room": "#new", "user": "afif"},
    "room_join": {"room": "#new"},
    "room_leave": {"room": "#new"},
    "room_members": {"room": "#new", "after": CANARY},
    "register": {"user": "new", "password": CANARY, "name": CANARY},
    "passwd": {"password": CANARY, "new_password": CANARY},
    "user_add": {"user": "new", "password": CANARY, "name": CANARY},
    "user_list": {"after": CANARY},
    "user_passwd": {"user": "afif", "password": CANARY},
    "user_remove": {"user": "afif"},
    "key_add": {"user": "afif", "key": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"},
    "key_list": {"user": "afif"},
    "key_remove": {"user": "afif", "key": "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"},
    "block": {"user": "afif"},
    "unblock": {"user": "afif"},
    "blocks": {},
    "user_role": {"user": "afif", "role": "admin"},
    "session_list": {"user": "afif"},
    "session_revoke": {"user": "afif", "session": "0" * 16},
    "session_revoke_all": {"user": "afif"},
    "mailbox_depth": {"user": "afif"},
    "mailbox_list": {"after": CANARY},
    "broker_status": {},
    "broker_drain": {"on": True},
    "broker_reload": {},
    "broker_backup": {"name": CANARY},
}
#: How the commands begin that a user may not give; `user_on` is no such one.
ADMINISTRATION = ("user_", "key_", "session_", "mailbox_", "broker_")
OPTIONAL = {"client", "limit", "after", "before", "of", "name", "window"}
WRONG_TYPES: tuple[Any, ...] = (None, True, 1.5, b"bytes", [], {}, [CANARY])


def spoilt(args: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield these arguments with one thing wrong, in every way."""
    for field, value in args.items():
        for wrong in (*WRONG_TYPES, CANARY if isinstance(value, int) else 7):
            if not (wrong is None and field in OPTIONAL):
                yield {**args, field: wrong}
        yield {**args, field: 2**64 - 1 if isinstance(value, int) else LONG}
        yield {**args, field: -1 if isinstance(value, int) else ""}
        if field not in OPTIONAL:
            yield {name: kept for name, kept in args.items() if name != field}
    yield {**args, CANARY: 1}
    yield {**args, "": ""}


def test_the_table_of_commands_is_whole() -> None:
    assert GOOD.keys() == PARSERS.keys()


@pytest.mark.parametrize("command", GOOD)
def test_spoilt_arguments_are_refused_and_nothing_is_carried_out(
    peer: RawPeer, honest: Honest, command: str
) -> None:
    """With the token of a live session, so that it is the arguments that are refused."""
    for args in spoilt(GOOD[command]):
        token = None if command in ("hello", "login", "register") else honest.client.token
        code = peer.refusal(peer.request(command, token, **args))
        allowed = {Code.BAD_REQUEST, Code.TOO_LARGE}
        if command.startswith(ADMINISTRATION) and command != "user_on":
            allowed = {Code.FORBIDDEN}
        if command == "register":
            allowed.add(Code.FORBIDDEN)
        assert code in allowed, f"{command} {list(args)}: {code}"


@pytest.mark.parametrize("command", [name for name in GOOD if name not in ("hello", "ping")])
def test_no_token_a_made_up_one_or_half_a_real_one_opens_nothing(
    peer: RawPeer, honest: Honest, command: str
) -> None:
    if command in ("login", "register"):
        assert peer.ask(peer.request(command, CANARY, **GOOD[command])).error
        return
    half = str(honest.client.token)[:-1]
    for token in (None, "", CANARY, half, f"{half} ", "kt_" + "A" * 43, "' OR 1=1 --"):
        code = peer.refusal(peer.request(command, token, **GOOD[command]))
        assert code == Code.UNAUTHORIZED


@pytest.mark.parametrize(
    "command", ["", "PING", "ping ", "pi\0ng", "__init__", "handle_chat", CANARY, LONG]
)
def test_an_unknown_command_is_named_as_such(peer: RawPeer, command: str) -> None:
    assert peer.refusal(peer.request(command)) == Code.UNKNOWN_COMMAND


def test_numbers_and_texts_at_their_limits_are_taken(peer: RawPeer, honest: Honest) -> None:
    token = honest.client.token
    longest = "é" * (TEXT_BYTES_MAX // 2)
    sent = peer.ask(peer.request("chat", token, to="shafwa", text=longest, id="limits"))
    assert sent.error is None
    too_long = peer.request("chat", token, to="shafwa", text=longest + "x", id="over")
    assert peer.refusal(too_long) == Code.TOO_LARGE
    page = peer.ask(peer.request("kotakmasuk", token, limit=1_000, after=SEQ_MAX))
    assert page.result["messages"] == []
    acknowledged = peer.ask(peer.request("ack", token, seq=SEQ_MAX))
    assert acknowledged.result["cursor"] == sent.result["seq"]


# --- peers ---------------------------------------------------------------------------------------


def test_a_peer_with_anothers_routing_id_gets_nothing_of_it(broker: Serving) -> None:
    with RawPeer(broker.zmq, ROUTING_ID=b"shafwa") as victim:
        assert victim.ask(victim.request("ping")).error is None
        with RawPeer(broker.zmq, ROUTING_ID=b"shafwa") as thief:
            thief.send([thief.request("ping")])
            assert thief.silent(300)
            assert victim.ask(victim.request("ping")).error is None
            assert thief.silent(0)
            assert victim.silent(0)


@pytest.mark.parametrize("kind", [zmq.REQ, zmq.ROUTER, zmq.SUB, zmq.PUSH, zmq.PAIR, zmq.REP])
def test_another_kind_of_socket_harms_nobody(broker: Serving, kind: int) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context.instance()
    with context.socket(kind) as stranger:
        stranger.setsockopt(zmq.LINGER, 0)
        stranger.connect(broker.zmq)
        with suppress(zmq.ZMQError):  # no such operation, or no peer that would take it
            stranger.send(CANARY.encode(), zmq.NOBLOCK)
        stranger.poll(100)


def zmq_port(broker: Serving) -> tuple[str, int]:
    host, _, port = broker.zmq.removeprefix("tcp://").rpartition(":")
    return host, int(port)


GREETING = b"\xff" + b"\0" * 8 + b"\x7f\x03\x00NULL" + b"\0" * 16 + b"\0" * 32


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
        b"login shafwa mks \r\n",
        b"\0" * 100_000,
        b"\xff" * 100_000,
        GREETING[:20],
        GREETING,
        GREETING + b"\x04\xff" + b"x" * 255,
        GREETING + b"\x02" + b"\xff" * 8,
        GREETING + b"\x04\x19\x05READY\x0bSocket-Type\xff\xff\xff\xffDEALER",
    ],
)
def test_garbage_on_the_zeromq_port_is_the_senders_own_trouble(
    broker: Serving, garbage: bytes
) -> None:
    with socket.create_connection(zmq_port(broker), TIMEOUT_S) as peer, suppress(OSError):
        peer.sendall(garbage)
        peer.shutdown(socket.SHUT_WR)
        while peer.recv(4_096):
            pass


def test_silent_and_half_open_connections_cost_little(broker: Serving) -> None:
    before = broker.memory_mib()
    crowd = [socket.create_connection(zmq_port(broker), TIMEOUT_S) for _ in range(300)]
    for number, each in enumerate(crowd):
        if number % 2:
            each.sendall(GREETING[:11])
    assert broker.memory_mib() - before < 50
    for each in crowd:
        # Some leave without a word, by a reset.
        each.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        each.close()


# --- the text door and the HTTP door -------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"\n" * 10_000,
        b"\r\n \r\n  \r\n",
        b"\0\n",
        b"\xff\xfe\xfd\n",
        b"login " + CANARY.encode() + b"\n",
        b"login shafwa " + CANARY.encode() * 100 + b"\n",
        b"x" * (LINE_BYTES_MAX * 3),
        b"chat " + CANARY.encode() + b" fadly " + b"y" * LINE_BYTES_MAX + b"\n",
        b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" * 20,
        MALFORMED["amplification"],
        b"login shafwa",
    ],
)
@pytest.mark.parametrize("leave", ["close", "reset"])
def test_garbage_on_the_text_door_gets_whole_replies_or_none(
    broker: Serving, garbage: bytes, leave: str
) -> None:
    with socket.create_connection(broker.text_address, TIMEOUT_S) as peer:
        peer.sendall(garbage)
        if leave == "reset":
            peer.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            return
        peer.shutdown(socket.SHUT_WR)
        received = b""
        while more := peer.recv(65_536):
            received += more
        assert received == b"" or received.endswith(b"}\r\n\r\n")


def test_a_flood_of_bad_lines_leaves_room_for_others(broker: Serving, honest: Honest) -> None:
    with socket.create_connection(broker.text_address, TIMEOUT_S) as flood:
        flood.setblocking(False)
        with suppress(BlockingIOError):  # it fills every buffer, since it reads nothing
            while True:
                flood.send(b"foo\r\n" * 10_000)
        honest.is_served()


@pytest.mark.parametrize(
    "garbage",
    [
        b"\r\n\r\n",
        b"\0\xff\r\n\r\n",
        b"GET\r\n\r\n",
        b"GET /" + b"a" * 10_000 + b" HTTP/1.1\r\n\r\n",
        b"GET /metrics HTTP/9.9\r\n\r\n",
        b"GET /../../etc/passwd HTTP/1.0\r\n\r\n",
        b"GET /metrics HTTP/1.0\r\n" + b"X: y\r\n" * 10_000 + b"\r\n",
        b"POST /metrics HTTP/1.0\r\nContent-Length: 1000000000\r\n\r\nx",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"login shafwa mks \r\n",
    ],
)
def test_garbage_on_the_http_door_gets_an_error_or_the_end(broker: Serving, garbage: bytes) -> None:
    host, _, port = broker.http.rpartition(":")
    received = b""
    with (
        socket.create_connection((host, int(port)), TIMEOUT_S) as peer,
        suppress(ConnectionError),  # it may hang up on what it will not read
    ):
        peer.sendall(garbage)
        while more := peer.recv(65_536):
            received += more
    assert b" 200 " not in received.partition(b"\r\n")[0]
    assert b"root:" not in received
