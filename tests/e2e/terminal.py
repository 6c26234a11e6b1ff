"""``kotak`` at a terminal: what a person types and sees."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

from tests.e2e.program import PATIENCE_S, ROOT, environment


class Terminal:
    """``kotak WORDS`` behind a pseudo-terminal, and what stood on it, without escapes.

    ``program`` are Python's own arguments, where it is not `kotak` that is run.
    """

    def __init__(
        self,
        env: Mapping[str, str],
        *words: str,
        program: Sequence[str] = ("-m", "broker.cli"),
    ) -> None:
        self._mine, theirs = pty.openpty()
        self.process = subprocess.Popen(
            [sys.executable, *program, *words],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            start_new_session=True,
            cwd=ROOT,
            env={**environment(env), "TERM": "xterm", "PROMPT_TOOLKIT_NO_CPR": "1"},
        )
        os.close(theirs)
        self.seen = ""
        self._read = 0

    def read_until(self, words: str) -> None:
        """Wait until ``words`` stand behind what was waited for last."""
        assert self.seen_within(PATIENCE_S, words), self.seen

    def seen_within(self, patience_s: float, words: str) -> bool:
        """As `read_until`, but tell whether they came."""
        deadline = time.monotonic() + patience_s
        while words not in self.seen[self._read :]:
            if time.monotonic() >= deadline or not self.read():
                return False
        self._read = self.seen.index(words, self._read) + len(words)
        return True

    def read(self) -> bool:
        """Take what stands there by now; False at the end, when the program has left."""
        try:
            if select.select([self._mine], [], [], 0.1)[0]:
                received = os.read(self._mine, 65_536).decode(errors="replace")
                self.seen += re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", received)
        except OSError:  # nobody holds the other side any more
            return False
        return True

    def type(self, keys: str) -> None:
        os.write(self._mine, keys.encode())

    def leave(self, keys: str) -> int:
        """Type ``keys`` until the program ends, and return its exit code.

        What is typed while a prompt is being drawn anew may reach nobody, as with a person.
        """
        for _ in range(int(PATIENCE_S)):
            with contextlib.suppress(OSError):  # it may end at this very moment
                self.type(keys)
            with contextlib.suppress(subprocess.TimeoutExpired):
                return self.process.wait(1)
            self.read()
        raise AssertionError(f"it does not end: {self.seen}")

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self._mine)
