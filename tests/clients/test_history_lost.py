"""Lost history: what a reader sends so that a broker can notice, and how often it is told."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import aclosing, closing
from itertools import islice

import pytest

from broker.wire.envelope import Request, encode_event, encoder
from broker.wire.errors import Code
from clients import AsyncClient, Client, HistoryLost, InternalError, Message, Unauthorized
from clients.subscription import Loss
from tests.clients.fake_broker import RESULTS, Answer, FakeBroker
from tests.clients.subscription_desk import WINDOW, Desk, acks, written

PATIENT_MS = 30_000
LOST = {"first": 8, "last": 20}


# --- what is sent ----------------------------------------------------------------------------


def test_a_new_connection_sends_the_epoch_with_the_last_sequence_received() -> None:
    desk = Desk(answer=False)
    assert "epoch" not in desk.answer_subscribe(epoch=5)[3]
    desk.push(1, 2, after=0)
    desk.read()
    assert desk.break_connection()[3] == {"window": WINDOW, "after": 2, "epoch": 5}


def test_the_epoch_sent_is_the_one_that_was_learnt_last() -> None:
    desk = Desk(answer=False)
    desk.answer_subscribe(epoch=5)
    desk.bench.event(1, "ended")
    assert desk.answer_subscribe(2, epoch=6)[3]["epoch"] == 5
    desk.bench.event(2, "ended")
    assert desk.answer_subscribe(3)[3]["epoch"] == 6


def test_a_broker_that_tells_no_epoch_is_sent_none() -> None:
    desk = Desk()
    desk.push(1, after=0)
    desk.read()
    assert desk.break_connection()[3] == {"window": WINDOW, "after": 1}


def test_a_reader_that_kept_its_place_sends_the_epoch_of_it() -> None:
    desk = Desk(after=7, epoch=5, answer=False)
    assert desk.answer_subscribe()[3] == {"window": WINDOW, "after": 7, "epoch": 5}


def test_epoch_zero_is_an_epoch() -> None:
    desk = Desk(answer=False)
    desk.answer_subscribe(epoch=0)
    assert desk.break_connection()[3]["epoch"] == 0


# --- what is told ----------------------------------------------------------------------------


def _lose(desk: Desk) -> None:
    """Let the reader get a message, work on it, and come back to another epoch."""
    desk.answer_subscribe(epoch=5)
    desk.push(7, after=0)
    desk.work(1)
    request = desk.break_connection()
    answer = {"subscription": 1, "cursor": 3, "epoch": 6, "history_lost": LOST}
    desk.bench.ok(request[0], answer)


def test_lost_history_is_raised_with_its_range_and_wakes_the_reader() -> None:
    desk = Desk(answer=False)
    woken: list[bool] = []
    desk.subscription.on_done = lambda: woken.append(True)
    _lose(desk)
    assert len(woken) == 2  # for the message, and for the loss
    assert desk.subscription.done
    with pytest.raises(HistoryLost, match="messages 8 to 20 may be gone") as caught:
        desk.next()
    assert (caught.value.first, caught.value.last) == (8, 20)


def test_the_loss_comes_before_the_messages_of_the_new_epoch_and_they_are_kept() -> None:
    desk = Desk(answer=False)
    _lose(desk)
    desk.push(21, after=7)
    with pytest.raises(HistoryLost):
        desk.next()
    assert desk.read() == [21]


def test_leaving_with_a_loss_acknowledges_what_was_worked_on_and_unsubscribes() -> None:
    desk = Desk(answer=False)
    _lose(desk)
    with pytest.raises(HistoryLost):
        desk.next()
    assert [call.command for call in desk.leave()] == ["ack", "unsubscribe"]
    assert acks(desk.sent())[-1:] == [7]


def test_the_same_loss_is_told_once_however_often_the_broker_says_it() -> None:
    desk = Desk(answer=False)
    _lose(desk)
    with pytest.raises(HistoryLost):
        desk.next()
    desk.leave()
    desk.subscription = desk.subscribe()
    (subscribe,) = [request for request in desk.sent() if request[1] == "subscribe"]
    answer = {"subscription": subscribe[0], "cursor": 3, "epoch": 6, "history_lost": LOST}
    desk.bench.ok(subscribe[0], answer)
    assert not desk.subscription.done
    desk.push(21, after=3, number=subscribe[0])
    assert desk.read() == [21]


@pytest.mark.parametrize(
    ("token", "epoch", "lost"),
    [("t", 7, LOST), ("t", 6, {"first": 9, "last": 20}), ("another", 6, LOST)],
    ids=["another epoch", "another range", "another session"],
)
def test_another_loss_is_told_as_well(token: str, epoch: int, lost: dict[str, int]) -> None:
    desk = Desk(answer=False)
    _lose(desk)
    with pytest.raises(HistoryLost):
        desk.next()
    desk.leave()
    desk.subscription = desk.subscribe(token=token)
    (subscribe,) = [request for request in desk.sent() if request[1] == "subscribe"]
    answer = {"subscription": 9, "cursor": 3, "epoch": epoch, "history_lost": lost}
    desk.bench.ok(subscribe[0], answer)
    with pytest.raises(HistoryLost):
        desk.next()


def test_a_loss_that_nobody_was_told_of_is_told_by_the_next_subscription() -> None:
    desk = Desk(answer=False)
    _lose(desk)
    desk.leave()
    desk.subscription = desk.subscribe()
    (subscribe,) = [request for request in desk.sent() if request[1] == "subscribe"]
    answer = {"subscription": 9, "cursor": 3, "epoch": 6, "history_lost": LOST}
    desk.bench.ok(subscribe[0], answer)
    with pytest.raises(HistoryLost):
        desk.next()


def test_a_position_that_was_never_given_out_hides_no_message() -> None:
    """The broker begins at the cursor then, and its sequences may go on below that position."""
    desk = Desk(after=100, answer=False)
    desk.answer_subscribe(cursor=3, epoch=5, history_lost={"first": 51, "last": 100})
    with pytest.raises(HistoryLost):
        desk.next()
    desk.push(50, 51, after=3)
    assert desk.read() == [50, 51]


def test_the_same_holds_for_the_loop_that_is_entered_again_with_that_position() -> None:
    desk = Desk(answer=False)
    desk.bench.session.loss_told = Loss("t", 5, 51, 100)
    desk.leave()
    desk.subscription = desk.subscribe(after=100)
    (subscribe,) = [request for request in desk.sent() if request[1] == "subscribe"]
    answer = {"cursor": 3, "epoch": 5, "history_lost": {"first": 51, "last": 100}}
    desk.bench.ok(subscribe[0], {"subscription": 9, **answer})
    desk.push(51, after=3, number=9)
    assert desk.read() == [51]


def test_a_broker_that_begins_behind_the_position_all_the_same_is_asked_again() -> None:
    desk = Desk(answer=False)
    desk.answer_subscribe(epoch=5)
    desk.push(10, after=0)
    desk.work(1)
    request = desk.break_connection()
    answer = {"subscription": 1, "cursor": 3, "epoch": 6, "history_lost": LOST}
    desk.bench.ok(request[0], answer)
    with pytest.raises(HistoryLost):
        desk.next()
    desk.push(21, after=10)
    (again,) = [request for request in desk.sent() if request[1] == "subscribe"]
    assert again[3] == {"window": WINDOW, "after": 3, "epoch": 6}
    desk.bench.ok(again[0], {"subscription": 2, "cursor": 3, "epoch": 6})
    desk.push(5, 21, after=3, number=2)
    assert desk.read() == [5, 21]


def test_messages_that_were_received_before_they_were_deleted_are_not_lost() -> None:
    desk = Desk(answer=False)
    desk.answer_subscribe(epoch=5)
    desk.push(1, 2, 3, after=0)
    desk.read()
    request = desk.break_connection()
    answer = {"cursor": 0, "epoch": 5, "history_lost": {"first": 1, "last": 2}}
    desk.bench.ok(request[0], {"subscription": 1, **answer})
    assert not desk.subscription.done
    desk.push(4, after=3)
    assert desk.read() == [4]


def test_a_session_that_ended_is_told_rather_than_what_it_lost() -> None:
    desk = Desk(answer=False)
    _lose(desk)
    desk.bench.event(1, "ended")
    subscribe = next(request for request in desk.sent() if request[1] == "subscribe")
    desk.refuse(subscribe, Code.UNAUTHORIZED)
    with pytest.raises(Unauthorized):
        desk.next()


def test_a_loss_without_its_range_is_a_fault_of_the_broker() -> None:
    desk = Desk(answer=False)
    desk.answer_subscribe(epoch=6, history_lost={"first": 1})
    with pytest.raises(InternalError):
        desk.next()


# --- over sockets ----------------------------------------------------------------------------


class Restored:
    """A broker whose store is put back when the reader comes to it a second time.

    It says so at each subscribe from then on. Its first life has messages 1 to 3, the other 21.
    """

    def __init__(self) -> None:
        self.subscribes = 0
        self._encode = encoder()

    def __call__(self, request: Request) -> Answer:
        if request[1] != "subscribe":
            return RESULTS.get(request[1], {})
        self.subscribes += 1
        if self.subscribes == 1:
            ended = encode_event(self._encode, 1, "ended", {})
            return RESULTS["subscribe"], self._event(1, 2, 3), ended
        lost = {**RESULTS["subscribe"], "epoch": 6, "history_lost": {"first": 4, "last": 20}}
        return lost, self._event(21)

    def _event(self, *seqs: int) -> bytes:
        messages = [written(seq) for seq in seqs]
        return encode_event(self._encode, 1, "messages", {"after": 0, "messages": messages})


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker(Restored()) as broker:
        yield broker


def test_whoever_enters_the_loop_again_goes_on(fake: FakeBroker) -> None:
    seen: list[int] = []

    def take(messages: Iterator[Message], count: int) -> None:
        seen.extend(message.seq for message in islice(messages, count))

    with Client(fake.address, token="t", timeout_ms=PATIENT_MS) as client:
        with closing(client.messages()) as messages, pytest.raises(HistoryLost) as caught:
            take(messages, 4)
        assert (caught.value.first, caught.value.last) == (4, 20)
        assert seen == [1, 2, 3]
        with closing(client.messages()) as messages:
            take(messages, 1)
    assert seen == [1, 2, 3, 21]
    again = [request[3] for request in fake.requests("subscribe")]
    assert again[1] == {"window": 100, "after": 3, "epoch": 5}
    assert fake.requests("ack")[-1][3] == {"seq": 3}
    assert len(fake.requests("unsubscribe")) == 2


def test_the_asyncio_client_tells_it_once_as_well(fake: FakeBroker) -> None:
    async def main() -> None:
        seen: list[int] = []
        losses = 0
        async with AsyncClient(fake.address, token="t", timeout_ms=PATIENT_MS) as client:
            while 21 not in seen:
                async with aclosing(client.messages()) as messages:
                    try:
                        while 21 not in seen:
                            seen.append((await anext(messages)).seq)
                    except HistoryLost:
                        losses += 1
        assert (seen, losses) == ([1, 2, 3, 21], 1)

    asyncio.run(asyncio.wait_for(main(), 60))


def test_a_place_that_was_kept_is_sent_by_both_clients(fake: FakeBroker) -> None:
    async def main() -> None:
        async with (
            AsyncClient(fake.address, token="t") as client,
            aclosing(client.messages(after=2, epoch=4)) as messages,
        ):
            await anext(messages)

    with (
        Client(fake.address, token="t") as client,
        closing(client.messages(after=1, epoch=3)) as messages,
    ):
        next(messages)
    fake.answer = Restored()
    asyncio.run(asyncio.wait_for(main(), 60))
    places = [(request[3]["after"], request[3]["epoch"]) for request in fake.requests("subscribe")]
    assert places == [(1, 3), (2, 4)]


def test_reading_the_inbox_only_reports_it(fake: FakeBroker) -> None:
    fake.answer = lambda _: RESULTS["kotakmasuk"] | {"history_lost": LOST}
    with Client(fake.address, token="t") as client:
        for _ in range(2):
            page = client.inbox(after=7, epoch=4)
            assert (page.epoch, page.history_lost) == (5, (8, 20))
        fake.answer = lambda _: RESULTS["kotakmasuk"]
        assert client.inbox().history_lost is None
    assert fake.requests("kotakmasuk")[0][3] == {"limit": 100, "after": 7, "epoch": 4}
