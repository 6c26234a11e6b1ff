"""One process with many subscribers: pushed to, acknowledging, now and then gone and back again.

A subscriber acknowledges the newest message that it saw, one acknowledgement at a time. It leaves
after some messages, before it has acknowledged them all, and comes back: so messages are
given again, which the history must show to be right.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from contextlib import aclosing, suppress
from random import Random
from typing import Final, NamedTuple

from broker.wire.limits import INBOX_MESSAGES_MAX
from clients import AsyncClient
from clients.errors import RequestError
from clients.results import Message
from tests.load.crowd import Who, crowd, tokens_valid
from tests.load.link import Link, Summary, now_ns, play
from tests.load.plan import Plan
from tests.load.zmq_door import answer_of
from tests.proof.history import OK, Ack, Drained, Gap, Read, Record, Seen, digest, to_line

#: A stay ends after so many messages.
_STAY_MIN: Final = 40
_STAY_MAX: Final = 120
#: How often a process looks whether all that was sent has arrived.
_LOOK_SECONDS: Final = 0.01
#: When nothing arrives for so long, what is still missing will not be pushed any more.
_SILENCE_NS_MAX: Final = 10_000_000_000


class Subscriber:
    """One receiver, perhaps a device of its user; ``note`` is told what it sees."""

    def __init__(
        self, who: Who, client: AsyncClient, note: Callable[[Record], None], luck: Random
    ) -> None:
        self.user, self.device = who
        #: Ids that have arrived, how often any message did, and when the last one did.
        self.arrived: set[tuple[str, str]] = set()
        self.arrivals = 0
        self.last_ns = 0
        self._client = client
        self._note = note
        self._luck = luck
        self._seen = 0
        self._acknowledged = 0
        self._news = asyncio.Event()
        self._gone_ns: int | None = None

    async def receive(self) -> None:
        """Be pushed to, until cancelled."""
        while True:
            await self._stay(self._luck.randint(_STAY_MIN, _STAY_MAX))

    async def _stay(self, messages: int) -> None:
        """Take so many messages and leave. The last ones may stay without acknowledgement."""
        self._seen = self._acknowledged  # what is given again is acknowledged when it is there
        leaving = asyncio.Event()
        acknowledging = asyncio.create_task(self._acknowledge_until(leaving))
        try:
            pushed = self._client.messages(acknowledge=False, on_connection=self._connection)
            async with aclosing(pushed):
                async for message in pushed:
                    self._arrive(message)
                    messages -= 1
                    if messages == 0:
                        leaving.set()  # before the loop takes its leave of the broker
                        break
        finally:
            # What the library has already got, and did not hand over, will come again.
            self._connection(stands=False)
            leaving.set()
            self._news.set()
            await acknowledging

    def _arrive(self, message: Message) -> None:
        now = self.last_ns = now_ns()
        self._connection(stands=True)
        self.arrivals += 1
        self.arrived.add((message.sender, message.id))
        self._note(Read(self.user, now, now, OK, messages=(_seen(message),), device=self.device))
        self._seen = message.seq
        self._news.set()

    def _connection(self, stands: bool) -> None:  # noqa: FBT001 - the library's callback
        """Note from when to when messages may have been given to nobody."""
        if not stands:
            self._gone_ns = self._gone_ns or now_ns()
        elif self._gone_ns is not None:
            self._note(Gap(self.user, self._gone_ns, now_ns()))
            self._gone_ns = None

    async def _acknowledge_until(self, leaving: asyncio.Event) -> None:
        while not leaving.is_set():
            await self._news.wait()
            self._news.clear()
            if not leaving.is_set():
                await self._acknowledge()

    async def _acknowledge(self) -> None:
        seq = self._seen
        if seq <= self._acknowledged:
            return
        t0 = now_ns()
        try:
            await self._client.acknowledge(seq)
        except RequestError as error:
            answer = answer_of(error)
        else:
            answer, self._acknowledged = OK, seq
        t1 = now_ns() if answer else None
        self._note(Ack(self.user, seq, t0, t1, answer, self.device))

    async def finish(self) -> int:
        """Acknowledge the rest and read what is left; return how many messages that were.

        Errors: `RequestError`, where the broker no longer answers.
        """
        self._connection(stands=True)
        await self._acknowledge()
        left = 0
        while True:
            t0 = now_ns()
            page = (await self._client.inbox(limit=INBOX_MESSAGES_MAX)).messages
            t1 = now_ns()
            if not page:
                self._note(Drained(self.user, t0, t1))
                return left
            left += len(page)
            seen = tuple(map(_seen, page))
            self._note(Read(self.user, t0, t1, OK, messages=seen, device=self.device))
            self._seen = page[-1].seq
            await self._acknowledge()


def _seen(message: Message) -> Seen:
    text, mark = digest(message.text), message.redelivered
    return Seen(message.seq, message.sender, message.id, text, mark)


async def subscribe(plan: Plan, process: int, address: str, link: Link) -> Summary:
    """Log all subscribers of a process in, have all pushed that was sent, write it down."""
    receivers = plan.receivers_of(process)
    summary = Summary(f"subscribers {process}", tokens=len(receivers))
    lines: list[str] = []

    def note(record: Record) -> None:
        lines.append(to_line(record))

    async with crowd(receivers, address, plan.timeout_ms) as clients:
        everybody = [
            Subscriber(who, client, note, Random(" ".join(who))) for who, client in clients.items()
        ]
        await asyncio.to_thread(link.start_together)
        receiving = [asyncio.create_task(each.receive()) for each in everybody]
        await _until_all_has_arrived(_Watch(plan, process, link), everybody, receiving)
        summary.fault = await _end(everybody, receiving)
        summary.tokens_valid = await tokens_valid(clients.values())
    path = link.folder / f"subscribers-{process}.jsonl"
    path.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
    return summary


class _Watch(NamedTuple):
    """How a process tells how far it is, and knows what is still to come."""

    plan: Plan
    process: int
    link: Link

    def complete(self, everybody: Iterable[Subscriber]) -> bool:
        """Tell whether everybody has all that was sent."""
        plan, sent = self.plan, self.link.sent
        expected = {
            plan.mailbox(number): plan.expected(number, sent) for number in range(plan.mailboxes)
        }
        return all(len(each.arrived) >= expected[each.user] for each in everybody)


async def _until_all_has_arrived(
    watch: _Watch, everybody: list[Subscriber], receiving: list[asyncio.Task[None]]
) -> None:
    """Wait until each subscriber has everything, or nothing more comes, or one has failed."""
    heard_ns = now_ns()
    while now_ns() - heard_ns < _SILENCE_NS_MAX and not any(task.done() for task in receiving):
        await asyncio.sleep(_LOOK_SECONDS)
        watch.link.read[watch.process] = sum(each.arrivals for each in everybody)
        if not watch.link.all_sent.is_set():
            heard_ns = now_ns()
        elif watch.complete(everybody):
            return
        heard_ns = max(heard_ns, *(each.last_ns for each in everybody))


async def _end(everybody: list[Subscriber], receiving: list[asyncio.Task[None]]) -> str | None:
    """Stop receiving and empty the mailboxes. Return what is wrong, as a sentence."""
    for task in receiving:
        task.cancel()
    failed: BaseException | None = None
    for task in receiving:
        try:
            with suppress(asyncio.CancelledError):
                await task
        except RequestError as error:
            failed = error
    try:
        left = sum(await asyncio.gather(*(each.finish() for each in everybody)))
    except RequestError as error:
        failed, left = failed or error, 0
    if failed is not None:
        return f"a subscriber had to give up: {failed}"
    return f"{left:,} messages were not pushed, and read instead" if left else None


def main(plan: Plan, number: int, address: str, link: Link) -> None:
    """Run the subscribers of a process."""
    role = f"subscribers {number}"
    play(role, lambda: asyncio.run(subscribe(plan, number, address, link)), link)
