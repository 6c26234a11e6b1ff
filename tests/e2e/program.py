"""``kotak`` as a program: command lines in processes of their own, and what they said."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import IO, Final, NamedTuple, Self, TypeVar

import pytest

from broker.wire.errors import Code
from clients import Client
from clients.errors import RequestError

ROOT: Final = Path(__file__).resolve().parents[2]
#: For what takes a moment on an idle machine.
PATIENCE_S: Final = 60.0
#: A broker's promise: SIGTERM is over within 5 s.
STOP_S_MAX: Final = 5.0

_Found = TypeVar("_Found")
_READY: Final = re.compile(r"^ready zmq=(\S+) text=(\S+) http=(\S+)$", re.MULTILINE)


class Ended(NamedTuple):
    """How a command ended: its exit code, and what it wrote."""

    code: int
    out: str
    err: str


class Program:
    """One running command line, whose output is collected as it comes; a context manager."""

    def __init__(self, *words: str, env: Mapping[str, str] | None = None) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "broker.cli", *words],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            cwd=ROOT,
            env=environment(env),
        )
        self._said: dict[str, bytearray] = {"out": bytearray(), "err": bytearray()}
        self._readers = [
            threading.Thread(target=_collect, args=(stream, self._said[name]))
            for name, stream in (("out", self.process.stdout), ("err", self.process.stderr))
        ]
        for reader in self._readers:
            reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.process.kill()
        self.end()

    @property
    def out(self) -> str:
        return self._said["out"].decode()

    @property
    def err(self) -> str:
        return self._said["err"].decode()

    def signal(self, number: signal.Signals) -> None:
        self.process.send_signal(number)

    def end(self) -> Ended:
        """Wait for the end and return it."""
        assert self.process.stdin is not None
        with suppress(BrokenPipeError):
            self.process.stdin.close()
        code = self.process.wait(PATIENCE_S)
        for reader in self._readers:
            reader.join(PATIENCE_S)
        return Ended(code, self.out, self.err)

    def wait_for(self, pattern: re.Pattern[str]) -> re.Match[str]:
        """Wait until ``pattern`` stands in its output."""

        def look() -> re.Match[str] | None:
            code = self.process.poll()  # before the search: what it said last counts
            found = pattern.search(self.out)
            assert found or code is None, f"it ended with {code}: {self.out}{self.err}"
            return found

        return eventually(look)


class Serving(Program):
    """A broker that serves: where its doors are, and how to ask its HTTP door."""

    def __init__(
        self,
        data: Path,
        *options: str,
        zmq: str = "tcp://127.0.0.1:0",
        text: str = "127.0.0.1:0",
        http: str = "127.0.0.1:0",
    ) -> None:
        self.data = data
        super().__init__(
            *("serve", "--data", str(data), "--zmq", zmq, "--text", text, "--http", http, *options)
        )
        try:
            self.zmq, self.text, self.http = self.wait_for(_READY).groups()
        except BaseException:
            self.__exit__(None, None, None)
            raise

    @property
    def text_address(self) -> tuple[str, int]:
        host, _, port = self.text.rpartition(":")
        return host, int(port)

    def stop(self, number: signal.Signals = signal.SIGTERM) -> Ended:
        """End it by a signal and return how it ended; fails where that takes too long."""
        began = time.monotonic()
        self.signal(number)
        ended = self.end()
        took = time.monotonic() - began
        assert took < STOP_S_MAX, f"it took {took:.1f} s to stop"
        return ended

    def again(self, *options: str) -> Serving:
        """Start another broker on the same data and doors. This one must have ended."""
        return Serving(self.data, *options, zmq=self.zmq, text=self.text, http=self.http)

    def page(self, path: str) -> tuple[int, str]:
        """Return the status and the body of a page of the HTTP door."""
        try:
            with urllib.request.urlopen(f"http://{self.http}{path}", timeout=PATIENCE_S) as answer:
                return answer.status, answer.read().decode()
        except urllib.error.HTTPError as error:
            with error:
                return error.code, error.read().decode()

    def metric(self, name: str) -> float:
        """Return one sample of the metrics page, by its name with its labels."""
        found = re.search(rf"^{re.escape(name)} (\S+)$", self.page("/metrics")[1], re.MULTILINE)
        assert found, f"the metrics page has no {name}"
        return float(found[1])

    def memory_mib(self) -> float:
        """Return the resident memory."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        found = re.search(r"VmRSS:\s+(\d+) kB", status)
        assert found
        return int(found[1]) / 1024


def run(*words: str, typed: str = "", env: Mapping[str, str] | None = None) -> Ended:
    """Run one command line to its end; ``typed`` is its standard input."""
    done = subprocess.run(
        [sys.executable, "-m", "broker.cli", *words],
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env=environment(env),
        timeout=PATIENCE_S,
        start_new_session=True,  # no terminal to ask for a password
    )
    return Ended(done.returncode, done.stdout, done.stderr)


def environment(more: Mapping[str, str] | None) -> dict[str, str]:
    """Return our own environment without Kotak's settings, and with some more."""
    plain = {name: value for name, value in os.environ.items() if not name.startswith("KOTAK_")}
    return {**plain, **(more or {})}


def eventually(look: Callable[[], _Found | None]) -> _Found:
    """Return what ``look`` finds, as soon as it finds something."""
    deadline = time.monotonic() + PATIENCE_S
    while True:
        found = look()
        if found:
            return found
        assert time.monotonic() < deadline, "it did not come"
        time.sleep(0.01)


def connect(broker: Serving, user: str = "shafwa", password: str = "mks") -> Client:
    """Return a client of the library that is logged in, as shafwa where nobody else is named."""
    client = Client(broker.zmq)
    client.login(user, password)
    return client


def refused(work: Callable[[], object]) -> Code:
    """Return the code of the refusal that ``work`` ends in."""
    with pytest.raises(RequestError) as caught:
        work()
    return caught.value.code


def complaint(ended: Ended) -> str:
    """Return the one line that a command which could not begin leaves behind, without "kotak: "."""
    lines = [line for line in ended.err.splitlines() if " WARNING " not in line]
    assert len(lines) == 1, f"one line is wanted: {ended.err}"
    assert lines[0].startswith("kotak: ")
    assert ended.out == ""
    return lines[0].removeprefix("kotak: ")


def contents(folder: Path) -> dict[str, bytes]:
    """Return every file of a folder, or the file itself, with its bytes; locks are empty anyway."""
    files = folder.iterdir() if folder.is_dir() else [folder]
    return {path.name: path.read_bytes() for path in files if path.name != "broker.lock"}


def _collect(stream: IO[bytes] | None, said: bytearray) -> None:
    assert stream is not None
    with stream:
        while received := os.read(stream.fileno(), 65_536):
            said += received
