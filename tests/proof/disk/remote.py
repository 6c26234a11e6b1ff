"""A store in a process of its own on the interposer, one batch at a time: for faults in dialogue.

The process (``python -m tests.proof.disk.remote FOLDER``) reads a batch a line, a list of
operations, and answers a line ``[answer, results]``.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

from broker.core.ports import StoreFailedError, StoreFullError, StoreUnusableError
from tests.proof.disk.course import DISK_FAILED, DONE, UNUSABLE, USERS
from tests.proof.disk.running import ROOT
from tests.proof.disk.store_calls import StoreCalls
from tests.proof.history import OK

#: A batch is over long before; one that is not is a fault.
SECONDS_MAX: Final = 60

Operation = Sequence[str | int]


class RemoteStore:
    """A running store; a context manager that kills it at the end.

    Operations: ``["append", to, sender, id]`` gives a sequence, ``["read", user, limit]`` the
    sequences that wait, ``["acknowledge", user, seq]`` and ``["tidy"]`` nothing.
    """

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.proof.disk.remote", str(folder)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._in, self._out = self._process.stdin, self._process.stdout
        self._complaint = self._process.stderr
        self.ready = self._out.readline() == "ready\n"

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._process.kill()
        self._process.wait()
        self._out.close()
        self._complaint.close()
        with suppress(BrokenPipeError):
            self._in.close()

    def batch(self, *operations: Operation) -> tuple[str, list[Any]]:
        """Carry out a batch; ``OK`` with results, an error code without, or ``gone``."""
        self._in.write(json.dumps(operations) + "\n")
        self._in.flush()
        line = self._out.readline()
        if not line:
            return "gone", []
        answer, results = json.loads(line)
        return answer, results

    def last_words(self) -> str:
        """Return what a process that has ended complained of."""
        self.ended()
        return self._complaint.read()

    def ended(self) -> int:
        """Return the exit code of a process that has ended by itself."""
        return self._process.wait(SECONDS_MAX)


def _carry_out(store: StoreCalls, operation: list[Any]) -> Any:
    name, *arguments = operation
    if name == "append":
        return store.append(*arguments)
    if name == "read":
        return [seen.seq for seen in store.read(*arguments)]
    if name == "acknowledge":
        return store.acknowledge(*arguments)
    return store.tidy()


def _answer(store: StoreCalls, operations: list[list[Any]]) -> tuple[str, list[Any]]:
    try:
        with store.batch():
            results = [_carry_out(store, operation) for operation in operations]
    except StoreFullError:
        return "storage_full", []
    return OK, results


def main(folder: Path) -> int:
    try:
        store = StoreCalls(folder)
        store.add_users(USERS)
    except StoreUnusableError as error:
        sys.stderr.write(f"{error}\n")
        return UNUSABLE
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    for line in sys.stdin:
        try:
            answer = _answer(store, json.loads(line))
        except StoreFailedError as error:
            sys.stderr.write(f"{error}\n")
            return DISK_FAILED
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
    store.close()
    return DONE


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1])))
