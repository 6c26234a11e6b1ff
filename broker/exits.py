"""The exit codes of the ``kotak`` command, and the one exception that ends it with a sentence.

Scripts and service units rely on the numbers: they never change their meaning.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Self


class Exit(IntEnum):
    """What the process says as it ends; ``sentence`` is the line that ``kotak --help`` prints."""

    sentence: str

    def __new__(cls, code: int, sentence: str) -> Self:
        member = int.__new__(cls, code)
        member._value_ = code
        member.sentence = sentence
        return member

    OK = 0, "done"
    REFUSED = 1, "the request was refused, or failed"
    USAGE = 2, "the command line or the configuration is wrong"
    UNREACHABLE = 3, "the broker does not answer"
    ADDRESS_TAKEN = 4, "an address to listen on is taken, or not ours"
    DATA_FOLDER = 5, "the data folder is unusable, damaged, foreign, or in use by another broker"
    DISK_FAILED = 6, "the disk failed while serving; start again to recover"
    GATE_FAILED = 7, "the encrypted door does not hold: strangers come in, or nobody does"
    MEMORY_SPENT = 8, "the memory that the broker may take is spent; start again to recover"


class ExitError(Exception):
    """Ends the command: ``code`` is what the process returns, the sentence goes to stderr."""

    def __init__(self, code: Exit, sentence: str) -> None:
        super().__init__(code, sentence)
        self.code = code
        self.sentence = sentence

    def __str__(self) -> str:
        return self.sentence
