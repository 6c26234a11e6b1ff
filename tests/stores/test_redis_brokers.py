"""Two services over one Redis are one broker to their users: what one does holds at the other."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator
from itertools import count
from typing import Any

import pytest

from broker.core.handlers import Policy
from broker.stores.redis import RedisStore
from broker.wire.errors import Code
from broker.wire.roles import Role
from tests.core.fakes import ADMIN, LIMITS, World
from tests.stores import redis_server
from tests.stores.engines import absent
from tests.stores.redis_server import DEADLINE_S

NUMBERS = count(1)
PRESENCE_MS = 6_000
POLICY = Policy(sessions=LIMITS, presence_ms=PRESENCE_MS)


class Brokers:
    """``a`` and ``b``, each with a store of its own over the same place."""

    def __init__(self, url: str) -> None:
        self.stores = [RedisStore(url), RedisStore(url)]
        self.a, self.b = worlds = [World(POLICY, engine=store) for store in self.stores]
        now_ms = time.time_ns() // 1_000_000
        tokens = itertools.count(1)
        for world in worlds:
            world.now_ms = now_ms
            world._tokens = (f"token-{number}" for number in tokens)
            world.turn()

    def pass_by(self, ms: int) -> None:
        self.a.now_ms += ms
        self.b.now_ms += ms


@pytest.fixture(params=["server", "cluster"])
def brokers(request: pytest.FixtureRequest) -> Iterator[Brokers]:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")
    shared = redis_server.shared_cluster if request.param == "cluster" else None
    place = (shared or redis_server.shared_server)()
    brokers = Brokers(f"{place.url}?prefix=brokers{next(NUMBERS)}")
    yield brokers
    for store in brokers.stores:
        store.close()


def eventually(holds: Callable[[], Any]) -> Any:
    """Ask until it holds; what it is then."""
    deadline = time.monotonic() + DEADLINE_S
    while not (found := holds()):
        assert time.monotonic() < deadline, "it never holds"
        time.sleep(0.002)
    return found


def pushed(world: World, count: int) -> list[str]:
    """Take turns until so many messages were pushed; return their texts."""

    def texts() -> list[str]:
        world.turn()
        bodies = [body for _, body in world.events]
        return [each["text"] for body in bodies for each in body.get("messages", ())]

    return eventually(lambda: found if len(found := texts()) >= count else None)  # type: ignore[no-any-return]


# --- sessions and accounts -----------------------------------------------------------------------


def test_a_token_is_good_at_every_broker_until_it_ends_at_one(brokers: Brokers) -> None:
    ann = brokers.a.user("ann")
    assert brokers.b.ok("inbox", ann)["user"] == "ann"
    brokers.a.ok("logout", ann)
    eventually(lambda: brokers.b.call("ping", ann).error)
    assert brokers.b.code("inbox", ann) is Code.UNAUTHORIZED


def test_a_session_that_is_used_at_both_goes_on_at_both(brokers: Brokers) -> None:
    ann = brokers.a.user("ann")
    for _ in range(12):  # more than it may be idle in all
        brokers.pass_by(LIMITS.idle_ms // 4)
        brokers.a.ok("ping", ann)
        brokers.b.ok("ping", ann)


def test_what_an_administrator_does_at_one_holds_at_the_other(brokers: Brokers) -> None:
    a, b = brokers.a, brokers.b
    ann, ben = a.user("ann"), a.user("ben")
    assert b.code("user_list", ann) is Code.FORBIDDEN
    a.ok("user_role", ADMIN, user="ann", role=Role.ADMIN)
    eventually(lambda: b.call("user_list", ann).error is None)
    b.ok("ping", ben)
    a.ok("session_revoke_all", ADMIN, user="ben")
    eventually(lambda: b.call("ping", ben).error)
    a.ok("user_remove", ADMIN, user="ann")
    eventually(lambda: b.call("ping", ann).error)
    assert b.code("login", user="ann", password="password") is Code.BAD_CREDENTIALS


def test_a_name_that_is_given_at_one_is_shown_at_the_other(brokers: Brokers) -> None:
    a, b = brokers.a, brokers.b
    ann = a.user("ann")
    a.send(ann, "ann", "m1")
    assert b.ok("inbox", ann)["messages"][0]["name"] == "ann"
    a.ok("user_remove", ADMIN, user="ann")
    a.ok("user_add", ADMIN, user="ann", name="Ann Other", password="password")
    again = a.login("ann")
    a.send(again, "ann", "m2")
    eventually(lambda: b.ok("inbox", again)["messages"][0]["name"] == "Ann Other")


def test_a_block_at_one_holds_at_the_other_at_once(brokers: Brokers) -> None:
    a, b = brokers.a, brokers.b
    ann, ben = a.user("ann"), b.user("ben")
    b.send(ben, "ann", "m1")
    a.ok("block", ann, user="ben")
    assert b.code("chat", ben, to="ann", text="x", id="m2") is Code.BLOCKED
    assert b.send(ben, "ann", "m1"), "a repeated id has its answer already"
    assert b.ok("blocks", ann)["users"] == ["ben"]
    b.ok("unblock", ann, user="ben")
    assert a.send(ben, "ann", "m2")


def test_a_name_is_given_away_once_whichever_brokers_are_asked_at_the_same_time(
    brokers: Brokers,
) -> None:
    """Both find it free; had both their way, two people would share a mailbox."""
    a, b = brokers.a, brokers.b
    ann = a.user("ann")
    for world in (a, b):
        world.batch(world.frame("user_add", ADMIN, user="ben", password=f"of {world is a}"))
    worlds = [(world, world.work()) for world in (a, b)]
    with brokers.stores[0].batch():  # a has begun, and is not done
        assert brokers.stores[0].claim("ben")
        (reply,) = b.turn(finished=worlds[1][1])[b"r"]
        assert reply.error is not None
        assert reply.error.code is Code.BUSY
    (reply,) = a.turn(finished=worlds[0][1])[b"r"]
    assert reply.error is None
    assert b.code("user_add", ADMIN, user="ben", password="late") in (Code.BUSY, Code.USER_EXISTS)
    a.login("ben", "of True")
    a.ok("room_create", ann, room="#pub")
    assert b.code("room_create", ann, room="#pub", open=True) is Code.BUSY


# --- messages ------------------------------------------------------------------------------------


def test_what_is_sent_at_one_is_pushed_at_the_other(brokers: Brokers) -> None:
    a, b = brokers.a, brokers.b
    ann, ben = a.user("ann"), b.user("ben")
    b.ok("subscribe", ben, window=10)
    for number in range(3):
        a.send(ann, "ben", f"m{number}")
        assert pushed(b, number + 1)[-1] == f"m{number}"
    assert pushed(b, 3) == ["m0", "m1", "m2"], "each once"


def test_what_is_said_in_a_room_is_heard_across_brokers(brokers: Brokers) -> None:
    a, b = brokers.a, brokers.b
    ann, ben = a.user("ann"), b.user("ben")
    b.ok("subscribe", ben, window=10)
    a.ok("room_create", ann, room="#pub", open=True)
    a.ok("room_join", ben, room="#pub")  # where ben is not subscribed
    eventually(lambda: b.turn() or "#pub" in b.service._subscriptions)
    a.send(ann, "#pub", "m1")
    b.send(ben, "#pub", "m2")
    assert pushed(b, 2) == ["m1", "m2"]
    assert a.texts(ann) == ["m1", "m2"]
    a.ok("room_leave", ben, room="#pub")
    eventually(lambda: b.turn() or "#pub" not in b.service._subscriptions)


def test_an_acknowledgement_at_one_makes_room_for_more_at_the_other(brokers: Brokers) -> None:
    a, b = brokers.a, brokers.b
    ann, ben = a.user("ann"), b.user("ben")
    b.ok("subscribe", ben, window=1)
    seqs = a.send(ann, "ben", "m1", "m2")
    assert pushed(b, 1) == ["m1"]
    a.ok("ack", ben, seq=seqs[0])
    brokers.pass_by(5_000)
    assert pushed(b, 2) == ["m1", "m2"]


def test_a_subscription_ends_with_the_session_that_ended_elsewhere(brokers: Brokers) -> None:
    a, b = brokers.a, brokers.b
    ben = b.user("ben")
    b.ok("subscribe", ben, window=10)
    a.ok("logout", ben)
    eventually(lambda: b.turn() or [body for _, body in b.events if body["kind"] == "ended"])
    assert b.service.subscriptions == 0


# --- presence --------------------------------------------------------------------------------


def test_who_is_heard_at_one_is_connected_at_the_other_until_nobody_hears_it(
    brokers: Brokers,
) -> None:
    a, b = brokers.a, brokers.b
    ann, ben = a.user("ann"), b.user("ben")

    def connected() -> dict[str, bool]:
        listed = a.ok("user_on", ann, detail=True)["users"]
        return {each["user"]: each["connected"] for each in listed}

    assert connected() == {"ann": True, "ben": True}
    for _ in range(3):
        brokers.pass_by(PRESENCE_MS - 1_000)
        b.ok("ping", ben)
        assert connected() == {"ann": True, "ben": True}
    brokers.pass_by(PRESENCE_MS + 1)  # b is gone, and tells nobody
    assert connected() == {"ann": True, "ben": False}
