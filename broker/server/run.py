"""Running a broker, or a text gateway alone, as a program: what it prints, and how it ends."""

from __future__ import annotations

import asyncio
import gc
import logging
import signal
from importlib.metadata import version
from types import FrameType

from broker.config import Address, Config
from broker.core.ports import StoreUnusableError
from broker.exits import Exit, ExitError
from broker.server.broker import DEMO_USERS, Server
from broker.server.listening import refused_address, require_encrypted
from broker.server.text_door import serve_text
from broker.transports.text_gateway import TextGateway

log = logging.getLogger("kotak.server")

_STOP_SIGNALS = (signal.SIGTERM, signal.SIGINT)


def run(config: Config) -> int:
    """Serve until SIGTERM or SIGINT, and return the exit code. Errors: `ExitError`."""
    server = Server(config)

    def end(number: int, _: FrameType | None) -> None:
        log.info("stopping on %s: requests under way are finished", signal.Signals(number).name)
        server.ending.set()

    for each in _STOP_SIGNALS:
        signal.signal(each, end)
    try:
        doors = server.start()
    except StoreUnusableError as error:
        raise ExitError(Exit.DATA_FOLDER, str(error)) from error
    try:
        _spare_the_collector()
        print(_introduction(config), f"ready {doors}", sep="\n", flush=True)  # noqa: T201 - a result
        server.ending.wait()
    finally:
        server.stop()
    if server.failed.is_set():
        raise ExitError(
            Exit.DISK_FAILED, "the disk failed: nothing more is accepted. Start again to recover"
        )
    return Exit.OK


def _spare_the_collector() -> None:
    """Look for garbage rarely: the hot path makes no cycles, and a full search walks all mailboxes.

    Measured against Python's own thresholds (700, 10, 10): 8.5 instead of 17.8 us a message on the
    memory store, 5 % less on SQLite. What stands after the start is not looked at again.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def run_gateway(config: Config, broker_address: str) -> int:
    """Serve the text door in front of another broker. Errors: `ExitError`."""
    require_encrypted(config, "text")
    try:
        asyncio.run(_gateway(config, broker_address))
    except OSError as error:
        raise refused_address("text", config.text, error) from error
    return Exit.OK


async def _gateway(config: Config, broker_address: str) -> None:
    stopping = asyncio.Event()
    for each in _STOP_SIGNALS:
        asyncio.get_running_loop().add_signal_handler(each, stopping.set)

    def opened(_: TextGateway, address: Address) -> None:
        print(f"ready text={address} broker={broker_address}", flush=True)  # noqa: T201 - a result

    await serve_text(config, broker_address, context=None, opened=opened, stopping=stopping)


def _introduction(config: Config) -> str:
    where = "in memory, forgotten at the end"
    if config.store == "sqlite:":
        where = f"in {config.data}, on disk before every OK"
    lines = [f"kotak {version('kotak')}", f"messages are kept {where}"]
    if config.demo:
        users = ", ".join(f"{user}/{password}" for user, _, password in DEMO_USERS)
        lines.append(f"log in as one of {users}")
    return "\n".join(lines)
