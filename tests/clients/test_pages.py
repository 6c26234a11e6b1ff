"""The loop over the pages of a mailbox: what is asked for when, acknowledged, told, begun anew."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing, closing
from typing import Any

import pytest

from broker.wire.envelope import Request
from broker.wire.errors import Code, WireError
from clients import AsyncClient, Client, ClientClosed, Inbox, RequestTimeout, Unauthorized
from clients.errors import InternalError
from clients.paging import Paging, Reading
from clients.request import Call
from tests.clients.fake_broker import READER, RESULTS, Answer, FakeBroker
from tests.clients.session_bench import TIMEOUT_MS, Bench
from tests.clients.subscription_desk import written
from tests.conftest import Broker

PATIENT_MS = 30_000
Read = tuple[int | None, int | None]


def _page(*seqs: int, more: bool = False, **fields: Any) -> dict[str, Any]:
    return {**READER, "messages": [written(seq) for seq in seqs], "more": more, **fields}


class Desk:
    """A reader of pages, and the broker that it talks to: a fake clock and no socket."""

    def __init__(
        self,
        *,
        after: int | None = None,
        epoch: int | None = None,
        acknowledge: bool = True,
        connect: bool = True,
    ) -> None:
        self.bench = Bench(connect=connect)
        reading = Reading(2, after, epoch, acknowledge)
        self.paging = Paging(self.bench.session, "t", reading, TIMEOUT_MS)

    def sent(self, advance_ms: float = 0) -> list[tuple[str, int | None]]:
        """Let time pass; return what was sent: commands with their ``seq`` or ``after``."""
        self.calls: dict[str, Call] = {}
        sent: list[tuple[str, int | None]] = []
        pending = self.bench.session._pending
        from broker.wire.envelope import decode_request

        for command, request_id in self.bench.turn(advance_ms):
            call = pending[request_id]
            self.calls[command] = call
            args = decode_request(call.frame)[3]
            sent.append((command, args.get("seq", args.get("after"))))
        return sent
