"""Running a broker, or a text gateway alone, as a program: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from importlib.metadata import version
from typing import Final

from broker.config import Address, Config
from broker.core.ports import StoreUnusableError
from broker.exits import Exit, ExitError
from broker.server.broker import DEMO_USERS, Server, reload_logged
from broker.server.listening import (
    refused_address,
    require_encrypted,
    require_encrypted_way,
)
from broker.server.notify import READY, RELOADING, STOPPING, notify
from broker.server.text_door import open_tls, serve_text
from broker.stores import place_of
from broker.transports.text_gateway import TextGateway
from broker.transports.tls import TlsDoor
from clients.curve_keys import Curve

log = logging.getLogger("kotak.server")

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code. Errors: `ExitError`."""
    os.umask(0o077)  # whatever is made from here on is for our own eyes
    server = Server(config)

    def act(number: signal.Signals) -> None:
        if number == signal.SIGHUP and _at_a_terminal() is terminal:
            notify(RELOADING)
            server.reload()
            notify(READY)
            return
        # A SIGHUP, too, where the terminal was closed: that is what it meant at first.
        log.info("stopping on %s: requests under way are finished", number.name)
        server.ending.set()

    terminal = _at_a_terminal()
    _take_signals(act)
    try:
        doors = server.start()
    except StoreUnusableError as error:
        raise ExitError(Exit.DATA_FOLDER, str(error)) from error
    try:
        _spare_the_collector()
        print(_introduction(config, server.durability), f"ready {doors}", sep="\n", flush=True)  # noqa: T201 - a result
        notify(READY)
        server.ending.wait()
    finally:
        notify(STOPPING)
        server.stop()
    if server.failure is not None:
        raise server.failure
    return Exit.OK


def _take_signals(act: Callable[[signal.Signals], None]) -> None:
    """Have a thread ``act`` on each signal, for as long as the process lives.

    Not a handler: that would run in the midst of whatever the main thread does, and wait for ever
    for a lock that the main thread holds, such as that of the event it is about to wait for.
    """
    reader, writer = os.pipe()
    os.set_blocking(writer, False)

    def take() -> None:
        while True:
            for number in os.read(reader, 64):
                act(signal.Signals(number))

    threading.Thread(target=take, name="kotak-signals", daemon=True).start()
    signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    for number in (*_STOP_SIGNALS, signal.SIGHUP):
        signal.signal(number, lambda *_: None)  # Python writes its number; nothing is left to do


def _at_a_terminal() -> bool:
    return any(os.isatty(descriptor) for descriptor in range(3))


def _spare_the_collector() -> None:
    """Look for garbage rarely: the hot path makes no cycles, and a full search walks all mailboxes.

    Measured against Python's own thresholds (700, 10, 10): 8.5 instead of 17.8 us a message on the
    memory store, 5 % less on SQLite. What stands after the start is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run_gateway(config: Config, broker_address: str, *, curve: Curve | None = None) -> int:
    """Serve the text door in front of another broker. Errors: `ExitError`."""
    require_encrypted(config, "text")
    require_encrypted_way(config, broker_address, curve)
    tls = open_tls(config)
    try:
        asyncio.run(_gateway(config, broker_address, tls, curve))
    except OSError as error:
        raise refused_address("text", config.text, error) from error
    return Exit.OK


async def _gateway(
    config: Config, broker_address: str, tls: TlsDoor | None, curve: Curve | None
) -> None:
    stopping = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in _STOP_SIGNALS:
        loop.add_signal_handler(each, stopping.set)
    if tls is not None:
        loop.add_signal_handler(signal.SIGHUP, reload_logged, "tls_cert", tls)

    def opened(_: TextGateway, address: Address) -> None:
        print(f"ready text={address} broker={broker_address}", flush=True)  # noqa: T201 - a result
        notify(READY)

    await serve_text(
        config,
        broker_address,
        context=None,
        tls=tls,
        opened=opened,
        stopping=stopping,
        curve=curve,
    )


#: What a store that brokers share achieves, beside ``replicated=N``.
_SHARED: Final = {
    "fsync": "on disk before every OK",
    "memory": "in its memory before every OK, on disk a little later if at all",
}


def _introduction(config: Config, durability: str) -> str:
    where = "in memory, forgotten at the end"
    if config.store == "sqlite:":
        where = f"in {config.data}, on disk before every OK"
    elif config.store != "memory:":
        where = f"in {place_of(config.store)}, {_SHARED.get(durability, durability)}"
    lines = [f"kotak {version('kotak')}", f"messages are kept {where}"]
    if config.demo:
        users = ", ".join(f"{user}/{password}" for user, _, password in DEMO_USERS)
        lines.append(f"log in as one of {users}")
    return "\n".join(lines)
