"""What every store must do, whatever the engine. Source: broker.core.ports.Store.

A test says ``store = reopen(store)`` where a restart must change nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

import pytest

from broker.core.dedup import DedupLimits
from broker.core.model import Account, Message, Page, SessionRecord
from broker.core.ports import Store
from broker.wire.errors import Code, WireError
from tests.stores.engines import MAILBOX_MESSAGES_MAX, Engine, absent

NOW_MS = 1_700_000_000_000
Reopen = Callable[[Store], Store]


class Interrupted(Exception):
    """Something that is no store's business ends a batch."""


@contextmanager
def failing_batch(store: Store) -> Iterator[None]:
    with suppress(Interrupted), store.batch():
        yield
        raise Interrupted


@pytest.fixture
def reopen(engine: Engine) -> Reopen:
    return engine.reopen


def account(user: str, name: str = "", password_hash: str = "hash") -> Account:
    return Account(user, name or user.title(), password_hash)


def session(number: int, user: str = "ann", expires_ms: int = NOW_MS + 9) -> SessionRecord:
    return SessionRecord(bytes([number]) * 32, user, NOW_MS + number, expires_ms)


def with_users(store: Store, *users: str) -> Store:
    with store.batch():
        for user in users:
            store.put_account(user, account(user))
    return store


def send(store: Store, message_id: str, text: str = "hi", to: str = "bob") -> int:
    with store.batch():
        return store.append(to, "ann", message_id, text, NOW_MS).seq


def inbox(store: Store, user: str = "bob", after: int = 0, limit: int = 100) -> Page:
    with store.batch():
        return store.read(user, after, limit, 1_000_000)


def ids(store: Store, user: str = "bob", after: int = 0, limit: int = 100) -> list[str]:
    return [message.message_id for message in inbox(store, user, after, limit).messages]


def ack(store: Store, seq: int, user: str = "bob") -> int:
    with store.batch():
        return store.acknowledge(user, seq)


def refused(code: Code, step: Callable[[], object]) -> None:
    with pytest.raises(WireError) as caught:
        step()
    assert caught.value.code is code


# --- append, read, acknowledge ---------------------------------------------------------------


def test_a_message_comes_back_with_all_that_was_stored(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    seq = send(store, "m1", "h\u00e9 \U0001f4ec\x00\n")
    page = inbox(reopen(store))
    assert page == ([Message(seq, NOW_MS, "ann", "m1", "h\u00e9 \U0001f4ec\x00\n")], False, 0)


def test_an_empty_mailbox_is_an_empty_page(store: Store) -> None:
    assert inbox(with_users(store, "bob")) == ([], False, 0)


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
        assert [each.message_id for each in store.read("bob", 0, 10, 1_000).messages] == ["m1"]
        store.append("bob", "ann", "m2", "hi", NOW_MS)
        assert len(store.read("bob", 0, 10, 1_000).messages) == 2
    assert ids(store) == ["m1", "m2"]


def test_acknowledged_is_gone_and_the_rest_stays(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    first, second = send(store, "m1"), send(store, "m2")
    assert ack(store, first) == first
    assert inbox(store) == ([Message(second, NOW_MS, "ann", "m2", "hi")], False, first)
    assert inbox(reopen(store)) == ([Message(second, NOW_MS, "ann", "m2", "hi")], False, first)


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
    assert ack(store, 2**63 - 1) == last
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
        assert store.acknowledge("bob", seq) == seq
        assert store.read("bob", 0, 9, 9) == ([], False, seq)
    assert inbox(reopen(store)) == ([], False, seq)


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
        refused(Code.NO_SUCH_USER, lambda: store.append("bob", "ann", "m1", "hi", NOW_MS))
        refused(Code.NO_SUCH_USER, lambda: store.read("bob", 0, 1, 1))
        refused(Code.NO_SUCH_USER, lambda: store.acknowledge("bob", 1))


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


# --- pages -----------------------------------------------------------------------------------


def test_pages_follow_each_other_without_gap_or_overlap(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    sent = [send(store, f"m{number}") for number in range(5)]
    store = reopen(store)
    seen: list[int] = []
    more = True
    while more:
        page = inbox(store, after=seen[-1] if seen else 0, limit=2)
        seen += [message.seq for message in page.messages]
        more = page.more
    assert seen == sent


@pytest.mark.parametrize(("limit", "more"), [(1, True), (2, True), (3, False), (4, False)])
def test_more_tells_whether_something_waits_behind(store: Store, limit: int, *, more: bool) -> None:
    with_users(store, "bob")
    for number in range(3):
        send(store, f"m{number}")
    page = inbox(store, limit=limit)
    assert (len(page.messages), page.more) == (min(limit, 3), more)


def test_after_counts_only_above_the_cursor(store: Store) -> None:
    with_users(store, "bob")
    seqs = [send(store, f"m{number}") for number in range(4)]
    ack(store, seqs[1])
    assert ids(store, after=seqs[0]) == ["m2", "m3"]
    assert ids(store, after=seqs[2]) == ["m3"]
    assert inbox(store, after=2**63 - 1) == ([], False, seqs[1])


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
        messages, more, _ = store.read("bob", 0, 100, bytes_max)
    assert (len(messages), more) == (count, count < 3)


def test_a_long_queue_is_read_and_acknowledged_in_order(engine: Engine) -> None:
    store = with_users(engine.open(messages_max=1_000), "bob")
    with store.batch():
        sent = [store.append("bob", "ann", str(n), "x", NOW_MS).seq for n in range(700)]
    store = engine.reopen(store)
    assert [each.seq for each in inbox(store, limit=1_000).messages] == sent
    assert ack(store, sent[599]) == sent[599]
    assert [each.seq for each in inbox(store, limit=1_000).messages] == sent[600:]
    store = engine.reopen(store)
    assert [each.seq for each in inbox(store, limit=99).messages] == sent[600:699]


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
        refused(Code.CONFLICT, lambda: store.append("bob", "ann", "m1", "ho", NOW_MS))
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


def test_one_id_for_two_messages_is_a_conflict(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob", "eve")
    send(store, "m1")
    store = reopen(store)
    refused(Code.CONFLICT, lambda: send(store, "m1", "ho"))
    refused(Code.CONFLICT, lambda: send(store, "m1", to="eve"))
    assert (ids(store), ids(store, "eve")) == (["m1"], [])


def test_two_senders_may_use_the_same_id(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    send(store, "m1")
    store = reopen(store)
    with store.batch():
        store.append("bob", "eve", "m1", "ho", NOW_MS)
    assert ids(store) == ["m1", "m1"]


def test_an_id_is_remembered_for_as_many_messages_as_promised(engine: Engine) -> None:
    limits = DedupLimits(ids_per_sender=3, ids_max=100)
    store = with_users(engine.open(messages_max=100, dedup=limits), "bob")
    sent = [send(store, f"m{number}") for number in range(20)]
    store = engine.reopen(store)
    assert [send(store, f"m{number}") for number in (17, 18, 19)] == sent[17:]


# --- what failed did not happen --------------------------------------------------------------


def test_a_failed_batch_leaves_nothing_behind(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    kept = send(store, "kept")
    with store.batch():
        store.put_session(session(1).digest, session(1))
    with failing_batch(store):
        store.append("bob", "ann", "lost", "hi", NOW_MS)
        store.acknowledge("bob", kept)
        store.put_account("eve", account("eve"))
        store.append("eve", "ann", "to eve", "hi", NOW_MS)
        store.put_account("bob", account("bob", "Robert"))
        store.put_session(session(1).digest, None)
        store.put_session(session(2).digest, session(2))
        store.read("bob", 0, 9, 99)
    store = reopen(store)
    assert inbox(store) == ([Message(kept, NOW_MS, "ann", "kept", "hi")], False, 0)
    assert store.accounts("", 10) == [account("bob")]
    assert list(store.sessions()) == [session(1)]
    refused(Code.NO_SUCH_USER, lambda: send(store, "m", to="eve"))


def test_the_id_and_the_sequence_of_a_failed_batch_are_free_again(
    store: Store, reopen: Reopen
) -> None:
    with_users(store, "bob")
    with failing_batch(store):
        lost = store.append("bob", "ann", "m1", "hi", NOW_MS).seq
    store = reopen(store)
    assert send(store, "m1", "other text") == lost
    assert [message.text for message in inbox(store).messages] == ["other text"]


def test_a_removal_that_failed_brings_back_the_mailbox(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    first = send(store, "m1")
    send(store, "m2")
    ack(store, first)
    with failing_batch(store):
        store.append("bob", "ann", "m3", "hi", NOW_MS)
        store.put_account("bob", None)
        store.put_account("bob", account("bob", "Another"))
        store.append("bob", "ann", "m4", "hi", NOW_MS)
    store = reopen(store)
    assert store.account("bob") == account("bob")
    assert ids(store) == ["m2"]
    assert ack(store, 2**63 - 1) == first + 1


def test_sessions_keep_their_order_when_a_removal_fails(store: Store, reopen: Reopen) -> None:
    records = [session(number) for number in range(3)]
    with store.batch():
        for record in records:
            store.put_session(record.digest, record)
    with failing_batch(store):
        store.put_session(records[0].digest, None)
        store.put_session(records[2].digest, None)
    assert list(reopen(store).sessions()) == records


def test_a_refusal_within_a_batch_does_not_end_it(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    with store.batch():
        store.append("bob", "ann", "m1", "hi", NOW_MS)
        refused(Code.NO_SUCH_USER, lambda: store.append("eve", "ann", "m2", "hi", NOW_MS))
        store.append("bob", "ann", "m3", "hi", NOW_MS)
    assert ids(reopen(store)) == ["m1", "m3"]


def test_an_empty_batch_and_one_that_only_reads(store: Store) -> None:
    with store.batch():
        pass
    with store.batch():
        assert store.account("bob") is None


# --- accounts --------------------------------------------------------------------------------


def test_an_account_is_stored_changed_and_removed(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob")
    send(store, "m1")
    with store.batch():
        store.put_account("bob", account("bob", "Robert", "new hash"))
    store = reopen(store)
    assert store.account("bob") == account("bob", "Robert", "new hash")
    assert ids(store) == ["m1"], "a new password keeps the mailbox"
    with store.batch():
        store.put_account("bob", None)
    store = reopen(store)
    assert store.account("bob") is None
    refused(Code.NO_SUCH_USER, lambda: inbox(store))


def test_removing_nobody_is_no_error(store: Store) -> None:
    with store.batch():
        store.put_account("bob", None)
        store.put_session(session(1).digest, None)
    assert store.accounts("", 10) == []


def test_a_name_given_again_starts_with_an_empty_mailbox(store: Store, reopen: Reopen) -> None:
    with_users(store, "bob", "eve")
    ack(store, send(store, "m1"))
    send(store, "m2")
    send(store, "m3", to="eve")
    with store.batch():
        store.append("bob", "ann", "m4", "hi", NOW_MS)
        store.acknowledge("bob", 2)
        store.put_account("bob", None)
        store.put_account("bob", account("bob"))
    store = reopen(store)
    assert inbox(store) == ([], False, 0)
    send(store, "m5")
    store = reopen(store)
    assert (ids(store), ids(store, "eve")) == (["m5"], ["m3"])


def test_accounts_come_in_order_of_name_page_by_page(store: Store, reopen: Reopen) -> None:
    store = reopen(with_users(store, "d", "b", "a", "c", "aa"))
    assert [each.user for each in store.accounts("", 3)] == ["a", "aa", "b"]
    assert [each.user for each in store.accounts("b", 3)] == ["c", "d"]
    assert store.accounts("d", 3) == []
    assert [each.user for each in store.accounts("bb", 1)] == ["c"]


# --- sessions --------------------------------------------------------------------------------


def test_sessions_come_oldest_first_of_one_user_or_of_all(store: Store, reopen: Reopen) -> None:
    records = [session(3), session(1, "bob"), session(2)]
    with store.batch():
        for record in records:
            store.put_session(record.digest, record)
    store = reopen(store)
    assert list(store.sessions()) == records
    assert list(store.sessions("ann")) == [records[0], records[2]]
    assert list(store.sessions("eve")) == []
    assert store.session(records[1].digest) == records[1]
    assert store.session(b"\0" * 32) is None


def test_a_session_that_is_extended_keeps_its_place(store: Store, reopen: Reopen) -> None:
    with store.batch():
        for number in (1, 2):
            store.put_session(session(number).digest, session(number))
    longer = session(1, expires_ms=NOW_MS + 99)
    with store.batch():
        store.put_session(longer.digest, longer)
    assert list(reopen(store).sessions()) == [longer, session(2)]


def test_a_session_that_ended_is_gone(store: Store, reopen: Reopen) -> None:
    with store.batch():
        store.put_session(session(1).digest, session(1))
    with store.batch():
        store.put_session(session(1).digest, None)
    assert reopen(store).session(session(1).digest) is None


# --- the suite itself ------------------------------------------------------------------------


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
