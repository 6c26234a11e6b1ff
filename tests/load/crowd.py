"""Many users of the asyncio client in one process, each with a connection of its own."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Final

import zmq

from clients import AsyncClient
from clients.errors import RequestError
from tests.load.doors import UnreachableError
from tests.load.plan import PASSWORD

#: The broker takes 64 slow requests; several processes log in at once.
_LOGINS_AT_ONCE: Final = 8

Who = tuple[str, str]  # a user, and a device or ""


@asynccontextmanager
async def crowd(
    users: Iterable[Who], address: str, timeout_ms: int
) -> AsyncIterator[dict[Who, AsyncClient]]:
    """Connect and log in each user, or each device of users. Errors: `UnreachableError`."""
    gate = asyncio.Semaphore(_LOGINS_AT_ONCE)

    async def log_in(user: str, devices: list[tuple[str, AsyncClient]]) -> None:
        # One after the other: the first login replaces the cheap hash that the account came with.
        for device, client in devices:
            async with gate:
                try:
                    await client.login(user, PASSWORD, device=device or None)
                except RequestError as error:
                    raise UnreachableError(f"cannot log in as {user}: {error}") from None

    with zmq.Context() as context:
        async with AsyncExitStack() as stack:
            clients = {
                who: await stack.enter_async_context(
                    AsyncClient(address, context=context, timeout_ms=timeout_ms)
                )
                for who in users
            }
            devices: defaultdict[str, list[tuple[str, AsyncClient]]] = defaultdict(list)
            for (user, device), client in clients.items():
                devices[user].append((device, client))
            await asyncio.gather(*(log_in(user, theirs) for user, theirs in devices.items()))
            yield clients


async def tokens_valid(clients: Iterable[AsyncClient]) -> int:
    """Return how many of the tokens that the logins got are still good."""
    answers = await asyncio.gather(*(client.ping() for client in clients), return_exceptions=True)
    return sum(isinstance(answer, int) for answer in answers)
