"""The loop over the pages of a mailbox: what is asked for when, acknowledged, told, begun anew."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import aclosing, closing
from itertools import islice
from typing import Any

import pytest

from broker.wire.envelope import Request, decode_request
from broker.wire.errors import Code, WireError
from clients import AsyncClient, Client, ClientClosed, Inbox, RequestTimeout, Unauthorized
from clients.errors import InternalError
from clients.paging import Paging, Reading
from tests.clients.fake_broker import READER, RESULTS, Answer, FakeBroker
from tests.clients.session_bench import TIMEOUT_MS, Bench
from tests.clients.subscription_desk import acks, written
from tests.conftest import Broker

PATIENT_MS = 30_000
LIMIT = 2


def _page(*seqs: int, more: bool = False, **fields: Any) -> dict[str, Any]:
    return {**READER, "messages": [written(seq) for seq in seqs], "more": more, **fields}


def _seqs(page: Inbox | None) -> list[int]:
    assert page is not None
    return [message.seq for message in page.messages]


# --- what is asked, without a socket ----------------------------------------------------------


class Desk:
    """A reader of pages, and the broker that it talks to: a fake clock and no socket."""

    def __init__(self, *, epoch: int | None = None, acknowledge: bool = True) -> None:
        self.bench = Bench()
        reading = Reading(LIMIT, None, epoch, acknowledge)
        self.paging = Paging(self.bench.session, "t", reading, TIMEOUT_MS)
        self.asked: list[Request] = []

    def sent(self, advance_ms: float = 0) -> list[tuple[str, int | None]]:
        """Let time pass; return what was sent: commands, each with its ``seq`` or ``after``."""
        bench = self.bench
        before = bench.session.wanted
        bench.now += advance_ms
        bench.session.tick(bench.now)
        if bench.session.wanted and bench.session.wanted != before:
            bench.session.connected(bench.now)
        self.asked = [decode_request(frame) for frame in bench.session.take()]
        return [(each[1], each[3].get("seq", each[3].get("after"))) for each in self.asked]

    def ask(self) -> list[tuple[str, int | None]]:
        """Ask for a page that is not here; return what was sent."""
        assert self.paging.advance(self.bench.now) is not None
        return self.sent()

    def answer(self, page: dict[str, Any]) -> None:
        """Answer all that was sent last, the reading with ``page``."""
        for request in self.asked:
            result = page if request[1] == "kotakmasuk" else RESULTS[request[1]]
            self.bench.ok(request[0], result)

    def take(self) -> Inbox | None:
        """Take a page that is here."""
        assert self.paging.advance(self.bench.now) is None
        return self.paging.page()

    def refuse(self, command: str, code: Code) -> None:
        """Refuse what was sent last of a command."""
        (request,) = [each for each in self.asked if each[1] == command]
        self.bench.error(self.bench.session._pending[request[0]], code)  # the call's own id

    def reads(self, *pages: dict[str, Any]) -> list[list[int]]:
        """Go through pages, each answered as soon as it is asked for; return their sequences."""
        found = []
        for page in pages:
            if self.paging.advance(self.bench.now) is not None:
                self.sent()
                self.answer(page)
            found.append(_seqs(self.take()))
            self.sent()
            self.paging.finish()
        return found


def test_the_page_behind_is_asked_for_before_the_first_one_is_handed_out() -> None:
    desk = Desk()
    assert desk.ask() == [("kotakmasuk", None)]
    desk.answer(_page(1, 2, more=True))
    assert desk.paging.advance(desk.bench.now) is None
    assert desk.sent() == [("kotakmasuk", 2)]
    assert _seqs(desk.paging.page()) == [1, 2]


def test_an_acknowledgement_leaves_together_with_the_request_for_what_follows() -> None:
    desk = Desk()
    desk.ask()
    desk.answer(_page(1, 2, more=True))
    desk.take()
    desk.sent()
    desk.answer(_page(3, 4, more=True))
    assert desk.sent() == []
    desk.paging.finish()
    desk.take()
    assert desk.sent() == [("ack", 2), ("kotakmasuk", 4)]


def test_the_end_is_an_empty_page_and_all_is_acknowledged_by_then() -> None:
    desk = Desk()
    desk.ask()
    desk.answer(_page(1, 2))
    desk.take()
    assert desk.sent() == []
    desk.paging.finish()
    assert desk.ask() == [("ack", 2), ("kotakmasuk", 2)]
    ack, read = desk.asked
    desk.bench.ok(read[0], _page())
    assert desk.paging.advance(desk.bench.now) is not None
    desk.bench.ok(ack[0], RESULTS["ack"])
    assert desk.take() is None
    assert desk.paging.leave(desk.bench.now, 1_000) == []


def test_what_was_stored_meanwhile_comes_before_the_end() -> None:
    desk = Desk()
    assert desk.reads(_page(1, 2), _page(5)) == [[1, 2], [5]]
    assert desk.ask() == [("ack", 5), ("kotakmasuk", 5)]


def test_a_page_ahead_that_turns_out_empty_is_asked_for_again_with_the_acknowledgement() -> None:
    """Somebody else, of the same user, has acknowledged it meanwhile."""
    desk = Desk()
    desk.ask()
    desk.answer(_page(1, 2, more=True))
    desk.take()
    desk.sent()
    desk.answer(_page())
    desk.paging.finish()
    assert desk.ask() == [("ack", 2), ("kotakmasuk", 2)]
    desk.answer(_page())
    assert desk.take() is None


def test_without_acknowledging_nothing_but_pages_is_asked_for() -> None:
    desk = Desk(acknowledge=False)
    desk.ask()
    desk.answer(_page(1, 2, more=True))
    desk.take()
    assert desk.sent() == [("kotakmasuk", 2)]
    desk.answer(_page(3))
    desk.paging.finish()
    desk.take()
    desk.paging.finish()
    assert desk.ask() == [("kotakmasuk", 3)]
    assert desk.paging.leave(desk.bench.now, 1_000) == []


@pytest.mark.parametrize("done", [False, True])
def test_leaving_acknowledges_the_page_that_was_done_with_and_no_other(*, done: bool) -> None:
    desk = Desk()
    desk.ask()
    desk.answer(_page(1, 2, more=True))
    desk.take()
    desk.sent()
    if done:
        desk.paging.finish()
    assert len(desk.paging.leave(desk.bench.now, 1_000)) == done
    assert desk.sent() == [("ack", 2)] * done
    assert desk.bench.session.pending == done


def test_an_acknowledgement_under_way_is_repeated_by_who_leaves() -> None:
    """It may be lost, and has more time than whoever leaves waits for."""
    desk = Desk()
    desk.ask()
    desk.answer(_page(1, 2, more=True))
    desk.take()
    desk.sent()
    desk.answer(_page(3, 4, more=True))
    desk.paging.finish()
    desk.take()
    assert desk.sent() == [("ack", 2), ("kotakmasuk", 4)]
    (ack,) = desk.paging.leave(desk.bench.now, 1_000)
    assert desk.sent() == [("ack", 2)]
    assert ack.deadline_ms == desk.bench.now + 1_000
    assert desk.bench.session.pending == 1


def test_a_page_ahead_that_failed_is_asked_for_again_with_all_of_its_time() -> None:
    desk = Desk()
    desk.ask()
    desk.answer(_page(1, 2, more=True))
    desk.take()
    desk.sent()
    desk.sent(TIMEOUT_MS + 1)  # nobody waits, and its time runs out
    desk.paging.finish()
    assert desk.paging.advance(desk.bench.now) is not None
    assert desk.sent(10_000)[-2:] == [("ack", 2), ("kotakmasuk", 2)]
    desk.answer(_page(3))
    assert _seqs(desk.take()) == [3]


def test_a_page_that_is_waited_for_in_vain_is_an_error() -> None:
    desk = Desk()
    desk.ask()
    desk.sent(TIMEOUT_MS + 1)
    with pytest.raises(RequestTimeout):
        desk.paging.advance(desk.bench.now)


@pytest.mark.parametrize("command", ["ack", "kotakmasuk"])
def test_a_session_that_ended_is_an_error_of_the_page_and_of_the_acknowledgement(
    command: str,
) -> None:
    desk = Desk()
    desk.reads(_page(1, 2))
    desk.ask()
    desk.refuse(command, Code.UNAUTHORIZED)
    desk.asked = [each for each in desk.asked if each[1] != command]
    desk.answer(_page())
    with pytest.raises(Unauthorized):
        desk.paging.advance(desk.bench.now)


def test_an_answer_without_its_fields_is_a_fault_of_the_broker() -> None:
    desk = Desk()
    desk.ask()
    desk.answer(READER)
    with pytest.raises(InternalError):
        desk.paging.advance(desk.bench.now)


# --- lost history -----------------------------------------------------------------------------


def test_each_request_bears_the_epoch_that_its_position_is_of() -> None:
    desk = Desk(epoch=4)
    desk.ask()
    assert desk.asked[0][3] == {"limit": LIMIT, "epoch": 4}
    desk.answer(_page(1, 2, more=True))
    desk.take()
    desk.sent()
    assert desk.asked[0][3] == {"limit": LIMIT, "after": 2, "epoch": 5}


def test_the_same_loss_is_told_by_one_page_only_even_by_an_empty_one() -> None:
    desk = Desk()
    lost = {"first": 1, "last": 9}
    desk.ask()
    desk.answer(_page(history_lost=lost))
    page = desk.take()
    assert page is not None
    assert (page.messages, page.history_lost) == ([], (1, 9))
    desk.paging.finish()
    assert desk.ask() == [("kotakmasuk", None)]
    desk.answer(_page(10, history_lost=lost))
    page = desk.take()
    assert page is not None
    assert page.history_lost is None


def test_where_a_loss_reaches_into_what_was_read_the_reading_begins_at_the_cursor() -> None:
    """Whether 1 and 2 are the messages that were handed out nobody knows: so nothing is said."""
    desk = Desk()
    desk.reads(_page(1, 2))
    desk.ask()
    (ack, _) = desk.asked
    desk.bench.ok(ack[0], RESULTS["ack"])
    desk.asked = desk.asked[1:]
    desk.answer(_page(7, epoch=6, history_lost={"first": 2, "last": 6}))
    assert desk.ask() == [("kotakmasuk", None)]
    assert desk.asked[0][3]["epoch"] == 6
    desk.answer(_page(1, 7, epoch=6))
    page = desk.take()
    assert page is not None
    assert (_seqs(page), page.history_lost) == ([1, 7], (2, 6))


def test_an_acknowledgement_of_another_history_is_not_begun() -> None:
    desk = Desk()
    desk.ask()
    desk.answer(_page(1, 2, more=True))
    desk.take()
    desk.sent()
    desk.answer(_page(7, epoch=6, history_lost={"first": 2, "last": 6}))
    desk.paging.finish()
    assert desk.ask() == [("kotakmasuk", None)]


def test_what_was_deleted_after_it_was_read_is_no_loss() -> None:
    desk = Desk()
    desk.ask()
    desk.answer(_page(1, 2, more=True))
    desk.take()
    desk.sent()
    desk.answer(_page(3, history_lost={"first": 1, "last": 1}))
    desk.paging.finish()
    page = desk.take()
    assert page is not None
    assert (_seqs(page), page.history_lost) == ([3], None)


# --- both clients, over sockets ----------------------------------------------------------------


class Shelf:
    """A broker with a mailbox of messages numbered from 1."""

    def __init__(self, last: int) -> None:
        self.last = last
        self.cursor = 0

    def __call__(self, request: Request) -> Answer:
        _, command, _, args = request
        if command == "ack":
            self.cursor = max(self.cursor, args["seq"])
            return {"cursor": self.cursor}
        if command != "kotakmasuk":
            return RESULTS.get(command, {})
        low = max(args.get("after", 0), self.cursor)
        seqs = range(low + 1, min(low + args["limit"], self.last) + 1)
        return _page(*seqs, more=low + args["limit"] < self.last)


@pytest.fixture
def fake() -> Iterator[FakeBroker]:
    with FakeBroker(Shelf(7)) as broker:
        yield broker


@pytest.fixture
def client(fake: FakeBroker) -> Iterator[Client]:
    with Client(fake.address, token="t", timeout_ms=PATIENT_MS, retry_ms=200) as made:
        yield made


Take = Callable[[FakeBroker, int], list[list[int]]]


def _take(fake: FakeBroker, count: int) -> list[list[int]]:
    with (
        Client(fake.address, token="t", timeout_ms=PATIENT_MS) as client,
        closing(client.pages(limit=LIMIT)) as pages,
    ):
        return [_seqs(page) for page in islice(pages, count)]


def _take_async(fake: FakeBroker, count: int) -> list[list[int]]:
    async def main() -> list[list[int]]:
        found: list[list[int]] = []
        async with (
            AsyncClient(fake.address, token="t", timeout_ms=PATIENT_MS) as client,
            aclosing(client.pages(limit=LIMIT)) as pages,
        ):
            async for page in pages:
                found.append(_seqs(page))
                if len(found) == count:
                    break
        return found

    return asyncio.run(asyncio.wait_for(main(), 60))


both = pytest.mark.parametrize("take", [_take, _take_async], ids=["blocking", "asyncio"])


@both
def test_all_of_a_mailbox_is_read_and_acknowledged_in_a_message_a_page(
    fake: FakeBroker, take: Take
) -> None:
    assert take(fake, 100) == [[1, 2], [3, 4], [5, 6], [7]]
    assert acks(fake.requests("ack")) == [2, 4, 6, 7]
    # The first page, the one ahead of it, and then each acknowledgement with what follows.
    assert fake.requests_in_message == [1, 1, 2, 2, 1, 2]


@both
def test_a_page_whose_body_was_left_stays_in_the_mailbox(fake: FakeBroker, take: Take) -> None:
    assert take(fake, 2) == [[1, 2], [3, 4]]
    assert set(acks(fake.requests("ack"))) == {2}
    assert take(fake, 1) == [[3, 4]]


def test_an_exception_in_the_body_leaves_its_page_unacknowledged(
    fake: FakeBroker, client: Client
) -> None:
    def work() -> None:
        for page in client.pages(limit=LIMIT):
            assert page.messages[0].seq < 3, "the work failed"

    with pytest.raises(AssertionError, match="the work failed"):
        work()
    assert set(acks(fake.requests("ack"))) == {2}


def test_the_body_may_acknowledge_by_itself(fake: FakeBroker, client: Client) -> None:
    for page in client.pages(limit=LIMIT, acknowledge=False):
        client.acknowledge(page.messages[0].seq)
    assert acks(fake.requests("ack")) == [1, 3, 5, 7]


def test_the_request_for_the_next_page_is_out_while_a_page_is_worked_on(
    fake: FakeBroker, client: Client
) -> None:
    arrived = threading.Event()
    shelf = fake.answer

    def answer(request: Request) -> Answer:
        if request[3].get("after") == 2:
            arrived.set()
        return shelf(request)

    fake.answer = answer
    next(client.pages(limit=LIMIT))
    assert arrived.wait(30)


@pytest.mark.parametrize("command", ["kotakmasuk", "ack"])
def test_a_broker_that_goes_away_costs_no_message_and_skips_none(command: str) -> None:
    shelf = Shelf(7)
    silent = iter([True])

    def answer(request: Request) -> Answer:
        """Lose the answer to one request, that asks for the second page or acknowledges it."""
        at = request[3].get("seq", request[3].get("after"))
        if (request[1], at) == (command, 2) and next(silent, False):
            shelf(request)
            return None
        return shelf(request)

    with (
        FakeBroker(answer) as fake,
        Client(fake.address, token="t", timeout_ms=PATIENT_MS, retry_ms=200) as client,
    ):
        found = []
        for page in client.pages(limit=LIMIT):
            found += _seqs(page)
            if 3 in found:
                fake.stop()
                fake.start()
    assert found == [1, 2, 3, 4, 5, 6, 7]
    assert shelf.cursor == 7


def test_a_refusal_to_read_is_raised(fake: FakeBroker, client: Client) -> None:
    fake.answer = lambda _: WireError(Code.UNAUTHORIZED, "log in")
    with pytest.raises(Unauthorized):
        next(client.pages())


def test_closing_the_client_ends_the_loop(client: Client) -> None:
    pages = client.pages(limit=LIMIT)
    next(pages)
    client.close()
    with pytest.raises(ClientClosed):
        list(pages)


def test_the_rooms_of_a_reader_are_in_its_pages(demo_broker: Broker) -> None:
    with Client(demo_broker.zmq, timeout_ms=PATIENT_MS) as client:
        client.login("shafwa", "mks")
        client.rooms.create("#lunch")
        for i in range(5):
            client.send("shafwa" if i % 2 else "#lunch", f"{i}")
        pages = client.pages(limit=LIMIT)
        assert [_texts(next(pages))] == [["0", "1"]]
        pages.close()
        read = list(client.pages(limit=LIMIT))
        assert [_texts(page) for page in read] == [["0", "1"], ["2", "3"], ["4"]]
        assert [message.redelivered for page in read for message in page.messages][:2] == [True] * 2
        assert client.inbox().messages == []


def _texts(page: Inbox) -> list[str]:
    return [message.text for message in page.messages]
