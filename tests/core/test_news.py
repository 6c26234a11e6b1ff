"""A store that is shared: what other brokers do to it is noticed, by the news of it."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence

import pytest

from broker.core import news, push
from broker.core.handlers import Policy
from broker.core.model import Account, Block, Kind, Membership, News, Page, Room, SessionRecord
from broker.core.ports import Key, R, StoreUnavailableError
from broker.core.refusals import RETRY_AFTER_MS
from broker.core.sessions import CHECK_MS, LISTED_MS, SessionLimits
from broker.core.subscriptions import CROWDED_MS
from broker.wire.errors import Code
from broker.wire.roles import Role
from tests.core.fakes import ADMIN, FaultyStore, World

PRESENCE_MS = 30_000
LIMITS = SessionLimits(idle_ms=86_400_000, max_ms=10 * 86_400_000)
POLICY = Policy(sessions=LIMITS, presence_ms=PRESENCE_MS)
ANYTHING = News(Kind.ALL, "")


class SharedStore(FaultyStore):
    """As if other brokers had it open too: a test does what they do, and brings the news."""

    shared = True

    def __init__(self) -> None:
        super().__init__()
        self.waiting: list[News] = []
        self.listened: list[frozenset[str]] = []
        self.told: dict[str, int] = {}
        self.tellings = 0
        self.looks = 0
        self.reads = 0
        self.listing_fault: Exception | None = None

    def news(self) -> Sequence[News]:
        waiting, self.waiting = self.waiting, []
        return waiting

    def listen(self, names: Iterable[str]) -> None:
        self.listened.append(frozenset(names))

    def hear(self, user: str, now_ms: int) -> None:
        self.tellings += 1
        self.told[user] = now_ms

    def heard(self, users: Collection[str]) -> Mapping[str, int]:
        return {user: at_ms for user, at_ms in self.told.items() if user in users}

    def read(self, user: str, device: str, after: int, limit: int, bytes_max: int) -> Page:
        self.reads += 1
        return super().read(user, device, after, limit, bytes_max)

    def find(self, kind: type[R], key: Key) -> R | None:
        self.looks += kind is SessionRecord
        return super().find(kind, key)

    def find_all(self, kind: type[R], *, of: str = "", after: str = "", limit: int = 0) -> list[R]:
        if self.listing_fault is not None:
            raise self.listing_fault
        return super().find_all(kind, of=of, after=after, limit=limit)


class Shared(World):
    """A service over such a store."""

    def __init__(self) -> None:
        self.shared = SharedStore()
        super().__init__(POLICY, store=self.shared)

    def elsewhere(self, *steps: Callable[[], object], news: Sequence[News] = ()) -> None:
        """Do something behind the service's back, and let it hear of it."""
        with self.shared.batch():
            for step in steps:
                step()
        self.shared.waiting += news

    def account(self, user: str) -> Account:
        account = self.shared.find(Account, user)
        assert account is not None
        return account


@pytest.fixture
def world() -> Shared:
    return Shared()


def of(user: str) -> list[News]:
    return [News(Kind.USER, user)]


# --- what is remembered ----------------------------------------------------------------------


def test_a_session_that_ended_elsewhere_ends_with_the_news(world: Shared) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    (record,) = world.shared.find_all(SessionRecord, of="ann")
    looks = world.shared.looks
    world.elsewhere(lambda: world.shared.remove(SessionRecord, record.digest))
    assert world.ok("ping", ann), "remembered: no way to the store"
    world.shared.waiting += of("ann")
    assert world.code("ping", ann) is Code.UNAUTHORIZED
    world.ok("ping", ben)
    assert world.shared.looks == looks + 1, "nobody else is looked up again"


def test_a_session_whose_news_was_never_written_ends_all_the_same(world: Shared) -> None:
    ann = world.user("ann")
    (record,) = world.shared.find_all(SessionRecord, of="ann")
    world.elsewhere(lambda: world.shared.remove(SessionRecord, record.digest))
    world.now_ms += CHECK_MS
    assert world.code("ping", ann) is Code.UNAUTHORIZED


def test_roles_and_names_are_looked_up_again_with_the_news(world: Shared) -> None:
    ann = world.user("ann")
    world.ok("inbox", ann)
    account = Account("ann", "Ann Other", world.account("ann").password_hash, Role.ADMIN)
    world.elsewhere(lambda: world.shared.put(account), news=of("ann"))
    assert world.ok("user_list", ann)["users"][0]["name"] == "Ann Other"
    assert world.ok("inbox", ann)["name"] == "Ann Other"


def test_where_anything_may_have_changed_everything_is_looked_up_again(world: Shared) -> None:
    ann = world.user("ann")
    world.ok("inbox", ann)
    (record,) = world.shared.find_all(SessionRecord, of="ann")
    account = Account("ann", "Ann Other", "hash")
    world.elsewhere(lambda: world.shared.put(account), news=[ANYTHING])
    assert world.ok("inbox", ann)["name"] == "Ann Other"
    world.elsewhere(lambda: world.shared.remove(SessionRecord, record.digest), news=[ANYTHING])
    assert world.code("ping", ann) is Code.UNAUTHORIZED


def test_blocks_are_read_from_the_store_and_messages_left_to_it(world: Shared) -> None:
    ann, ben = world.user("ann"), world.user("ben")
    world.elsewhere(lambda: world.shared.put(Block("ann", "ben")))
    assert world.ok("blocks", ann)["users"] == ["ben"]
    world.ok("room_create", ben, room="#pub")
    assert world.code("room_invite", ben, room="#pub", user="ann") is Code.BLOCKED
    world.ok("unblock", ann, user="ben")
    world.ok("block", ann, user="ben")
    assert world.shared.find(Block, ("ann", "ben"))
    world.elsewhere(lambda: world.shared.remove(Block, ("ann", "ben")))
    assert world.send(ben, "ann", "m1"), "what this broker remembers of blocks is not asked"


# --- who is listened for ----------------------------------------------------------------------


def test_the_store_is_told_whom_there_are_subscriptions_for_when_that_changes(
    world: Shared,
) -> None:
    ann = world.user("ann")
    world.ok("room_create", ann, room="#pub")
    assert world.shared.listened == []
    world.ok("subscribe", ann, window=10)
    world.ok("ping", ann)
    assert world.shared.listened == [{"ann", "#pub"}]
    world.ok("room_leave", ann, room="#pub")
    assert world.shared.listened[1:] == [{"ann"}]
    world.ok("unsubscribe", ann)
    assert world.shared.listened[2:] == [frozenset()]


def test_what_was_sent_elsewhere_is_pushed_with_the_news(world: Shared) -> None:
    ann = world.user("ann")
    world.ok("subscribe", ann, window=10)
    world.elsewhere(lambda: world.shared.append("ann", "ann", "m1", "hi", world.now_ms))
    world.turn()
    assert world.events == []
    world.shared.waiting.append(News(Kind.MAILBOX, "ann"))
    world.turn()
    assert [each["text"] for each in world.events[0][1]["messages"]] == ["hi"]


def test_what_comes_when_nothing_is_in_flight_is_pushed_with_one_look(world: Shared) -> None:
    """Each look is a way to the server."""
    ann = world.user("ann")
    world.ok("subscribe", ann, window=10)
    reads = world.shared.reads
    world.send(ann, "ann", "m1")
    assert (len(world.events), world.shared.reads) == (1, reads + 1)
    world.send(ann, "ann", "m2")  # room has to be found first
    assert (len(world.events), world.shared.reads) == (2, reads + 3)


def test_a_room_that_was_joined_or_left_elsewhere_is_listened_to_or_not(world: Shared) -> None:
    ann = world.user("ann")
    world.ok("subscribe", ann, window=10)
    world.elsewhere(
        lambda: world.shared.put(Room("#pub", "ann", open=True, history=True)),
        lambda: world.shared.put(Membership("#pub", "ann", joined=True)),
        news=of("ann"),
    )
    world.turn()
    assert world.shared.listened[-1] == {"ann", "#pub"}
    world.elsewhere(lambda: world.shared.remove(Membership, ("#pub", "ann")), news=[ANYTHING])
    world.turn()
    assert world.shared.listened[-1] == {"ann"}


def test_a_subscription_ends_with_its_session(world: Shared) -> None:
    ann = world.user("ann")
    world.ok("subscribe", ann, window=10)
    (record,) = world.shared.find_all(SessionRecord, of="ann")
    world.elsewhere(lambda: world.shared.remove(SessionRecord, record.digest), news=of("ann"))
    world.turn()
    assert [body["kind"] for _, body in world.events] == ["ended"]


def test_room_in_a_full_window_may_be_made_elsewhere(world: Shared) -> None:
    ann = world.user("ann")
    world.ok("subscribe", ann, window=1)
    world.send(ann, "ann", "m1", "m2")
    world.elsewhere(lambda: world.shared.acknowledge("ann", "", 1))
    world.now_ms += CROWDED_MS
    world.turn()
    assert [body["messages"][0]["text"] for _, body in world.events] == ["m1", "m2"]


def test_news_of_everybody_does_not_hold_up_the_requests(
    world: Shared, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What one turn has no time for, the next ones do, at once."""
    monkeypatch.setattr(news, "LOOKS_PER_TURN_MAX", 2)
    tokens = [world.user(f"u{number}") for number in range(5)]
    for token in tokens:
        world.ok("subscribe", token, window=10)
    world.shared.waiting.append(ANYTHING)
    patience = []
    for _ in range(3):
        world.turn()
        patience.append(world.service.patience_ms == 0)
    assert patience == [True, True, False]


def test_a_turn_looks_after_so_many_subscriptions_at_most(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(push, "LOOKS_PER_TURN_MAX", 2)
    world = Shared()
    users = [f"u{number}" for number in range(5)]
    for user in users:
        world.ok("subscribe", world.user(user), window=10)
    with world.shared.batch():
        for user in users:
            world.shared.append(user, user, "m", "hi", world.now_ms)
    world.shared.waiting += [News(Kind.MAILBOX, user) for user in users]
    events = []
    for _ in range(3):
        world.turn()
        events.append(len(world.events))
    assert events == [2, 4, 5]


def test_while_the_store_is_gone_nothing_of_the_news_is_lost(world: Shared) -> None:
    ann = world.user("ann")
    world.ok("subscribe", ann, window=10)
    world.elsewhere(
        lambda: world.shared.put(Room("#pub", "ann", open=True, history=True)),
        lambda: world.shared.put(Membership("#pub", "ann", joined=True)),
        news=of("ann"),
    )
    world.shared.listing_fault = StoreUnavailableError("gone")
    world.turn()
    assert world.shared.listened[-1] == {"ann"}
    world.shared.listing_fault = None
    world.turn()
    assert world.shared.listened[-1] == {"ann", "#pub"}


def test_a_batch_that_fails_takes_its_subscriptions_back_without_asking_the_store(
    world: Shared,
) -> None:
    ann = world.user("ann")
    world.ok("room_create", ann, room="#pub")
    world.ok("subscribe", ann, window=10)
    gone = StoreUnavailableError("gone")
    world.shared.commit_faults = [gone]
    reply = world.call("unsubscribe", ann)
    assert reply.error is not None
    assert (reply.error.code, reply.error.retry_after_ms) == (Code.UNAVAILABLE, RETRY_AFTER_MS)
    assert world.service.subscriptions == 1
    world.turn()
    assert world.shared.listened[-1] == {"ann", "#pub"}


# --- who was heard -----------------------------------------------------------------------------


def test_the_others_are_told_who_is_heard_and_not_with_every_command(world: Shared) -> None:
    ann = world.user("ann")
    assert (world.shared.tellings, world.shared.told) == (1, {"ann": world.now_ms})
    for _ in range(PRESENCE_MS // 1_000):
        world.now_ms += 1_000
        world.ok("ping", ann)
    assert world.shared.tellings == 4
    assert world.now_ms - world.shared.told["ann"] < PRESENCE_MS // 3


def test_telling_who_was_heard_takes_no_look_at_the_store(world: Shared) -> None:
    ann = world.user("ann")
    looks = world.shared.looks
    world.now_ms += PRESENCE_MS // 3
    world.ok("ping", ann)
    assert (world.shared.tellings, world.shared.looks) == (2, looks)


def test_who_was_heard_elsewhere_is_connected(world: Shared) -> None:
    ann, _ = world.user("ann"), world.user("ben")
    world.now_ms += PRESENCE_MS + 1
    world.shared.told["ben"] = world.now_ms - 5
    listed = world.ok("user_on", ann, detail=True)["users"]
    assert listed[1]["seen_ms"] == world.now_ms - 5
    assert listed[1]["connected"]
    world.now_ms += PRESENCE_MS
    listed = world.ok("user_on", ann, detail=True)["users"]
    assert [each["connected"] for each in listed] == [True, False]


def test_who_is_online_is_not_listed_anew_for_everybody_who_asks(world: Shared) -> None:
    ann = world.user("ann")

    def online() -> list[str]:
        return [each["user"] for each in world.ok("user_on", ann)["users"]]

    assert online() == ["ann"]
    world.user("ben")
    world.elsewhere(
        lambda: world.shared.put(SessionRecord(b"d" * 32, "cyd", 0, world.now_ms + 10**6))
    )
    assert online() == ["ann", "ben"], "who logs in here is known"
    world.now_ms += LISTED_MS
    assert online() == ["ann", "ben", "cyd"]


def test_the_administrator_of_this_machine_is_nobody_to_be_heard(world: Shared) -> None:
    world.ok("user_list", ADMIN)
    assert world.shared.tellings == 0
