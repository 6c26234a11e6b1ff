"""A real broker in a process of its own, which may be killed and comes back on the same data."""

from __future__ import annotations

import contextlib
import os
import re
import selectors
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, NamedTuple, Self

#: A start that scans a large log takes seconds; a start that takes longer is a fault.
READY_SECONDS_MAX: Final = 30.0
#: A broker drains for 4 s at most (its setting `drain_ms`).
STOP_SECONDS_MAX: Final = 10.0
LOG_LINES_SHOWN: Final = 20

_READY: Final = re.compile(rb"ready zmq=(?P<zmq>\S+) text=(?P<text>\S+).*\n")


class BrokerError(Exception):
    """The broker did not start or cannot be reached; the text ends with its last words."""


class EndedAtStartError(BrokerError):
    """It ended by itself before it was ready; ``code`` as `subprocess` tells it."""

    def __init__(self, message: str, code: int) -> None:
        super().__init__(message)
        self.code = code


class Doors(NamedTuple):
    """Where the broker listens; port 0 asks for any."""

    zmq: str = "tcp://127.0.0.1:0"
    text: str = "127.0.0.1:0"


class Restart(NamedTuple):
    """When a broker was killed, and when its next life was ready (ns, as `tests.load.link`)."""

    killed_ns: int
    ready_ns: int


class BrokerProcess:
    """One broker over its lives. Not started yet; a context manager that stops it at the end."""

    def __init__(
        self,
        data: Path,
        *,
        store: str = "sqlite:",
        options: Sequence[str] = (),
        program: str = "broker.cli",
    ) -> None:
        """``program``: a module that takes the broker's command line."""
        self.data = data
        self._program = program
        self.doors = Doors()
        self.restarts: list[Restart] = []
        self._killed_ns: int | None = None
        self._store = store
        self._options = options
        self._log = data.parent / f"{data.name}.log"
        self._process: subprocess.Popen[bytes] | None = None
        self._cpu_of_former_lives = 0.0

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    def start(self) -> None:
        """Start on the former data and doors; return when it is ready. Errors: `BrokerError`."""
        command = [
            *(sys.executable, "-m", self._program, "serve"),
            *("--data", str(self.data), "--store", self._store, *self._options),
            *("--zmq", self.doors.zmq, "--text", self.doors.text, "--http", "off"),
        ]
        with self._log.open("a") as log:
            self._process = subprocess.Popen(
                command, stdout=subprocess.PIPE, stderr=log, stdin=subprocess.DEVNULL
            )
        match = self._ready_line()
        if match is None:
            code = self._ended()
            self.stop()
            said = f"the broker did not become ready:\n{self.last_words()}"
            raise BrokerError(said) if code is None else EndedAtStartError(said, code)
        self.doors = Doors(match["zmq"].decode(), match["text"].decode())
        if self._killed_ns is not None:
            self.restarts.append(Restart(self._killed_ns, time.monotonic_ns()))
            self._killed_ns = None

    def _ready_line(self) -> re.Match[bytes] | None:
        """Return the line that names the doors; None when it ends, or is not ready in time."""
        assert self._process is not None
        assert self._process.stdout is not None
        deadline = time.monotonic() + READY_SECONDS_MAX
        said = b""
        with selectors.DefaultSelector() as selector:
            selector.register(self._process.stdout, selectors.EVENT_READ)
            while (match := _READY.search(said)) is None:
                if not selector.select(max(0.0, deadline - time.monotonic())):
                    return None
                received = os.read(self._process.stdout.fileno(), 4096)
                if not received:
                    return None
                said += received
        return match

    def _ended(self) -> int | None:
        """Return the exit code of a process that has closed its output; None where it lives on."""
        assert self._process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            return self._process.wait(1)
        return None

    def kill(self) -> None:
        """End it at once, as the kernel would: no drain, no close, no last commit."""
        assert self._process is not None
        self._cpu_of_former_lives += self._cpu_seconds_now()
        self._killed_ns = time.monotonic_ns()
        self._process.send_signal(signal.SIGKILL)
        self._reap()

    def stop(self) -> None:
        """End it in good order; killed where it does not come to an end."""
        if self._process is None:
            return
        self._cpu_of_former_lives += self._cpu_seconds_now()
        self._process.terminate()
        self._reap()

    def _reap(self) -> None:
        process, self._process = self._process, None
        assert process is not None
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(STOP_SECONDS_MAX)
        process.kill()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()

    @property
    def kills(self) -> int:
        return len(self.restarts)

    @property
    def alive(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def last_words(self) -> str:
        """Return the end of its log."""
        lines = self._log.read_text(errors="replace").splitlines() if self._log.exists() else []
        return "\n".join(lines[-LOG_LINES_SHOWN:])

    def cpu_seconds(self) -> float:
        """Return the processor time of all threads over all lives; 0 where there is no /proc."""
        return self._cpu_of_former_lives + self._cpu_seconds_now()

    def _cpu_seconds_now(self) -> float:
        # After the name, which may hold blanks: utime and stime are the 12th and 13th (proc(5)).
        fields = self._proc("stat").rpartition(")")[2].split()
        ticks = int(fields[11]) + int(fields[12]) if len(fields) > 12 else 0
        return ticks / os.sysconf("SC_CLK_TCK")

    def memory_mib(self) -> float:
        """Return the resident memory; 0 where there is no /proc."""
        match = re.search(r"VmRSS:\s+(\d+) kB", self._proc("status"))
        return int(match[1]) / 1024 if match else 0.0

    def _proc(self, name: str) -> str:
        if self._process is None:
            return ""
        try:
            return Path(f"/proc/{self._process.pid}/{name}").read_text()
        except OSError:
            return ""
