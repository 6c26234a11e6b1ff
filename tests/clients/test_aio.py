"""The asyncio client over real sockets, against a scripted broker."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
import zmq

from broker.wire.envelope import Request
from broker.wire.errors import Code, WireError
from clients import (
    AsyncClient,
    Busy,
    ClientClosed,
    ConnectionFailed,
    NoSuchUser,
    Receipt,
    RequestTimeout,
    TooLarge,
    Unauthorized,
    User,
    WrongThread,
)
from clients.outbox import PENDING_MAX
from clients.owner import _Forks
from clients.request import Call
from tests.clients.fake_broker import RESULTS, Answer, FakeBroker, polite

PATIENT_MS = 20_000


@pytest.fixture
def broker() -> Iterator[FakeBroker]:
    with FakeBroker() as fake:
        yield fake


def _run(main: Coroutine[Any, Any, object]) -> None:
    asyncio.run(asyncio.wait_for(main, 60))


@asynccontextmanager
async def _client(broker: FakeBroker) -> AsyncIterator[AsyncClient]:
    async with AsyncClient(broker.address, timeout_ms=PATIENT_MS, retry_ms=200) as client:
        yield client


async def _until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - the broker's thread sets no event of the loop
            await asyncio.sleep(0.002)


def test_the_commands_are_the_blocking_clients(broker: FakeBroker) -> None:
    async def main() -> None:
        async with _client(broker) as client:
            assert (await client.hello()).version == 1
            assert (await client.login("shafwa", "password1")).user == "shafwa"
            assert client.token == "kt_secret"
            assert (await client.send("fadly", "hi", message_id="m")).message_id == "m"
            assert (await client.inbox()).user == "fadly"
            assert await client.acknowledge(3) == 3
            assert await client.users_on() == []
            assert await client.register("fadly", "password1") == User("fadly", "Fadly")
            await client.change_password("old", "new")
            assert await client.ping() > 0
            await client.logout()
            assert client.token is None

    _run(main())
    assert broker.requests("ack")[0][2] == "kt_secret"


def test_requests_of_one_turn_leave_in_full_messages(broker: FakeBroker) -> None:
    async def main() -> None:
        async with _client(broker) as client:
            await client.ping()
            await asyncio.gather(*(client.ping() for _ in range(1000)))

    _run(main())
    assert broker.requests_in_message == [1, 256, 256, 256, 232]


def test_answers_find_their_tasks(broker: FakeBroker) -> None:
    def answer(request: Request) -> Answer:
        if request[1] != "chat":  # a slow machine makes the client look whether anybody is there
            return polite(request)
        return {"seq": int(request[3]["text"]), "durability": "fsync"}

    broker.answer = answer

    async def main() -> None:
        async with _client(broker) as client:

            async def one(number: int) -> None:
                for _ in range(5):
                    assert (await client.send("fadly", str(number))).seq == number

            await asyncio.gather(*(one(number) for number in range(500)))

    _run(main())


def test_each_request_carries_the_token_it_was_given(broker: FakeBroker) -> None:
    async def main() -> None:
        async with _client(broker) as client:
            await client.request("ping", token="one")
            await client.request("ping", token=None)
            await client.request("ping")

    _run(main())
    assert [request[2] for request in broker.requests("ping")] == ["one", None, None]


def test_send_many_and_submit_keep_the_order(broker: FakeBroker) -> None:
    def answer(request: Request) -> Answer:
        if request[3]["text"] == "3":
            return WireError(Code.NO_SUCH_USER, "no")
        return {"seq": int(request[3]["text"]), "durability": "memory"}

    broker.answer = answer

    async def main() -> None:
        async with _client(broker) as client:
            texts = [*map(str, range(299)), "x" * 65_537]
            outcomes = [o async for o in client.send_many((("f", t) for t in texts), window=50)]
            assert isinstance(outcomes[3], NoSuchUser)
            assert isinstance(outcomes[299], TooLarge)
            assert [o.seq for o in outcomes if isinstance(o, Receipt)] == [
                n for n in range(299) if n != 3
            ]
            tasks = [client.submit("f", str(n)) for n in range(10, 20)]
            assert [(await task).seq for task in tasks] == list(range(10, 20))

    _run(main())
    assert [r[3]["text"] for r in broker.requests()] == [
        *map(str, range(299)),
        *map(str, range(10, 20)),
    ]


def test_500_requests_in_flight_survive_a_restart_in_order(broker: FakeBroker) -> None:
    broker.answer = lambda _: None

    async def main() -> list[str]:
        async with _client(broker) as client:
            tasks = [client.submit("fadly", str(n)) for n in range(500)]
            await _until(lambda: len(broker.requests()) == 500)
            broker.stop()
            broker.answer = polite
            broker.start()
            return [(await task).message_id for task in tasks]

    ids = asyncio.run(main())
    by_connection = [[r[3]["id"] for r in seen if r[1] == "chat"] for seen in broker.seen.values()]
    assert [seen for seen in by_connection if seen] == [ids, ids]


def test_a_lost_reply_is_asked_for_again(broker: FakeBroker) -> None:
    broker.answer = lambda request: (
        None if request[1] == "ack" and len(broker.requests("ack")) == 1 else polite(request)
    )

    async def main() -> None:
        async with _client(broker) as client:
            assert await client.acknowledge(3) == 3

    _run(main())
    assert len(broker.requests("ack")) == 2


def test_a_call_times_out_while_others_are_answered(broker: FakeBroker) -> None:
    broker.answer = lambda request: polite(request) if request[1] == "ping" else None

    async def main() -> None:
        async with _client(broker) as client:
            silent = asyncio.create_task(client.request("ack", timeout_ms=300))
            while not silent.done():
                await client.ping()
            with pytest.raises(RequestTimeout, match=broker.address):
                await silent

    _run(main())


def test_a_refused_connection_and_a_misspelt_address_are_named(broker: FakeBroker) -> None:
    broker.stop()

    async def main() -> None:
        async with AsyncClient(broker.address, timeout_ms=300) as client:
            with pytest.raises(ConnectionFailed, match=broker.address):
                await client.ping()
        async with AsyncClient("nonsense", timeout_ms=PATIENT_MS) as client:
            with pytest.raises(ConnectionFailed, match="cannot connect"):
                await client.ping()

    _run(main())


def test_a_cancelled_call_is_forgotten_and_the_client_goes_on(broker: FakeBroker) -> None:
    broker.answer = lambda request: polite(request) if request[1] == "ping" else None

    async def main() -> None:
        async with _client(broker) as client:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(client.request("ack"), 0.05)
            task = asyncio.create_task(client.ping())
            await asyncio.sleep(0)
            task.cancel()
            await client.ping()
            assert client._session.pending == 0

    _run(main())


def test_a_command_without_a_task_tells_its_end_and_may_be_followed_by_another(
    broker: FakeBroker,
) -> None:
    async def main() -> None:
        async with _client(broker) as client:
            told: list[Call] = []

            def first(call: Call) -> None:
                told.append(call)
                client.begin("ping", {}, token=None, done=told.append)

            client.begin("user_on", {}, token="kt_mine", done=first)
            assert not told  # never before `begin` has returned
            await _until(lambda: len(told) == 2)
            assert [call.value() for call in told] == [RESULTS["user_on"], RESULTS["ping"]]
        with pytest.raises(ClientClosed):
            client.begin("ping", {}, token=None, done=told.append)

    _run(main())
    assert broker.requests("user_on")[0][2] == "kt_mine"


def test_a_command_without_a_task_can_be_refused_or_forgotten(broker: FakeBroker) -> None:
    async def main() -> None:
        async with _client(broker) as client:
            told: list[Call] = []
            refusal = WireError(Code.UNAUTHORIZED, "log in first")
            broker.answer = lambda asked: refusal if asked[1] == "logout" else polite(asked)
            forget = client.begin("ping", {}, token=None, done=told.append)
            forget()
            client.begin("logout", {}, token=None, done=told.append)
            await _until(lambda: told)
            with pytest.raises(Unauthorized):
                told[0].value()
            await client.ping()
            assert len(told) == 1

    _run(main())


def test_closing_fails_the_calls_that_wait(broker: FakeBroker) -> None:
    broker.answer = lambda _: None

    async def main() -> None:
        client = AsyncClient(broker.address)
        task = asyncio.create_task(client.ping())
        await _until(lambda: broker.requests("ping"))
        await client.close()
        await client.close()
        for waiting in (task, client.ping()):
            with pytest.raises(ClientClosed):
                await waiting

    _run(main())


def test_too_many_unanswered_requests_are_refused(broker: FakeBroker) -> None:
    broker.answer = lambda _: None

    async def main() -> None:
        async with _client(broker) as client:
            tasks = [asyncio.create_task(client.ping()) for _ in range(PENDING_MAX)]
            await asyncio.sleep(0)
            with pytest.raises(Busy):
                await client.ping()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    _run(main())


def test_another_event_loop_is_refused(broker: FakeBroker) -> None:
    client = AsyncClient(broker.address)

    async def first() -> None:
        await client.ping()
        await asyncio.get_running_loop().run_in_executor(None, _second)
        await client.close()

    def _second() -> None:
        with pytest.raises(WrongThread):
            asyncio.run(_use())

    async def _use() -> None:
        await client.ping()

    _run(first())


def test_it_works_over_inproc_with_a_shared_context() -> None:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    with FakeBroker(context=context, endpoint="inproc://kotak") as broker:

        async def main() -> None:
            async with AsyncClient(broker.address, context=context) as client:
                await asyncio.gather(*(client.send("fadly", "hi") for _ in range(2000)))

        _run(main())
    context.term()


def test_a_loop_that_was_blocked_takes_the_answers_that_are_here_before_it_judges(
    broker: FakeBroker,
) -> None:
    async def main() -> None:
        async with _client(broker) as client:
            await client.ping()
            task = asyncio.create_task(client.request("ack", timeout_ms=100))
            await _until(lambda: not client._session.outgoing)
            _block_the_loop(0.3)  # for longer than the call's timeout
            assert await task == {"cursor": 3}

    _run(main())


def _block_the_loop(seconds: float) -> None:
    time.sleep(seconds)


def test_a_second_event_loop_is_refused_while_the_first_one_lives(broker: FakeBroker) -> None:
    """Its sockets are watched by the loop that used the client first."""
    first, second = asyncio.new_event_loop(), asyncio.new_event_loop()
    client = AsyncClient(broker.address, timeout_ms=PATIENT_MS)
    try:
        first.run_until_complete(client.ping())
        with pytest.raises(WrongThread, match="one client for each loop"):
            second.run_until_complete(client.ping())
        first.run_until_complete(client.ping())
        first.run_until_complete(client.close())
    finally:
        first.close()
        second.close()


def test_what_a_forked_child_closes_is_still_its_parents(
    broker: FakeBroker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def main() -> None:
        async with _client(broker) as client:
            await client.ping()
            with monkeypatch.context() as child:
                child.setattr(_Forks, "count", _Forks.count + 1)
                await client.close()
            await client.ping()

    _run(main())
