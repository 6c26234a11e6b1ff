"""Many users of the asyncio client in one process, each with a connection of its own."""

from __future__ import annotations

import asyncio
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


@asynccontextmanager
async def crowd(
    users: Iterable[str], address: str, timeout_ms: int
) -> AsyncIterator[dict[str, AsyncClient]]:
    """Connect and log in each user. Errors: `UnreachableError`."""
    gate = asyncio.Semaphore(_LOGINS_AT_ONCE)

    async def log_in(user: str, client: AsyncClient) -> None:
        async with gate:
            try:
                await client.login(user, PASSWORD)
            except RequestError as error:
                raise UnreachableError(f"cannot log in as {user}: {error}") from None

    with zmq.Context() as context:
        async with AsyncExitStack() as stack:
            clients = {
                user: await stack.enter_async_context(
                    AsyncClient(address, context=context, timeout_ms=timeout_ms)
                )
                for user in users
            }
            await asyncio.gather(*(log_in(user, client) for user, client in clients.items()))
            yield clients


async def tokens_valid(clients: Iterable[AsyncClient]) -> int:
    """Return how many of the tokens that the logins got are still good."""
    answers = await asyncio.gather(*(client.ping() for client in clients), return_exceptions=True)
    return sum(isinstance(answer, int) for answer in answers)
