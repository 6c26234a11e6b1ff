"""The blocking client over real sockets, against a scripted broker."""

from __future__ import annotations

import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import zmq

from broker.wire.envelope import Request
from broker.wire.errors import Code, WireError
from clients import (
    BadRequest,
    Client,
    ClientClosed,
    ConnectionFailed,
    ForkedProcess,
    InternalError,
    NoSuchUser,
    Receipt,
    RequestTimeout,
    TooLarge,
    Unauthorized,
    User,
    WrongThread,
)
from clients import client as client_module
from clients.client import BATCH_FRAMES, SUBMITTED_MAX
from clients.link import REPLY_WAIT_MS, Link
from clients.owner import _Forks
from clients.pump import Pump
from clients.results import Message
from clients.way import CONNECT_MS
from tests.clients.fake_broker import RESULTS, Answer, FakeBroker, polite

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


# --- commands --------------------------------------------------------------------------------


def test_login_gives_later_calls_their_token_and_logout_takes_it(
    broker: FakeBroker, client: Client
) -> None:
    assert client.token is None
    login = client.login("shafwa", "password1")
    assert (login.user, login.name, login.expires_at_ms) == ("shafwa", "Shafwa", 9)
    assert client.token == login.token == "kt_secret"
    client.ping()
    client.logout()
    assert client.token is None
    client.ping()
    assert [request[2] for request in broker.requests("ping")] == ["kt_secret", None]
    assert broker.requests("login")[0][2:] == (None, {"user": "shafwa", "password": "password1"})


def test_no_representation_shows_the_token(client: Client) -> None:
    login = client.login("shafwa", "password1")
    assert "kt_secret" not in f"{login!r} {login} {client!r}"


def test_hello_asks_for_the_version_and_names_the_client(
    broker: FakeBroker, client: Client
) -> None:
    assert client.hello().server == "fake 1"
    assert broker.requests("hello")[0][3] == {"version": 1, "client": "test"}


def test_send_makes_an_id_and_returns_the_receipt(broker: FakeBroker, client: Client) -> None:
    receipt = client.send("fadly", "hai dudee")
    assert (receipt.seq, receipt.durability) == (7, "fsync")
    args = broker.requests()[0][3]
    assert args == {"to": "fadly", "text": "hai dudee", "id": receipt.message_id}
    assert len(receipt.message_id) == 26
    assert client.send("fadly", "x", message_id="mine").message_id == "mine"


def test_inbox_returns_messages_and_sends_only_the_options_given(
    broker: FakeBroker, client: Client
) -> None:
    message = {"seq": 4, "at_ms": 5, "from": "afif", "name": "Afif", "id": "m", "text": "hi"}
    broker.answer = lambda _: RESULTS["kotakmasuk"] | {"messages": [message], "new_field": 1}
    page = client.inbox()
    assert page.messages == [Message(4, 5, "afif", "Afif", "m", "hi")]
    assert (page.user, page.more, page.cursor) == ("fadly", False, 0)
    client.inbox(limit=5, after=3)
    asked = [request[3] for request in broker.requests("kotakmasuk")]
    assert asked == [{"limit": 100}, {"limit": 5, "after": 3}]


def test_users_on_follows_every_page(broker: FakeBroker, client: Client) -> None:
    names = ["a", "b", "c", "d", "e"]

    def pages(request: Request) -> Answer:
        after = request[3].get("after")
        begin = names.index(after) + 1 if after else 0
        users = [{"user": name, "name": name.upper()} for name in names[begin : begin + 2]]
        return {"users": users, "more": begin + 2 < len(names)}

    broker.answer = pages
    assert client.users_on() == [User(name, name.upper()) for name in names]


def test_the_remaining_commands_send_their_arguments(broker: FakeBroker, client: Client) -> None:
    assert client.acknowledge(3) == 3
    assert client.register("fadly", "password1", name="Fadly") == User("fadly", "Fadly")
    client.change_password("old", "new")
    assert client.request("user_list", {"after": "x"}, token="admin") == {}
    assert broker.requests("ack")[0][3] == {"seq": 3}
    assert broker.requests("passwd")[0][3] == {"password": "old", "new_password": "new"}
    assert broker.requests("user_list")[0][2:] == ("admin", {"after": "x"})


def test_an_error_of_the_broker_is_raised_as_its_class(broker: FakeBroker, client: Client) -> None:
    broker.answer = lambda _: WireError(Code.NO_SUCH_USER, "nobody is called 'x'")
    with pytest.raises(NoSuchUser, match="nobody is called"):
        client.send("x", "hi")


@pytest.mark.parametrize("command", ["login", "chat", "kotakmasuk", "user_on", "ping"])
def test_an_answer_without_its_fields_is_an_internal_error(
    broker: FakeBroker, client: Client, command: str
) -> None:
    broker.answer = lambda _: {}
    calls: dict[str, Callable[[], object]] = {
        "login": lambda: client.login("a", "b"),
        "chat": lambda: client.send("a", "b"),
        "kotakmasuk": client.inbox,
        "user_on": client.users_on,
        "ping": client.ping,
    }
    with pytest.raises(InternalError, match="lacks"):
        calls[command]()


# --- pipelines -------------------------------------------------------------------------------


def test_send_many_yields_outcomes_in_order_with_errors_in_their_place(
    broker: FakeBroker, client: Client
) -> None:
    def answer(request: Request) -> Answer:
        if request[3]["to"] == "nobody":
            return WireError(Code.NO_SUCH_USER, "no")
        return {"seq": int(request[3]["text"]), "durability": "memory"}

    broker.answer = answer
    messages = [("nobody" if n % 50 == 7 else "fadly", str(n)) for n in range(500)]
    messages[100] = ("fadly", "x" * 70_000)
    outcomes = list(client.send_many(messages, window=64))
    for number, outcome in enumerate(outcomes):
        if number == 100:
            assert isinstance(outcome, TooLarge)
        elif number % 50 == 7:
            assert isinstance(outcome, NoSuchUser)
        else:
            assert isinstance(outcome, Receipt)
            assert outcome.seq == number
    assert len(outcomes) == 500


def test_send_many_takes_no_more_than_a_window_from_its_input(
    broker: FakeBroker, client: Client
) -> None:
    taken = 0

    def endless() -> Iterator[tuple[str, str]]:
        nonlocal taken
        while True:
            taken += 1
            yield "fadly", "hi"

    outcomes = client.send_many(endless(), window=10)
    for _ in range(25):
        next(outcomes)
    assert taken <= 35


def test_submissions_leave_together(broker: FakeBroker, client: Client) -> None:
    client.ping()
    pending = [client.submit("fadly", str(n)) for n in range(50)]
    assert [one.result().seq for one in pending] == [7] * 50
    assert max(broker.requests_in_message) == 50
    assert [request[3]["text"] for request in broker.requests()] == [str(n) for n in range(50)]


def test_pending_is_done_without_waiting_for_it(broker: FakeBroker, client: Client) -> None:
    pending = client.submit("fadly", "hi")
    _until(lambda: pending.done)
    assert pending.result().seq == 7


# --- faults ----------------------------------------------------------------------------------


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


class Limited:
    """Takes five messages, then none until the first that it refused comes again."""

    def __init__(self) -> None:
        self.stored: list[str] = []
        self.refusals = 0
        self._refused: str | None = None

    def __call__(self, request: Request) -> Answer:
        if request[1] != "chat":
            return polite(request)
        text = request[3]["text"]
        if self._refused not in (None, text) or (len(self.stored) % 5 == 4 and not self._refused):
            self._refused = self._refused or text
            self.refusals += 1
            return WireError(Code.RATE_LIMITED, "slower", 20)
        self._refused = None
        self.stored.append(text)
        return polite(request)


def test_a_pipeline_over_the_rate_is_stored_whole_and_in_order(
    broker: FakeBroker, client: Client
) -> None:
    broker.answer = limited = Limited()
    texts = [str(number) for number in range(50)]
    outcomes = list(client.send_many(("fadly", text) for text in texts))
    assert all(isinstance(outcome, Receipt) for outcome in outcomes)
    assert limited.stored == texts
    assert limited.refusals >= 10


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


def test_a_batch_of_submissions_goes_out_before_anybody_waits(
    broker: FakeBroker, client: Client
) -> None:
    """Also where the connection is still to be made, or was lost meanwhile."""
    sent = 0
    for _ in range(2):
        while not broker.requests():
            client.submit("fadly", str(sent))
            sent += 1
            assert sent < SUBMITTED_MAX
            time.sleep(0.0001)
        broker.stop()
        broker.seen.clear()
        broker.start()


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


def test_submitting_waits_while_too_much_is_unanswered(
    broker: FakeBroker, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(client_module, "SUBMITTED_MAX", BATCH_FRAMES)
    client.ping()
    for number in range(3 * BATCH_FRAMES):
        client.submit("fadly", str(number))
        assert client._session.pending <= BATCH_FRAMES
    assert len(broker.requests()) >= 2 * BATCH_FRAMES


def test_send_many_takes_more_of_its_input_while_the_window_is_answered_in_part(
    broker: FakeBroker, client: Client
) -> None:
    taken: list[int] = []

    def answer(request: Request) -> Answer:
        late = request[1] == "chat" and request[3]["text"] == "1" and len(taken) < 3
        return None if late else polite(request)

    def messages() -> Iterator[tuple[str, str]]:
        for number in range(4):
            taken.append(number)
            yield "fadly", str(number)

    broker.answer = answer
    outcomes = client.send_many(messages(), window=2)
    next(outcomes)
    assert taken == [0, 1]
    next(outcomes)
    assert taken == [0, 1, 2], "it was answered only because the third had been taken"
    assert len(list(outcomes)) == 2


# --- ownership -------------------------------------------------------------------------------


def test_another_thread_is_refused(client: Client) -> None:
    raised: list[Exception] = []

    def use() -> None:
        for act in (client.ping, client.close, client.flush, lambda: client.submit("a", "b")):
            try:
                act()
            except WrongThread as error:
                raised.append(error)

    thread = threading.Thread(target=use)
    thread.start()
    thread.join()
    assert len(raised) == 4
    client.ping()


@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")  # the point of the test
def test_a_forked_child_is_refused_and_told_why(client: Client) -> None:
    client.ping()
    read_end, write_end = os.pipe()
    child = os.fork()
    if child == 0:  # pragma: no cover - in the child
        try:
            client.ping()
        except ForkedProcess as error:
            client.close()
            os.write(write_end, str(error).encode())
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    os.close(write_end)
    with os.fdopen(read_end, "rb") as pipe:
        said = pipe.read().decode()
    assert "after the fork" in said
    assert "spawn" in said
    client.ping()


def test_what_a_forked_child_closes_is_still_its_parents(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A child's exit runs every `close` that its parent has pending."""
    arriving = client.messages()
    client.ping()
    with monkeypatch.context() as child:
        child.setattr(_Forks, "count", _Forks.count + 1)
        arriving.close()
        client.close()
        with pytest.raises(ForkedProcess):
            client.ping()
    client.ping()


def test_a_closed_client_says_so_and_closes_twice(broker: FakeBroker) -> None:
    client = Client(broker.address)
    pending = client.submit("fadly", "hi")
    client.close()
    client.close()
    for act in (client.ping, pending.result):
        with pytest.raises(ClientClosed):
            act()


def test_a_shared_context_is_left_open_and_no_socket_stays_behind(broker: FakeBroker) -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    for _ in range(3):
        with Client(broker.address, context=context) as client:
            client.ping()
    assert not context.closed
    context.term()  # would wait for ever for a socket that was left open


def test_many_reconnects_leave_no_descriptor_behind(broker: FakeBroker, client: Client) -> None:
    def descriptors() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    client.ping()
    before = descriptors()
    for _ in range(10):
        broker.stop()
        broker.start()
        client.ping()
    _until(lambda: descriptors() <= before + 4)


def test_inproc_needs_no_monitor() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with (
        FakeBroker(context=context, endpoint="inproc://kotak") as broker,
        Client(broker.address, context=context) as client,
    ):
        assert client.send("fadly", "hi").seq == 7
    context.term()


def test_a_client_made_in_a_spawned_process_works(broker: FakeBroker) -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.apply(_ping, (broker.address,)) == RESULTS["ping"]["now_ms"]


def _ping(address: str) -> int:
    with Client(address) as client:
        return client.ping()


def test_an_expired_session_is_unauthorized(broker: FakeBroker, client: Client) -> None:
    broker.answer = lambda _: WireError(Code.UNAUTHORIZED, "log in")
    with pytest.raises(Unauthorized):
        client.logout()
