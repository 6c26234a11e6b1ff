"""What subscribers cost who are there and get nothing, and what a message costs that is pushed."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Final, NamedTuple

from clients import AsyncClient
from tests.load.crowd import Who, crowd
from tests.load.plan import Plan
from tests.scale.site import Setting, Site, site_on_redis
from tests.scale.spending import Spent, spent
from tests.scale.trial import TIMEOUT_MS, Show

#: Until what was begun by the logins has come to rest.
_SETTLE_S: Final = 6.0
_PAUSE_S: Final = 0.005
#: So long a message may be under way before the trial gives up.
_PATIENCE_S: Final = 60.0


class Cost(NamedTuple):
    """CPU in µs, of all brokers and of Redis, and Redis's commands."""

    broker_us: float
    redis_us: float
    commands: float

    def per(self, count: float) -> Cost:
        return Cost(*(each / count for each in self))

    def beyond(self, other: Cost) -> Cost:
        return Cost(*(mine - theirs for mine, theirs in zip(self, other, strict=True)))


class Live(NamedTuple):
    """What is there, and what it costs."""

    subscribers: int
    pushed: int
    #: A second of a broker that nobody uses.
    empty: Cost
    #: A second of one subscriber who gets nothing, beyond that.
    idle: Cost
    #: One message, alone: sent at one broker, pushed by the other, acknowledged.
    message: Cost

    def as_json(self) -> dict[str, object]:
        costs = {name: getattr(self, name)._asdict() for name in ("empty", "idle", "message")}
        return {**self._asdict(), **costs}


class _Look(NamedTuple):
    broker_s: float
    redis: Spent

    def since(self, before: _Look) -> Cost:
        return Cost(
            (self.broker_s - before.broker_s) * 1e6,
            self.redis.cpu_us - before.redis.cpu_us,
            self.redis.commands - before.redis.commands,
        )


def measure(show: Show, *, subscribers: int, seconds: float) -> Live:
    """Measure on two brokers and one Redis: whoever sends is at one, who receives at the other.

    Errors: `RedisError`, `BrokerError`, `UnreachableError`.
    """
    plan = Plan(senders=1, mailboxes=subscribers, timeout_ms=TIMEOUT_MS)
    with site_on_redis(Setting(brokers=2, cluster=False), plan, show) as site:
        return asyncio.run(_measure(site, plan, seconds, show))


async def _measure(site: Site, plan: Plan, seconds: float, show: Show) -> Live:
    here, there = (broker.doors.zmq for broker in site.brokers)
    people: list[Who] = [(plan.mailbox(number), "") for number in range(plan.mailboxes)]
    show("brokers: nobody there")
    await asyncio.sleep(_SETTLE_S / 2)
    before = _look(site)
    await asyncio.sleep(seconds)
    empty = _look(site).since(before).per(seconds)
    show("subscribers: coming in")
    async with (
        crowd(people, there, TIMEOUT_MS) as clients,
        crowd([(plan.sender(0), "")], here, TIMEOUT_MS) as senders,
    ):
        arrived = asyncio.Semaphore(0)
        receiving = [asyncio.create_task(_take(each, arrived)) for each in clients.values()]
        await asyncio.sleep(_SETTLE_S)
        show("subscribers: idle")
        before = _look(site)
        await asyncio.sleep(seconds)
        idle = _look(site).since(before).per(seconds)
        show("subscribers: pushed to")
        before = _look(site)
        sent = await _send(senders[plan.sender(0), ""], plan, seconds)
        async with asyncio.timeout(_PATIENCE_S):
            for _ in range(sent):
                await arrived.acquire()
        message = _look(site).since(before).per(sent)
        await _end(receiving)
    return Live(
        plan.mailboxes,
        sent,
        empty=empty.per(len(site.brokers)),
        idle=idle.beyond(empty).per(plan.mailboxes),
        message=message,
    )


async def _take(client: AsyncClient, arrived: asyncio.Semaphore) -> None:
    async with aclosing(client.messages()) as messages:
        async for _ in messages:
            arrived.release()


async def _send(sender: AsyncClient, plan: Plan, seconds: float) -> int:
    """Send to everybody in turn, one message at a time; return how many."""
    until, sent = asyncio.get_running_loop().time() + seconds, 0
    while asyncio.get_running_loop().time() < until:
        await sender.send(plan.recipient(0, sent), plan.text(0, sent))
        sent += 1
        await asyncio.sleep(_PAUSE_S)
    return sent


async def _end(tasks: Sequence[asyncio.Task[None]]) -> None:
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


def _look(site: Site) -> _Look:
    assert site.servers is not None
    return _Look(site.cpu_seconds(), spent(site.servers.nodes[0]))
