"""The laws hold over a real Redis server, whatever happens to it and on the way to it."""

from __future__ import annotations

from collections.abc import Iterator
from unittest.mock import patch

import pytest

from broker.stores.redis.news import Ears
from tests.simulator.redis_disk import RedisPlace, redis_place, rewritten
from tests.simulator.report import Summary, explain
from tests.simulator.run import run
from tests.simulator.wire import Harm
from tests.stores import redis_server
from tests.stores.engines import absent

#: The slice of every day, and that of the slow tests.
_FEW = range(6)
_MANY = range(100)
#: Where a planted bug is looked for: at first where many are found.
_TELLING = (20, 0, *range(1, 40))


@pytest.fixture(scope="module")
def place() -> Iterator[RedisPlace]:
    if not redis_server.installed():
        absent("redis-server is not installed: apt-get install redis-server")
    with redis_place() as place:
        yield place


def carry_out(seeds: range, place: RedisPlace) -> Summary:
    summary = Summary()
    for seed in seeds:
        summary.add(run(seed, place))
    return summary


def test_every_law_holds_over_redis(place: RedisPlace) -> None:
    summary = carry_out(_FEW, place)
    assert not summary.broken, "\n".join(map(explain, summary.broken))
    assert summary.reads > 100
    assert any(fault.startswith("redis ") for fault in summary.faults)
    assert {place.plan(seed).brokers for seed in _FEW} == {1, 2}


@pytest.mark.slow
@pytest.mark.timeout(1_200)
def test_every_law_holds_over_redis_for_many_seeds(place: RedisPlace) -> None:
    summary = carry_out(_MANY, place)
    assert not summary.broken, "\n".join(map(explain, summary.broken))
    for harm in Harm:
        assert summary.faults[f"redis {harm.name.lower()}"], "each is in some"


def test_a_seed_replays_bit_for_bit_over_redis(place: RedisPlace) -> None:
    assert run(5, place).hash == run(5, place).hash


#: What somebody might get wrong in a script: its name, what it says, and what it would say.
BUGS = {
    "an id that is known is not looked for": (
        "append",
        "if first then",
        "if first and false then",
    ),
    "of some messages the id is not remembered: a batch that is sent again doubles them": (
        "append",
        "redis.call('HSET', ids, name, seq)",
        "if seq % 3 > 0 then redis.call('HSET', ids, name, seq) end",
    ),
    "a cursor goes back": (
        "acknowledge",
        "if seq <= cursor then\n    return {cursor, 0}",
        "if seq <= cursor then\n    redis.call('HSET', meta, field, seq)\n    return {seq, 0}",
    ),
    "what was given is not noted": (
        "read",
        "redis.call('HSET', meta, 'd:' .. device, top)",
        "",
    ),
}


@pytest.mark.parametrize("bug", list(BUGS))
@pytest.mark.timeout(300)
def test_a_bug_in_a_script_is_caught(place: RedisPlace, bug: str) -> None:
    name, old, new = BUGS[bug]
    with rewritten({name: (old, new)}):
        assert any(run(seed, place).breaches for seed in _TELLING)


def test_a_broker_that_hears_nothing_of_the_other_is_caught(place: RedisPlace) -> None:
    with patch.object(Ears, "_compare_mailboxes", lambda ears, names: None):
        assert any(run(seed, place).breaches for seed in _TELLING)
