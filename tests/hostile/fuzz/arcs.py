"""Which steps from line to line of the broker's code have been taken, and which are new.

A trace function makes code many times slower, so only a sample of the inputs is traced.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import CodeType, FrameType
from typing import Any, Final

import broker

_BROKER: Final = Path(broker.__file__).parent
#: What is looked at: the code that bytes from outside come to.
WATCHED: Final = (
    "wire",
    "core",
    "transports/text_gateway.py",
    "transports/text_commands.py",
    "accounts_file.py",
    "config.py",
)


class Arcs:
    """A set of arcs that grows; ``watch`` traces, ``len`` counts."""

    def __init__(self, watched: Sequence[str] = WATCHED) -> None:
        self.prefixes = tuple(str(_BROKER / each) for each in watched)
        self._seen: set[tuple[int, int, int]] = set()
        #: A number for each function that is ours, 0 for the others.
        self._numbers: dict[CodeType, int] = {}

    def __len__(self) -> int:
        return len(self._seen)

    @contextmanager
    def watch(self) -> Iterator[Callable[[], int]]:
        """Trace what is done inside; the function given tells how many arcs have been new."""
        before, traced = len(self._seen), sys.gettrace()
        sys.settrace(self._call)
        try:
            yield lambda: len(self._seen) - before
        finally:
            sys.settrace(traced)

    def _call(self, frame: FrameType, event: str, arg: object) -> Any:
        code = frame.f_code
        function = self._numbers.get(code)
        if function is None:
            ours = code.co_filename.startswith(self.prefixes)
            function = self._numbers[code] = len(self._numbers) + 1 if ours else 0
        if not function:
            return None
        add, last = self._seen.add, 0

        def line(frame: FrameType, event: str, arg: object) -> Any:
            nonlocal last
            if event == "line":
                number = frame.f_lineno
                add((function, last, number))
                last = number
            return line

        return line
