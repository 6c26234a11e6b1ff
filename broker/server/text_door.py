"""The text door in a thread of its own: an event loop, a client of the broker, the gateway."""

from __future__ import annotations

import asyncio
import secrets
import threading
from collections.abc import Callable
from functools import partial
from typing import Any, Literal

import zmq

from broker.config import Address, Config
from broker.core.origins import DOOR_TOKEN_BYTES, handed_on
from broker.exits import Exit, ExitError
from broker.transports.private_file import SecretFileError
from broker.transports.text_gateway import TextGateway
from broker.transports.tls import TlsDoor
from clients import AsyncClient
from clients.curve_keys import Curve
from clients.ids import MessageIds

#: The counters of `TextGateway`.
Figure = Literal["connections", "lines", "refused", "unread", "untaken", "faults"]
#: Parts of the drain time that the gateway may take for each of its two steps.
_DRAIN_PARTS = 6


def open_tls(config: Config) -> TlsDoor | None:
    """Read what the door encrypts with; None where it does not. Errors: `ExitError`."""
    if config.text is None or config.tls_cert is None or config.tls_key is None:
        return None
    try:
        return TlsDoor(config.tls_cert, config.tls_key)
    except SecretFileError as error:
        raise ExitError(Exit.USAGE, f"the text door cannot encrypt: {error}") from None


async def serve_text(
    config: Config,
    broker_address: str,
    *,
    context: zmq.Context[Any] | None,
    tls: TlsDoor | None,
    opened: Callable[[TextGateway, Address], None],
    stopping: asyncio.Event,
    curve: Curve | None = None,
    token_for: Callable[[str], str | None] = lambda _: None,
) -> None:
    """Run the text door until ``stopping`` is set; ``curve`` is for the way to the broker.

    ``token_for``: see `TextGateway`.

    Errors: `OSError` (the address is taken).
    """
    assert config.text is not None
    client = AsyncClient(broker_address, context=context, name="text-door", curve=curve)
    async with client:
        gateway = TextGateway(
            client,
            message_id=MessageIds(),
            connections_max=config.text_connections_max,
            line_timeout_ms=config.text_line_ms,
            token_for=token_for,
        )
        guard = tls.guard if tls else None
        opened(gateway, Address(*await gateway.start(*config.text, guard=guard)))
        await stopping.wait()
        if tls:
            tls.stop()
        await gateway.stop(grace_ms=config.drain_ms // _DRAIN_PARTS)


class TextDoor:
    """`serve_text` in a thread, for the broker's own process.

    With its ``token`` it tells the broker where each login comes from.
    """

    def __init__(
        self,
        config: Config,
        broker_address: str,
        *,
        context: zmq.Context[Any],
        tls: TlsDoor | None,
    ) -> None:
        self.token = secrets.token_urlsafe(DOOR_TOKEN_BYTES)
        self._config = config
        self._tls = tls
        self._broker_address = broker_address
        self._context = context
        self._loop: asyncio.AbstractEventLoop | None = None
        self._stopping = asyncio.Event()
        self._gateway: TextGateway | None = None
        self._opened = threading.Event()
        self._address: Address | None = None
        self._error: OSError | None = None
        self._thread = threading.Thread(target=self._run, name="kotak-text", daemon=True)

    def figure(self, name: Figure) -> int:
        """Return one of the gateway's counters, for the metrics page; 0 while it is not open."""
        return getattr(self._gateway, name, 0)

    def start(self) -> Address:
        """Open the door; return its address. Errors: `OSError` (the address is taken)."""
        self._thread.start()
        self._opened.wait()
        if self._error is not None:
            self._thread.join()
            raise self._error
        assert self._address is not None
        return self._address

    def stop(self) -> None:
        """Finish the lines under way, answer the rest with an ERROR, close."""
        assert self._loop is not None
        self._loop.call_soon_threadsafe(self._stopping.set)
        self._thread.join()

    def _run(self) -> None:
        try:
            asyncio.run(self._serve())
        except OSError as error:
            self._error = error
        finally:
            self._opened.set()

    async def _serve(self) -> None:
        self._loop = asyncio.get_running_loop()
        await serve_text(
            self._config,
            self._broker_address,
            context=self._context,
            tls=self._tls,
            opened=self._is_open,
            stopping=self._stopping,
            token_for=partial(handed_on, self.token),
        )

    def _is_open(self, gateway: TextGateway, address: Address) -> None:
        self._gateway = gateway
        self._address = address
        self._opened.set()
