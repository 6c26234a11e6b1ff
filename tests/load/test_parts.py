"""The parts of a load without a process: the plan, the parts' recording, the report."""

from __future__ import annotations

import json
import signal
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from io import StringIO
from pathlib import Path
from threading import BrokenBarrierError, Lock
from typing import Self

import pytest
from rich.console import Console

from tests.load.doors import START, Arrived, Letter, Outcome, Page, Place, UnreachableError
from tests.load.link import Link, Summary, play_part
from tests.load.plan import Plan, parse
from tests.load.reader import Reader
from tests.load.report import Report, print_json, print_table, report
from tests.load.run import Outcome as LoadOutcome
from tests.load.run import Usage
from tests.load.sender import Sender
from tests.proof.history import OK, load

SMALL = Plan(senders=2, readers=2, messages=50, window=10, mailboxes=5, kills=0)


class FakeBroker:
    """Mailboxes in memory. ``deliver`` may lose, repeat or change what a mailbox gets."""

    def __init__(self, deliver: Callable[[Arrived], list[Arrived]] = lambda m: [m]) -> None:
        self.lock = Lock()
        self.deliver = deliver
        self.answers: dict[int, Outcome] = {}
        self.boxes: defaultdict[str, list[Arrived]] = defaultdict(list)
        self.cursors: defaultdict[str, int] = defaultdict(int)
        self.seq = 0
        self.valid = True
        self.acks = 0
        self.forgets = False
        #: What readers with a position are told, each mailbox once.
        self.lost: tuple[int, int] | None = None
        self.told: set[str] = set()


class FakeDoor:
    """A door to `FakeBroker` with acknowledgements of its own."""

    takes = False

    def __init__(self, broker: FakeBroker) -> None:
        self.broker = broker
        self.users: list[str] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None: ...

    def login(self, user: str) -> None:
        self.users.append(user)

    def send_all(self, user: str, letters: Iterable[Letter], window: int) -> Iterator[Outcome]:
        for to, text, _ in letters:
            with self.broker.lock:
                self.broker.seq += 1
                message = Arrived(self.broker.seq, text)
                self.broker.boxes[to] += self.broker.deliver(message)
            yield self.broker.answers.get(message.seq or 0, Outcome(OK, message.seq))

    def read(self, user: str, place: Place = START) -> Page | None:
        with self.broker.lock:
            cursor = self.broker.cursors[user]
            page = [m for m in self.broker.boxes[user] if (m.seq or 0) > cursor][:7]
            if self.broker.lost is None or user in self.broker.told or not place.seq:
                return Page(page)
            self.broker.told.add(user)
            return Page(page, lost=self.broker.lost)

    def acknowledge(self, user: str, seq: int) -> str | None:
        with self.broker.lock:
            self.broker.acks += 1
            if not (self.broker.forgets and self.broker.acks == 3):
                self.broker.cursors[user] = seq
        return OK

    def tokens_valid(self) -> int:
        return len(self.users) if self.broker.valid else 0


def carry_out(broker: FakeBroker, folder: Path, plan: Plan = SMALL) -> Report:
    """Play all parts in threads, and report what they recorded."""
    link = Link(plan.senders, plan.readers, folder)
    with ThreadPoolExecutor(plan.senders + plan.readers) as threads:
        senders = [
            threads.submit(Sender(plan, number, link).run, FakeDoor(broker))
            for number in range(plan.senders)
        ]
        readers = [
            threads.submit(Reader(plan, number, link).run, FakeDoor(broker))
            for number in range(plan.readers)
        ]
        link.start_together()
        summaries = [sender.result() for sender in senders]
        link.all_sent.set()
        summaries += [reader.result() for reader in readers]
    return report(plan, LoadOutcome(load(folder), summaries, Usage(0.001, 20.0), restarts=[]))


class TestPlan:
    def test_every_mailbox_has_one_reader(self) -> None:
        plan = Plan(readers=3, mailboxes=10)
        read = [user for number in range(3) for user in plan.mailboxes_of(number)]
        assert sorted(read) == sorted(plan.mailbox(number) for number in range(10))

    def test_every_sender_writes_to_every_mailbox(self) -> None:
        plan = Plan(senders=3, mailboxes=10)
        for number in range(3):
            assert len({plan.recipient(number, i) for i in range(10)}) == 10

    def test_a_text_has_its_size_and_says_whose_it_is(self) -> None:
        text = SMALL.text(1, 7)
        assert len(text.encode()) == SMALL.size_bytes
        assert Plan.label(text) == (SMALL.sender(1), SMALL.message_id(1, 7))

    def test_the_smallest_size_holds_the_longest_label(self) -> None:
        plan = Plan(senders=64, size_bytes=40)
        assert len(plan.text(63, 9_999_999)) == 40

    def test_a_foreign_text_has_no_label(self) -> None:
        assert Plan.label("hello") == ("", "")

    @pytest.mark.parametrize(
        ("words", "sentence"),
        [
            (["--kill", "1", "--door", "text"], "--kill needs --door zmq"),
            (["--kill", "1", "--store", "memory:"], "--kill needs --store sqlite:"),
            (["--kill", "1", "--broker", "tcp://127.0.0.1:1"], "--kill needs the load's own"),
            (["--messages", "5", "--seconds", "5"], "not allowed with"),
            (["--size", "10"], "must lie between"),
            (["--seconds", "0"], "must be above 0"),
        ],
    )
    def test_options_that_contradict_are_refused(
        self, words: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
    ) -> None:
        with pytest.raises(SystemExit) as exit_:
            parse(words)
        assert exit_.value.code == 2
        assert sentence in capsys.readouterr().err

    def test_a_folder_in_use_is_refused(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        (tmp_path / "old.jsonl").touch()
        with pytest.raises(SystemExit):
            parse(["--histories", str(tmp_path)])
        assert "not empty" in capsys.readouterr().err

    def test_seconds_replace_messages(self) -> None:
        assert parse(["--seconds", "2"])[0].messages is None
        assert parse([])[0].messages == 25_000


class TestParts:
    def test_a_right_broker_is_judged_clean(self, tmp_path: Path) -> None:
        result = carry_out(FakeBroker(), tmp_path)
        assert result.clean, str(result.verdict)
        assert result.figures.sends_ok == result.figures.read == 100
        assert result.exit_code == 0

    def test_seconds_end_the_sending(self, tmp_path: Path) -> None:
        plan = replace(SMALL, messages=None, seconds=0.05)
        result = carry_out(FakeBroker(), tmp_path, plan)
        assert result.clean
        assert result.figures.sends > 0

    @pytest.mark.parametrize(
        ("law", "deliver"),
        [
            ("L1", lambda m: [] if m.seq == 30 else [m]),
            ("L4", lambda m: [m._replace(text=m.text + "!")] if m.seq == 30 else [m]),
            ("L5", lambda m: [m, Arrived(m.seq * 1000, m.text)] if m.seq == 99 else [m]),
        ],
    )
    def test_a_faulty_broker_is_caught(
        self, tmp_path: Path, law: str, deliver: Callable[[Arrived], list[Arrived]]
    ) -> None:
        result = carry_out(FakeBroker(deliver), tmp_path)
        assert law in result.verdict.counts
        assert result.exit_code == 1

    def test_a_broker_that_forgets_an_acknowledgement_is_caught(self, tmp_path: Path) -> None:
        broker = FakeBroker()
        broker.forgets = True
        result = carry_out(broker, tmp_path)
        assert "L2" in result.verdict.counts

    def test_a_send_without_an_answer_ends_its_sender(self, tmp_path: Path) -> None:
        broker = FakeBroker()
        broker.answers[20] = Outcome(None)
        result = carry_out(broker, tmp_path, replace(SMALL, senders=1))
        assert result.figures.sends == 20
        assert result.figures.errors == {"no answer": 1}
        assert result.verdict.clean
        assert result.exit_code == 3

    def test_refusals_are_counted_by_their_code(self, tmp_path: Path) -> None:
        broker = FakeBroker(lambda m: [] if m.seq == 20 else [m])
        broker.answers[20] = Outcome("mailbox_full")
        result = carry_out(broker, tmp_path)
        assert result.figures.errors == {"mailbox_full": 1}
        assert result.clean

    def test_tokens_that_died_are_a_breach(self, tmp_path: Path) -> None:
        broker = FakeBroker()
        broker.valid = False
        result = carry_out(broker, tmp_path)
        assert result.exit_code == 1
        assert "7 of 7 tokens" in result.complaints[0]

    def test_what_an_earlier_load_left_is_not_judged(self, tmp_path: Path) -> None:
        broker = FakeBroker()
        broker.seq = 3
        broker.boxes[SMALL.mailbox(0)] = [Arrived(1, "x y z"), Arrived(2, "x y z")]
        result = carry_out(broker, tmp_path)
        assert result.clean, str(result.verdict)
        assert result.figures.read == 100

    def test_a_reader_that_is_told_of_a_loss_begins_anew_and_the_loss_is_no_breach(
        self, tmp_path: Path
    ) -> None:
        """Message 30 is gone; whoever comes with a position is told, once, that it may be."""
        broker = FakeBroker(lambda m: [] if m.seq == 30 else [m])
        broker.lost = (30, 30)
        result = carry_out(broker, tmp_path)
        assert not result.verdict.counts, str(result.verdict)
        assert result.verdict.announced == 1
        assert result.figures.read >= 99


class TestReport:
    def test_missing_kills_are_a_complaint(self, tmp_path: Path) -> None:
        result = replace(carry_out(FakeBroker(), tmp_path), plan=replace(SMALL, kills=2))
        assert result.exit_code == 1
        assert "0 of 2 kills" in result.complaints[0]

    def test_the_table_shows_rates_latencies_and_every_law(self, tmp_path: Path) -> None:
        shown = StringIO()
        print_table(carry_out(FakeBroker(), tmp_path), Console(file=shown, width=100))
        for word in ("sent", "drained", "p99", "broker CPU", "L1 holds", "L6 holds"):
            assert word in shown.getvalue()

    def test_the_table_explains_a_breach(self, tmp_path: Path) -> None:
        broker = FakeBroker(lambda m: [] if m.seq == 30 else [m])
        shown = StringIO()
        print_table(carry_out(broker, tmp_path), Console(file=shown, width=80))
        assert "L1 BROKEN 1x" in shown.getvalue()
        assert '"op":"send"' in shown.getvalue()

    def test_json_is_one_object(self, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
        print_json(carry_out(FakeBroker(), tmp_path))
        result = json.loads(capsys.readouterr().out)
        assert result["clean"] is True
        assert result["live"] is None
        assert result["laws"] == dict.fromkeys(("L1", "L2", "L3", "L4", "L5", "L6"), 0)
        assert result["broker_cpu_us_per_send"] == pytest.approx(10.0)


@contextmanager
def interrupts_kept() -> Iterator[None]:
    """Leave Ctrl-C to pytest, although a part ignores it in a process of its own."""
    before = signal.getsignal(signal.SIGINT)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class TestPlayPart:
    def test_who_cannot_begin_says_why_and_nobody_waits_for_it(self, tmp_path: Path) -> None:
        link = Link(1, 1, tmp_path)

        def part(door: object) -> Summary:
            raise UnreachableError("nobody there")

        with interrupts_kept():
            play_part("sender", part, SMALL, "tcp://127.0.0.1:9", link)
        summary = link.summaries.get()
        assert (summary.fault, summary.unreachable) == ("nobody there", True)
        with pytest.raises(BrokenBarrierError):
            link.start_together()

    def test_who_was_left_alone_says_nothing(self, tmp_path: Path) -> None:
        link = Link(1, 1, tmp_path)
        link.ready.abort()

        def part(door: object) -> Summary:
            link.start_together()
            raise AssertionError

        with interrupts_kept():
            play_part("sender", part, SMALL, "tcp://127.0.0.1:9", link)
        assert link.summaries.get().fault is None
