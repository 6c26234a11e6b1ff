"""A store whose steps fail where they are told to, over any engine.

A power cut is an exception that no code of the broker may catch for good: the object world ends
there, and what the engine had committed is all that is left.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, Final, Literal, cast

from broker.core.alone import Alone
from broker.core.model import Depth, Epoch, History, Message, News, Page, Receipt
from broker.core.ports import (
    Key,
    R,
    Record,
    Store,
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
)
from broker.stores import LocalStore
from broker.wire.commands import ChatArgs
from broker.wire.errors import WireError

Kind = Literal["crash", "fail", "outage"]

BEFORE: Final = "before commit"
AFTER: Final = "after commit"


class PowerCutError(BaseException):
    """The broker is gone at this very point."""


class Faults:
    """What is going to fail, and when. Every point that can be a last one calls `step`."""

    def __init__(self) -> None:
        #: While set, nothing that takes room is stored; that is found out at the ``step`` that
        #: needs it, or at the ``commit``, when the batch has done much else.
        self.full: Literal["", "step", "commit"] = ""
        self._room_taken = False
        self.dead = False
        #: May the store be one that several brokers share, on another machine?
        self.remote = False
        #: While True it cannot be reached.
        self.gone = False
        #: Messages up to this sequence may count as given though they never left: see `AFTER`.
        self.unsure = 0
        #: Where the last fault struck, for the log.
        self.struck = ""
        #: Whether any step failed in the turn under way.
        self.troubled = False
        #: Whether a batch of it stands that was refused, since the store was gone by the answer.
        self.unheard = False
        self._stands = self._in_batch = False
        self._kind: Kind = "crash"
        self._point: str | None = None
        self._left = 0

    def begin_turn(self) -> None:
        """Forget the turn before."""
        self.troubled = self.unheard = self._stands = False

    def arm(self, kind: Kind, left: int, point: str | None = None) -> None:
        """Strike at the ``left``-th step from now (of those at ``point``)."""
        self._kind, self._left, self._point = kind, left, point

    def disarm(self) -> None:
        """Let nothing fail any longer."""
        self._left, self.full, self.gone = 0, "", False

    def step(self, point: str) -> None:
        """Pass a point, or fail there."""
        if self.gone and not self.dead:
            self._be_gone(point)
        self._come_to(point)

    def _come_to(self, point: str) -> None:
        if self.dead:
            raise PowerCutError
        if self._left and self._point in (None, point):
            self._left -= 1
            if not self._left:
                self._strike(point)

    def pass_by(self, point: str) -> None:
        """Pass a point outside of the store: the process may end there, the disk cannot fail."""
        if self._kind == "crash":
            self._come_to(point)

    def take_room(self) -> None:
        """Pass a point at which the disk's room is needed."""
        self._room_taken = True
        if self.full == "step":
            self.troubled = True
            raise StoreFullError

    def begin(self) -> None:
        """Begin a batch."""
        self._room_taken = False
        self._in_batch = True

    def end(self, *, stands: bool) -> None:
        """End a batch."""
        self._in_batch = False
        self._stands = stands or self._stands

    def commit(self) -> None:
        """Pass the last point before a commit."""
        self.step(BEFORE)
        if self.full and self._room_taken:
            self.troubled = True
            raise StoreFullError

    def _strike(self, point: str) -> None:
        self.struck, self.troubled = point, True
        if self._kind == "crash":
            self.dead = True
            raise PowerCutError
        if self._kind == "outage":
            self.gone = True
            self._be_gone(point)
        raise StoreFailedError(f"the disk failed at {point}")

    def _be_gone(self, point: str) -> None:
        self.struck, self.troubled = point, True
        self.unheard = self._stands and not self._in_batch
        raise StoreUnavailableError(f"nobody answers at {point}")


class FaultyStore(Alone):
    """Hands every step to an engine; see `broker.core.ports.Store`."""

    def __init__(self, engine: LocalStore, faults: Faults) -> None:
        self._engine = engine
        self._faults = faults

    @property
    def shared(self) -> bool:  # type: ignore[override]
        return self._faults.remote

    @property
    def durability(self) -> str:
        return self._engine.durability

    @property
    def undoes(self) -> bool:
        return self._engine.undoes

    @property
    def epoch(self) -> Epoch:
        return self._engine.epoch

    @contextmanager
    def batch(self) -> Iterator[None]:
        self._faults.begin()
        stands = False
        try:
            with self._engine.batch():
                yield
                self._faults.commit()
            stands = True
        finally:
            self._faults.end(stands=stands)
        # Also "failed", though it is committed: of a sync that failed nobody knows what it did.
        try:
            self._faults.step(AFTER)
        except StoreUnavailableError:  # it stands, and nobody hears so
            self._faults.unsure = self._last
            raise

    @property
    def _last(self) -> int:
        return self._engine.mailboxes.last

    def append(
        self,
        to: str,
        sender: str,
        message_id: str,
        text: str,
        now_ms: int,
        *,
        ttl_ms: int | None = None,
        refusal: WireError | None = None,
    ) -> Receipt:
        self._faults.step("append")
        if refusal is None:
            self._faults.take_room()
        return self._engine.append(
            to, sender, message_id, text, now_ms, ttl_ms=ttl_ms, refusal=refusal
        )

    def append_all(
        self, sender: str, letters: Sequence[ChatArgs], now_ms: int
    ) -> Sequence[Receipt | WireError]:
        self._faults.step("append")
        self._faults.take_room()
        return self._engine.append_all(sender, letters, now_ms)

    def read(self, user: str, device: str, after: int, limit: int, bytes_max: int) -> Page:
        self._faults.step("read")
        return self._engine.read(user, device, after, limit, bytes_max)

    def acknowledge(self, user: str, device: str, seq: int) -> int:
        self._faults.step("acknowledge")
        return self._engine.acknowledge(user, device, seq)

    def history(self, user: str, of: str, **place: Any) -> History:
        self._faults.step("history")
        return self._engine.history(user, of, **place)

    def depth(self, user: str | None = None) -> Depth:
        self._faults.step("depth")
        return self._engine.depth(user)

    def expire(self, now_ms: int) -> list[Message]:
        self._faults.step("expire")
        expired = self._engine.expire(now_ms)
        if expired:
            self._faults.take_room()
        return expired

    def find(self, kind: type[R], key: Key) -> R | None:
        self._faults.step("find")
        return self._engine.find(kind, key)

    def find_all(self, kind: type[R], *, of: str = "", after: str = "", limit: int = 0) -> list[R]:
        self._faults.step("find_all")
        return self._engine.find_all(kind, of=of, after=after, limit=limit)

    def put(self, record: Record) -> None:
        self._faults.step("put")
        self._faults.take_room()
        self._engine.put(record)

    def remove(self, kind: type[R], key: Key) -> None:
        self._faults.step("remove")
        self._engine.remove(kind, key)

    def tidy(self, now_ms: int) -> bool:
        self._faults.step("tidy")
        return self._engine.tidy(now_ms)

    def close(self) -> None:
        self._engine.close()


class SharedFaultyStore(FaultyStore):
    """The same over an engine that brokers share. ``last`` tells its highest sequence.

    Limits stay each broker's own: the server's clock, by which shared ones go, is not the run's.
    """

    _engine: Any

    def __init__(self, engine: Store, faults: Faults, last: Callable[[], int]) -> None:
        super().__init__(engine, faults)  # type: ignore[arg-type]  # it looks at no mailboxes
        self._tell_last = last

    @property
    def shared(self) -> bool:  # type: ignore[override]
        return True

    @contextmanager
    def batch(self) -> Iterator[None]:
        try:
            with super().batch():
                yield
        except BaseException:  # nothing is undone
            self._faults.unsure = self._last
            raise

    @property
    def _last(self) -> int:
        return self._tell_last()

    def news(self) -> Sequence[News]:
        return cast("Sequence[News]", self._engine.news())

    def listen(self, names: Iterable[str]) -> None:
        self._engine.listen(names)

    def hear(self, user: str, now_ms: int) -> None:
        self._engine.hear(user, now_ms)

    def heard(self, users: Collection[str]) -> Mapping[str, int]:
        self._faults.step("heard")
        return cast("Mapping[str, int]", self._engine.heard(users))

    def claim(self, name: str) -> bool:
        self._faults.step("claim")
        return bool(self._engine.claim(name))
