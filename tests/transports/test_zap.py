"""Who gets in: every combination of what guards an encrypted door, over real sockets.

The table is the one that docs/SECURITY.md prints.
"""

from __future__ import annotations

import logging
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import pytest
import zmq

from broker.transports.curve import Pair
from broker.transports.router import Router
from broker.transports.zap import DOMAIN, ENDPOINT, Knock, ZapHandler, knock

WAIT_MS: Final = 10_000
SECURITY: Final = Path(__file__).resolve().parents[2] / "docs/SECURITY.md"

SERVER, ENROLLED, STRANGER = Pair.make(), Pair.make(), Pair.make()

Context = zmq.Context[zmq.Socket[bytes]]

#: Doors of the test under way; a forgotten one is closed when it ends, not when it is collected.
DOORS: list[zmq.Socket[bytes]] = []


@pytest.fixture
def context() -> Iterator[Context]:
    context: Context = zmq.Context()
    yield context
    while DOORS:
        DOORS.pop().close(linger=0)
    context.destroy(linger=0)


def only_the_enrolled(key: bytes) -> bool:
    return key == ENROLLED.public_bytes


@contextmanager
def handler(context: Context, admits: object = only_the_enrolled) -> Iterator[ZapHandler]:
    judge = ZapHandler(context, admits)  # type: ignore[arg-type]  # some of them are no judges
    judge.start()
    try:
        yield judge
    finally:
        judge.stop()


def door(context: Context, *, curve: bool = True, domain: bool = True, enforce: bool = True) -> str:
    """Open a ROUTER that is guarded by so much, and return its address."""
    router = context.socket(zmq.ROUTER)
    DOORS.append(router)
    if curve:
        router.setsockopt(zmq.CURVE_SERVER, 1)
        router.setsockopt(zmq.CURVE_SECRETKEY, SERVER.secret.encode())
    if domain:
        router.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    router.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, int(enforce))
    router.bind("tcp://127.0.0.1:0")
    return router.getsockopt_string(zmq.LAST_ENDPOINT)


def who_gets_in(context: Context, address: str) -> str:
    """Knock as each kind of client; ``in``, ``-`` or ``?`` (no outcome) for each."""
    kinds = ((None, SERVER), (STRANGER, SERVER), (ENROLLED, SERVER), (ENROLLED, STRANGER))
    letters = {Knock.ADMITTED: "in", Knock.REFUSED: "-", Knock.SILENCE: "?"}
    return " ".join(
        letters[knock(context, address, server=server.public, pair=pair, timeout_ms=WAIT_MS)]
        for pair, server in kinds
    )


def broken(_: bytes) -> bool:
    raise RuntimeError("a fault in the look-up of keys")


#: Configuration: is CURVE on, is the domain set, is it enforced, who judges; and who gets in: no
#: key, a key made on the spot, an enrolled key, an enrolled key with a wrong key of the broker.
MATRIX: Final = {
    "no CURVE": (False, False, False, None, "in - - -"),
    "no CURVE, handler": (False, True, True, only_the_enrolled, "- - - -"),
    "CURVE": (True, False, False, None, "- in in -"),
    "CURVE, domain": (True, True, False, None, "- in in -"),
    "CURVE, enforced": (True, False, True, None, "- in in -"),
    "CURVE, domain, enforced": (True, True, True, None, "- - - -"),
    "CURVE, handler": (True, False, False, only_the_enrolled, "- - - -"),
    "CURVE, handler, domain": (True, True, False, only_the_enrolled, "- - in -"),
    "CURVE, handler, enforced": (True, False, True, only_the_enrolled, "- in in -"),
    "CURVE, handler, domain, enforced": (True, True, True, only_the_enrolled, "- - in -"),
    "CURVE, handler of anybody, domain, enforced": (
        True,
        True,
        True,
        lambda _: True,
        "- in in -",
    ),
    "CURVE, faulty handler, domain, enforced": (True, True, True, broken, "- - - -"),
}


@pytest.mark.parametrize("name", MATRIX)
def test_who_gets_in(name: str, context: Context) -> None:
    curve, domain, enforce, admits, expected = MATRIX[name]
    if admits is None:
        address = door(context, curve=curve, domain=domain, enforce=enforce)
        assert who_gets_in(context, address) == expected
        return
    with handler(context, admits):
        address = door(context, curve=curve, domain=domain, enforce=enforce)
        assert who_gets_in(context, address) == expected


def test_the_document_prints_this_table() -> None:
    row = re.compile(r"^\| ((?:no )?CURVE[^|]*) \|" + r" (in|-) \|" * 4, re.MULTILINE)
    printed = {found[0]: " ".join(found[1:]) for found in row.findall(SECURITY.read_text())}
    assert printed == {name: row[-1] for name, row in MATRIX.items()}


def test_a_handler_that_was_stopped_lets_nobody_in(context: Context) -> None:
    with handler(context):
        address = door(context)
    assert who_gets_in(context, address) == "- - - -"


def test_the_brokers_own_router_is_guarded_and_its_inproc_door_is_not(context: Context) -> None:
    with handler(context) as judge:
        router = Router(context, curve_secret=SERVER.secret)
        router.bind("inproc://inside")
        assert who_gets_in(context, router.bind("tcp://127.0.0.1:0")) == "- - in -"
        assert judge.judged == {"admitted": 1, "refused": 1}
        inside = context.socket(zmq.DEALER)
        inside.connect("inproc://inside")
        inside.send(b"hello")
        router.wait(WAIT_MS)
        assert [frames for _, frames in router.drain()] == [[b"hello"]]
        inside.close(linger=0)
        router.close()


# --- The handler alone -------------------------------------------------------------------------


KEY: Final = ENROLLED.public_bytes
GOOD: Final = [b"1.0", b"7", DOMAIN, b"127.0.0.1", b"", b"CURVE", KEY]


def ask(context: Context, *frames: bytes) -> list[bytes]:
    asking = context.socket(zmq.REQ)
    try:
        asking.connect(ENDPOINT)
        asking.send_multipart(frames)
        assert asking.poll(WAIT_MS), "no answer"
        return asking.recv_multipart()
    finally:
        asking.close(linger=0)


def test_an_admitted_key_is_the_user_id_of_its_connection(context: Context) -> None:
    with handler(context):
        answer = ask(context, *GOOD)
    assert answer == [b"1.0", b"7", b"200", b"admitted", ENROLLED.public.encode(), b""]


@pytest.mark.parametrize(
    "question",
    [
        [b""],
        [b"1.0"],
        [b"1.0", b"7"],
        [b"2.0", *GOOD[1:]],
        GOOD[:-1],
        [*GOOD, b"more"],
        [*GOOD[:2], b"", *GOOD[3:]],
        [*GOOD[:2], b"other", *GOOD[3:]],
        [*GOOD[:5], b"NULL", KEY],
        [*GOOD[:5], b"PLAIN", KEY],
        [*GOOD[:6], KEY[:-1]],
        [*GOOD[:6], KEY + b"x"],
        [*GOOD[:6], ENROLLED.public.encode()],
        [b"\xff" * 4_000] * 7,
    ],
)
def test_every_odd_question_is_refused_and_the_next_one_is_answered(
    context: Context, question: list[bytes]
) -> None:
    with handler(context):
        assert ask(context, *question)[2] == b"400"
        assert ask(context, *GOOD)[2] == b"200"


def test_a_fault_in_the_look_up_refuses_is_told_and_ends_nothing(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    faults = iter([True, False])

    def sometimes(key: bytes) -> bool:
        if next(faults):
            raise RuntimeError(f"a secret: {key!r}")
        return True

    with handler(context, sometimes) as judge:
        assert ask(context, *GOOD)[2] == b"500"
        assert ask(context, *GOOD)[2] == b"200"
        assert judge.judged == {"fault": 1, "admitted": 1}
    assert caplog.messages == ["a key could not be looked up: RuntimeError"]


def test_a_question_without_an_envelope_does_not_end_the_handler(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    with handler(context) as judge:
        asking = context.socket(zmq.DEALER)
        asking.connect(ENDPOINT)
        asking.send_multipart(GOOD[:4])
        asking.send_multipart([b"", *GOOD])
        assert asking.poll(WAIT_MS)
        assert asking.recv_multipart()[3] == b"200"
        asking.close(linger=0)
        assert judge.alive
    assert caplog.messages == ["a connection could not be judged: ValueError"]


def test_neither_keys_nor_addresses_come_into_the_log(
    context: Context, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with handler(context, broken):
        assert who_gets_in(context, door(context)) == "- - - -"
    for secret in (ENROLLED.public, ENROLLED.secret, STRANGER.public, repr(KEY)):
        assert secret not in caplog.text


def test_a_second_handler_in_a_context_is_refused_and_leaves_nothing(context: Context) -> None:
    before = threading.active_count()
    with handler(context):
        with pytest.raises(zmq.ZMQError):
            ZapHandler(context, only_the_enrolled)
        assert ask(context, *GOOD)[2] == b"200"
    assert threading.active_count() == before


def test_a_silent_peer_is_silence(context: Context) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"tcp://127.0.0.1:{silent.getsockname()[1]}"
        outcome = knock(context, address, server=SERVER.public, pair=ENROLLED, timeout_ms=200)
    assert outcome is Knock.SILENCE
