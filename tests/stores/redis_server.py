"""Real servers for tests: one Redis, or a cluster of three, on ports of their own."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

import redis
from redis.crc import key_slot

DEADLINE_S = 30
SLOTS = 16_384


#: Below those that the kernel gives to connections and to whoever asks for any port, on Linux from
#: 32 768 on: between a look at such a one and its use, another test may have got it.
_PORTS: Final = range(10_000, 22_000)
#: How far above a server's own port the one is that a cluster talks by.
_CLUSTER_PORT: Final = 10_000


def free_port() -> int:
    """Return a free port whose cluster port is free, too."""
    while True:
        port = random.choice(_PORTS)
        if _is_free(port) and _is_free(port + _CLUSTER_PORT):
            return port


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        # As servers do: what is left of an earlier test's connections is in nobody's way.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class Server:
    """One redis-server process. ``options`` come on top of what keeps a machine quiet."""

    def __init__(self, *options: str, folder: Path | None = None, port: int | None = None) -> None:
        self._own = None if folder else tempfile.TemporaryDirectory(prefix="kotak-redis-")
        self.folder = folder or Path(self._own.name if self._own else "")
        self.port = port or free_port()
        self._options = options
        self.start()

    @property
    def url(self) -> str:
        return f"redis://127.0.0.1:{self.port}"

    def client(self) -> redis.Redis:
        return redis.Redis("127.0.0.1", self.port, socket_timeout=DEADLINE_S, protocol=2)

    def tell(self, *command: str | int) -> Any:
        """Have one command carried out."""
        with self.client() as client:
            return client.execute_command(*command)

    def command(self) -> list[str]:
        return [
            *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
            *("--dir", str(self.folder), "--save", ""),
            *("--repl-diskless-sync-delay", "0", *self._options),
        ]

    def start(self) -> None:
        with (self.folder / "log").open("ab") as log:
            self._process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, process_group=0
            )
        deadline = time.monotonic() + DEADLINE_S
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except (redis.ConnectionError, redis.BusyLoadingError):
                    if time.monotonic() > deadline or self._process.poll() is not None:
                        self.stop()
                        raise
                    time.sleep(0.02)
                else:
                    return

    def pause(self) -> None:
        """Have it keep silent: its connections stand, and nothing is answered."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def kill(self) -> None:
        """End it as a power cut of the process would."""
        # With what it has forked to write a file: that would go on, in a folder that is removed.
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait(DEADLINE_S)

    def stop(self) -> None:
        self.kill()
        if self._own is not None:
            self._own.cleanup()

    def replicate(self, primary: Server) -> None:
        """Have it hold what another one holds, and wait until it does."""
        with self.client() as client:
            client.execute_command("REPLICAOF", "127.0.0.1", primary.port)
            poll(lambda: client.info("replication")["master_link_status"] == "up")


def poll(is_so: Callable[[], bool]) -> None:
    """Wait until something is so."""
    deadline = time.monotonic() + DEADLINE_S
    while not is_so():
        assert time.monotonic() < deadline, "it does not become so"
        time.sleep(0.02)


class Sentinel(Server):
    """One that decides alone, and soon."""

    def __init__(self, name: str, primary: Server) -> None:
        folder = tempfile.TemporaryDirectory(prefix="kotak-sentinel-")
        self._config = Path(folder.name) / "sentinel.conf"
        self._config.write_text(
            f"sentinel monitor {name} 127.0.0.1 {primary.port} 1\n"
            f"sentinel down-after-milliseconds {name} 500\n"
        )
        super().__init__(folder=Path(folder.name))
        self._own = folder

    def command(self) -> list[str]:
        return [
            *("redis-server", str(self._config), "--sentinel"),
            *("--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(self.folder)),
        ]


class Cluster:
    """Three primaries, each with as many replicas as wanted."""

    def __init__(self, *, replicas: int = 0) -> None:
        options = (
            *("--cluster-enabled", "yes", "--cluster-config-file", "nodes"),
            *("--cluster-node-timeout", "1000", *KEEPING),
        )
        self.primaries = [Server(*options) for _ in range(3)]
        self.replicas = [Server(*options) for _ in range(3 * replicas)]
        self.servers = self.primaries + self.replicas
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        for server, (low, high) in zip(self.primaries, pairwise(bounds), strict=True):
            server.tell("CLUSTER ADDSLOTSRANGE", low, high - 1)
        for server in self.servers:
            server.tell("CLUSTER MEET", "127.0.0.1", self.servers[0].port)
        poll(lambda: all(self._knows_all(server) for server in self.servers))
        for number, server in enumerate(self.replicas):
            server.tell("CLUSTER REPLICATE", self.primaries[number % 3].tell("CLUSTER MYID"))
        poll(lambda: all(self._is_ok(server) for server in self.servers))

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.primaries)

    def holder(self, key: str) -> Server:
        """Return the primary that has a key's slot, at first."""
        return self.primaries[min(2, key_slot(key.encode()) // (SLOTS // 3))]

    def stop(self) -> None:
        for server in self.servers:
            server.stop()

    def _knows_all(self, server: Server) -> bool:
        return int(server.tell("CLUSTER INFO")["cluster_known_nodes"]) == len(self.servers)

    def _is_ok(self, server: Server) -> bool:
        if server.tell("CLUSTER INFO")["cluster_state"] != "ok":
            return False
        links = server.tell("INFO", "replication")
        return bool(links["role"] == "master" or links["master_link_status"] == "up")


#: As a broker wants it: what is said to be stored is on the disk.
KEEPING = ("--appendonly", "yes", "--appendfsync", "always")


def installed() -> bool:
    return shutil.which("redis-server") is not None


@cache
def shared_server() -> Server:
    return Server(*KEEPING)


@cache
def shared_cluster() -> Cluster:
    return Cluster()


def stop_shared() -> None:
    """End what was started for all tests of this run."""
    for shared in (shared_server, shared_cluster):
        if shared.cache_info().currsize:
            shared().stop()
            shared.cache_clear()
