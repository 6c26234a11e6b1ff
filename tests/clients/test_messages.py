"""The loop over the messages of both clients: real sockets, a scripted broker, a real broker."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import aclosing, asynccontextmanager, closing
from itertools import islice
from pathlib import Path
from typing import Any

import pytest

from broker.wire.envelope import Request, encode_event, encoder
from broker.wire.errors import Code, WireError
from clients import (
    AsyncClient,
    Busy,
    Client,
    ClientClosed,
    ConnectionFailed,
    Message,
    Unauthorized,
)
from clients.pump import monotonic_ms
from clients.subscription import HEARTBEAT_MS
from tests.clients.fake_broker import RESULTS, Answer, FakeBroker
from tests.conftest import Broker
from tests.load.broker_process import BrokerProcess

PATIENT_MS = 30_000


def _until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        time.sleep(0.002)


# --- against a scripted broker ----------------------------------------------------------------


class Script:
    """A broker with a mailbox of messages numbered from 1 that pushes a few at each subscribe."""

    def __init__(self, last: int, at_once: int) -> None:
        self.last = last
        self.at_once = at_once
        self.cut_off = threading.Event()
        self._encode = encoder()

    def __call__(self, request: Request) -> Answer:
        if request[1] != "subscribe":
            return RESULTS.get(request[1], {})
        after = request[3].get("after", 0)
        seqs = range(after + 1, min(after + self.at_once, self.last) + 1)
        # The events after the first few are lost on the way: the next one shows the gap.
        gap = self._event(after + self.at_once + 1, [self.last + 1])
        return RESULTS["subscribe"], self._event(after, seqs), gap

    def _event(self, after: int, seqs: Any) -> bytes:
        messages = [
            {"seq": seq, "at_ms": 0, "from": "shafwa", "name": "S", "id": f"i{seq}", "text": "hi"}
            for seq in seqs
        ]
        return encode_event(self._encode, 1, "messages", {"after": after, "messages": messages})


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker(Script(last=20, at_once=3)) as broker:
        yield broker


@pytest.fixture
def client(fake: FakeBroker) -> Iterator[Client]:
    with Client(fake.address, token="t", timeout_ms=PATIENT_MS, retry_ms=200) as made:
        yield made


def test_lost_events_leave_neither_gap_nor_double(client: Client) -> None:
    with closing(client.messages()) as messages:
        assert [message.seq for message in islice(messages, 20)] == list(range(1, 21))


def test_the_asyncio_client_closes_gaps_as_well(fake: FakeBroker) -> None:
    async def main() -> None:
        seqs = []
        async with (
            AsyncClient(fake.address, token="t") as client,
            aclosing(client.messages()) as messages,
        ):
            async for message in messages:
                seqs.append(message.seq)
                if message.seq == 20:
                    break
        assert seqs == list(range(1, 21))

    _run(main())


def test_a_broker_that_goes_away_is_waited_for(fake: FakeBroker, client: Client) -> None:
    reports: list[bool] = []
    with closing(client.messages(on_connection=reports.append)) as messages:
        for expected in range(1, 21):
            assert next(messages).seq == expected
            if expected in (2, 10):
                fake.stop()
                fake.start()
    assert reports[:2] == [False, True]


def test_the_arguments_reach_the_broker(fake: FakeBroker, client: Client) -> None:
    next(client.messages(window=7, after=5))
    assert fake.requests("subscribe")[0][2:] == ("t", {"window": 7, "after": 5})


@pytest.mark.parametrize("acknowledge", [True, False])
def test_an_asyncio_reader_says_whether_its_loop_acknowledges(
    fake: FakeBroker, *, acknowledge: bool
) -> None:
    async def main() -> None:
        async with (
            AsyncClient(fake.address, token="t", timeout_ms=PATIENT_MS) as client,
            aclosing(client.messages(acknowledge=acknowledge)) as messages,
        ):
            assert [(await anext(messages)).seq for _ in range(2)] == [1, 2]

    _run(main())
    assert bool(fake.requests("ack")) is acknowledge


def test_leaving_the_loop_acknowledges_and_unsubscribes(fake: FakeBroker, client: Client) -> None:
    for message in client.messages():
        if message.seq == 3:
            break
    assert [request[3]["seq"] for request in fake.requests("ack")] == [2]
    assert len(fake.requests("unsubscribe")) == 1


def test_an_exception_in_the_body_leaves_its_message_unacknowledged(
    fake: FakeBroker, client: Client
) -> None:
    def work() -> None:
        for message in client.messages():
            assert message.seq < 2, "the work failed"

    with pytest.raises(AssertionError, match="the work failed"):
        work()
    assert [request[3]["seq"] for request in fake.requests("ack")] == [1]


def test_closing_the_client_ends_the_loop_in_good_order(fake: FakeBroker, client: Client) -> None:
    messages = client.messages()
    next(messages)
    next(messages)
    client.close()
    assert [request[3]["seq"] for request in fake.requests("ack")] == [1]
    with pytest.raises(ClientClosed):
        next(messages)


def test_one_loop_a_client(client: Client) -> None:
    with closing(client.messages()) as messages:
        next(messages)
        with pytest.raises(Busy, match="already"):
            next(client.messages())
    next(client.messages())


def test_a_loop_is_stopped_from_another_thread(fake: FakeBroker) -> None:
    fake.answer = lambda request: RESULTS.get(request[1], {})
    stop = threading.Event()
    ended = threading.Event()

    def read() -> None:
        with Client(fake.address, token="t") as client:
            assert list(client.messages(stop=stop)) == []
        ended.set()

    thread = threading.Thread(target=read)
    thread.start()
    _until(lambda: fake.requests("subscribe"))
    assert not ended.is_set()
    stop.set()
    thread.join(30)
    assert ended.is_set()
    assert len(fake.requests("unsubscribe")) == 1


def test_without_a_broker_the_first_answer_is_not_waited_for_without_end(fake: FakeBroker) -> None:
    fake.stop()
    with Client(fake.address, token="t") as client, pytest.raises(ConnectionFailed):
        next(client.messages(timeout_ms=100))


def test_a_refused_subscription_is_raised(fake: FakeBroker, client: Client) -> None:
    fake.answer = lambda _: WireError(Code.UNAUTHORIZED, "log in")
    with pytest.raises(Unauthorized):
        next(client.messages())


def _run(main: Coroutine[Any, Any, object]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


def test_the_asyncio_client_waits_for_a_broker_that_goes_away(fake: FakeBroker) -> None:
    async def main() -> None:
        seqs: list[int] = []
        async with AsyncClient(fake.address, token="t", retry_ms=200) as client:
            async for message in client.messages():
                seqs.append(message.seq)
                if message.seq in (2, 10):
                    await asyncio.to_thread(fake.stop)
                    fake.start()
                if message.seq == 20:
                    break
        assert seqs == list(range(1, 21))
        # Closing the client ends a loop that Python has not ended yet.
        assert fake.requests("ack")[-1][3]["seq"] == 19
        assert len(fake.requests("unsubscribe")) == 1

    _run(main())


def test_messages_that_are_read_after_the_connection_is_lost_do_not_keep_the_next_one_away(
    fake: FakeBroker,
) -> None:
    """The request for more is made where nothing can be sent, and nothing else brings a turn."""

    async def main() -> None:
        async with AsyncClient(fake.address, token="t", retry_ms=200) as client:
            async for message in client.messages():
                if message.seq == 1:  # two more are here
                    await asyncio.to_thread(fake.stop)
                    # Until it knows of that, and has nothing more to do for now.
                    while (  # noqa: ASYNC110 - it says that to nobody
                        client._session.wanted or client._timer_ms < monotonic_ms() + 1_000
                    ):
                        await asyncio.sleep(0.001)
                    fake.start()
                    began = time.monotonic()
                if message.seq == 4:
                    break
        assert time.monotonic() - began < HEARTBEAT_MS / 2000

    _run(main())


def test_a_cancelled_reader_leaves_in_good_order(fake: FakeBroker) -> None:
    async def main() -> None:
        async with AsyncClient(fake.address, token="t") as client:
            seen = asyncio.Event()

            async def read() -> None:
                async with aclosing(client.messages()) as messages:
                    async for _ in messages:
                        seen.set()

            task = asyncio.create_task(read())
            await seen.wait()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert len(fake.requests("unsubscribe")) == 1

    _run(main())


def test_closing_the_asyncio_client_wakes_the_task_that_reads(fake: FakeBroker) -> None:
    async def main() -> None:
        client = AsyncClient(fake.address, token="t")

        async def read() -> None:
            async for _ in client.messages():
                pass

        task = asyncio.create_task(read())
        async with asyncio.timeout(30):
            while not fake.requests("ack"):  # noqa: ASYNC110 - the broker's thread sets no event
                await asyncio.sleep(0.002)
        await client.close()
        with pytest.raises(ClientClosed):
            await task
        assert len(fake.requests("unsubscribe")) == 1

    _run(main())


# --- against a real broker ---------------------------------------------------------------------


def _client(address: str, user: str = "fadly", password: str = "prp") -> Client:
    client = Client(address, timeout_ms=PATIENT_MS)
    client.login(user, password)
    return client


def _fill(address: str, *texts: str) -> None:
    with _client(address, "shafwa", "mks") as sender:
        for outcome in sender.send_many(("fadly", text) for text in texts):
            assert not isinstance(outcome, Exception)


def _texts(messages: Iterator[Message], count: int) -> list[str]:
    return [message.text for message in islice(messages, count)]


@asynccontextmanager
async def _reader(address: str) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(address, timeout_ms=PATIENT_MS) as client:
        await client.login("fadly", "prp")
        yield client


class Reading:
    """A thread that reads until the message ``end``."""

    def __init__(self, address: str) -> None:
        self.texts: list[str] = []
        self.reports: list[bool] = []
        self.started = threading.Event()
        self._address = address
        self._thread = threading.Thread(target=self._read)
        self._thread.start()
        assert self.started.wait(30)

    def _read(self) -> None:
        with _client(self._address) as client:
            self.started.set()
            for message in client.messages(on_connection=self.reports.append):
                self.texts.append(message.text)
                if message.text == "end":
                    break

    def join(self) -> None:
        self._thread.join(60)
        assert not self._thread.is_alive(), f"{len(self.texts)} messages arrived"


def test_a_subscriber_sees_all_in_order_though_the_broker_is_killed(tmp_path: Path) -> None:
    texts = [f"{life} {number}" for life in range(3) for number in range(200)]
    with BrokerProcess(tmp_path / "data", options=["--demo"]) as process:
        reading = Reading(process.doors.zmq)
        for life in range(3):
            _fill(process.doors.zmq, *texts[life * 200 : life * 200 + 200])
            _until(lambda: len(reading.texts) > life * 200)  # noqa: B023 - called at once
            process.kill()
            process.start()
        _fill(process.doors.zmq, "end")
        reading.join()
        assert reading.texts == [*texts, "end"]
        assert reading.reports[:2] == [False, True]
        with _client(process.doors.zmq) as client:
            # The loop was left in the body of the last message, which therefore stays.
            assert [message.text for message in client.inbox().messages] == ["end"]


def test_a_message_arrives_without_being_asked_for(demo_broker: Broker) -> None:
    async def main() -> None:
        async with (
            _reader(demo_broker.zmq) as reader,
            AsyncClient(demo_broker.zmq) as sender,
            aclosing(reader.messages()) as messages,
        ):
            await sender.login("shafwa", "mks")
            for number in range(5):
                arriving = asyncio.ensure_future(anext(messages))
                await sender.send("fadly", f"hai {number}")
                assert (await arriving).text == f"hai {number}"
            assert (await reader.inbox()).messages[-1].text == "hai 4"

    _run(main())


def test_two_subscribers_of_one_user_both_see_what_arrives(demo_broker: Broker) -> None:
    with (
        _client(demo_broker.zmq) as one,
        _client(demo_broker.zmq) as two,
        closing(one.messages(acknowledge=False)) as to_one,
        closing(two.messages(acknowledge=False)) as to_two,
    ):
        _fill(demo_broker.zmq, "a", "b")
        assert _texts(to_one, 2) == _texts(to_two, 2) == ["a", "b"]
        _fill(demo_broker.zmq, "c")
        assert _texts(to_one, 1) == _texts(to_two, 1) == ["c"]


def test_two_subscribers_that_acknowledge_take_everything_in_order(demo_broker: Broker) -> None:
    texts = [str(number) for number in range(500)]
    readings = [Reading(demo_broker.zmq) for _ in range(2)]
    _fill(demo_broker.zmq, *texts)
    _fill(demo_broker.zmq, "end")
    for reading in readings:
        reading.join()
        assert [int(text) for text in reading.texts[:-1]] == sorted(
            {int(text) for text in reading.texts[:-1]}
        )
    assert {text for reading in readings for text in reading.texts} == {*texts, "end"}


def test_who_never_acknowledges_gets_a_window_of_messages(demo_broker: Broker) -> None:
    _fill(demo_broker.zmq, *(str(number) for number in range(12)))
    got: list[Message] = []
    stop = threading.Event()
    with _client(demo_broker.zmq) as client:
        for message in client.messages(window=5, acknowledge=False, stop=stop):
            got.append(message)
            if len(got) == 5:
                assert client.ping()  # what is pushed comes before the answer
                assert client._session.subscription is not None
                assert not client._session.subscription.done
                client.acknowledge(got[1].seq)
            if len(got) == 7:
                assert client.ping()
                assert not client._session.subscription.done  # type: ignore[union-attr]
                stop.set()
    assert [message.text for message in got] == list("0123456")


def test_after_the_loop_nothing_is_pushed_and_the_rest_is_in_the_inbox(
    demo_broker: Broker,
) -> None:
    _fill(demo_broker.zmq, "a", "b", "c")
    with _client(demo_broker.zmq) as client:
        for message in client.messages():
            if message.text == "b":
                break
        assert [message.text for message in client.inbox().messages] == ["b", "c"]
        assert _texts(client.messages(), 2) == ["b", "c"]


def test_a_session_that_ends_ends_the_loop(demo_broker: Broker) -> None:
    _fill(demo_broker.zmq, "a")
    with _client(demo_broker.zmq) as client, closing(client.messages()) as messages:
        assert next(messages).text == "a"
        with Client(demo_broker.zmq, token=client.token) as other:
            other.logout()
        _fill(demo_broker.zmq, "b")
        with pytest.raises(Unauthorized):
            next(messages)


def test_the_client_may_be_used_within_the_loop(demo_broker: Broker) -> None:
    _fill(demo_broker.zmq, "0")
    with _client(demo_broker.zmq) as client:
        for message in client.messages():
            number = int(message.text)
            if number == 50:
                break
            client.send("fadly", str(number + 1))
        assert [message.text for message in client.inbox().messages] == ["50"]


def test_a_long_text_at_a_time_passes_though_the_window_is_larger(demo_broker: Broker) -> None:
    letters = [f"{number}" * 60_000 for number in range(10)] * 3
    _fill(demo_broker.zmq, *letters)
    with _client(demo_broker.zmq) as client:
        assert _texts(client.messages(window=1_000), 30) == letters


_FORGETFUL = """
import sys
from clients import Client
client = Client(sys.argv[1])
client.login("fadly", "prp")
client.send("fadly", "hai")
messages = client.messages()
print(next(messages).text)
"""


def test_a_forgotten_loop_ends_with_its_program_and_says_nothing(demo_broker: Broker) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _FORGETFUL, demo_broker.zmq],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
        cwd=Path(__file__).parents[2],
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "hai\n", "")
