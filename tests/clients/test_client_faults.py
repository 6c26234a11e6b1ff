"""The blocking client over real sockets, where the broker or the connection goes wrong."""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from broker.wire.envelope import Request
from broker.wire.errors import Code, WireError
from clients import (
    BadRequest,
    Client,
    ConnectionFailed,
    RequestTimeout,
    TooLarge,
)
from clients.link import REPLY_WAIT_MS, Link
from clients.pump import Pump
from clients.way import CONNECT_MS
from tests.clients.fake_broker import Answer, FakeBroker, polite

PATIENT_MS = 20_000


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with FakeBroker() as fake:
        yield fake


@pytest.fixture
def client(broker: FakeBroker) -> Iterator[Client]:
    with Client(broker.address, timeout_ms=PATIENT_MS, retry_ms=200, name="test") as made:
        yield made


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


def test_500_requests_in_flight_survive_a_restart_in_order(
    broker: FakeBroker, client: Client
) -> None:
    client.ping()
    broker.answer = lambda _: None
    pending = [client.submit("fadly", str(n)) for n in range(500)]
    client.flush()
    _until(lambda: len(broker.requests()) == 500)
    broker.stop()
    broker.answer = polite
    broker.start()
    receipts = [one.result() for one in pending]
    ids = [receipt.message_id for receipt in receipts]
    assert len(set(ids)) == 500
    by_connection = [
        [request[3]["id"] for request in seen if request[1] == "chat"]
        for seen in broker.seen.values()
    ]
    assert [seen for seen in by_connection if seen] == [ids, ids]


def test_only_what_is_unanswered_is_repeated(broker: FakeBroker, client: Client) -> None:
    client.ping()
    broker.answer = lambda request: polite(request) if request[3].get("text") != "2" else None
    pending = [client.submit("fadly", str(n)) for n in range(4)]
    for number in (0, 1, 3):
        pending[number].result()
    broker.stop()
    broker.answer = polite
    broker.start()
    pending[2].result()
    texts = [request[3]["text"] for request in broker.requests()]
    assert texts == ["0", "1", "2", "3", "2"]


def test_a_restart_between_two_calls_goes_unnoticed(broker: FakeBroker, client: Client) -> None:
    client.send("fadly", "1")
    for _ in range(3):
        broker.stop()
        broker.start()
        client.send("fadly", "2")
    assert len(broker.requests()) == 4


def test_a_broker_that_starts_late_is_found(broker: FakeBroker, client: Client) -> None:
    broker.stop()
    pending = client.submit("fadly", "hi")
    client.flush()
    broker.start()
    assert pending.result().seq == 7


def test_a_broker_that_freezes_is_left_and_found_again(broker: FakeBroker, client: Client) -> None:
    client.ping()
    broker.frozen.set()
    pending = client.submit("fadly", "hi")
    thaw = threading.Timer(1.0, broker.frozen.clear)
    thaw.start()
    assert pending.result().seq == 7
    thaw.join()
    assert len({request[3]["id"] for request in broker.requests()}) == 1


def test_a_lost_reply_is_asked_for_again_on_the_same_connection(
    broker: FakeBroker, client: Client
) -> None:
    lost: set[str] = set()

    def lose_first(request: Request) -> Answer:
        message_id = request[3].get("id", "probe")
        if message_id == "probe" or message_id in lost:
            return polite(request)
        lost.add(message_id)
        return None

    broker.answer = lose_first
    client.send("fadly", "hi")
    assert len(broker.seen) == 1
    assert len(broker.requests()) == 2


def test_busy_is_repeated_until_it_is_not(broker: FakeBroker, client: Client) -> None:
    def busy_twice(request: Request) -> Answer:
        if len(broker.requests("login")) < 3:
            return WireError(Code.BUSY, "hashing", 20)
        return polite(request)

    broker.answer = busy_twice
    assert client.login("a", "b").user == "shafwa"


def test_a_refused_connection_is_named_with_its_address() -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        address = f"tcp://127.0.0.1:{free.getsockname()[1]}"
    with (
        Client(address, timeout_ms=300) as client,
        pytest.raises(ConnectionFailed, match=f"{address} .*refused"),
    ):
        client.ping()


def test_a_silent_peer_is_a_failed_connection() -> None:
    with socket.create_server(("127.0.0.1", 0)) as mute:
        address = f"tcp://127.0.0.1:{mute.getsockname()[1]}"
        with (
            Client(address, timeout_ms=300) as client,
            pytest.raises(ConnectionFailed, match=address),
        ):
            client.ping()


def test_a_broker_that_never_answers_is_a_timeout(broker: FakeBroker) -> None:
    broker.answer = lambda _: None
    with (
        Client(broker.address, timeout_ms=300) as client,
        pytest.raises(RequestTimeout, match=broker.address) as caught,
    ):
        client.send("fadly", "hi", message_id="m1")
    assert caught.value.message_id == "m1"


@pytest.mark.parametrize("address", ["tpc://127.0.0.1:1", "127.0.0.1:8890", "tcp://:x", ""])
def test_a_misspelt_address_fails_at_once(address: str) -> None:
    with Client(address, timeout_ms=PATIENT_MS) as client:
        begin = time.monotonic()
        with pytest.raises(ConnectionFailed, match="cannot connect"):
            client.ping()
        assert time.monotonic() - begin < PATIENT_MS / 2000


def test_a_text_too_large_is_refused_here(broker: FakeBroker, client: Client) -> None:
    with pytest.raises(TooLarge):
        client.send("fadly", "x" * 65_537)
    not_a_text: Any = None
    with pytest.raises(BadRequest):
        client.send("fadly", not_a_text)
    client.ping()
    assert broker.requests() == []


def test_a_call_that_is_interrupted_while_it_waits_is_given_up_and_the_client_goes_on(
    broker: FakeBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    client.ping()
    with monkeypatch.context() as terminal:
        terminal.setattr(Pump, "await_reply", interrupted)  # the answer is there, and so is Ctrl-C
        with pytest.raises(KeyboardInterrupt):
            client.send("fadly", "given up")
    assert client._session.pending == 0
    assert client.send("fadly", "next").seq == 7
    texts = [request[3]["text"] for request in broker.requests()]
    assert texts == ["given up", "next"], "nobody waits for it, so it is not repeated"


@pytest.mark.parametrize("after", [0, 5 * REPLY_WAIT_MS], ids=["at once", "when it has waited"])
def test_ctrl_c_ends_a_call_that_nobody_answers(
    broker: FakeBroker, client: Client, after: int
) -> None:
    """Whether it waits for the reply alone, or for the connection as well."""

    def answer(request: Request) -> Answer:
        if request[1] != "chat":
            return polite(request)
        time.sleep(after / 1000)
        os.kill(os.getpid(), signal.SIGINT)
        return None

    broker.answer = answer
    client.ping()
    begin = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        client.send("fadly", "given up")
    assert time.monotonic() - begin < PATIENT_MS / 2000
    assert client._session.pending == 0


def test_a_connection_that_is_lost_while_an_answer_is_awaited_is_noticed_at_once(
    broker: FakeBroker,
) -> None:
    def answer(request: Request) -> Answer:
        answer_later.set()
        return None

    def restart() -> None:
        answer_later.wait(PATIENT_MS / 1000)
        broker.stop()
        broker.answer = polite
        broker.start()

    answer_later = threading.Event()
    broker.answer = answer
    restarting = threading.Thread(target=restart)
    restarting.start()
    # No probe would tell before the call's time is over, and no timer within seconds.
    with Client(broker.address, timeout_ms=PATIENT_MS, retry_ms=PATIENT_MS) as client:
        began = time.monotonic()
        assert client.send("fadly", "hai").seq == 7
        assert time.monotonic() - began < CONNECT_MS / 2000
    restarting.join()
    assert len(broker.requests()) == 2


def test_what_is_interrupted_while_it_is_sent_breaks_the_connection_and_not_the_order(
    broker: FakeBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of a ZeroMQ message may be out, and the rest would be joined to the next one."""
    client.ping()
    first = client._pump.link
    pending = [client.submit("fadly", str(number)) for number in range(3)]
    with monkeypatch.context() as terminal:
        terminal.setattr(Link, "send", interrupted)
        with pytest.raises(KeyboardInterrupt):
            client.flush()
    last = client.submit("fadly", "3")
    assert [each.result().seq for each in (*pending, last)] == [7] * 4
    assert client._pump.link is not first
    assert [request[3]["text"] for request in broker.requests()] == ["0", "1", "2", "3"]
    assert last.done, "and it says so without looking at the connection"


def interrupted(*_: object) -> bool:
    raise KeyboardInterrupt
