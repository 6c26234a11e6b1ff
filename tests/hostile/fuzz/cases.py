"""Inputs that are kept: a corpus that reaches far into the code, and what has been found by it.

Both are folders of plain files, one an input, by the name of what reads it: ``corpus/request/...``.
What was found stays for ever: the ordinary tests feed it again. A bug that is known and not mended
yet stands in ``OPEN``, by its signature, so that it does not hide others; the test of the case
fails as soon as it is mended, and its line goes.
"""

from __future__ import annotations

import hashlib
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

HERE: Final = Path(__file__).parent
CORPUS: Final = HERE / "corpus"
FOUND: Final = HERE / "found"
#: Longer inputs are not kept in the corpus: they fill the repository and teach no more.
KEPT_BYTES_MAX: Final = 2_048

#: What is shrunk: bytes, or a list of steps.
P = TypeVar("P", bytes, list[Any])

#: Signatures of what is found and not mended, each with its case in ``found``.
OPEN: Final[dict[str, str]] = {}


def name_of(content: bytes) -> str:
    """Return the file name of a case."""
    return hashlib.sha256(content).hexdigest()[:12]


def read_all(folder: Path, target: str) -> list[bytes]:
    """Return the kept inputs of one target, in a stable order."""
    place = folder / target
    return [path.read_bytes() for path in sorted(place.iterdir())] if place.is_dir() else []


def keep(folder: Path, target: str, content: bytes) -> Path:
    """Write a case, and return where."""
    path = folder / target / name_of(content)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def signature(target: str, error: BaseException) -> str:
    """Name a fault so that the same one is known again: its type, and the broker's last step."""
    steps = traceback.extract_tb(error.__traceback__)
    ours = [step for step in steps if "/broker/" in step.filename or "/clients/" in step.filename]
    last = (ours or steps)[-1:]
    place = "".join(f" in {Path(step.filename).name}:{step.name}" for step in last)
    text = f" ({error})" if isinstance(error, AssertionError) and not ours else ""
    return f"{target} {type(error).__name__}{text}{place}"


def shrink(parts: P, fails: Callable[[P], bool], *, tries: int) -> P:
    """Return fewer of the parts (or bytes) with which ``fails`` is still true."""
    size = len(parts) // 2
    while size:
        start = 0  # what comes first matters least: a fault is the last step's
        while start < len(parts) and tries:
            tries -= 1
            shorter = parts[:start] + parts[start + size :]
            if fails(shorter):
                parts = shorter
            else:
                start += size
        size //= 2
    return parts
