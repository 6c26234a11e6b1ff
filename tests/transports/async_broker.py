"""What the text door asks of a broker, for one in memory whose commands are coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

from broker.transports.text_gateway import Asked
from broker.wire.errors import WireError


class _Done:
    """A task that has ended, as `Asked`."""

    def __init__(self, task: asyncio.Task[dict[str, Any]]) -> None:
        self.value = task.result


class AsyncBroker:
    """``begin`` carries out ``request``, which is to be defined, in a task.

    A command in ``refuse`` is refused at once. What forgets an answer leads to ``done``, as in a
    client, which knows its calls.
    """

    def __init__(self) -> None:
        self.refuse: dict[str, WireError] = {}

    async def request(
        self, command: str, args: Mapping[str, Any], *, token: str | None
    ) -> dict[str, Any]:
        raise NotImplementedError

    def begin(
        self,
        command: str,
        args: Mapping[str, Any],
        *,
        token: str | None,
        done: Callable[[Asked], None],
    ) -> Callable[[], object]:
        if command in self.refuse:
            raise self.refuse[command]
        task = asyncio.ensure_future(self.request(command, args, token=token))
        task.add_done_callback(lambda _: None if task.cancelled() else done(_Done(task)))
        return partial(_forget, task, done)


def _forget(task: asyncio.Task[dict[str, Any]], _: Callable[[Asked], None]) -> None:
    task.cancel()
