"""Two whole brokers over one Redis: what one stores wakes the other; both outlive the server."""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from urllib.request import urlopen

import pytest

from broker.core import service
from broker.server import Doors, Server
from clients import Client
from clients.errors import RequestError
from tests.server.in_process import PlainHasher, any_ports, held
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import KEEPING

DEADLINE_S = 30
#: By then the client has nothing more to ask; before then it says that it is still there.
QUIET_S = 1
SOON_S = 5


@pytest.fixture
def redis() -> Iterator[redis_server.Server]:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")
    server = redis_server.Server(*KEEPING)
    yield server
    server.stop()


@pytest.fixture
def doors(redis: redis_server.Server, tmp_path: Path) -> Iterator[list[Doors]]:
    before = held()
    servers = [
        Server(any_ports(tmp_path / name, store=redis.url), hasher=PlainHasher()) for name in "ab"
    ]
    yield [server.start() for server in servers]
    for server in servers:
        server.stop()
    assert held() == before, "a broker leaves nothing behind"


def eventually(holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        assert time.monotonic() < deadline, "it never holds"
        time.sleep(0.02)


def healthz(doors: Doors) -> str:
    assert doors.http is not None
    with urlopen(f"http://{doors.http}/healthz", timeout=DEADLINE_S) as page:
        return str(page.read().decode().strip())


def test_a_broker_that_waits_is_woken_by_what_the_other_stores(
    doors: list[Doors], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(service, "IDLE_MS", 600_000)
    got: queue.Queue[str] = queue.Queue()
    stop = threading.Event()

    def receive() -> None:
        with Client(doors[1].zmq) as fadly:
            fadly.login("fadly", "prp")
            with closing(fadly.messages(stop=stop)) as messages:
                for each in messages:
                    got.put(each.text)

    with Client(doors[0].zmq) as shafwa:
        shafwa.login("shafwa", "mks")
        receiver = threading.Thread(target=receive)
        receiver.start()
        try:
            shafwa.send("fadly", "at first")
            assert got.get(timeout=DEADLINE_S) == "at first"
            time.sleep(QUIET_S)  # not to wait for anything, but so that nothing else comes
            shafwa.send("fadly", "out of the blue")
            assert got.get(timeout=SOON_S) == "out of the blue"
        finally:
            stop.set()
            receiver.join()


def test_brokers_outlive_the_server_say_so_and_go_on(
    doors: list[Doors], redis: redis_server.Server
) -> None:
    a, b = doors
    with Client(a.zmq, timeout_ms=1_000) as shafwa, Client(b.zmq) as fadly:
        shafwa.login("shafwa", "mks", timeout_ms=DEADLINE_S * 1_000)
        assert healthz(a) == "alive"
        redis.kill()
        with pytest.raises((RequestError, TimeoutError)):
            shafwa.send("fadly", "too early", message_id="m1")
        eventually(lambda: healthz(a) == healthz(b) == "degraded")
        redis.start()
        shafwa.send("fadly", "too early", message_id="m1", timeout_ms=DEADLINE_S * 1_000)
        fadly.login("fadly", "prp", timeout_ms=DEADLINE_S * 1_000)
        with closing(fadly.messages(timeout_ms=DEADLINE_S * 1_000)) as messages:
            assert next(messages).text == "too early"
