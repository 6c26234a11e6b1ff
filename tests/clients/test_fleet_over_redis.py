"""Clients and three real brokers over one Redis: restarted one by one, and killed."""

from __future__ import annotations

import argparse
import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Self

import pytest

from broker.server import Server
from clients import AsyncClient, Client, Message, Unauthorized, cli
from clients.fleet import ranked
from tests.load.broker_process import BrokerProcess
from tests.server.in_process import PlainHasher, any_ports
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import KEEPING

PATIENT_MS = 30_000
#: ... for what has no time of its own.
PATIENT_S = 60


class Broker:
    """A broker in this process that can be restarted at its address."""

    def __init__(self, data: Path, store: str) -> None:
        self._data, self._store = data, store
        self.address = "tcp://127.0.0.1:0"
        self.start()

    def start(self) -> None:
        config = any_ports(
            self._data, store=self._store, zmq=self.address, text=None, http=None, drain_ms=2_000
        )
        self._server = Server(config, hasher=PlainHasher())
        self.address = self._server.start().zmq

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def redis() -> Iterator[redis_server.Server]:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")
    server = redis_server.Server(*KEEPING)
    yield server
    server.stop()


@pytest.fixture
def brokers(redis: redis_server.Server, tmp_path: Path) -> Iterator[list[Broker]]:
    with ExitStack() as stack:
        started = []
        for name in "abc":
            started.append(Broker(tmp_path / name, redis.url))
            stack.callback(started[-1].stop)
        yield started


def together(brokers: list[Broker]) -> str:
    return ",".join(broker.address for broker in brokers)


class Reader:
    """Takes fadly's messages as they come, in a thread; a context manager."""

    def __init__(self, addresses: str) -> None:
        self._addresses = addresses
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.reports: list[bool] = []
        self.messages: queue.Queue[Message] = queue.Queue()

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc_info: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with Client(self._addresses, timeout_ms=PATIENT_MS) as client:
            client.login("fadly", "prp")
            arriving = client.messages(stop=self._stop, on_connection=self.reports.append)
            with closing(arriving):
                for message in arriving:
                    self.messages.put(message)

    def take(self, count: int) -> list[str]:
        return [self.messages.get(timeout=PATIENT_S).text for _ in range(count)]


def in_a_thread(act: Callable[[], None]) -> threading.Thread:
    thread = threading.Thread(target=act)
    thread.start()
    return thread


def test_a_rolling_restart_is_seen_by_no_caller(brokers: list[Broker]) -> None:
    addresses = together(brokers)

    def restart_all() -> None:
        for broker in brokers:
            broker.stop()
            broker.start()

    sent = []
    with Reader(addresses) as reader, Client(addresses, timeout_ms=PATIENT_MS) as client:
        client.login("shafwa", "mks")
        client.send("fadly", "0")
        sent.append("0")
        rolling = in_a_thread(restart_all)
        while rolling.is_alive():
            sent.append(str(len(sent)))
            client.send("fadly", sent[-1])
        rolling.join()
        sent.append("last")
        client.send("fadly", "last")
        assert reader.take(len(sent)) == sent
        assert reader.reports == []
    with Client(addresses, timeout_ms=PATIENT_MS) as client:
        client.login("fadly", "prp")
        assert client.inbox().messages == [], "each was acknowledged, wherever it was read"


def test_an_asyncio_client_goes_through_a_rolling_restart_in_a_pipeline(
    brokers: list[Broker],
) -> None:
    async def restart_all() -> None:
        for broker in brokers:
            await asyncio.to_thread(broker.stop)
            await asyncio.to_thread(broker.start)

    async def main() -> int:
        sent = 0
        async with AsyncClient(together(brokers), timeout_ms=PATIENT_MS) as client:
            await client.login("shafwa", "mks")
            rolling = asyncio.create_task(restart_all())
            while not rolling.done():
                batch = range(sent, sent + 20)
                await asyncio.gather(*(client.send("fadly", str(number)) for number in batch))
                sent += 20
            await rolling
        return sent

    sent = asyncio.run(asyncio.wait_for(main(), PATIENT_S))
    with Client(together(brokers), timeout_ms=PATIENT_MS) as client:
        client.login("fadly", "prp")
        read: list[str] = []
        while page := client.inbox(limit=1_000).messages:
            read += [message.text for message in page]
            client.acknowledge(page[-1].seq)
    assert read == [str(number) for number in range(sent)]


def test_a_token_is_good_with_each_broker(brokers: list[Broker]) -> None:
    with Client(together(brokers)) as client:
        client.login("shafwa", "mks")
        for broker in brokers:
            with Client(broker.address, token=client.token) as other:
                assert other.ping()
        client.logout()
        with Client(together(brokers)) as other, pytest.raises(Unauthorized):
            other.inbox()


def test_the_command_line_goes_on_with_its_session_where_a_broker_is_gone(
    brokers: list[Broker],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KOTAK_SESSION_FILE", str(tmp_path / "session.json"))
    monkeypatch.setenv("KOTAK_BROKER", together(brokers))
    monkeypatch.setenv("MKS", "mks")

    def kotak(*words: str) -> int:
        parser = argparse.ArgumentParser()
        cli.add_commands(parser.add_subparsers(required=True))
        args = parser.parse_args(words)
        code: int = args.run(args)
        return code

    assert kotak("login", "shafwa", "--password-env", "MKS") == 0
    for broker in brokers:
        broker.stop()
        assert kotak("send", "fadly", "hai") == 0
        broker.start()
    assert capsys.readouterr().out.count("message sent to fadly") == len(brokers)


def test_a_broker_that_is_killed_loses_and_doubles_nothing(
    redis: redis_server.Server, tmp_path: Path
) -> None:
    """Its users are asked of the next one; the one that is killed is the sender's own."""
    with ExitStack() as stack:
        processes = [
            stack.enter_context(
                BrokerProcess(tmp_path / name, store=redis.url, options=["--demo"]),
            )
            for name in "ab"
        ]
        addresses = ",".join(process.doors.zmq for process in processes)
        first = ranked(addresses.split(","), "shafwa")[0]
        (its,) = (process for process in processes if process.doors.zmq == first)
        texts = [str(number) for number in range(600)]
        with Reader(addresses) as reader, Client(addresses, timeout_ms=PATIENT_MS) as client:
            client.login("shafwa", "mks")
            seqs = []
            messages = (("fadly", text) for text in texts)
            for count, outcome in enumerate(client.send_many(messages, window=50)):
                assert not isinstance(outcome, Exception)
                seqs.append(outcome.seq)
                if count == 100:
                    assert client.broker == first
                    its.kill()
            assert client.broker != first
            assert seqs == sorted(set(seqs))
            assert reader.take(len(texts)) == texts
        its.start()
