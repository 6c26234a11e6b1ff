"""One redis-server in a process of its own, which may be killed, stopped and continued."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

#: A start reads the append-only file back: seconds, for what is tried here.
DEADLINE_SECONDS: Final = 30.0
_LOOK_SECONDS: Final = 0.02
_ANSWER_SECONDS_MAX: Final = 1.0
_LOG_LINES_SHOWN: Final = 10
#: What a broker asks of a server: what is said to be stored is on its disk, and nothing is evicted.
KEEPING: Final = (
    *("--appendonly", "yes", "--appendfsync", "always", "--save", ""),
    *("--maxmemory-policy", "noeviction"),
)


class RedisError(Exception):
    """A server cannot be started, or does not answer; the text says why and what to do."""


def free_port() -> int:
    """Return a port of the loopback that nobody listens on now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    return port


def wait_until(done: Callable[[], bool], what: str, *, seconds: float = DEADLINE_SECONDS) -> None:
    """Look again and again. Errors: `RedisError` with ``what``, when it takes too long."""
    deadline = time.monotonic() + seconds
    while not done():
        if time.monotonic() > deadline:
            raise RedisError(f"{what}, even after {seconds:.0f} s")
        time.sleep(_LOOK_SECONDS)


class Node:
    """A server on a port and in a folder that it keeps over its lives. Not started yet."""

    def __init__(self, folder: Path, *, options: Sequence[str] = (), cluster: bool = False) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self.port = free_port()
        self.bus_port = free_port() if cluster else 0
        self._options = [*KEEPING, *options]
        if cluster:
            self._options += ["--cluster-enabled", "yes", "--cluster-config-file", "nodes.conf"]
            self._options += ["--cluster-port", str(self.bus_port)]
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_of_former_lives = 0.0

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self.port}"

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self) -> None:
        """Start, and return when it answers. Errors: `RedisError`."""
        self._process = subprocess.Popen(
            [
                *_until_our_end(),
                *("redis-server", "--port", str(self.port), "--bind", "127.0.0.1"),
                *("--dir", str(self._folder), "--logfile", str(self._folder / "log")),
                *self._options,
            ],
            stdin=subprocess.DEVNULL,
        )
        with self.client() as client:
            wait_until(
                lambda: self._answers(client), f"the Redis at {self.address} does not answer"
            )

    def _answers(self, client: redis.Redis) -> bool:
        if not self.alive:
            raise RedisError(f"a redis-server ended at its start:\n{self.last_words()}")
        try:
            client.ping()
        except (redis.ConnectionError, redis.TimeoutError, redis.BusyLoadingError):
            return False
        return True

    def client(self) -> redis.Redis:
        """Return a connection to this server alone; the caller closes it."""
        return redis.Redis(
            "127.0.0.1", self.port, socket_timeout=_ANSWER_SECONDS_MAX, protocol=2,
            decode_responses=True,
            retry=Retry(NoBackoff(), 0),  # who stands still is to be noticed, not waited for
        )  # fmt: skip

    def ask(self, *words: object) -> Any:
        """Give one command. Errors: `redis.RedisError`."""
        with self.client() as client:
            return client.execute_command(*words)

    def kill(self) -> None:
        """End it at once, as ``kill -9`` does, a stopped one too, where it is there."""
        process, self._process = self._process, None
        if process is None:
            return
        self._cpu_of_former_lives += _cpu_seconds(process.pid)
        process.kill()
        process.wait()

    def stop(self) -> None:
        """Let it stand still: connections stay open, and nothing is answered."""
        self._signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Wake it after a `stop`; it does not know that time has passed."""
        self._signal(signal.SIGCONT)

    def _signal(self, number: signal.Signals) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    def cpu_seconds(self) -> float:
        """Return the processor time over all lives; 0 where there is no /proc."""
        now = _cpu_seconds(self._process.pid) if self._process is not None else 0.0
        return self._cpu_of_former_lives + now

    def last_words(self) -> str:
        """Return the end of its log."""
        with contextlib.suppress(OSError):
            lines = (self._folder / "log").read_text(errors="replace").splitlines()
            return "\n".join(lines[-_LOG_LINES_SHOWN:])
        return "(it has written no log)"


def check_installed() -> None:
    """Errors: `RedisError`, where there is no redis-server of 7.0 or later."""
    if shutil.which("redis-server") is None:
        raise RedisError("there is no redis-server: install it (Debian: apt install redis-server)")
    said = subprocess.run(["redis-server", "--version"], capture_output=True, text=True, check=True)
    found = re.search(r"v=(\d+)\.", said.stdout)
    if found is None or int(found[1]) < 7:
        raise RedisError("this redis-server is too old: Redis 7.0 or Valkey 7.2 is needed")


def _until_our_end() -> tuple[str, ...]:
    """Begin a command so that the kernel kills it with us, whatever ends us."""
    return ("setpriv", "--pdeathsig", "KILL", "--") if shutil.which("setpriv") else ()


def _cpu_seconds(pid: int) -> float:
    # After the name, which may hold blanks: utime and stime are the 12th and 13th (proc(5)).
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
