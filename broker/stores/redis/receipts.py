"""Receipts that are resolved later: an append's answer comes with that of its whole batch."""

from __future__ import annotations

from collections.abc import Callable

from broker.core.model import Receipt
from broker.wire.errors import WireError


class Promised(Receipt):
    """``seq`` is known, or its refusal raised, when the batch has ended.

    Whoever asks before makes the engine find out: one more round trip.
    """

    __slots__ = ("_find_out", "refused")

    def __init__(self, find_out: Callable[[], object]) -> None:
        # Not seq: while it is unset, looking at it leads to `__getattr__`, and never afterwards.
        self._find_out = find_out
        self.refused: WireError | None = None

    def __getattr__(self, name: str) -> int:
        if name != "seq":
            raise AttributeError(name)
        if self.refused is None:
            self._find_out()
        if self.refused is not None:
            raise self.refused
        return self.seq
