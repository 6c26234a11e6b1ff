"""A load with subscribers: its arithmetic, what a subscriber records, and a short one for real."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clients.results import Inbox, Message
from tests.load.broker_process import Restart
from tests.load.live import measure_live, rows
from tests.load.plan import Plan, parse
from tests.load.report import report
from tests.load.run import run
from tests.load.subscriber import Subscriber
from tests.load.test_load import figures, loadtest
from tests.proof import checker
from tests.proof.checker import judge
from tests.proof.history import OK, Ack, Gap, Read, Record, Seen, Send, digest, gather

TEXTS = [f"text {i}" for i in range(1, 6)]


class TestPlan:
    @given(
        st.integers(1, 7), st.integers(1, 9), st.lists(st.integers(0, 40), min_size=7, max_size=7)
    )
    def test_a_mailbox_knows_how_many_messages_it_gets(
        self, senders: int, mailboxes: int, sent: list[int]
    ) -> None:
        plan = Plan(senders=senders, mailboxes=mailboxes, subscribers=mailboxes)
        recipients = [plan.recipient(s, i) for s in range(senders) for i in range(sent[s])]
        for number in range(mailboxes):
            expected = recipients.count(plan.mailbox(number))
            assert plan.expected(number, sent[:senders]) == expected

    def test_every_device_of_a_subscriber_is_a_receiver(self) -> None:
        plan, _ = parse(["--subscribers", "3", "--devices", "2"])
        receivers = [who for process in range(2) for who in plan.receivers_of(process)]
        assert len(set(receivers)) == 6
        assert {user for user, _ in receivers} == {plan.mailbox(number) for number in range(3)}

    def test_senders_and_subscribers_share_few_processes(self) -> None:
        plan, _ = parse(["--subscribers", "200", "--senders", "20", "--kill", "5"])
        assert (plan.mailboxes, plan.readers, plan.sender_processes) == (200, 2, 2)
        shared = [number for process in range(2) for number in plan.senders_of(process)]
        assert sorted(shared) == list(range(20))

    @pytest.mark.parametrize(
        "words", [["--readers", "3"], ["--mailboxes", "3"], ["--door", "text"]]
    )
    def test_what_subscribers_do_not_go_with_is_refused(
        self, words: list[str], capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit):
            parse(["--subscribers", "5", *words])
        assert "--subscribers" in capsys.readouterr().err


class FakeClient:
    """A mailbox of five messages, pushed to the end; further ones never come."""

    def __init__(self) -> None:
        self.cursor = 0
        #: What is pushed although it was acknowledged.
        self.zombie: int | None = None
        self.on_connection: Callable[[bool], None] | None = None
        self.breaks = False
        self.given = 0

    async def messages(
        self, *, acknowledge: bool, on_connection: Callable[[bool], None]
    ) -> AsyncGenerator[Message, None]:
        assert not acknowledge
        cursor = self.cursor
        for seq, text in enumerate(TEXTS, 1):
            if seq > cursor or seq == self.zombie:
                again, self.given = seq <= self.given, max(seq, self.given)
                yield _message(seq, text, redelivered=again)
                await asyncio.sleep(0)
            if self.breaks:
                self.breaks = False
                on_connection(False)
                on_connection(True)
        await asyncio.Event().wait()

    async def acknowledge(self, seq: int) -> int:
        await asyncio.sleep(0)
        self.cursor = max(seq, self.cursor)
        return self.cursor

    async def inbox(self, *, limit: int) -> Inbox:
        assert limit
        assert self.cursor == len(TEXTS)
        empty = {"user": "bob", "name": "Bob", "messages": [], "more": False}
        return Inbox.parse({**empty, "cursor": self.cursor, "epoch": 1})


def _message(seq: int, text: str, *, redelivered: bool) -> Message:
    fields = {"seq": seq, "at_ms": 0, "from": "ann", "name": "Ann", "id": f"m{seq}", "text": text}
    return Message.parse({**fields, "redelivered": True} if redelivered else fields)


def recorded(client: FakeClient, stay: int) -> list[Record]:
    """Let a subscriber with stays of so many messages receive all five, and return what it saw."""
    records: list[Record] = [
        Send("ann", "bob", f"m{i}", i, digest(text), i, i + 1, OK, i)
        for i, text in enumerate(TEXTS, 1)
    ]

    class Steady(Random):
        def randint(self, a: int, b: int) -> int:
            return stay

    async def run() -> None:
        complete = asyncio.Event()

        def note(record: Record) -> None:
            records.append(record)
            if len(subscriber.arrived) == len(TEXTS):
                complete.set()

        subscriber = Subscriber(("bob", ""), client, note, Steady())  # type: ignore[arg-type]
        receiving = asyncio.create_task(subscriber.receive())
        async with asyncio.timeout(30):
            await complete.wait()
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        assert await subscriber.finish() == 0

    asyncio.run(run())
    return records


class TestSubscriber:
    def test_what_arrives_is_acknowledged_and_judged_clean(self) -> None:
        records = recorded(FakeClient(), stay=10)
        verdict = judge(gather(records))
        assert verdict.clean, str(verdict)
        assert verdict.messages_read == len(TEXTS)
        assert any(isinstance(record, Ack) for record in records)

    def test_who_leaves_before_it_has_acknowledged_is_given_messages_again(self) -> None:
        verdict = judge(gather(recorded(FakeClient(), stay=2)))
        assert verdict.clean, str(verdict)
        assert verdict.messages_read > len(TEXTS)

    def test_a_message_pushed_after_its_acknowledgement_is_a_breach(self) -> None:
        client = FakeClient()
        client.zombie = 1
        assert judge(gather(recorded(client, stay=3))).counts["L2"]

    def test_a_broken_connection_is_a_gap(self) -> None:
        client = FakeClient()
        client.breaks = True
        records = recorded(client, stay=10)
        assert [record.user for record in records if isinstance(record, Gap)] == ["bob", "bob"]


class TestFigures:
    SENDS = tuple(
        Send("ann", "bob", f"m{i}", i, 0, i * 10**6, i * 10**6 + 5, OK, i) for i in (1, 2, 3)
    )

    @staticmethod
    def read(i: int, at_ms: int) -> Read:
        return Read("bob", at_ms * 10**6, at_ms * 10**6, OK, messages=(Seen(i, "ann", f"m{i}", 0),))

    def test_times_count_to_the_first_arrival(self) -> None:
        reads = [self.read(1, 2), self.read(2, 4), self.read(2, 50), self.read(3, 13)]
        live = measure_live(gather([*self.SENDS, *reads]), [], 1)
        assert (live.p50_ms, live.max_ms, live.again) == (2.0, 10.0, 1)
        assert live.complete_ms == pytest.approx(10.0, abs=0.01)

    def test_catching_up_is_over_when_all_that_was_ok_before_the_kill_is_there(self) -> None:
        restart = Restart(3 * 10**6 - 1, 10 * 10**6)  # m1 and m2 were answered before it
        reads = [self.read(1, 2), self.read(2, 14), self.read(3, 40)]
        live = measure_live(gather([*self.SENDS, *reads]), [restart], 1)
        assert live.caught_up_ms == [4.0]
        assert any("(4)" in remark for _, _, remark in rows(live))

    def test_nothing_is_shown_of_what_did_not_happen(self) -> None:
        live = measure_live(gather(self.SENDS), [], 1)
        assert {name for name, _, _ in rows(live)} == {"arrived p50", "p99", "max", "complete"}


def test_a_short_load_with_a_kill_breaks_no_promise(tmp_path: Path) -> None:
    """Given subscribers that come and go, and senders with messages under way,

    if the broker is killed and restarted on its data,
    I expect every message at its subscriber, none after its acknowledgement, in order.
    """
    kept = tmp_path / "kept"
    done = loadtest(
        *("--subscribers", "12", "--senders", "4", "--messages", "400", "--kill", "1"),
        *("--json", "--histories", str(kept)),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    result = figures(done)
    assert result["sends_ok"] == 1_600
    assert result["read"] == 1_600 + result["live"]["again"]
    assert result["live"]["again"] > 0
    assert len(result["live"]["caught_up_ms"]) == result["kills"] == 1
    assert checker.main([str(kept)]) == 0


def test_every_device_receives_everything_though_the_broker_is_killed(tmp_path: Path) -> None:
    """Each device acknowledges for itself, so the mark and the order are judged a device."""
    plan = Plan(
        senders=2, readers=2, subscribers=4, devices=2, mailboxes=4, messages=300, window=20,
        kills=1, histories=tmp_path / "kept",
    )  # fmt: skip
    result = report(plan, run(plan, lambda _: None))
    assert result.clean, f"{result.verdict}\n{result.complaints}"
    assert result.figures.live is not None
    assert result.figures.read == 2 * 600 + result.figures.live.again
    assert "L7" in result.verdict.laws


def test_a_broker_that_forgets_when_killed_is_not_called_clean() -> None:
    """The counter-check: the same load on a memory store must fail, or the verdict says nothing."""
    plan = Plan(
        senders=1, readers=1, subscribers=2, mailboxes=2, messages=2_000, window=20, kills=1,
        store="memory:",
    )  # fmt: skip
    result = report(plan, run(plan, lambda _: None))
    assert result.exit_code != 0
    assert result.figures.tokens_valid < result.figures.tokens
    assert any("give up" in complaint for complaint in result.complaints)


def test_a_person_is_shown_how_soon_messages_arrive() -> None:
    done = loadtest("--subscribers", "4", "--senders", "2", "--messages", "100")
    assert done.returncode == 0, done.stdout + done.stderr
    for word in ("4 subscribers", "messages pushed", "arrived p50", "complete", "L2 holds"):
        assert word in done.stdout
