"""A broker inside a program: for other people's tests, and for small programs of one process.

from broker.embedding import Broker
from clients import Client

with Broker(users={"ann": "secret"}) as broker, Client(broker.address) as client:
    client.login("ann", "secret")
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Final, Self

from broker.config import Config, load
from broker.server.access import open_admin
from broker.server.broker import Doors, Server

#: Doors pick a free port, and only the one of ZeroMQ is open.
_DEFAULTS: Final[Mapping[str, object]] = {
    "zmq": "tcp://127.0.0.1:0",
    "text": "off",
    "http": "off",
}


class Broker:
    """A broker with its threads, from `start` (or ``with``) to `stop`.

    ``users``: accounts to be made, passwords by user name (each takes a password hash, a tenth of a
    second). ``settings``: any setting of ``kotak serve`` by its name, see docs/OPERATIONS.md, such
    as ``text="127.0.0.1:0"``; neither a file nor the environment is read. With ``memory:`` nothing
    is left behind; with ``store="sqlite:"`` name the folder by ``data``.

    Errors: `broker.config.ConfigError` at once; `broker.core.ports.StoreUnusableError` and
    `broker.exits.ExitError` from `start`.
    """

    def __init__(
        self,
        *,
        store: str = "memory:",
        users: Mapping[str, str] | None = None,
        **settings: object,
    ) -> None:
        self._users = dict(users or {})
        self._parts = ExitStack()
        self._given = {**_DEFAULTS, "store": store, **settings}
        self._config: Config = load(flags=self._given, environ={}).config
        self._doors: Doors | None = None

    @property
    def address(self) -> str:
        """Where its ZeroMQ door is, for `clients.Client`."""
        return self.doors.zmq

    @property
    def doors(self) -> Doors:
        """Where each door is: ``zmq``, ``text``, ``http`` (None: off)."""
        if self._doors is None:
            raise RuntimeError("the broker is not running: start it, or use it in a with statement")
        return self._doors

    def start(self) -> None:
        """Open the doors, and make the accounts."""
        with ExitStack() as opened:
            if "data" not in self._given:
                folder = opened.enter_context(tempfile.TemporaryDirectory(prefix="kotak-"))
                self._config = load(flags={**self._given, "data": folder}, environ={}).config
            server = Server(self._config)
            opened.callback(server.stop)
            self._doors = server.start()
            if self._users:
                self._add_users()
            self._parts = opened.pop_all()

    def stop(self) -> None:
        """Finish what is under way, and close. A second call does nothing."""
        self._doors = None
        self._parts.close()

    def _add_users(self) -> None:
        with open_admin(self._config, create=False) as admin:
            for user, password in self._users.items():
                admin.request("user_add", {"user": user, "password": password})

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()
