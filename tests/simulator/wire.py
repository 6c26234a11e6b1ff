"""The way from a simulated broker to a real Redis server: it breaks where it is told to.

What a network and a server may do to a batch, each in the way in which the library tells it: see
`Harm`. The servers behind it are real, and so is what they have carried out by then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from random import Random
from typing import Any, Final

from redis.connection import Connection
from redis.crc import key_slot
from redis.exceptions import BusyLoadingError, MovedError, ResponseError
from redis.exceptions import ConnectionError as ConnectionLostError
from redis.exceptions import TimeoutError as NoAnswerError

from broker.stores.redis.nodes import Call, Node

#: Commands that belong to no slot.
_ANYWHERE: Final = frozenset({"PING", "INFO", "CONFIG GET", "SCRIPT LOAD"})


class Harm(Enum):
    """What happens to one exchange."""

    #: The connection breaks before anything is there; when a part is; when all is, unanswered.
    CUT = auto()
    PART = auto()
    UNHEARD = auto()
    #: No answer in time, though all is carried out: at once, or some exchanges later, when the
    #: caller has long begun to repeat it.
    SILENT = auto()
    LATE = auto()
    #: The server is still reading its data; has forgotten the scripts; is killed and comes back.
    LOADING = auto()
    UNLOADED = auto()
    KILLED = auto()
    #: Some slots are said to be elsewhere: what is for them is not carried out.
    MOVED = auto()


class Wire:
    """What happens on the way, over all connections of a broker's lives.

    ``restart`` kills the server and starts it again; ``unsure`` is called whenever more may have
    been carried out than was answered.
    """

    def __init__(
        self,
        luck: Random,
        *,
        restart: Callable[[], None],
        unsure: Callable[[], None] = lambda: None,
    ) -> None:
        self.unsure = unsure
        self.restart = restart
        self._luck = luck
        self._harms: list[Harm] = []
        self._after = 0
        self._held: list[tuple[int, Node, Sequence[Call]]] = []

    def arm(self, harms: Sequence[Harm], after: int) -> None:
        """Harm exchanges one after the other, some exchanges from now."""
        self._harms, self._after = list(harms), after

    def calm(self) -> None:
        """End it; what is still on its way arrives."""
        self._harms.clear()
        for _, node, calls in self._held:
            self._carry_out(node, calls)
        self._held.clear()

    def next(self) -> Harm | None:
        """Begin an exchange; return what happens to it."""
        held, self._held = self._held, []
        for left, node, calls in held:
            if left:
                self._held.append((left - 1, node, calls))
            else:
                self._carry_out(node, calls)
        if self._after:
            self._after -= 1
            return None
        return self._harms.pop(0) if self._harms else None

    def hold(self, node: Node, calls: Sequence[Call]) -> None:
        """Keep calls in the server's buffer."""
        self._held.append((self._luck.randint(0, 4), node, calls))

    def part(self, calls: Sequence[Call]) -> Sequence[Call]:
        """Return the first ones of some calls."""
        return calls[: self._luck.randint(0, len(calls))]

    def moves(self, calls: Sequence[Call]) -> list[bool]:
        """Tell which calls are for slots that are said to be elsewhere."""
        odd = self._luck.random() < 0.5
        return [call[0] not in _ANYWHERE and _slot(call) % 2 == odd for call in calls]

    def _carry_out(self, node: Node, calls: Sequence[Call]) -> None:
        connection = node.connect()
        connection.send_packed_command(connection.pack_commands(calls), check_health=False)
        for _ in calls:
            with suppress(ResponseError):  # it may have been started anew, without the scripts
                connection.read_response()
        connection.disconnect()
        self.unsure()


def _slot(call: Call) -> int:
    return key_slot((call[3] if call[0] == "EVALSHA" else call[1]).encode())


class Reached(Node):
    """A server at the end of the wire."""

    wire: Wire

    def __init__(self, connect: Callable[[], Connection], *, patience_s: float) -> None:
        super().__init__(connect, patience_s=patience_s)
        self._harm: Harm | None = None
        self._moved: list[bool] = []

    def send(self, calls: Sequence[Call]) -> None:
        self._harm = None if self.silent else self.wire.next()
        if self._harm is Harm.MOVED:
            self._moved = self.wire.moves(calls)
            calls = [call for call, moved in zip(calls, self._moved, strict=True) if not moved]
        elif self._harm is not None:
            self._suffer(self._harm, calls)
        if calls:
            super().send(calls)

    def _suffer(self, harm: Harm, calls: Sequence[Call]) -> None:
        if harm is Harm.CUT:
            raise ConnectionLostError("cut")
        if harm is Harm.LOADING:
            raise BusyLoadingError("loading")
        if harm is Harm.KILLED:
            self.wire.restart()
        elif harm is Harm.UNLOADED:
            super().send([("SCRIPT FLUSH",)])
            super().receive(1)
        elif harm is Harm.LATE:
            self.wire.hold(self, calls)
            self._give_rest()
            raise NoAnswerError("nobody answers")
        elif harm is Harm.PART:
            part = self.wire.part(calls)
            super().send(part)
            super().receive(len(part))
            self.wire.unsure()
            raise ConnectionLostError("cut in the middle")

    def receive(self, count: int) -> list[Any]:
        if self._harm is Harm.MOVED:
            self.wire.unsure()
            there = self._moved.count(False)
            answers = iter(super().receive(there) if there else ())
            away = MovedError("1 127.0.0.1:1")
            return [away if moved else next(answers) for moved in self._moved]
        answered = super().receive(count)
        if self._harm is Harm.UNHEARD:
            self.wire.unsure()
            raise ConnectionLostError("cut before the answer")
        if self._harm is Harm.SILENT:
            self.wire.unsure()
            self._give_rest()
            raise NoAnswerError("no answer in time")
        return answered


def node_on(wire: Wire) -> type[Node]:
    """Return the class of servers that are reached over this wire."""
    return type("Reached", (Reached,), {"wire": wire})
