"""Both clients and several brokers over real sockets: stops, silence, lost replies, resets."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import count, takewhile
from pathlib import Path
from typing import Any

import pytest

from broker.wire.envelope import Request
from broker.wire.errors import Code, WireError
from clients import AsyncClient, BadRequest, Client, ConnectionFailed, Receipt, Unauthorized
from clients import fleet as fleet_module
from clients import way as way_module
from clients.curve_keys import Curve
from clients.fleet import ranked
from tests.clients.fake_broker import Answer, FakeBroker, polite
from tests.clients.test_curve import BROKER, LONG_MS, peer
from tests.proof.network.proxy import Proxy

PATIENT_MS = 20_000
USER = "shafwa"


class Store:
    """What the brokers share: each message id once, in the order of its first coming."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self._seqs: dict[str, int] = {}
        self._lock = threading.Lock()

    def answer(self, request: Request) -> Answer:
        if request[1] != "chat":
            return polite(request)
        with self._lock:
            if request[3]["id"] not in self._seqs:
                self.texts.append(request[3]["text"])
                self._seqs[request[3]["id"]] = len(self.texts)
            return {"seq": self._seqs[request[3]["id"]], "durability": "memory"}

    def keep(self, request: Request) -> None:
        """Do what is asked, unheard."""
        self.answer(request)


class Brokers:
    """Three brokers of one store, in the order in which `USER` asks them."""

    def __init__(self, brokers: list[FakeBroker], store: Store) -> None:
        order = ranked([broker.address for broker in brokers], USER)
        self.first, self.second, self.third = sorted(
            brokers, key=lambda broker: order.index(broker.address)
        )
        self.all = (self.first, self.second, self.third)
        self.store = store
        self.addresses = ",".join(broker.address for broker in brokers)


@pytest.fixture
def brokers() -> Iterator[Brokers]:
    store = Store()
    with ExitStack() as stack:
        yield Brokers([stack.enter_context(FakeBroker(store.answer)) for _ in range(3)], store)


@pytest.fixture
def client(brokers: Brokers) -> Iterator[Client]:
    with Client(brokers.addresses, timeout_ms=PATIENT_MS, retry_ms=200) as made:
        made.login(USER, "password1")
        yield made


@pytest.fixture
def soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a better broker tried again after 0.2 to 0.6 s."""
    monkeypatch.setattr(fleet_module, "RETURN_MS", 400)


def until(condition: Callable[[], object], act: Callable[[], object] = lambda: None) -> None:
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline, "it did not come to pass"
        act()
        time.sleep(0.002)


# --- whom it asks ------------------------------------------------------------------------------


def test_the_users_first_broker_is_asked_from_the_login_on(
    brokers: Brokers, client: Client
) -> None:
    client.send("fadly", "hai")
    assert client.broker == brokers.first.address
    assert client.address == brokers.addresses
    assert [len(broker.seen) for broker in brokers.all] == [1, 0, 0]


def test_a_sequence_of_addresses_is_as_good(brokers: Brokers) -> None:
    with Client([broker.address for broker in brokers.all]) as client:
        client.login(USER, "password1")
        assert client.broker == brokers.first.address
        assert client.address == ",".join(broker.address for broker in brokers.all)


def test_clients_of_one_token_meet_at_one_broker(brokers: Brokers) -> None:
    met = set()
    for _ in range(3):
        with Client(brokers.addresses, token="kt_one") as client:
            client.ping()
            met.add(client.broker)
    assert len(met) == 1


@pytest.mark.parametrize("addresses", [",", [], ()])
def test_a_list_without_an_address_is_refused_when_the_client_is_made(addresses: Any) -> None:
    for make in (Client, AsyncClient):
        with pytest.raises(BadRequest, match="give the address of a broker"):
            make(addresses)


# --- going on ----------------------------------------------------------------------------------


def test_500_messages_in_flight_survive_their_broker_in_order_and_once(
    brokers: Brokers, client: Client
) -> None:
    client.ping()
    brokers.first.answer = brokers.store.keep
    pending = [client.submit("fadly", str(number)) for number in range(500)]
    client.flush()
    until(lambda: len(brokers.store.texts) == 500)
    brokers.first.stop()
    receipts = [one.result() for one in pending]
    assert brokers.store.texts == [str(number) for number in range(500)]
    assert [receipt.seq for receipt in receipts] == list(range(1, 501))
    assert client.broker == brokers.second.address
    brokers.first.start()


def test_a_silent_broker_takes_its_share_of_a_short_call_and_no_more(
    brokers: Brokers, client: Client
) -> None:
    client.ping()
    brokers.first.answer = brokers.store.keep
    begin = time.monotonic()
    assert client.send("fadly", "hai", timeout_ms=6_000).seq == 1
    assert time.monotonic() - begin < 5
    assert client.broker == brokers.second.address
    assert brokers.store.texts == ["hai"]


def test_a_stopping_broker_is_left_for_the_next(brokers: Brokers, client: Client) -> None:
    brokers.first.answer = lambda request: (
        polite(request)
        if request[1] in ("ping", "login")
        else WireError(Code.UNAVAILABLE, "stopping", 1_000)
    )
    begin = time.monotonic()
    for number in range(5):
        client.send("fadly", str(number))
    assert time.monotonic() - begin < 5
    assert len(brokers.first.requests()) == 1
    assert brokers.store.texts == [str(number) for number in range(5)]


def test_the_asyncio_client_goes_on_as_well(brokers: Brokers) -> None:
    async def main() -> None:
        async with AsyncClient(brokers.addresses, timeout_ms=PATIENT_MS) as client:
            await client.login(USER, "password1")
            assert client.broker == brokers.first.address
            brokers.first.stop()
            receipts = await asyncio.gather(*(client.send("fadly", str(n)) for n in range(200)))
            assert [receipt.seq for receipt in receipts] == list(range(1, 201))
            assert client.broker == brokers.second.address

    asyncio.run(asyncio.wait_for(main(), 60))
    brokers.first.start()


def test_whatever_breaks_each_message_is_stored_once_in_order(brokers: Brokers) -> None:
    """Resets, stops, freezes and lost replies at all three brokers, while messages are sent."""
    luck, done, broken = random.Random(7), threading.Event(), Counter[int]()
    answer = brokers.store.answer

    def lossy(request: Request) -> Answer:
        stored = answer(request)
        return stored if luck.random() < 0.99 else None

    def break_things(proxies: list[Proxy]) -> None:
        while not done.wait(0.03):
            proxy, broker = luck.choice(list(zip(proxies, brokers.all, strict=True)))
            fault = luck.randrange(4)
            broken[fault] += 1
            if fault == 0:
                broker.stop()
                done.wait(0.1)
                broker.start()
            elif fault == 1:
                broker.frozen.set()
                done.wait(0.3)
                broker.frozen.clear()
            else:
                proxy.reset()

    with ExitStack() as stack:
        proxies = []
        for broker in brokers.all:
            broker.answer = lossy
            host, _, port = broker.address.removeprefix("tcp://").rpartition(":")
            proxies.append(stack.enter_context(Proxy(host, int(port))))
        addresses = [f"tcp://{proxy.address[0]}:{proxy.address[1]}" for proxy in proxies]
        breaker = threading.Thread(target=break_things, args=(proxies,))
        with Client(addresses, timeout_ms=60_000, retry_ms=100) as client:
            client.login(USER, "password1")
            breaker.start()
            try:
                outcomes = []
                numbers = takewhile(lambda number: number < 500 or broken.total() < 30, count())
                messages = (("fadly", str(number)) for number in numbers)
                for outcome in client.send_many(messages, window=20):
                    outcomes.append(outcome)
                    time.sleep(0.001)  # or all would be over before anything breaks
            finally:
                done.set()
                breaker.join()
    assert all(isinstance(outcome, Receipt) for outcome in outcomes)
    assert brokers.store.texts == [str(number) for number in range(len(outcomes))]
    assert sum(len(broker.seen) for broker in brokers.all) > 1, "and things did break"


# --- coming back -------------------------------------------------------------------------------


@pytest.mark.usefixtures("soon")
def test_it_comes_back_by_a_connection_that_was_tried_first(
    brokers: Brokers, client: Client
) -> None:
    brokers.first.stop()
    client.send("fadly", "0")
    assert client.broker == brokers.second.address
    before = descriptors()
    brokers.first.seen.clear()
    brokers.first.start()
    until(lambda: client.broker == brokers.first.address, act=client.ping)
    client.send("fadly", "1")
    assert len(brokers.first.seen) == 1
    (requests,) = brokers.first.seen.values()
    assert requests[0][1:3] == ("ping", None), "by which it was tried, without the token"
    assert brokers.store.texts == ["0", "1"]
    until(lambda: descriptors() <= before + 4)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.usefixtures("soon")
def test_an_idle_asyncio_client_comes_back_by_itself(brokers: Brokers) -> None:
    async def main() -> None:
        async with AsyncClient(brokers.addresses, timeout_ms=PATIENT_MS) as client:
            await client.login(USER, "password1")
            brokers.first.stop()
            await client.send("fadly", "0")
            assert client.broker == brokers.second.address
            brokers.first.start()
            async with asyncio.timeout(20):
                while client.broker != brokers.first.address:  # noqa: ASYNC110 - nothing tells
                    await asyncio.sleep(0.01)
            await client.send("fadly", "1")

    asyncio.run(asyncio.wait_for(main(), 60))
    assert [request[3]["text"] for request in brokers.first.requests()] == ["1"]


@pytest.mark.usefixtures("soon")
def test_a_broker_that_takes_connections_and_is_silent_is_not_gone_back_to(
    brokers: Brokers, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(way_module, "SCOUT_MS", 100)
    brokers.first.answer = brokers.store.keep
    client.send("fadly", "0")
    begin = time.monotonic()
    while time.monotonic() - begin < 1.5:
        client.ping()
    assert client.broker == brokers.second.address


@pytest.mark.usefixtures("soon")
def test_a_broker_that_stays_away_is_tried_again_and_nobody_waits_for_it(
    brokers: Brokers, client: Client
) -> None:
    brokers.first.stop()
    client.send("fadly", "0")
    begin = client._session.way._numbers
    until(lambda: client._session.way._numbers > begin + 2, act=client.ping)
    assert client.broker == brokers.second.address
    assert len(brokers.second.seen) == 1
    brokers.first.start()


@pytest.mark.usefixtures("soon")
def test_a_misspelt_address_that_comes_first_is_tried_again_in_vain(brokers: Brokers) -> None:
    right = brokers.first.address
    user = next(str(n) for n in range(1_000) if ranked(["tpc://x:1", right], str(n))[1] == right)
    with Client(["tpc://x:1", right], timeout_ms=PATIENT_MS) as client:
        client.login(user, "password1")
        begin = client._session.way._numbers
        until(lambda: client._session.way._numbers > begin + 2, act=client.ping)
        assert client.broker == right
        assert len(brokers.first.seen) == 1


@pytest.mark.usefixtures("soon")
def test_closing_a_client_that_is_trying_a_broker_leaves_nothing_open(brokers: Brokers) -> None:
    before = descriptors()
    with Client(brokers.addresses, timeout_ms=PATIENT_MS, retry_ms=200) as client:
        client.login(USER, "password1")
        brokers.first.answer = brokers.store.keep
        client.send("fadly", "0")
        until(lambda: client._session.way.scouting, act=client.ping)
    until(lambda: descriptors() <= before + 4)


# --- what is said ------------------------------------------------------------------------------


def test_a_misspelt_address_among_others_is_passed_over(brokers: Brokers) -> None:
    for token in ("kt_a", "kt_b", "kt_c", "kt_d"):  # at whatever place it stands
        with Client(["tpc://x:1", brokers.first.address], token=token) as client:
            assert client.ping()


def test_misspelt_addresses_alone_fail_at_once_and_are_named() -> None:
    with Client(["tpc://x:1", "127.0.0.1:2"], timeout_ms=LONG_MS) as client:
        begin = time.monotonic()
        with pytest.raises(ConnectionFailed) as caught:
            client.ping()
        assert time.monotonic() - begin < LONG_MS / 2_000
    assert "cannot connect to 'tpc://x:1'" in caught.value.message
    assert "cannot connect to '127.0.0.1:2'" in caught.value.message


def test_brokers_without_a_common_store_are_told_as_such(brokers: Brokers, client: Client) -> None:
    brokers.second.answer = lambda _: WireError(Code.UNAUTHORIZED, "log in first")
    brokers.first.stop()
    with pytest.raises(Unauthorized, match="do not share a store") as caught:
        client.send("fadly", "hai")
    assert brokers.second.address in caught.value.message
    brokers.first.start()


# --- encryption --------------------------------------------------------------------------------


def test_one_key_is_that_of_all_and_a_broker_with_another_gets_nothing(brokers: Brokers) -> None:
    """The wrong one may sit at an address of the list: nothing is said to it."""
    with peer() as right:
        for token in ("kt_a", "kt_b", "kt_c", "kt_d"):
            addresses = [right, brokers.first.address]
            with Client(addresses, token=token, curve=Curve.to(BROKER)) as client:
                assert client.ping() == 7
                assert client.broker == right
    assert not brokers.first.seen


def test_where_no_broker_admits_the_key_that_is_told_at_once() -> None:
    with (
        peer(verdict=b"400") as one,
        peer(curve=False) as other,
        Client([one, other], curve=Curve.to(BROKER), timeout_ms=LONG_MS) as client,
    ):
        begin = time.monotonic()
        with pytest.raises(ConnectionFailed) as caught:
            client.ping()
        assert time.monotonic() - begin < LONG_MS / 2_000
    assert f"{one}: the broker does not admit this client's key" in caught.value.message
    assert f"{other}: keys were given, but the broker does not encrypt" in caught.value.message
