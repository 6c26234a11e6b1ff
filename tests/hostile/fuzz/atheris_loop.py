"""The same parsers under atheris (libFuzzer for Python), for who has it: it is no dependency.

It takes and fills the same corpus. A second opinion: another search finds other inputs.
"""

from __future__ import annotations

import gc
import sys
from importlib import import_module
from importlib.util import find_spec
from types import FunctionType
from typing import Any, Final

from tests.hostile.fuzz import cases
from tests.hostile.fuzz.arcs import Arcs
from tests.hostile.fuzz.parsers import TARGETS, Target

NAMES: Final = tuple(target.name for target in TARGETS)
#: The longest input; a whole frame would make each run slow.
BYTES_MAX: Final = 4_096


def run(name: str, runs: int, seed: int) -> int:
    """Fuzz one parser for so many runs; does not return where atheris is there: it ends by itself.

    Where it finds something it prints the input and ends with a code that is not 0.
    """
    if find_spec("atheris") is None:
        sys.stderr.write("fuzz: atheris is not installed: pip install atheris, or leave it out\n")
        return 2
    atheris: Any = import_module("atheris")
    target = next(each for each in TARGETS if each.name == name)
    corpus = cases.CORPUS / name
    corpus.mkdir(parents=True, exist_ok=True)
    for function in _watched():
        atheris.instrument_func(function)
    words = [
        "fuzz",
        str(corpus),
        f"-runs={runs or -1}",
        f"-seed={seed}",
        f"-max_len={BYTES_MAX}",
        "-reduce_inputs=0",
    ]
    atheris.Setup(words, lambda content: check(target, content))
    atheris.Fuzz()
    return 0


def _watched() -> list[FunctionType]:
    """Return the functions under test: all there are would be a minute's work."""
    prefixes = Arcs().prefixes
    everything = [each for each in gc.get_objects() if type(each) is FunctionType]
    return [each for each in everything if each.__code__.co_filename.startswith(prefixes)]


def check(target: Target, content: bytes) -> None:
    """Feed one input; what is known and not mended is passed over."""
    try:
        target.check(content)
    except Exception as error:
        name = cases.signature(target.name, error)
        if name in cases.OPEN:
            return
        path = cases.keep(cases.FOUND, target.name, content)
        sys.stderr.write(f"fuzz: {name}: kept as {target.name}/{path.name}\n")
        raise
