"""The broker in the simulator: the real service over a faulty store, its turns and its lives."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from random import Random
from typing import Final, Protocol

from broker.core.dispatcher import Job
from broker.core.handlers import Policy
from broker.core.model import Route
from broker.core.ports import StoreFailedError, StoreUnavailableError
from broker.core.rates import SendLimits
from broker.core.service import Arrival, Finished, Service, Turn
from broker.core.sessions import SessionLimits
from broker.server.assembly import WallClock
from tests.core.fakes import FakeHasher
from tests.simulator.disk import Disk
from tests.simulator.faults import Faults, PowerCutError
from tests.simulator.network import Link, Network
from tests.simulator.plan import SECOND, Plan
from tests.simulator.scheduler import Scheduler

#: Messages of one turn; the real broker's bound is higher, its batches are as mixed.
_TURN_MAX: Final = 64
_START_MS: Final = 1_700_000_000_000
ADMIN: Final = "admin"


class Observer(Protocol):
    """Sees all that goes through the broker's door."""

    def began(self, life: int, service: Service, first_seq: int) -> None: ...
    def turned(
        self, arrivals: Sequence[Arrival], done: Sequence[Finished], turn: Turn, now_ms: int
    ) -> None: ...
    def handed(self, turn: Turn, lost: dict[Route, bool]) -> None: ...
    def ended(self) -> None: ...


class Clock:
    """The broker's clock over the machine's, which may be set: of one life."""

    def __init__(self, time: Scheduler) -> None:
        #: How far the machine's clock is ahead of true time.
        self.jumped_ms = 0
        self._time = time
        self.restart()

    def __call__(self) -> int:
        return self._clock()

    def machine_ms(self) -> int:
        """Return what the machine's clock says, which may go back."""
        return self._time.now // 1_000 + _START_MS + self.jumped_ms

    def restart(self) -> None:
        """Begin with what the machine's clock says."""
        self._clock = WallClock(
            lambda: self.machine_ms() * 1_000_000, lambda: self._time.now * 1_000
        )


class Broker:
    """Lives one after the other over one disk. ``observer`` sees what comes in and goes out."""

    def __init__(
        self,
        time: Scheduler,
        luck: Random,
        network: Network,
        disk: Disk,
        plan: Plan,
        *,
        name: str = "",
    ) -> None:
        self.faults = Faults()
        self.faults.remote = plan.outages > 0
        self.clock = Clock(time)
        self.observer: Observer
        #: Called while no life is: whether the disk's copy is put back.
        self.between: Callable[[], None] = lambda: None
        self.lives = 0
        self._time = time
        self._luck = luck
        self._network = network
        self._disk = disk
        self._plan = plan
        self._name = name
        self._tokens = 0
        self._inbox: deque[tuple[Link, Sequence[bytes]]] = deque()
        self._finished: deque[Finished] = deque()
        self._turn_at = 0
        self.service: Service | None = None
        network.deliver = self._deliver

    @property
    def unsure(self) -> int:
        """Up to which sequence the store may know more than the broker has answered.

        Of one that undoes nothing, and remembers what it gave, all lives are one.
        """
        before = 0 if self.engine.undoes else self._began_at - 1
        return max(self.faults.unsure, before)

    @property
    def has_no_room(self) -> bool:
        """Tell whether something in the turn under way could not be stored."""
        reserve = getattr(self.engine, "_ballast", None)
        return self.faults.troubled or bool(reserve is not None and reserve.sparing)

    @property
    def policy(self) -> Policy:
        plan = self._plan
        return Policy(
            sessions=SessionLimits(idle_ms=plan.session_idle_ms, max_ms=30 * 86_400_000),
            sends=SendLimits(rate_max=plan.rate_max, burst_max=20),
            expiry_notices=plan.seed % 2 == 0,
        )

    # --- life and death --------------------------------------------------------------------------

    def start(self) -> None:
        """Begin a life on what the disk holds."""
        engine = self._disk.open()
        self.lives += 1
        self.faults.dead = False
        self.clock.restart()
        self.engine = engine
        self._began_at = self._disk.last(engine) + 1
        try:
            self.service = service = Service(
                self._disk.guard(engine, self.faults),
                hasher=FakeHasher(),
                make_token=self._make_token,
                policy=self.policy,
                server="kotak simulated",
            )
        except (PowerCutError, StoreFailedError, StoreUnavailableError):  # it reads the store
            self._end(f"did not begin: {self.faults.struck}", self._down())
            return
        service.grant_admin(ADMIN)
        self._network.broker_up = True
        self.observer.began(self.lives, service, self._began_at)
        self._wake(1_000)

    def _make_token(self) -> str:
        self._tokens += 1
        return f"token-{self._name}{self._tokens}"

    def die(self, why: str, down: float) -> None:
        """End this life at once; another one begins after ``down`` microseconds."""
        if self.service is None:
            return
        self.observer.ended()
        self._end(why, down)

    def _end(self, why: str, down: float) -> None:
        self._time.log(f"broker {self._name}dies: {why}")
        self.service = None
        self._inbox.clear()
        self._finished.clear()
        self._network.broker_gone()
        self._disk.crash()
        self._time.after(down, self._come_back)

    def _come_back(self) -> None:
        self.between()
        self.start()
        if self.service is not None:
            self._time.log(f"broker starts: life {self.lives}")

    # --- turns -----------------------------------------------------------------------------------

    def _deliver(self, link: Link, frames: Sequence[bytes]) -> None:
        if self.service is not None:
            self._inbox.append((link, frames))
            self._wake(self._plan.turn_us)

    def _wake(self, delay: float) -> None:
        """Have a turn within ``delay`` microseconds."""
        when = self._time.now + int(delay)
        if not self._time.now < self._turn_at <= when:
            self._turn_at = when
            life = self.lives
            self._time.at(when, lambda: self._turn(life, when))

    def _turn(self, life: int, when: int) -> None:
        if self.service is None or life != self.lives or when != self._turn_at:
            return
        try:
            failed = self._take_turn(self.service)
        except PowerCutError:
            self.die(f"killed at {self.faults.struck}", self._down())
            return
        if failed:
            self.die(f"store failed at {self.faults.struck}", self._down())
            return
        self._wake(1_000 if self._inbox else self.service.patience_ms * 1_000)

    def _down(self) -> float:
        return self._luck.choice((0.05, 0.5, 5.0, 20.0)) * SECOND

    def _take_turn(self, service: Service) -> bool:
        """As `broker.workers`: drain, handle, commit, reply, tidy; True when the store failed."""
        arrivals: list[Arrival] = [
            (link.route, list(frames))
            for link, frames in (
                self._inbox.popleft() for _ in range(min(len(self._inbox), _TURN_MAX))
            )
        ]
        finished = [self._finished.popleft() for _ in range(len(self._finished))]
        now_ms = self.clock()
        self.faults.begin_turn()
        turn = service.turn(arrivals, finished, now_ms)
        if self.faults.unheard:
            self.faults.unsure = self._disk.last(self.engine)
        self.observer.turned(arrivals, finished, turn, now_ms)
        self.faults.pass_by("after the turn")
        lost = self._network.to_clients(turn.replies)
        self.observer.handed(turn, lost)
        if lost:
            service.lost(lost)
        for job in turn.jobs:
            self._run_later(job)
        self.faults.pass_by("after the replies")
        return turn.failed or not service.tidy(now_ms)

    def _run_later(self, job: Job) -> None:
        life = self.lives

        def finish() -> None:
            if self.service is not None and life == self.lives:
                self._finished.append(Finished(job, job.deferred.work()))
                self._wake(100)

        self._time.after(self._luck.choice((1_000, 30_000, 300_000)), finish)
