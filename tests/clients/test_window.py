"""A window of messages over a session without a socket."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import pytest

from broker.wire.errors import Code
from clients.errors import ClientClosed, NoSuchUser, RequestError, TooLarge
from clients.ids import MessageIds
from clients.results import Receipt
from clients.window import BATCH_MESSAGES, Window
from tests.clients.session_bench import TIMEOUT_MS, Bench


def _window(bench: Bench, messages: Iterable[tuple[str, str]], size: int = 1_000) -> Window:
    return Window(bench.session, MessageIds(), messages, size)


def _fill(bench: Bench, window: Window) -> bool:
    return window.fill("token", bench.now, TIMEOUT_MS)


def _answer(bench: Bench, *request_ids: int) -> None:
    for request_id in request_ids:
        bench.ok(request_id, {"seq": request_id, "durability": "fsync"})


def _texts(count: int) -> Iterator[tuple[str, str]]:
    return (("fadly", str(number)) for number in range(count))


def test_it_begins_messages_until_it_is_full_and_takes_no_more_of_them() -> None:
    bench = Bench()
    messages = _texts(5)
    window = _window(bench, messages, size=3)
    assert _fill(bench, window)
    assert window.full
    assert bench.session.pending == 3
    _answer(bench, bench.ids()[0])
    assert len(window.outcomes()) == 1
    assert _fill(bench, window)
    assert bench.session.pending == 3
    assert [text for _, text in messages] == ["4"]


def test_it_begins_a_batch_at_a_time() -> None:
    bench = Bench()
    window = _window(bench, _texts(BATCH_MESSAGES + 1))
    filled = [(_fill(bench, window), bench.session.pending) for _ in range(3)]
    assert filled == [
        (True, BATCH_MESSAGES),
        (True, BATCH_MESSAGES + 1),
        (False, BATCH_MESSAGES + 1),
    ]


def test_messages_taken_before_their_iterator_failed_are_begun() -> None:
    def failing() -> Iterator[tuple[str, str]]:
        yield from _texts(2)
        raise LookupError

    bench = Bench()
    with pytest.raises(LookupError):
        _fill(bench, _window(bench, failing()))
    assert bench.session.pending == 2


def test_outcomes_are_told_in_order_up_to_the_first_unanswered_message() -> None:
    bench = Bench()
    window = _window(bench, [("fadly", "a"), ("fadly", "x" * 70_000), *_texts(3)])
    _fill(bench, window)
    first, second, third, fourth = bench.ids()
    _answer(bench, fourth, first)
    told: list[Receipt | RequestError] = window.outcomes()
    assert told[0] == Receipt(first, "fsync", told[0].message_id)  # type: ignore[union-attr]
    assert isinstance(told[1], TooLarge)
    assert len(told) == 2
    assert window.outcomes() == []
    oldest = window.oldest
    assert oldest is not None
    assert oldest.request_id == second
    bench.error(oldest, Code.NO_SUCH_USER)
    _answer(bench, third)
    error, *receipts = window.outcomes()
    assert isinstance(error, NoSuchUser)
    assert [one.seq for one in receipts if isinstance(one, Receipt)] == [third, fourth]
    assert window.oldest is None


def test_a_closed_client_is_told_behind_the_outcomes_before_it() -> None:
    bench = Bench()
    window = _window(bench, _texts(3))
    _fill(bench, window)
    _answer(bench, *bench.ids()[:2])
    bench.session.close()
    assert len(window.outcomes()) == 2
    with pytest.raises(ClientClosed):
        window.outcomes()
