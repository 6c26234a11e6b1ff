"""Processes of their own for the loops: both cores are used, and a crash is seen from outside."""

from __future__ import annotations

import faulthandler
import multiprocessing
import time
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from typing import Any, Final, NamedTuple

from tests.hostile.fuzz import dispatching, door, parsers, parsing, sockets
from tests.hostile.fuzz.tally import Failure, Tally

_spawn: Final = multiprocessing.get_context("spawn")
#: Between two looks at how far they are.
_LOOK_S: Final = 0.2
#: For the end of a process that has told what it did.
_END_S: Final = 60.0


class Order(NamedTuple):
    """What one process is to do. ``grow``: keep what is new in the corpus."""

    kind: str
    seed: str
    inputs: int
    seconds_max: float
    grow: bool = False


def carry_out(order: Order, told: Callable[[int], None]) -> Tally:
    """Do what is ordered, in this process."""
    seed, inputs, seconds = order.seed, order.inputs, order.seconds_max
    match order.kind:
        case "parsers":
            return parsing.Parsing(seed, grow=order.grow).run(
                inputs, seconds_max=seconds, told=told
            )
        case "service":
            service = dispatching.Dispatching(seed)
            return service.run(inputs, seconds_max=seconds, told=told)
        case "text door":
            return door.Knocking(seed).run(inputs, seconds_max=seconds, told=told)
        case "sockets":
            return sockets.besiege(seed, inputs, seconds_max=seconds, told=told)
    raise ValueError(order.kind)


def run_all(orders: Sequence[Order], told: Callable[[int], None]) -> Tally:
    """Carry out orders of one kind at once, each in a process; ``told`` hears how many in all."""
    far = [_spawn.Value("q", 0) for _ in orders]
    workers = [_Worker(order, done) for order, done in zip(orders, far, strict=True)]
    try:
        while any(worker.works for worker in workers):
            told(sum(done.value for done in far))
            time.sleep(_LOOK_S)
        whole = Tally(orders[0].kind)
        for worker in workers:
            whole.add(worker.result())
        return whole
    finally:
        for worker in workers:
            worker.end()


class _Worker:
    """One process, its order, and the end of its pipe."""

    def __init__(self, order: Order, done: Any) -> None:
        self._order = order
        self._done = done
        self._ear, mouth = _spawn.Pipe(duplex=False)
        self._process = _spawn.Process(target=_work, args=(order, done, mouth), daemon=False)
        self._process.start()
        mouth.close()
        self._result: Tally | None = None

    @property
    def works(self) -> bool:
        """Tell whether more is to come; takes the result when it is there."""
        if self._result is None and self._ear.poll():
            try:
                self._result = self._ear.recv()
            except EOFError:
                return False
        return self._result is None

    def result(self) -> Tally:
        """Return what was done; a process that ended without a word has been brought down."""
        if self._result is not None:
            return self._result
        self._process.join(_END_S)
        order, at = self._order, self._done.value
        fallen = Tally(order.kind, inputs=at, dead=1)
        sentence = f"{order.kind} process ended with {self._process.exitcode}"
        fallen.count(Failure(sentence, f"(seed {order.seed})", f"{order.seed}, after {at} inputs"))
        return fallen

    def end(self) -> None:
        """Let it end; one that has been interrupted is ended."""
        if self._result is None:
            self._process.terminate()
        self._process.join(_END_S)
        self._ear.close()


def _work(order: Order, done: Any, mouth: Connection) -> None:
    faulthandler.enable()

    def told(inputs: int) -> None:
        done.value = inputs

    mouth.send(carry_out(order, told))
    mouth.close()


#: How a kept case is fed again, by the folder that it lies in.
REPLAYS: Final[Mapping[str, Callable[[bytes], None]]] = {
    **{target.name: target.check for target in parsers.TARGETS},
    dispatching.TARGET: dispatching.replay,
    door.TARGET: door.replay,
}
