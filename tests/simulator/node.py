"""One client process: the real session, driven as `clients.pump` does, and the script it follows.

A script is a generator. It yields what it waits for, and goes on when that is done or time is up.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from math import inf
from random import Random
from typing import Any, Final, NamedTuple, Protocol

from clients.errors import KotakError
from clients.request import Call
from clients.session import Session
from tests.proof.history import OK, Ack
from tests.simulator.journal import Journal
from tests.simulator.network import Link, Network
from tests.simulator.plan import Plan
from tests.simulator.scheduler import Scheduler

#: As `clients.client.Client` has it.
_RETRY_MS: Final = 1_000
#: A client whose connection takes nothing looks again when it does, but not before this.
_ROOM_US: Final = 20_000


class Awaited(Protocol):
    """What a script can wait for."""

    @property
    def done(self) -> bool: ...


class Wait(NamedTuple):
    """Until one of ``what`` is done, or a time has come."""

    what: tuple[Awaited, ...]
    until: float


Script = Generator[Wait, None, None]


class _RecordingSession(Session):
    """Notes the acknowledgements, whoever starts them."""

    node: Node

    def start(
        self,
        command: str,
        token: str | None,
        args: Mapping[str, Any],
        now_ms: float,
        timeout_ms: float,
    ) -> Call:
        call = super().start(command, token, args, now_ms, timeout_ms)
        if command == "ack":
            self.node.acks.append((call, args["seq"], self.node.time.now))
        return call


class Node:
    """A client process of a user, which may die and begin again."""

    def __init__(
        self,
        name: str,
        user: str,
        device: str,
        *,
        time: Scheduler,
        luck: Random,
        network: Network,
        journal: Journal,
        plan: Plan,
        script: Callable[[Node], Script],
    ) -> None:
        self.name = name
        self.user = user
        self.device = device
        self.time = time
        self.luck = luck
        self.journal = journal
        self.plan = plan
        self.token: str | None = None
        self.epoch: int | None = None
        self.finished = False
        self.pushed_at: dict[int, int] = {}
        self.acks: list[tuple[Call, int, int]] = []
        self._network = network
        self._script = script
        self._link: Link | None = None
        self._life = 0
        self._wake_at: float = inf
        self._busy = False
        self.alive = False

    # --- life ------------------------------------------------------------------------------------

    def start(self) -> None:
        """Begin the process."""
        self._life += 1
        self.alive = True
        self.session = _RecordingSession("sim", retry_ms=_RETRY_MS, random=self.luck.random)
        self.session.node = self
        self._running: Script | None = self._script(self)
        self._wait: Wait | None = None
        self._wake_at = inf
        self.turn()

    def die(self, down: float) -> None:
        """End the process with all that it knows but its token; it begins again."""
        if not self.alive or self.finished:
            return
        self.time.log(f"{self.name} dies")
        self.alive = False
        self._note_acks()
        self.acks.clear()
        self._running = None
        if self._link is not None:
            self._network.hang_up(self._link)
            self._link = None
        self.time.after(down, self.start)

    @property
    def now_ms(self) -> float:
        return self.time.now / 1_000

    # --- the network's side ----------------------------------------------------------------------

    def connected(self, link: Link) -> None:
        if link is self._link:
            self.session.connected(self.now_ms)
            self.turn()

    def broken(self, link: Link, reason: str) -> None:
        if link is self._link:
            self.session.lost(self.now_ms, reason)
            self.turn()

    def arrived(self, link: Link, frames: Sequence[bytes]) -> None:
        if link is self._link:
            self.session.received(frames, self.now_ms)
            self.turn()

    # --- turns -----------------------------------------------------------------------------------

    def turn(self) -> None:
        """Do what is due, send what there is, and let the script go on while it can."""
        if self._busy or not self.alive:
            return
        self._busy = True
        try:
            self._pump()
            while self._running is not None and self._may_go_on():
                self._go_on()
                self._pump()
        finally:
            self._busy = False
        self._note_acks()
        self._sleep()

    def _may_go_on(self) -> bool:
        wait = self._wait
        return wait is None or wait.until <= self.time.now or any(each.done for each in wait.what)

    def _go_on(self) -> None:
        assert self._running is not None
        try:
            self._wait = next(self._running)
        except StopIteration:
            self._running, self.finished = None, True

    def _pump(self) -> None:
        session = self.session
        if self.now_ms >= session.due_ms:
            session.tick(self.now_ms)
        self._follow()
        link = self._link
        while link is not None and (frames := session.take()):
            if not self._network.to_broker(link, frames):
                session.give_back()
                self._wake(max(self.time.now + _ROOM_US, link.stalled_until))
                return

    def _follow(self) -> None:
        link, wanted = self._link, self.session.wanted
        if link is not None and link.number != wanted:
            self._network.hang_up(link)
            self._link = link = None
        if wanted and link is None:
            self._link = self._network.open(self, wanted)

    def _note_acks(self) -> None:
        if not self.acks:
            return
        waiting = []
        for call, seq, t0 in self.acks:
            ack = Ack(self.user, seq, t0, device=self.device)
            if call.done and "cursor" in call.result:
                self.journal.acks.append(ack._replace(t1=self.time.now, answer=OK))
            elif call.done or not self.alive:
                self.journal.acks.append(ack)
            else:
                waiting.append((call, seq, t0))
        self.acks = waiting

    def _sleep(self) -> None:
        due = self.session.due_ms * 1_000
        if self._wait is not None and self._running is not None:
            due = min(due, self._wait.until)
        if due < inf:
            self._wake(due)

    def _wake(self, when: float) -> None:
        """Take a turn at a time, unless one comes sooner."""
        at = int(when) + 1
        if self._wake_at <= at:
            return
        self._wake_at = at
        life = self._life

        def wake() -> None:
            if life == self._life and self._wake_at == at:
                self._wake_at = inf
                self.turn()

        self.time.at(at, wake)

    # --- for scripts -----------------------------------------------------------------------------

    def ask(self, command: str, args: Mapping[str, Any], *, own: bool = True) -> Call:
        """Begin a request with the process's token."""
        token = self.token if own else None
        return self.session.start(command, token, args, self.now_ms, self.plan.timeout_ms)

    def until(self, *what: Awaited, at_most: float = inf) -> Wait:
        """Wait for one of ``what``, at most so many microseconds."""
        return Wait(what, self.time.now + at_most)

    def pause(self, delay: float) -> Wait:
        """Wait for a time."""
        return Wait((), self.time.now + delay)


def answer(call: Call) -> tuple[str | None, dict[str, Any]]:
    """Return a call's answer as a history has it, and its result."""
    if call.error is None:
        return OK, call.result
    return _code(call.error), {}


def _code(error: KotakError) -> str | None:
    from clients.errors import ConnectionFailed, RequestError, RequestTimeout

    if isinstance(error, RequestError) and not isinstance(error, ConnectionFailed | RequestTimeout):
        return error.code.value
    return None
