"""What every store must do, whatever the engine. Source: broker.core.ports.Store.

A test says ``store = reopen(store)`` where a restart must change nothing.
"""

from __future__ import annotations

import pytest

from broker.core.dedup import DedupLimits
from broker.core.model import Account, Block, Depth, SessionRecord
from broker.core.ports import Store, StoreLimits
from broker.wire.errors import Code, WireError
from broker.wire.limits import SEQ_MAX
from tests.stores.engines import MAILBOX_MESSAGES_MAX, Engine, absent
from tests.stores.steps import (
    NOW_MS,
    Reopen,
    account,
    ack,
    failing_batch,
    ids,
    message,
    read,
    refused,
    send,
    with_users,
)


def session(number: int, user: str = "ann", expires_ms: int = NOW_MS + 9) -> SessionRecord:
    return SessionRecord(bytes([number]) * 32, user, NOW_MS + number, expires_ms, "phone")


# --- append, read, acknowledge ---------------------------------------------------------------


def test_a_message_comes_back_with_all_that_was_stored(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    seq = send(store, "m1", "h\u00e9 \U0001f4ec\x00\n")
    page = read(reopen(store))
    assert page.messages == [message(seq, "m1", "h\u00e9 \U0001f4ec\x00\n")]
    assert page[1:] == (False, 0, page.delivered, seq, None)


def test_an_empty_mailbox_is_an_empty_page(store: Store) -> None:
    assert read(with_users(store, "bob")) == ([], False, 0, 0, 0, None)


def test_reading_takes_nothing_and_keeps_the_order_of_sending(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    seqs = [send(store, f"m{number}") for number in range(4)]
    assert seqs == sorted(set(seqs))
    assert ids(store) == ["m0", "m1", "m2", "m3"]
    assert ids(reopen(store)) == ["m0", "m1", "m2", "m3"]


def test_a_message_is_read_within_the_batch_that_stores_it(store: Store) -> None:
    with_users(store, "bob")
    with store.batch():
        store.append("bob", "ann", "m1", "hi", NOW_MS)
        assert [each.message_id for each in store.read("bob", "", 0, 10, 1_000).messages] == ["m1"]
        store.append("bob", "ann", "m2", "hi", NOW_MS)
        assert len(store.read("bob", "", 0, 10, 1_000).messages) == 2
    assert ids(store) == ["m1", "m2"]


def test_acknowledged_is_gone_and_the_rest_stays(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    first, second = send(store, "m1"), send(store, "m2")
    assert ack(store, first) == first
    for _ in range(2):
        page = read(store)
        assert (page.messages, page.more, page.cursor) == ([message(second, "m2")], False, first)
        store = reopen(store)


def test_an_acknowledgement_is_repeatable_and_never_goes_back(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    first, second = send(store, "m1"), send(store, "m2")
    assert ack(store, second) == second
    store = reopen(store)
    assert ack(store, second) == second
    assert ack(store, first) == second
    assert ack(store, 0) == second
    assert ids(store) == []


def test_the_cursor_stops_at_the_last_message(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob", "eve")
    last = send(store, "m1")
    send(store, "m2", to="eve")
    assert ack(store, SEQ_MAX) == last
    store = reopen(store)
    assert send(store, "m3") > last
    assert ids(store) == ["m3"], "a message still to come is not acknowledged in advance"


def test_an_acknowledgement_in_an_untouched_mailbox_stays_at_nothing(store: Store) -> None:
    assert ack(with_users(store, "bob"), 7) == 0


def test_an_acknowledgement_between_two_sequences_takes_what_is_below(
    store: Store, reopen: Reopen
) -> None:
    with_users(store, "bob", "eve")
    send(store, "m1")
    between = send(store, "m2", to="eve")
    send(store, "m3")
    assert ack(store, between) == between
    assert ids(reopen(store)) == ["m3"]


def test_append_and_acknowledge_in_one_batch(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    with store.batch():
        seq = store.append("bob", "ann", "m1", "hi", NOW_MS).seq
        assert store.acknowledge("bob", "", seq) == seq
        assert store.read("bob", "", 0, 9, 9)[:3] == ([], False, seq)
    assert read(reopen(store))[:3] == ([], False, seq)


def test_mailboxes_do_not_touch_each_other(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob", "eve")
    send(store, "m1")
    theirs = send(store, "m2", to="eve")
    ack(store, theirs, "eve")
    store = reopen(store)
    assert ids(store) == ["m1"]
    assert ids(store, "eve") == []


def test_nobody_of_that_name(store: Store) -> None:
    with store.batch():
        refused(Code.NO_SUCH_USER, lambda: store.append("bob", "ann", "m1", "hi", NOW_MS).seq)
        refused(Code.NO_SUCH_USER, lambda: store.read("bob", "", 0, 1, 1))
        refused(Code.NO_SUCH_USER, lambda: store.acknowledge("bob", "", 1))


def test_a_full_mailbox_refuses_and_takes_again_after_an_acknowledgement(
    store: Store, reopen: Reopen
) -> None:
    with_users(store, "bob")
    seqs = [send(store, f"m{number}") for number in range(MAILBOX_MESSAGES_MAX)]
    refused(Code.MAILBOX_FULL, lambda: send(store, "one more"))
    store = reopen(store)
    refused(Code.MAILBOX_FULL, lambda: send(store, "one more"))
    assert send(store, "m0") == seqs[0], "a repeated id needs no room"
    ack(store, seqs[0])
    send(store, "one more")
    assert ids(store)[-1] == "one more"


def test_a_mailbox_takes_no_more_bytes_than_its_limit_but_one_message_at_least(
    engine: Engine,
) -> None:
    store = with_users(engine.open(StoreLimits(mailbox_bytes_max=10)), "bob")
    first = send(store, "m1", "\u00e9" * 10)
    store = engine.reopen(store)
    refused(Code.MAILBOX_FULL, lambda: send(store, "m2", "x"))
    ack(store, first)
    send(store, "m3", "\u00e9" * 4)
    store = engine.reopen(store)
    refused(Code.MAILBOX_FULL, lambda: send(store, "m4", "123"))
    send(store, "m5", "12")
    assert ids(store) == ["m3", "m5"]


def test_the_bytes_of_a_failed_batch_do_not_count(engine: Engine) -> None:
    store = with_users(engine.open(StoreLimits(mailbox_bytes_max=10)), "bob")
    first = send(store, "m1", "12345")
    with failing_batch(store):
        store.append("bob", "ann", "lost", "12345", NOW_MS)
        store.acknowledge("bob", "", first)
    refused(Code.MAILBOX_FULL, lambda: send(store, "m2", "123456"))
    send(store, "m3", "12345")


# --- pages -----------------------------------------------------------------------------------


def test_pages_follow_each_other_without_gap_or_overlap(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    sent = [send(store, f"m{number}") for number in range(5)]
    store = reopen(store)
    seen: list[int] = []
    more = True
    while more:
        page = read(store, after=seen[-1] if seen else 0, limit=2)
        seen += [message.seq for message in page.messages]
        more = page.more
    assert seen == sent


@pytest.mark.parametrize(("limit", "more"), [(1, True), (2, True), (3, False), (4, False)])
def test_more_tells_whether_something_waits_behind(store: Store, limit: int, *, more: bool) -> None:
    with_users(store, "bob")
    for number in range(3):
        send(store, f"m{number}")
    page = read(store, limit=limit)
    assert (len(page.messages), page.more) == (min(limit, 3), more)


def test_after_counts_only_above_the_cursor(store: Store) -> None:
    with_users(store, "bob")
    seqs = [send(store, f"m{number}") for number in range(4)]
    ack(store, seqs[1])
    assert ids(store, after=seqs[0]) == ["m2", "m3"]
    assert ids(store, after=seqs[2]) == ["m3"]
    assert read(store, after=SEQ_MAX)[:3] == ([], False, seqs[1])


@pytest.mark.parametrize(
    ("bytes_max", "count"), [(1, 1), (5, 1), (9, 1), (10, 2), (14, 2), (15, 3), (99, 3)]
)
def test_a_page_is_bounded_by_bytes_of_utf8_and_holds_one_at_least(
    store: Store, bytes_max: int, count: int
) -> None:
    with_users(store, "bob")
    for number in range(3):
        send(store, f"m{number}", "a\u00e9\u00e9")  # five bytes, three characters
    with store.batch():
        messages, more, *_ = store.read("bob", "", 0, 100, bytes_max)
    assert (len(messages), more) == (count, count < 3)


def test_a_long_queue_is_read_and_acknowledged_in_order(engine: Engine) -> None:
    store = with_users(engine.open(StoreLimits(mailbox_messages_max=1_000)), "bob")
    with store.batch():
        sent = [store.append("bob", "ann", str(n), "x", NOW_MS).seq for n in range(700)]
    store = engine.reopen(store)
    assert [each.seq for each in read(store, limit=1_000).messages] == sent
    assert ack(store, sent[599]) == sent[599]
    assert [each.seq for each in read(store, limit=1_000).messages] == sent[600:]
    store = engine.reopen(store)
    assert [each.seq for each in read(store, limit=99).messages] == sent[600:699]


# --- stored once -----------------------------------------------------------------------------


def test_a_repeated_id_gets_the_first_answer_and_no_second_copy(
    store: Store, reopen: Reopen
) -> None:
    with_users(store, "bob")
    first = send(store, "m1")
    store = reopen(store)
    assert send(store, "m1") == first
    with store.batch():
        assert store.append("bob", "ann", "m1", "hi", NOW_MS + 60_000).seq == first
    assert ids(store) == ["m1"]


def test_a_repetition_within_one_batch(store: Store) -> None:
    with_users(store, "bob")
    with store.batch():
        first = store.append("bob", "ann", "m1", "hi", NOW_MS).seq
        assert store.append("bob", "ann", "m1", "hi", NOW_MS).seq == first
        refused(Code.CONFLICT, lambda: store.append("bob", "ann", "m1", "ho", NOW_MS).seq)
    assert ids(store) == ["m1"]


def test_a_repetition_after_the_acknowledgement_brings_nothing_back(
    store: Store, reopen: Reopen
) -> None:
    with_users(store, "bob")
    first = send(store, "m1")
    ack(store, first)
    store = reopen(store)
    assert send(store, "m1") == first
    assert ids(store) == []


def test_one_id_for_two_texts_is_a_conflict(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    send(store, "m1")
    store = reopen(store)
    refused(Code.CONFLICT, lambda: send(store, "m1", "ho"))
    assert ids(store) == ["m1"]


@pytest.mark.usefixtures("ids_over_all")
def test_one_id_for_two_recipients_is_a_conflict(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob", "eve")
    send(store, "m1")
    store = reopen(store)
    refused(Code.CONFLICT, lambda: send(store, "m1", to="eve"))
    with store.batch():
        refusal = WireError(Code.BLOCKED, "not from you")
        refused(
            Code.CONFLICT,
            lambda: store.append("eve", "ann", "m1", "hi", NOW_MS, refusal=refusal).seq,
        )
    assert (ids(store), ids(store, "eve")) == (["m1"], [])


def test_two_senders_may_use_the_same_id(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    send(store, "m1")
    store = reopen(store)
    with store.batch():
        store.append("bob", "eve", "m1", "ho", NOW_MS)
    assert ids(store) == ["m1", "m1"]


def test_an_id_is_remembered_for_as_many_messages_as_promised(engine: Engine) -> None:
    limits = StoreLimits(dedup=DedupLimits(ids_per_sender=3, ids_max=100))
    store = with_users(engine.open(limits), "bob")
    sent = [send(store, f"m{number}") for number in range(20)]
    store = engine.reopen(store)
    assert [send(store, f"m{number}") for number in (17, 18, 19)] == sent[17:]


# --- what failed did not happen --------------------------------------------------------------


def test_a_failed_batch_leaves_nothing_behind(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    kept = send(store, "kept")
    with store.batch():
        store.put(session(1))
    with failing_batch(store):
        store.append("bob", "ann", "lost", "hi", NOW_MS)
        store.acknowledge("bob", "", kept)
        store.put(account("eve"))
        store.append("eve", "ann", "to eve", "hi", NOW_MS)
        store.put(account("bob", "Robert"))
        store.remove(SessionRecord, session(1).digest)
        store.put(session(2))
        store.read("bob", "", 0, 9, 99)
    store = reopen(store)
    page = read(store)
    assert (page.messages, page.more, page.cursor) == ([message(kept, "kept")], False, 0)
    assert store.find_all(Account) == [account("bob")]
    assert store.find_all(SessionRecord) == [session(1)]
    refused(Code.NO_SUCH_USER, lambda: send(store, "m", to="eve"))


def test_the_id_and_the_sequence_of_a_failed_batch_are_free_again(
    store: Store, reopen: Reopen
) -> None:
    with_users(store, "bob")
    with failing_batch(store):
        lost = store.append("bob", "ann", "m1", "hi", NOW_MS).seq
    store = reopen(store)
    assert send(store, "m1", "other text") == lost
    assert [each.text for each in read(store).messages] == ["other text"]


def test_what_was_read_in_a_failed_batch_was_not_delivered(store: Store) -> None:
    with_users(store, "bob")
    send(store, "m1")
    with failing_batch(store):
        store.read("bob", "", 0, 9, 99)
    assert read(store).delivered == 0


def test_a_removal_that_failed_brings_back_the_mailbox(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    first = send(store, "m1")
    send(store, "m2")
    ack(store, first)
    with failing_batch(store):
        store.append("bob", "ann", "m3", "hi", NOW_MS)
        store.remove(Account, "bob")
        store.put(account("bob", "Another"))
        store.append("bob", "ann", "m4", "hi", NOW_MS)
    store = reopen(store)
    assert store.find(Account, "bob") == account("bob")
    assert ids(store) == ["m2"]
    assert ack(store) == first + 1


def test_a_refusal_within_a_batch_does_not_end_it(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    with store.batch():
        store.append("bob", "ann", "m1", "hi", NOW_MS)
        refused(Code.NO_SUCH_USER, lambda: store.append("eve", "ann", "m2", "hi", NOW_MS).seq)
        store.append("bob", "ann", "m3", "hi", NOW_MS)
    assert ids(reopen(store)) == ["m1", "m3"]


def test_an_empty_batch_and_one_that_only_looks(store: Store) -> None:
    with store.batch():
        pass
    with store.batch():
        assert store.find(Account, "bob") is None


# --- the suite itself ------------------------------------------------------------------------


def test_with_a_refusal_only_what_is_stored_has_an_answer(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    seq = send(store, "m1")
    store = reopen(store)
    refusal = WireError(Code.BLOCKED, "not from you")

    def append(message_id: str, text: str = "hi") -> int:
        with store.batch():
            return store.append("bob", "ann", message_id, text, NOW_MS, refusal=refusal).seq

    assert append("m1") == seq
    refused(Code.BLOCKED, lambda: append("m2"))
    refused(Code.CONFLICT, lambda: append("m1", "ho"))
    assert ids(store) == ["m1"]
    assert send(store, "m2") > seq, "the refusal is not remembered"


def test_the_depth_is_what_no_reader_has_acknowledged(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob", "eve")
    seqs = [send(store, "m1", "1"), send(store, "m2", "22"), send(store, "m3", "333")]
    send(store, "m4", "4444", to="eve")
    ack(store, seqs[0])
    for each in (store, reopen(store)):
        assert each.depth("bob") == Depth(1, 2, 5)
        assert each.depth("eve") == Depth(1, 1, 4)
        assert each.depth() == Depth(2, 3, 9)
        store = each
    refused(Code.NO_SUCH_USER, lambda: store.depth("nobody"))
    with failing_batch(store):
        store.append("bob", "ann", "m5", "55555", NOW_MS)
    assert store.depth("bob") == Depth(1, 2, 5)


def test_blocks_are_kept_listed_and_removed(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    with store.batch():
        for user, sender in (("bob", "eve"), ("bob", "ann"), ("ann", "bob")):
            store.put(Block(user, sender))
        store.put(Block("bob", "eve"))
    store = reopen(store)
    assert store.find_all(Block, of="bob") == [Block("bob", "ann"), Block("bob", "eve")]
    assert store.find_all(Block)[0] == Block("ann", "bob")
    assert store.find(Block, ("bob", "eve")) == Block("bob", "eve")
    with failing_batch(store):
        store.remove(Block, ("bob", "eve"))
    with store.batch():
        store.remove(Block, ("bob", "ann"))
        store.remove(Block, ("bob", "nobody"))
    assert reopen(store).find_all(Block, of="bob") == [Block("bob", "eve")]


def test_a_role_is_kept(store: Store, reopen: Reopen) -> None:
    with store.batch():
        store.put(Account("bob", "Bob", "hash", "observer"))
    assert reopen(store).find(Account, "bob") == Account("bob", "Bob", "hash", "observer")


def test_durability_is_what_the_engine_can_keep(engine: Engine) -> None:
    assert engine.open().durability == ("fsync" if engine.durable else "memory")


@pytest.mark.parametrize(
    ("ci", "outcome"), [("true", pytest.fail.Exception), ("", pytest.skip.Exception)]
)
def test_an_absent_engine_skips_here_and_fails_in_ci(
    monkeypatch: pytest.MonkeyPatch, ci: str, outcome: type[BaseException]
) -> None:
    monkeypatch.setenv("CI", ci)
    with pytest.raises(outcome):
        absent("no server at 127.0.0.1:6379")
