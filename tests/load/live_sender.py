"""One process with many senders, each a connection and a window of its own."""

from __future__ import annotations

import asyncio
from collections import deque
from random import Random

from clients import AsyncClient
from clients.errors import RequestError
from clients.results import Receipt
from tests.load.crowd import crowd, tokens_valid
from tests.load.doors import Outcome
from tests.load.link import Link, Summary, play
from tests.load.plan import Plan
from tests.load.sender import Sender
from tests.load.zmq_door import answer_of
from tests.proof.history import OK


async def send(plan: Plan, process: int, address: str, link: Link) -> Summary:
    """Log all senders of a process in, wait for the others, send, and write it down."""
    senders = {
        (plan.sender(number), ""): Sender(plan, number, link) for number in plan.senders_of(process)
    }
    summary = Summary(f"load-senders {process}", tokens=len(senders))
    async with crowd(senders, address, plan.timeout_ms) as clients:
        await asyncio.to_thread(link.start_together)
        await asyncio.gather(
            *(_send_all(clients[who], sender, plan) for who, sender in senders.items())
        )
        summary.tokens_valid = await tokens_valid(clients.values())
    for sender in senders.values():
        sender.conclude(summary)
    return summary


async def _send_all(client: AsyncClient, sender: Sender, plan: Plan) -> None:
    # An even beat would fall in with that of the others.
    pause_s, chance = plan.pause_ms / 1000, Random(plan.run)
    pending: deque[asyncio.Task[Receipt]] = deque()
    for to, text, message_id in sender.letters():
        pending.append(client.submit(to, text, message_id=message_id))
        if len(pending) >= plan.window:
            sender.note(await _outcome(pending.popleft()))
        if pause_s:
            await asyncio.sleep(pause_s * (0.5 + chance.random()))
    while pending:
        sender.note(await _outcome(pending.popleft()))


async def _outcome(task: asyncio.Task[Receipt]) -> Outcome:
    try:
        receipt = await task
    except RequestError as error:
        return Outcome(answer_of(error))
    return Outcome(OK, receipt.seq)


def main(plan: Plan, number: int, address: str, link: Link) -> None:
    """Run the senders of a process."""
    role = f"load-senders {number}"
    play(role, lambda: asyncio.run(send(plan, number, address, link)), link)
