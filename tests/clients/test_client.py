"""The blocking client over real sockets, against a scripted broker."""

from __future__ import annotations

import multiprocessing
import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import zmq

from broker.wire.envelope import Request
from broker.wire.errors import Code, WireError
from clients import (
    Client,
    ClientClosed,
    ForkedProcess,
    InternalError,
    NoSuchUser,
    Receipt,
    TooLarge,
    Unauthorized,
    User,
    WrongThread,
)
from clients import client as client_module
from clients.client import BATCH_FRAMES, SUBMITTED_MAX
from clients.owner import _Forks
from clients.results import Message
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
