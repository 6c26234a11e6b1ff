"""The ways to the broker as a load uses them: send many, read a page, acknowledge.

A request without an answer is an outcome like any other: the checker knows what it may mean.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple, Protocol, Self

Letter = tuple[str, str, str]  # to, text, message id


class UnreachableError(Exception):
    """The broker did not answer while the load was being set up."""


class Outcome(NamedTuple):
    """The answer to one send: "OK", an error code, or None for silence."""

    answer: str | None
    seq: int | None = None


class Arrived(NamedTuple):
    """One message of a page: ``seq`` and the mark are None where the door tells none."""

    seq: int | None
    text: str
    redelivered: bool | None = None


class Page(NamedTuple):
    """One read: ``epoch`` and ``lost``, (first, last), are None where nothing was told."""

    messages: list[Arrived]
    epoch: int | None = None
    lost: tuple[int, int] | None = None


class Place(NamedTuple):
    """Where a reader stands: the last sequence that it acknowledged, and the epoch of that."""

    seq: int = 0
    epoch: int | None = None


START: Final = Place()


class Door(Protocol):
    """One process's way to the broker, for one or many users. Errors: `UnreachableError`."""

    #: Whether reading acknowledges by itself.
    takes: bool

    def __enter__(self) -> Self: ...
    def __exit__(self, *_: object) -> None: ...
    def login(self, user: str) -> None: ...
    def send_all(self, user: str, letters: Iterable[Letter], window: int) -> Iterator[Outcome]: ...
    def read(self, user: str, place: Place = START) -> Page | None:
        """Return a page; None where no answer came."""

    def acknowledge(self, user: str, seq: int) -> str | None: ...
    def tokens_valid(self) -> int:
        """Return how many of the tokens that `login` got are still good."""
