"""Small, named bugs: each breaks one promise in the way in which somebody might really break it.

They are switched on by replacing one function for the length of a `with`; the broker's own code
knows nothing of them.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from unittest.mock import patch

from broker.core.dedup import DedupWindow
from broker.core.handlers import mail
from broker.core.mailbox import Mailbox, Reader
from broker.core.mailboxes import Acknowledged, Mailboxes
from broker.core.model import Epoch, Lost, Message, Page, State
from broker.core.ports import StoreFailedError
from broker.core.push import Push
from broker.core.replies import Answers, Frames, Replies
from broker.core.retention import Retention
from broker.core.sessions import Session as ServedSession
from broker.core.sessions import Sessions
from broker.core.subscriptions import Subscription, Subscriptions
from broker.server.assembly import WallClock
from broker.stores import (
    sqlite,
    sqlite_epoch,
    sqlite_journal,
    sqlite_recovery,
    sqlite_schema,
)
from broker.stores.sqlite import SqliteStore
from broker.stores.sqlite_journal import Journal, new_run
from broker.stores.sqlite_log import MessageLog
from clients.session import Session
from clients.subscription import Subscription as Receiver
from tests.simulator.faults import BEFORE

Planted = AbstractContextManager[object]


@dataclass(frozen=True, slots=True)
class Bug:
    """One bug. ``plant`` switches it on for the length of a `with`."""

    name: str
    #: What somebody got wrong, in a sentence.
    sentence: str
    plant: Callable[[], Planted]


_BUGS: Final[list[Bug]] = []
_POWER_BUGS: Final[list[Bug]] = []


def _bug(
    sentence: str, bugs: list[Bug] = _BUGS
) -> Callable[[Callable[[], Planted]], Callable[[], Planted]]:
    def register(plant: Callable[[], Planted]) -> Callable[[], Planted]:
        bugs.append(Bug(plant.__name__.strip("_").replace("_", "-"), sentence, plant))
        return plant

    return register


@contextmanager
def _both(first: Planted, second: Planted) -> Iterator[None]:
    with first, second:
        yield


# --- the commit ----------------------------------------------------------------------------------


@_bug("the answer leaves before the commit: a transaction is committed with a later batch")
def _ok_before_commit() -> Planted:
    commit, batches = SqliteStore._commit, iter(range(10**9))

    def late(self: SqliteStore) -> None:
        if next(batches) % 4 == 0:
            commit(self)

    return patch.object(SqliteStore, "_commit", late)


@_bug("an acknowledgement moves the cursor in memory and is not written down")
def _ack_not_committed() -> Planted:
    def acknowledge(self: SqliteStore, user: str, device: str, seq: int) -> int:
        return self.mailboxes.acknowledge(self.mailboxes.find(user), device, seq).reader.cursor

    return patch.object(SqliteStore, "acknowledge", acknowledge)


@_bug("a commit that failed is taken for one that did not: its receipts go out")
def _receipt_after_failed_commit() -> Planted:
    batch = SqliteStore.batch

    @contextmanager
    def forgiving(self: SqliteStore) -> Iterator[None]:
        try:
            with batch(self):
                yield
        except StoreFailedError as error:
            if BEFORE not in str(error):
                raise

    return patch.object(SqliteStore, "batch", forgiving)


@_bug("what a refused batch acknowledged stays acknowledged in memory, and is never written")
def _rollback_keeps_cursors() -> Planted:
    acknowledge = Mailbox.acknowledge

    def for_good(self: Mailbox, reader: Reader, seq: int) -> Any:
        read, _ = acknowledge(self, reader, seq)
        return read, lambda: None

    return patch.object(Mailbox, "acknowledge", for_good)


# --- the journal ---------------------------------------------------------------------------------


@_bug("a batch's record is written with the next batch, when the first one has its answer")
def _record_behind_the_answer() -> Planted:
    append, restart = Journal.append, Journal.restart
    held: dict[Journal, bytes] = {}

    def late(self: Journal, body: bytes) -> bool:
        former = held.get(self)
        held[self] = body
        return former is None or append(self, former)

    def anew(self: Journal, run: int) -> None:
        held.pop(self, None)
        restart(self, run)

    return _both(
        patch.object(Journal, "append", late),
        _both(
            patch.object(Journal, "restart", anew),
            patch.object(Journal, "used", property(lambda self: self._number > 0 or self in held)),
        ),
    )


@_bug("the journal begins anew before what it had is in the database")
def _run_named_too_early() -> Planted:
    begin = SqliteStore._begin

    def early(self: SqliteStore) -> None:
        if not self._writing and self._journal is not None and self._journal.used:
            run = new_run()
            self._run("UPDATE journal SET former = run, run = ?", (run,))
            self._journal.restart(run)
        begin(self)

    return patch.object(SqliteStore, "_begin", early)


@_bug("a start takes in nothing of the journal that is left there")
def _journal_not_taken_in() -> Planted:
    return patch.object(sqlite_recovery, "records", lambda path, run: iter(()))


@_bug("a start takes in the journal, and leaves it to be taken in once more")
def _journal_taken_in_twice() -> Planted:
    recover = sqlite_recovery.recover

    def twice(database: sqlite3.Connection, path: Path) -> None:
        run = sqlite_recovery.run_of(database)
        recover(database, path)
        database.execute("UPDATE journal SET run = ?", (run,))
        recover(database, path)

    return patch.object(sqlite_schema, "recover", twice)


@_bug("what was journalled is forgotten with a batch that is rolled back")
def _rollback_forgets_the_journalled() -> Planted:
    roll_back = SqliteStore._roll_back

    def forgetful(self: SqliteStore) -> None:
        if self._writing:
            self._journalled.clear()
        roll_back(self)

    return patch.object(SqliteStore, "_roll_back", forgetful)


@_bug("what stands in the journal is read only once the database has it")
def _journalled_not_read() -> Planted:
    return patch.object(SqliteStore, "_unwritten", lambda self: (self._staged,))


@_bug("a record is written and not synced", _POWER_BUGS)
def _journal_not_synced() -> Planted:
    return patch.object(sqlite_journal, "_sync", lambda handle: None)


# --- stored once ---------------------------------------------------------------------------------


@_bug("the remembered ids are not of the message's transaction: a restart has forgotten them")
def _dedupe_in_another_transaction() -> Planted:
    return patch.object(Mailboxes, "remember", lambda self, *row: None)


@_bug("a batch that is rolled back leaves its ids remembered: the retry is answered, not stored")
def _rollback_keeps_ids() -> Planted:
    return patch.object(DedupWindow, "discard", lambda self, sender, message_id: None)


@_bug("a retry is stored as a second copy")
def _retry_makes_a_second_copy() -> Planted:
    return patch.object(DedupWindow, "find", lambda self, sender, message_id: None)


# --- order and cursors ---------------------------------------------------------------------------


@_bug("messages are read in order of their time, not of their sequence")
def _order_by_time() -> Planted:
    messages = MessageLog.messages

    def by_time(self: MessageLog, seqs: Sequence[int]) -> Iterator[Message]:
        yield from sorted(messages(self, seqs), key=lambda each: (each.at_ms, each.message_id))

    return patch.object(MessageLog, "messages", by_time)


@_bug("acknowledging one message takes the next one along")
def _cursor_jumps_a_gap() -> Planted:
    acknowledge = Mailboxes.acknowledge

    def further(self: Mailboxes, box: Mailbox, device: str, seq: int) -> Acknowledged:
        return acknowledge(self, box, device, seq + 1 if seq else 0)

    return patch.object(Mailboxes, "acknowledge", further)


@_bug("a device reads with the cursor of its user")
def _device_shares_the_user_s_cursor() -> Planted:
    acknowledge = Mailboxes.acknowledge

    def shared(self: Mailboxes, box: Mailbox, device: str, seq: int) -> Acknowledged:
        return acknowledge(self, box, "", seq)

    return _both(
        patch.object(Mailboxes, "reader", lambda self, box, device: box.reader),
        patch.object(Mailboxes, "acknowledge", shared),
    )


@_bug("a receiver that comes back begins one message too late")
def _resuming_skips_one() -> Planted:
    add = Subscriptions.add

    def late(self: Subscriptions, *place: Any, after: int, **other: Any) -> Subscription:
        return add(self, *place, after=after + 1 if after else 0, **other)

    return patch.object(Subscriptions, "add", late)


# --- pushing -------------------------------------------------------------------------------------


@_bug("who listens in a room is not woken by what is said there")
def _lost_wake_up() -> Planted:
    def wake(self: Subscriptions, name: str) -> None:
        self.due.update(self._by_user.get(name, ()))

    return patch.object(Subscriptions, "wake", wake)


@_bug("a receiver is pushed to however much it has not acknowledged")
def _window_not_respected() -> Planted:
    room = Subscription.room

    def endless(self: Subscription, cursor: int) -> int:
        room(self, cursor)
        return self.window

    return patch.object(Subscription, "room", endless)


@_bug("what could not be handed to a receiver is not pushed again")
def _undelivered_is_forgotten() -> Planted:
    return patch.object(Subscription, "rewind", lambda self: None)


@_bug("a message given again does not say so")
def _redelivered_never_set() -> Planted:
    written = Replies._for_reader

    def unmarked(self: Replies, user: str, page: Page) -> list[dict[str, Any]]:
        return written(self, user, page._replace(delivered=0))

    return patch.object(Replies, "_for_reader", unmarked)


@_bug("only what is read counts as given, what is pushed does not")
def _pushed_does_not_count_as_given() -> Planted:
    read, give = Push._read, Mailboxes.give
    pushing: list[bool] = []

    def marked(self: Push, *place: Any) -> Page:
        pushing.append(True)
        try:
            return read(self, *place)
        finally:
            pushing.pop()

    def forgetful(self: Mailboxes, box: Mailbox, reader: Reader, seq: int) -> None:
        if not pushing:
            give(self, box, reader, seq)

    return _both(patch.object(Push, "_read", marked), patch.object(Mailboxes, "give", forgetful))


# --- what ends -----------------------------------------------------------------------------------


@_bug("what has outlived its time is still delivered")
def _expired_is_still_pushed() -> Planted:
    return patch.object(Mailboxes, "expire", lambda self, now_ms: [])


@_bug("retention deletes by age alone, read or not")
def _unread_is_deleted() -> Planted:
    def goes(self: Retention, row: Any, now_ms: int, *, over: bool) -> bool:
        return bool(now_ms - row.stored_ms > self._limits.retention_read_ms)

    return patch.object(Retention, "_goes", goes)


@_bug("a store that was put back goes on in its old epoch")
def _epoch_not_changed() -> Planted:
    def settle(database: sqlite3.Connection, witness: Any, last: int) -> tuple[Epoch, int]:
        number, first, lost = database.execute(
            "SELECT number, first_lost, last_lost FROM epoch"
        ).fetchone()
        witness.write(number, last)
        return Epoch(number, Lost(first, lost)), last

    return patch.object(sqlite, "settle", settle)


# --- whose it is ---------------------------------------------------------------------------------


@_bug("a member reads what was said in a room before it came")
def _room_read_from_before_joining() -> Planted:
    join = Mailboxes.join

    def early(self: Mailboxes, box: Mailbox, room: Mailbox, since: int) -> None:
        join(self, box, room, 0)

    return patch.object(Mailboxes, "join", early)


@_bug("a member who has left still reads what is said")
def _leaving_changes_nothing() -> Planted:
    return patch.object(Mailboxes, "_leave", lambda self, box, room: None)


@_bug("two peers of one batch get each other's answers")
def _reply_to_the_wrong_route() -> Planted:
    encode = Replies.encode

    def crossed(self: Replies, answers: Answers, *together: Any) -> Frames:
        frames = encode(self, answers, *together)
        if len(frames) == 2:
            (first, second) = frames
            frames[first], frames[second] = frames[second], frames[first]
        return frames

    return patch.object(Replies, "encode", crossed)


@_bug("a session is found by the beginning of its token")
def _session_of_another_user() -> Planted:
    resolve = Sessions.resolve

    def nearly(self: Sessions, token: str, now_ms: int) -> ServedSession:
        alike = [each for each in self._cache if each != token and each.startswith(token)]
        return resolve(self, alike[0] if alike else token, now_ms)

    return patch.object(Sessions, "resolve", nearly)


@_bug("a status says `delivered` of whatever is stored")
def _status_lies() -> Planted:
    state = Mailboxes.state

    def cheerful(self: Mailboxes, seq: int, to: str) -> State:
        told = state(self, seq, to)
        return State.DELIVERED if told is State.STORED else told

    return patch.object(Mailboxes, "state", cheerful)


@_bug("a cursor can go back")
def _ack_moves_backwards() -> Planted:
    def acknowledge(self: Mailboxes, box: Mailbox, device: str, seq: int) -> Acknowledged:
        reader = self.reader(box, device)
        if device and device not in box.devices:
            self._add_device(box, device, reader)
        if seq:
            box.acknowledge(reader, min(seq, box.reached()))
        return Acknowledged(reader, changed=True, replaced=None)

    return patch.object(Mailboxes, "acknowledge", acknowledge)


# --- the client -----------------------------------------------------------------------------------


@_bug("after a reconnect the client repeats what has no answer, the newest first")
def _client_repeats_in_the_wrong_order() -> Planted:
    connected = Session.connected

    def backwards(self: Session, now_ms: float) -> None:
        connected(self, now_ms)
        self._outgoing.reverse()

    return patch.object(Session, "connected", backwards)


@_bug("a client acknowledges what it has received, not what its reader is done with")
def _client_acknowledges_too_much() -> Planted:
    finish = Receiver.finish

    def all_of_it(self: Receiver, seq: int, now_ms: float) -> None:
        finish(self, max(seq, self._last), now_ms)

    return patch.object(Receiver, "finish", all_of_it)


@_bug("a client overlooks that the broker has ended its subscription")
def _client_overlooks_the_end() -> Planted:
    received = Receiver.received

    def deaf(self: Receiver, event: Mapping[str, Any]) -> None:
        if event["kind"] != "ended":
            received(self, event)

    return patch.object(Receiver, "received", deaf)


@_bug("a receiver that had no room is not told again that it has ended")
def _end_told_once() -> Planted:
    return patch.object(Subscriptions, "part", Subscriptions.remove)


@_bug("a new epoch begins a fixed way above the copy, so the same copy twice begins alike")
def _epoch_without_a_clock() -> Planted:
    return patch.object(sqlite_epoch, "_SEQS_PER_MS", 0)


@_bug("a clock that was set back stands still, and with it all that is tried again after a while")
def _clock_stands_still() -> Planted:
    def stand(self: WallClock) -> int:
        self._last_ms = max(self._last_ms, self._wall_ns() // 1_000_000)
        return self._last_ms

    return patch.object(WallClock, "__call__", stand)


@_bug("a reader who is told of another epoch is not told of what was deleted unread besides")
def _one_loss_hides_another() -> Planted:
    tell = mail._lost

    def one(ctx: Any, page: Page, after: int, epoch: int | None) -> Lost | None:
        told = tell(ctx, page._replace(lost=None), after, epoch)
        return page.lost if told is None else told

    return patch.object(mail, "_lost", one)


@_bug("a receiver is not told of what is deleted while it is subscribed and behind")
def _deleted_while_subscribed() -> Planted:
    look = Push._look_after

    def blind(self: Push, frames: Frames, subscription: Subscription, now_ms: int) -> None:
        subscription.told = 2**63
        look(self, frames, subscription, now_ms)

    return patch.object(Push, "_look_after", blind)


BUGS: Final = tuple(_BUGS)
#: What no crash of a process shows, only the end of the power: tests/proof/disk hunts for them.
POWER_BUGS: Final = tuple(_POWER_BUGS)
