"""The checker's own proof: good histories pass, and each kind of broken promise is caught."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.proof import checker
from tests.proof.checker import judge
from tests.proof.history import (
    OK,
    Ack,
    Drained,
    Gap,
    HistoryError,
    HistoryLost,
    Read,
    Record,
    Seen,
    Send,
    gather,
    load,
    parse_line,
    to_line,
    write,
)


def send(i: int, seq: int | None = None, *, at: int | None = None, **other: object) -> Send:
    """Send message ``m{i}`` of ann to bob: answered OK with ``seq``, or not at all."""
    t0 = 10 * i if at is None else at
    answered = {"t1": t0 + 1, "answer": OK, "seq": seq} if seq is not None else {}
    fields = {"sender": "ann", "to": "bob", "id": f"m{i}", "i": i, "digest": 100 + i, "t0": t0}
    return Send(**{**fields, **answered, **other})  # type: ignore[arg-type]


def seen(i: int, seq: int | None) -> Seen:
    return Seen(seq, "ann", f"m{i}", 100 + i)


def read(at: int, *messages: Seen, user: str = "bob", taken: bool = False) -> Read:
    return Read(user, at, at + 1, OK, taken, messages)


def ack(at: int, seq: int, *, answer: str | None = OK) -> Ack:
    return Ack("bob", seq, at, at + 1 if answer else None, answer)


END = Drained("bob", 900, 901)


def handed(at: int, i: int, *, redelivered: bool, device: str = "") -> Read:
    """Read ``m{i}``, whose mark was recorded."""
    message = seen(i, i)._replace(redelivered=redelivered)
    return Read("bob", at, at + 1, OK, messages=(message,), device=device)


def laws(*records: Record) -> set[str]:
    """Return the laws that a history breaks."""
    return set(judge(gather(records)).counts)


class TestL1NothingIsLost:
    def test_a_message_that_was_read_is_not_lost(self) -> None:
        assert laws(send(1, 1), read(50, seen(1, 1)), END) == set()

    def test_an_answered_message_missing_from_a_drained_mailbox_is_lost(self) -> None:
        assert laws(send(1, 1), send(2, 2), read(50, seen(1, 1)), END) == {"L1"}

    def test_a_message_acknowledged_over_without_being_read_is_lost(self) -> None:
        records = (send(1, 1), send(2, 2), read(50, seen(2, 2)), ack(60, 2), END)
        assert laws(*records) == {"L1"}

    def test_an_unread_message_is_undecided_where_nobody_drained(self) -> None:
        verdict = judge(gather([send(1, 1)]))
        assert not verdict.counts
        assert verdict.undecided == 1
        assert not verdict.clean

    def test_a_drain_before_the_answer_proves_nothing(self) -> None:
        verdict = judge(gather([send(1, 1), Drained("bob", 5, 6)]))
        assert verdict.undecided == 1


class TestL2AcknowledgedIsGone:
    def test_a_message_may_be_read_again_before_its_ack(self) -> None:
        again = (read(50, seen(1, 1)), read(60, seen(1, 1)))
        assert laws(send(1, 1), *again, ack(70, 1), END) == set()

    def test_a_read_invoked_after_the_ack_must_not_return_it(self) -> None:
        assert laws(send(1, 1), read(50, seen(1, 1)), ack(60, 1), read(70, seen(1, 1))) == {"L2"}

    def test_a_read_that_overlaps_the_ack_may_return_it(self) -> None:
        overlapping = Read("bob", 60, 80, OK, messages=(seen(1, 1),))
        assert laws(send(1, 1), read(50, seen(1, 1)), ack(60, 1), overlapping) == set()

    @pytest.mark.parametrize("answer", [None, "unavailable"])
    def test_an_ack_that_was_not_answered_ok_binds_nobody(self, answer: str | None) -> None:
        unknown = ack(60, 1, answer=answer)
        assert laws(send(1, 1), read(50, seen(1, 1)), unknown, read(70, seen(1, 1))) == set()

    def test_a_read_that_takes_acknowledges(self) -> None:
        takes = (read(50, seen(1, None), taken=True), read(60, seen(1, None), taken=True))
        assert laws(send(1, 1), *takes) == {"L2"}


class TestL3Order:
    def test_reading_in_the_order_of_sending_is_right(self) -> None:
        assert laws(send(1, 1), send(2, 2), read(50, seen(1, 1), seen(2, 2))) == set()

    def test_one_read_in_the_wrong_order(self) -> None:
        assert laws(send(1, 2), send(2, 1), read(50, seen(2, 1), seen(1, 2))) == {"L3"}

    def test_first_sightings_in_the_wrong_order(self) -> None:
        reads = (read(50, seen(2, 2)), read(60, seen(1, 1), seen(2, 2)))
        assert laws(send(1, 1), send(2, 2), *reads) == {"L3"}

    def test_a_redelivery_is_not_a_first_sighting(self) -> None:
        reads = (read(50, seen(1, 1), seen(2, 2)), read(60, seen(1, 1), seen(2, 2)))
        assert laws(send(1, 1), send(2, 2), *reads) == set()

    def test_two_senders_have_no_common_order(self) -> None:
        other = send(5, 1, sender="eve", at=90)
        messages = (Seen(1, "eve", "m5", 105), seen(1, 2))
        assert laws(send(1, 2), other, read(95, *messages)) == set()

    def test_a_send_without_an_answer_may_come_late(self) -> None:
        reads = (read(50, seen(2, 1)), read(60, seen(2, 1), seen(1, 2)))
        assert laws(send(1), send(2, 1), *reads) == set()


class TestL4Origin:
    def test_a_message_that_nobody_sent(self) -> None:
        assert laws(read(50, seen(1, 1))) == {"L4"}

    def test_a_message_in_another_mailbox(self) -> None:
        assert laws(send(1, 1), read(50, seen(1, 1), user="eve"), read(60, seen(1, 1))) == {"L4"}

    def test_a_changed_text(self) -> None:
        assert laws(send(1, 1), read(50, seen(1, 1)._replace(digest=7))) == {"L4"}

    def test_a_refused_message(self) -> None:
        refused = send(1, t1=11, answer="mailbox_full")
        assert laws(refused, read(50, seen(1, 1))) == {"L4"}

    def test_an_error_that_leaves_it_open_is_no_refusal(self) -> None:
        open_ = send(1, t1=11, answer="unavailable")
        assert laws(open_, read(50, seen(1, 1))) == set()

    def test_a_message_read_before_it_was_sent(self) -> None:
        assert laws(send(1, 1, at=60), read(50, seen(1, 1))) == {"L4"}


class TestL5OneCopy:
    def test_a_repetition_gets_the_first_answer(self) -> None:
        assert laws(send(1, 1), send(1, 1, at=20), read(50, seen(1, 1)), END) == set()

    def test_a_repetition_with_another_answer(self) -> None:
        records = (send(1, 1), send(1, 2, at=20), read(50, seen(1, 1)))
        assert "L5" in laws(*records)

    def test_two_copies_in_the_mailbox(self) -> None:
        assert laws(send(1, 1), read(50, seen(1, 1), seen(1, 2))) == {"L5"}

    def test_a_receipt_that_names_another_sequence_than_the_mailbox(self) -> None:
        assert laws(send(1, 1), read(50, seen(1, 2))) == {"L5"}

    def test_one_read_with_a_message_twice_on_a_door_without_sequences(self) -> None:
        assert laws(send(1, 1), read(50, seen(1, None), seen(1, None))) == {"L5"}

    def test_one_sequence_for_two_messages(self) -> None:
        assert laws(send(1, 1), send(2), read(50, seen(1, 1), seen(2, 1))) == {"L5"}

    def test_one_id_accepted_for_two_texts(self) -> None:
        assert laws(send(1, 1), send(1, 1, at=20, digest=7), read(50, seen(1, 1))) == {"L5"}

    def test_one_id_refused_for_the_second_text(self) -> None:
        conflict = send(1, at=20, digest=7, t1=21, answer="conflict")
        assert laws(send(1, 1), conflict, read(50, seen(1, 1))) == set()


class TestL6SilentSends:
    @pytest.mark.parametrize("reads", [(), (read(50, seen(1, 1)),)])
    def test_once_or_not_at_all_are_both_right(self, reads: tuple[Read, ...]) -> None:
        assert laws(send(1), *reads, END) == set()

    def test_twice_is_wrong(self) -> None:
        assert laws(send(1), read(50, seen(1, 1), seen(1, 2)), END) == {"L6"}


class TestL7WhoIsGivenAgainIsTold:
    FIRST = handed(50, 1, redelivered=False)

    def test_a_first_delivery_without_the_mark_and_a_second_with_it_are_right(self) -> None:
        verdict = judge(gather([send(1, 1), self.FIRST, handed(60, 1, redelivered=True), END]))
        assert verdict.clean
        assert verdict.laws[-1] == "L7"

    def test_a_history_without_marks_says_nothing_of_them(self) -> None:
        assert "L7" not in judge(gather([send(1, 1), read(50, seen(1, 1)), END])).laws

    def test_a_second_delivery_without_the_mark(self) -> None:
        assert laws(send(1, 1), self.FIRST, handed(60, 1, redelivered=False)) == {"L7"}

    def test_a_second_delivery_by_another_life_of_the_broker_without_the_mark(self) -> None:
        records = (send(1, 1), self.FIRST, Gap(None, 52, 55), handed(60, 1, redelivered=False))
        assert laws(*records) == {"L7"}

    def test_a_first_delivery_with_the_mark(self) -> None:
        assert laws(send(1, 1), handed(50, 1, redelivered=True)) == {"L7"}

    def test_what_was_sent_before_a_restart_or_a_lost_connection_may_bear_the_mark(self) -> None:
        for user in (None, "bob"):
            assert laws(send(1, 1), Gap(user, 20, 30), handed(50, 1, redelivered=True)) == set()

    def test_what_was_sent_after_a_restart_may_not_bear_it(self) -> None:
        assert laws(Gap(None, 2, 5), send(1, 1), handed(50, 1, redelivered=True)) == {"L7"}

    def test_another_s_lost_connection_excuses_nothing(self) -> None:
        assert laws(send(1, 1), Gap("eve", 20, 30), handed(50, 1, redelivered=True)) == {"L7"}

    def test_a_read_without_an_answer_may_have_been_given_anything(self) -> None:
        records = (send(1, 1), Read("bob", 20), handed(50, 1, redelivered=True))
        assert laws(*records) == set()

    def test_of_two_reads_at_once_either_may_have_been_the_first(self) -> None:
        slow = handed(50, 1, redelivered=True)._replace(t1=70)
        assert laws(send(1, 1), slow, handed(60, 1, redelivered=False)) == set()

    def test_each_device_is_a_reader_of_its_own(self) -> None:
        phone = handed(60, 1, redelivered=False, device="phone")
        assert laws(send(1, 1), self.FIRST, ack(55, 1), phone) == set()
        assert laws(send(1, 1), phone, phone._replace(t0=65, t1=66)) == {"L7"}


class TestL7WhoLostHistoryIsTold:
    LOST = HistoryLost("bob", 1, 5, 60, 61)

    def test_an_announced_loss_is_no_silent_one(self) -> None:
        verdict = judge(gather([send(1, 1), self.LOST, END]))
        assert verdict.clean
        assert verdict.announced == 1

    def test_a_loss_outside_the_announced_range_is_a_breach(self) -> None:
        assert laws(send(6, 6), self.LOST, END) == {"L1"}
        assert laws(send(1, 1), self.LOST._replace(user="eve"), END) == {"L1"}

    def test_a_message_may_be_stored_anew_whose_first_copy_was_lost_unanswered(self) -> None:
        """It was read; then it was lost, with its id; then its sender repeated it."""
        anew = Seen(9, "ann", "m1", 101)
        records = (send(1, 9), read(50, seen(1, 1)), read(70, anew))
        assert laws(*records) == {"L5"}
        assert laws(*records, self.LOST) == set()
        assert laws(*records, self.LOST._replace(first=2)) == {"L5"}
        assert laws(*records, send(1, 1, at=12), self.LOST) == {"L5"}, "it was answered"
        marked = [
            handed(at, 1, redelivered=False)._replace(messages=(anew._replace(redelivered=False),))
            for at in (70, 80)
        ]
        first = handed(50, 1, redelivered=False)
        assert laws(send(1, 9), first, marked[0], self.LOST) == set()
        assert laws(send(1, 9), first, *marked, self.LOST) == {"L7"}

    def test_acknowledgements_may_be_undone_when_this_was_told(self) -> None:
        records = (send(1, 1), read(50, seen(1, 1)), ack(55, 1))
        assert laws(*records, self.LOST, read(70, seen(1, 1))) == set()
        assert laws(*records, read(70, seen(1, 1))) == {"L2"}

    def test_an_epoch_that_changes_in_silence(self) -> None:
        before, after = read(50)._replace(epoch=1), read(70)._replace(epoch=2)
        assert laws(before, after) == {"L7"}
        assert laws(before, self.LOST, after) == set()


class TestFolders:
    def test_every_record_survives_its_line(self) -> None:
        others = (Gap(None, 1, 2), HistoryLost("bob", 1, 2, 3, 4), handed(5, 1, redelivered=True))
        for record in (send(1, 1), send(2), read(5, seen(1, None)), ack(6, 1), END, *others):
            assert parse_line(to_line(record)) == record

    def test_a_clean_folder_exits_0(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        write(tmp_path / "ann.jsonl", [send(1, 1)])
        write(tmp_path / "bob.jsonl", [read(50, seen(1, 1)), ack(60, 1), END])
        assert checker.main([str(tmp_path)]) == 0
        assert capsys.readouterr().out.startswith("clean:")

    def test_a_breach_exits_1_and_shows_the_operations_concerned(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        lost = send(2, 2)
        write(tmp_path / "all.jsonl", [send(1, 1), lost, read(50, seen(1, 1)), END])
        assert checker.main([str(tmp_path)]) == 1
        out = capsys.readouterr().out
        assert to_line(lost) in out
        assert to_line(send(1, 1)) not in out

    def test_a_folder_without_history_exits_2(
        self, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        assert checker.main([str(tmp_path)]) == 2
        assert "holds no" in capsys.readouterr().err

    @pytest.mark.parametrize("line", ["{", "[]", "{}", '{"op":"dance"}', '{"op":"send"}'])
    def test_a_bad_line_is_named_by_file_and_number(self, tmp_path: Path, line: str) -> None:
        (tmp_path / "bad.jsonl").write_text(to_line(END) + "\n" + line + "\n")
        with pytest.raises(HistoryError, match=r"bad\.jsonl:2"):
            load(tmp_path)

    def test_many_breaches_are_counted_and_few_are_shown(self) -> None:
        verdict = judge(gather([*(send(i, i) for i in range(1, 50)), END]))
        assert verdict.counts["L1"] == 49
        assert len(verdict.breaches) == checker.SHOWN_MAX
        assert "44 more" in str(verdict)


def test_the_checker_imports_nothing_of_what_it_judges() -> None:
    folder = Path(checker.__file__).parent
    for path in (folder / "checker.py", folder / "history.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [alias.name for alias in getattr(node, "names", []) if alias.name]
            names.append(getattr(node, "module", None) or "")
            assert not {name.split(".")[0] for name in names} & {"broker", "clients"}


# --- Generated histories ---------------------------------------------------------------------

SENDERS = ("ann", "eve")
USERS = ("bob", "dan")


@dataclass
class Model:
    """A right broker in a few lines, with a clock that ticks at each step."""

    now: int = 0
    seq: int = 0
    order: int = 0
    records: list[Record] = field(default_factory=list)
    stored: defaultdict[str, list[Seen]] = field(default_factory=lambda: defaultdict(list))
    cursors: defaultdict[str, int] = field(default_factory=lambda: defaultdict(int))

    def tick(self) -> int:
        self.now += 1
        return self.now

    def send(self, sender: str, user: str, fate: str) -> None:
        """``fate``: ok, lost answer, lost request, refused, or repeated after its answer."""
        self.order += 1
        record = Send(sender, user, f"m{self.order}", self.order, self.order * 7, self.tick())
        if fate in ("ok", "lost answer", "repeated"):
            self.seq += 1
            self.stored[user].append(Seen(self.seq, sender, record.id, record.digest))
        if fate in ("ok", "repeated"):
            record = record._replace(t1=self.tick(), answer=OK, seq=self.seq)
        if fate == "refused":
            record = record._replace(t1=self.tick(), answer="mailbox_full")
        self.records.append(record)
        if fate == "repeated":
            self.records.append(record._replace(t0=self.tick(), t1=self.tick()))

    def waiting(self, user: str) -> list[Seen]:
        return [seen for seen in self.stored[user] if (seen.seq or 0) > self.cursors[user]]

    def read(self, user: str, limit: int) -> None:
        messages = tuple(self.waiting(user)[:limit])
        self.records.append(Read(user, self.tick(), self.tick(), OK, messages=messages))

    def ack(self, user: str, count: int, answer: str | None) -> None:
        """Acknowledge the first messages that wait, as long as a read has returned them."""
        read = [r for r in self.records if isinstance(r, Read) and r.user == user]
        known = {seen.seq for r in read for seen in r.messages}
        seqs = [seen.seq for seen in self.waiting(user)[:count] if seen.seq in known]
        if not seqs or seqs[-1] is None:
            return
        self.cursors[user] = seqs[-1]
        t0 = self.tick()
        self.records.append(Ack(user, seqs[-1], t0, self.tick() if answer else None, answer))

    def drain(self) -> None:
        for user in USERS:
            self.read(user, 10_000)
            self.ack(user, 10_000, OK)
            self.records.append(Drained(user, self.tick(), self.tick()))


SEND = st.tuples(
    st.just(Model.send),
    st.sampled_from(SENDERS),
    st.sampled_from(USERS),
    st.sampled_from(["ok", "ok", "ok", "lost answer", "lost request", "refused", "repeated"]),
)
READ = st.tuples(st.just(Model.read), st.sampled_from(USERS), st.integers(1, 5))
ACK = st.tuples(
    st.just(Model.ack), st.sampled_from(USERS), st.integers(1, 5), st.sampled_from([OK, None])
)


@st.composite
def right_histories(draw: st.DrawFn) -> list[Record]:
    """Return what clients of a right broker may see: two senders, two mailboxes, lost answers."""
    model = Model()
    for operation, *arguments in draw(st.lists(SEND | SEND | READ | ACK, min_size=1, max_size=40)):
        operation(model, *arguments)
    # At least two answered messages, so that each mutation has something to break.
    model.send("ann", "bob", "ok")
    model.send("ann", "bob", "ok")
    model.drain()
    return model.records


@given(right_histories())
def test_every_right_history_passes(records: list[Record]) -> None:
    verdict = judge(gather(records))
    assert verdict.clean, str(verdict)


def with_reads(records: list[Record], change: Callable[[Seen], Iterable[Seen]]) -> list[Record]:
    """Return the history with each message read replaced by what ``change`` makes of it."""
    return [
        record._replace(messages=tuple(new for seen in record.messages for new in change(seen)))
        if isinstance(record, Read)
        else record
        for record in records
    ]


def last_two(records: list[Record]) -> tuple[Seen, Seen]:
    """Return the two last messages, which the model answers and delivers in the final drain."""
    first, last = (
        Seen(sent.seq, sent.sender, sent.id, sent.digest) for sent in gather(records).sends[-2:]
    )
    return first, last


@given(right_histories())
def test_a_message_that_vanishes_is_caught(records: list[Record]) -> None:
    _, last = last_two(records)
    assert laws(*with_reads(records, lambda m: [] if m == last else [m])) == {"L1"}


@given(right_histories())
def test_a_message_that_comes_back_is_caught(records: list[Record]) -> None:
    _, last = last_two(records)
    assert laws(*records, read(10_000, last)) == {"L2"}


@given(right_histories())
def test_two_messages_that_change_places_are_caught(records: list[Record]) -> None:
    first, last = last_two(records)
    swap = {first: last, last: first}
    assert laws(*with_reads(records, lambda m: [swap.get(m, m)])) == {"L3"}


@given(right_histories(), st.sampled_from(["sender", "id", "digest"]))
def test_a_message_that_changed_on_its_way_is_caught(records: list[Record], what: str) -> None:
    _, last = last_two(records)
    other: dict[str, object] = {"sender": "nobody", "id": "forged", "digest": -1}
    forged = last._replace(**{what: other[what]})  # type: ignore[arg-type]
    assert "L4" in laws(*with_reads(records, lambda m: [forged if m == last else m]))


@given(right_histories())
def test_a_message_in_a_stranger_s_mailbox_is_caught(records: list[Record]) -> None:
    _, last = last_two(records)
    assert laws(*records, read(10_000, last, user="stranger")) == {"L4"}


@given(right_histories())
def test_a_second_copy_is_caught(records: list[Record]) -> None:
    _, last = last_two(records)
    copy = last._replace(seq=10_000)
    assert laws(*with_reads(records, lambda m: [m, copy] if m == last else [m])) == {"L5"}


@given(right_histories())
def test_a_second_copy_of_a_send_without_an_answer_is_caught(records: list[Record]) -> None:
    _, last = last_two(records)
    silent = [
        record._replace(t1=None, answer=None, seq=None)
        if isinstance(record, Send) and record.id == last.id
        else record
        for record in records
    ]
    copy = last._replace(seq=10_000)
    assert laws(*with_reads(silent, lambda m: [m, copy] if m == last else [m])) == {"L6"}
