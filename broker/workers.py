"""The pool of worker handlers: one leads, the others follow.

The leader holds the baton, and with it the ROUTER and the mailboxes, and runs turn after turn:
drain, handle, commit, reply. When a turn leaves slow work behind (a password hash), the leader
lets go of the baton, so that a follower takes its place at once, and does the slow work itself;
the outcome goes through an outbox into a later turn. A hand-off of every batch between threads
would cost 40 % on small ones. The baton is a lock: the full fence that moving a socket needs.

No thread of the pool ends before it is told to: whatever a turn or slow work raises is logged and
answered, and the thread goes on in its own place. Should one end all the same, or should fault
follow fault, the broker gives up: one that is up and deaf would be worse than none.
"""

from __future__ import annotations

import logging
import os
import threading
import traceback
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from broker.core.dispatcher import Job
from broker.core.model import Route
from broker.core.service import Arrival, Finished, Turn

log = logging.getLogger("kotak.workers")

#: Faults without a good turn between them before the broker gives up.
_FAULTS_MAX: Final = 10


class Channel(Protocol):
    """Where messages come from and replies go; see `broker.transports.router.Router`."""

    def drain(self) -> list[Arrival]: ...

    def send(self, replies: Mapping[Route, list[bytes]]) -> Mapping[Route, bool]: ...

    def wait(self, timeout_ms: int) -> None: ...

    def wake(self) -> None: ...


class TurnTaker(Protocol):
    """Who handles a batch; see `broker.core.service.Service`."""

    def turn(
        self, arrivals: Sequence[Arrival], finished: Sequence[Finished], now_ms: int
    ) -> Turn: ...

    @property
    def patience_ms(self) -> int: ...

    def lost(self, routes: Mapping[Route, bool]) -> None: ...

    def tidy(self, now_ms: int) -> bool: ...


class WorkerPool:
    """Threads that take turns at leading. ``on_failure`` hears when no OK can be given any more."""

    def __init__(
        self,
        channel: Channel,
        service: TurnTaker,
        *,
        threads: int,
        clock_ms: Callable[[], int],
        on_failure: Callable[[], None],
        cores: int | None = None,
    ) -> None:
        self._channel = channel
        self._service = service
        self._clock_ms = clock_ms
        self._on_failure = on_failure
        # One thread always leads; hashing on more threads than cores only takes memory.
        self._slow_max = max(1, min(threads - 1, cores or os.cpu_count() or 1))
        self._slow_running = 0  # changed by the leader only
        self._jobs: deque[Job] = deque()
        self._outbox: deque[Finished] = deque()
        self._baton = threading.Lock()
        self._stopping = False
        self._faults_in_a_row = 0
        #: For the metrics page.
        self.turns = 0
        self.faults = 0
        self._threads = [
            threading.Thread(target=self._live, name=f"kotak-worker-{number}", daemon=True)
            for number in range(threads)
        ]

    def start(self) -> None:
        """Let the workers begin."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End after the turn under way; afterwards nobody touches the channel or the service."""
        self._stopping = True
        self._channel.wake()
        for thread in self._threads:
            thread.join()

    def _live(self) -> None:
        """Work until the end is asked for, whatever comes."""
        try:
            while not self._stopping:
                try:
                    self._work()
                except BaseException as error:  # noqa: BLE001 - a worker never dies of its work
                    self._survive(error)
        finally:
            if not self._stopping:  # not even that fault could be dealt with
                self._give_up()

    def _work(self) -> None:
        """Lead, run what is slow, follow; until the end."""
        while not self._stopping:
            with self._baton:
                job = self._lead()
            if job is not None:
                self._outbox.append(Finished(job, _run(job)))
                self._channel.wake()

    def _lead(self) -> Job | None:
        """Run turns until slow work must be done; return it. Holds the baton throughout."""
        while not self._stopping:
            # Before the turn: whoever has just taken the baton may find work left over.
            if self._jobs and self._slow_running < self._slow_max:
                self._slow_running += 1
                return self._jobs.popleft()
            self._take_turn()
        return None

    def _take_turn(self) -> None:
        # Waiting first, even when busy: it costs less than a drain that finds nothing.
        self._channel.wait(self._service.patience_ms)
        arrivals = self._channel.drain()
        finished = [self._outbox.popleft() for _ in range(len(self._outbox))]
        self._slow_running -= len(finished)
        self.turns += bool(arrivals or finished)
        now_ms = self._clock_ms()
        turn = self._service.turn(arrivals, finished, now_ms)
        self._jobs.extend(turn.jobs)  # before anything that may fail: they are counted as waiting
        lost = self._channel.send(turn.replies)
        if lost:
            self._service.lost(lost)
        self._faults_in_a_row = 0
        if turn.failed or not self._service.tidy(now_ms):
            self._give_up()

    def _survive(self, error: BaseException) -> None:
        """Go on after a bug, unless it comes again and again."""
        self.faults += 1
        place = "".join(traceback.format_tb(error.__traceback__))
        log.error("a worker met a fault: %s\n%s", type(error).__name__, place)
        self._faults_in_a_row += 1
        if self._faults_in_a_row >= _FAULTS_MAX:
            self._give_up()

    def _give_up(self) -> None:
        self._stopping = True
        self._on_failure()


def _run(job: Job) -> object:
    """Do slow work; an exception is an outcome too."""
    try:
        return job.deferred.work()
    except BaseException as error:  # noqa: BLE001 - it is answered where the request is finished
        return error if isinstance(error, Exception) else RuntimeError(type(error).__name__)
