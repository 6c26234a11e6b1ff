"""Who speaks to the broker's doors in a run with canaries, and keeps every byte that comes back."""

from __future__ import annotations

import json
import socket
import ssl
from collections.abc import Iterable, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

import msgpack
import zmq

from broker.wire.envelope import encode_request, encoder
from clients.curve_keys import Curve
from tests.canaries import Canaries, Kind
from tests.hostile.canary_evidence import PATIENCE_S, Evidence
from tests.hostile.canary_requests import Asked, malformed, meant, not_meant

_REPLY_END: Final = b"\r\n\r\n"
#: How long to wait for an answer that need not come.
_MAYBE_MS: Final = 100

_context: Final[zmq.Context[zmq.Socket[bytes]]] = zmq.Context.instance()


class ZmqDoor:
    """A peer that asks one thing at a time; a context manager."""

    def __init__(self, evidence: Evidence, address: str, curve: Curve | None) -> None:
        self._evidence = evidence
        self._address, self._curve = address, curve
        self._encode = encoder()
        self._id = 0
        #: By user, or ``admin``.
        self.tokens: dict[str, str] = {}
        self._socket = self._open()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._socket.close(linger=0)

    def ask(self, asked: Asked) -> Any:
        """Return the result, or None where it is refused."""
        self._send(asked)
        while True:
            replies = self._receive(int(PATIENCE_S * 1_000))
            assert replies, f"no answer to {asked.command}"
            for reply_id, status, body in replies:
                if reply_id == self._id:
                    if asked.command == "login" and status == "OK":
                        self.tokens[asked.args["user"]] = body["token"]
                    return body if status == "OK" else None

    def ask_in_vain(self, asked: Asked) -> None:
        """Ask a broker that need not answer any more."""
        self._send(asked)
        while self._receive(_MAYBE_MS):
            pass

    def _send(self, asked: Asked) -> None:
        self._id += 1
        token = self.tokens.get(asked.who)
        self._socket.send(encode_request(self._encode, self._id, asked.command, token, asked.args))

    def throw(self, frames: Sequence[bytes]) -> None:
        """Send what is no request, and keep what is answered, if anything is."""
        self._socket.send_multipart(frames)
        while self._receive(_MAYBE_MS):
            pass

    def throw_too_much(self, frame: bytes) -> None:
        """Send what cuts the connection, on one of its own."""
        cut = self._open()
        cut.send(frame)
        cut.poll(_MAYBE_MS)
        cut.close(linger=0)

    def _open(self) -> zmq.Socket[bytes]:
        opened: zmq.Socket[bytes] = _context.socket(zmq.DEALER)
        if self._curve is not None:
            opened.curve_serverkey = self._curve.server.encode()
            opened.curve_publickey = self._curve.public.encode()
            opened.curve_secretkey = self._curve.secret.encode()
        opened.connect(self._address)
        return opened

    def _receive(self, patience_ms: int) -> list[Any]:
        if not self._socket.poll(patience_ms):
            return []
        replies: list[Any] = []
        for frame in self._socket.recv_multipart():
            value = msgpack.unpackb(frame)
            replies += value if isinstance(value[0], list) else [value]
        for reply in replies:
            place = "refusals" if reply[1] == "ERROR" else "answers"
            self._evidence.add(place, json.dumps(reply, ensure_ascii=False))
        return replies


def converse(door: ZmqDoor, canaries: Canaries, people: Mapping[str, str], name: str) -> None:
    """Ask for everything that there is, as it is meant and as it is not."""
    for asked in meant(canaries, people, name):
        if asked.command == "logout":
            _mistreat(door, canaries, name)  # while there is a session
        result = door.ask(asked)
        if asked.command == "login" and asked.args.get("password") == people.get(
            asked.args["user"]
        ):
            assert result, "a right password is refused: nothing behind it would be tried"


def _mistreat(door: ZmqDoor, canaries: Canaries, name: str) -> None:
    for command, args in not_meant(canaries, name):
        for who in ("", "siti", "admin"):
            if not (who == "" and command == "broker_drain"):
                door.ask(Asked(command, who, args))
    *frames, too_large = malformed(canaries, name)
    for frame in frames:
        door.throw([frame])
    door.throw([frames[0]] * 300)
    door.throw_too_much(too_large)


# --- Lines and pages -------------------------------------------------------------------------


def lines(canaries: Canaries, people: Mapping[str, str], name: str) -> list[bytes]:
    """Return lines for the text door, each with a canary in it; TOKEN stands for the session's."""

    def secret(what: str, kind: Kind = Kind.PASSWORD) -> str:
        return canaries.make(kind, f"{what}, text door, {name}")

    body, unsent = secret("chat", Kind.BODY), secret("chat without a login", Kind.BODY)
    texts = [
        f"login siti {people['siti']} ",
        f"login siti {secret('wrong password')} ",
        f"login {secret('a password alone')} ",
        f"login nobody {secret('unknown user')} ",
        f"LOGIN siti {secret('in capitals')} ",
        f"lgin siti {secret('mistyped')} ",
        f"login {secret('a password for a name')} x ",
        f"chat TOKEN budi  {body} ",
        f"chat TOKEN nobody  {secret('chat to nobody', Kind.BODY)} ",
        f"chat {secret('a password for a token')} budi  {unsent} ",
        f"kotakmasuk {secret('a password for a token')} ",
        f"login siti {secret('with a NUL')}\0 ",
        f"login siti {secret('very long') * 2_500} ",
        f"chat TOKEN budi  {secret('too long', Kind.BODY) * 2_500} ",
        "user_on TOKEN ",
        "kotakmasuk TOKEN ",
        "logout TOKEN ",
    ]
    bad = f"login siti {secret('bad UTF-8')}".encode() + b"\xff\xfe "
    return [*(text.encode() for text in texts), bad]


def speak(
    evidence: Evidence,
    address: tuple[str, int],
    said: Iterable[bytes],
    tls: ssl.SSLContext | None,
    unfinished: bytes,
) -> None:
    """Say each line and keep its answer; then leave in the midst of one."""
    with ExitStack() as open_until_the_end:
        door = open_until_the_end.enter_context(socket.create_connection(address, PATIENCE_S))
        if tls is not None:
            wrapped = tls.wrap_socket(door, server_hostname="localhost")
            door = open_until_the_end.enter_context(wrapped)
        token = b"none"
        for line in said:
            door.sendall(line.replace(b"TOKEN", token) + b"\r\n")
            reply = _reply(door)
            evidence.add("refusals" if b'"ERROR"' in reply else "answers", reply)
            with suppress(ValueError):
                token = json.loads(reply).get("tokenid", "").encode() or token
        door.sendall(unfinished)


def speak_plainly_where_tls_is(evidence: Evidence, address: tuple[str, int], line: bytes) -> None:
    """Say a line without encryption to a door that wants it."""
    with socket.create_connection(address, PATIENCE_S) as door, suppress(OSError):
        door.sendall(line + b"\r\n")
        evidence.add("refusals", _reply(door))


def browse(evidence: Evidence, address: tuple[str, int], canaries: Canaries, name: str) -> None:
    """Ask the HTTP door for its pages, and for what it does not have."""
    secret = canaries.make(Kind.PASSWORD, f"in a request for a page, {name}").encode(
        "ascii", "ignore"
    )
    head = b"Host: x\r\nAuthorization: Bearer %s\r\n\r\n" % secret
    for request in (
        b"GET /metrics HTTP/1.1\r\n" + head,
        b"GET /healthz HTTP/1.1\r\n" + head,
        b"GET /readyz HTTP/1.1\r\n" + head,
        b"GET /%s?token=%s HTTP/1.1\r\n" % (secret, secret) + head,
        b"POST /metrics HTTP/1.1\r\nContent-Length: %d\r\n" % len(secret) + head + secret,
        b"%s %s %s\r\n\r\n" % (secret, secret, secret),
        b"GET /metrics HTTP/1.1\r\n%s: %s\r\n" % (secret, secret * 3_000) + head,
    ):
        with socket.create_connection(address, PATIENCE_S) as door, suppress(OSError):
            door.sendall(request)
            door.shutdown(socket.SHUT_WR)
            while received := door.recv(65_536):
                evidence.add("metrics and health", received)


def _reply(door: socket.socket) -> bytes:
    reply = b""
    while not reply.endswith(_REPLY_END):
        received = door.recv(65_536)
        if not received:
            break
        reply += received
    return reply


def trusting(certificate: Path) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=certificate)
