"""The store of one broker: it has no neighbours, so there is nothing to hear and nobody to tell."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

from broker.core.model import News
from broker.core.shared_limits import Claim, Grant, Tried


class Alone:
    """For an engine that nobody else has open; see `broker.core.ports.Neighbours`.

    Limits are this broker's: nothing is drawn, and every claim is good.
    """

    shared = False

    def news(self) -> Sequence[News]:
        return ()

    def listen(self, names: Iterable[str]) -> None:
        """Do nothing: what is appended is known here."""

    def on_news(self, wake: Callable[[], None]) -> None:
        """Do nothing: there is none."""

    def hear(self, user: str, now_ms: int) -> None:
        """Do nothing: nobody asks but who knows already."""

    def heard(self, users: Collection[str]) -> Mapping[str, int]:  # noqa: ARG002 - as the port
        return {}

    def claim(self, name: str) -> bool:  # noqa: ARG002 - as the port
        return True

    def draw(self, *_: Any, **__: Any) -> Grant:
        return Grant()

    def claim_attempt(self, *_: Any, **__: Any) -> Claim:
        return Claim()

    def end_attempt(self, tried: Tried) -> None:
        """Do nothing: there is nobody to tell."""

    def tried(self) -> Sequence[Tried]:
        return ()
