"""Real servers for tests: one Redis, or a cluster of three, on ports of their own."""

from __future__ import annotations

import shutil
import socket
import subprocess
import tempfile
import time
from functools import cache
from itertools import pairwise
from pathlib import Path

import redis

DEADLINE_S = 30
SLOTS = 16_384


def free_port() -> int:
    """Return a free port whose cluster port (10 000 above) exists."""
    while True:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port: int = probe.getsockname()[1]
        if port < 55_000:
            return port


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

    def start(self) -> None:
        self._process = subprocess.Popen(
            [
                *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self.folder), "--save", "", "--logfile", "log"),
                *self._options,
            ]
        )
        deadline = time.monotonic() + DEADLINE_S
        with self.client() as client:
            while True:
                try:
                    client.ping()
                except (redis.ConnectionError, redis.BusyLoadingError):
                    assert time.monotonic() < deadline, "the server does not answer"
                    time.sleep(0.02)
                else:
                    return

    def kill(self) -> None:
        """End it as a power cut of the process would."""
        self._process.kill()
        self._process.wait(DEADLINE_S)

    def stop(self) -> None:
        self.kill()
        if self._own is not None:
            self._own.cleanup()


class Cluster:
    """Three primaries without replicas."""

    def __init__(self) -> None:
        options = ("--cluster-enabled", "yes", "--cluster-config-file", "nodes", *KEEPING)
        self.servers = [Server(*options) for _ in range(3)]
        bounds = [0, SLOTS // 3, 2 * SLOTS // 3, SLOTS]
        clients = [server.client() for server in self.servers]
        for client, (low, high) in zip(clients, pairwise(bounds), strict=True):
            client.execute_command("CLUSTER ADDSLOTSRANGE", low, high - 1)
            client.execute_command("CLUSTER MEET", "127.0.0.1", self.servers[0].port)
        deadline = time.monotonic() + DEADLINE_S
        while not all(_is_ok(client) for client in clients):
            assert time.monotonic() < deadline, "the cluster does not come together"
            time.sleep(0.05)
        for client in clients:
            client.close()

    @property
    def url(self) -> str:
        return "redis+cluster://" + ",".join(f"127.0.0.1:{each.port}" for each in self.servers)

    def stop(self) -> None:
        for server in self.servers:
            server.stop()


def _is_ok(client: redis.Redis) -> bool:
    info = client.execute_command("CLUSTER INFO")
    return info["cluster_state"] == "ok" and info["cluster_known_nodes"] == "3"


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
