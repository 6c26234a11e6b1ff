"""The pool: one leads, slow work passes the baton on, and no worker dies."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence

import pytest

from broker.core.dispatcher import Job
from broker.core.handlers import Deferred
from broker.core.service import Arrival, Finished, Turn
from broker.core.slow import Ticket
from broker.workers import WorkerPool

WAIT_S = 10
SECRET = "a message may quote a request"


class FakeChannel:
    """Messages in from the test, replies out to it, through events."""

    def __init__(self) -> None:
        self._bell = threading.Condition()
        self._arrivals: list[Arrival] = []
        self._rung = False
        self.sent: list[Mapping[bytes, list[bytes]]] = []
        self.unreachable: dict[bytes, bool] = {}

    def put(self, *frames: bytes) -> None:
        with self._bell:
            self._arrivals.append((b"peer", list(frames)))
            self._bell.notify()

    def drain(self) -> list[Arrival]:
        with self._bell:
            taken, self._arrivals = self._arrivals, []
            return taken

    def wait(self, timeout_ms: int) -> None:
        with self._bell:
            self._bell.wait_for(lambda: self._arrivals or self._rung, timeout_ms / 1_000)
            self._rung = False

    def wake(self) -> None:
        with self._bell:
            self._rung = True
            self._bell.notify()

    def send(self, replies: Mapping[bytes, list[bytes]]) -> Mapping[bytes, bool]:
        with self._bell:
            if replies:
                self.sent.append(replies)
            self._bell.notify_all()
        return self.unreachable

    def wait_for_replies(self, count: int) -> list[bytes]:
        def replies() -> list[bytes]:
            return [frame for each in self.sent for frames in each.values() for frame in frames]

        with self._bell:
            assert self._bell.wait_for(lambda: len(replies()) >= count, WAIT_S), self.sent
        return replies()


Work = Callable[[], object]


class FakeService:
    """Echoes frames; a frame that names a piece of work becomes a job. Checks for one caller."""

    def __init__(self, work: Mapping[bytes, Work] | None = None) -> None:
        self._work = work or {}
        self._inside = threading.Lock()
        self.fail = False
        self.faults_left = 0
        self.patience_ms = 1_000
        self.tidies = True
        self.lost_routes: list[Mapping[bytes, bool]] = []

    def tidy(self, now_ms: int) -> bool:
        return self.tidies

    def lost(self, routes: Mapping[bytes, bool]) -> None:
        self.lost_routes.append(routes)

    def turn(self, arrivals: Sequence[Arrival], finished: Sequence[Finished], now_ms: int) -> Turn:
        assert self._inside.acquire(blocking=False), "two threads lead at once"
        try:
            if self.faults_left:
                self.faults_left -= 1
                raise RuntimeError(SECRET)
            return self._turn(arrivals, finished)
        finally:
            self._inside.release()

    def _turn(self, arrivals: Sequence[Arrival], finished: Sequence[Finished]) -> Turn:
        replies = [repr(each.outcome).encode() for each in finished]
        jobs: list[Job] = []
        for route, frames in arrivals:
            for frame in frames or ():
                work = self._work.get(frame)
                if work is None:
                    replies.append(frame)
                else:
                    jobs.append(Job(route, 1, Deferred(work, lambda *_: {}), Ticket("", None)))
        return Turn({b"peer": replies} if replies else {}, jobs, failed=self.fail)


class Pool:
    def __init__(self, service: FakeService, *, threads: int = 4, cores: int = 2) -> None:
        self.channel = FakeChannel()
        self.failed = threading.Event()
        self.pool = WorkerPool(
            self.channel,
            service,
            threads=threads,
            clock_ms=lambda: 0,
            on_failure=self.failed.set,
            cores=cores,
        )

    def __enter__(self) -> FakeChannel:
        self.pool.start()
        return self.channel

    def __exit__(self, *_: object) -> None:
        self.pool.stop()


def test_messages_are_answered_in_order() -> None:
    with Pool(FakeService()) as channel:
        for number in range(100):
            channel.put(str(number).encode())
        assert channel.wait_for_replies(100) == [str(number).encode() for number in range(100)]


def test_slow_work_does_not_delay_others() -> None:
    release = threading.Event()
    work = {b"slow": lambda: release.wait(WAIT_S)}
    with Pool(FakeService(work)) as channel:
        channel.put(b"slow")
        channel.put(b"quick")
        assert channel.wait_for_replies(1) == [b"quick"]
        release.set()
        assert channel.wait_for_replies(2) == [b"quick", b"True"]


def test_slow_work_beyond_the_cores_waits_while_somebody_still_leads() -> None:
    running, most = [0], [0]
    guard, gate = threading.Lock(), threading.Semaphore(0)
    two_run = threading.Event()

    def slow() -> str:
        with guard:
            running[0] += 1
            most[0] = max(most[0], running[0])
        if most[0] == 2:
            two_run.set()
        gate.acquire(timeout=WAIT_S)
        with guard:
            running[0] -= 1
        return "done"

    with Pool(FakeService({b"slow": slow}), threads=8, cores=2) as channel:
        for _ in range(6):
            channel.put(b"slow")
        channel.put(b"quick")
        assert channel.wait_for_replies(1) == [b"quick"]
        assert two_run.wait(WAIT_S)
        gate.release(6)
        assert channel.wait_for_replies(7)[1:] == [b"'done'"] * 6
    assert most[0] == 2


def test_work_that_raises_is_an_outcome() -> None:
    def broken() -> None:
        raise ValueError

    with Pool(FakeService({b"broken": broken})) as channel:
        channel.put(b"broken")
        assert channel.wait_for_replies(1) == [b"ValueError()"]


def test_a_fault_in_a_turn_ends_no_worker(caplog: pytest.LogCaptureFixture) -> None:
    service = FakeService()
    service.faults_left = 3
    pool = Pool(service)
    with pool as channel:
        for _ in range(4):
            sent = len(caplog.records)
            channel.put(b"x")
            while len(caplog.records) == sent and not channel.sent:
                channel.wait(10)
        assert channel.wait_for_replies(1) == [b"x"]
    assert not pool.failed.is_set()
    assert SECRET not in caplog.text


def test_slow_work_that_would_end_its_thread_is_an_outcome_and_the_thread_goes_on() -> None:
    """Given two threads for slow work, if more pieces of it than that raise what ends a thread,

    I expect each to be answered, and every thread to be there for the work that follows.
    """

    def deadly() -> None:
        raise SystemExit

    pool = Pool(FakeService({b"deadly": deadly, b"sound": lambda: "done"}), threads=3)
    with pool as channel:
        for _ in range(5):
            channel.put(b"deadly")
        assert channel.wait_for_replies(5) == [b"RuntimeError('SystemExit')"] * 5
        channel.put(b"sound")
        assert channel.wait_for_replies(6)[5] == b"'done'"
    assert pool.pool.faults == 0


def test_a_worker_whose_loop_raises_goes_on_in_its_own_place(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Outside of turns, too: here the bell that tells of finished work breaks each time."""
    pool = Pool(FakeService({b"slow": lambda: "done"}), threads=2)
    wake, left = pool.channel.wake, [3]

    def broken() -> None:
        if threading.current_thread() in pool.pool._threads and left[0]:
            left[0] -= 1
            raise RuntimeError(SECRET)
        wake()

    pool.channel.wake = broken  # type: ignore[method-assign]
    with pool as channel:
        for number in range(1, 5):
            channel.put(b"slow")
            while channel.wait_for_replies(0).count(b"'done'") < number:
                channel.put(b"a turn")
                channel.wait(10)
        assert all(thread.is_alive() for thread in pool.pool._threads)
    assert pool.pool.faults == 3
    assert SECRET not in caplog.text


def test_a_worker_that_ends_before_it_is_told_to_ends_the_broker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Whatever goes wrong while a fault is dealt with: nothing that is up may be deaf."""
    service = FakeService()
    service.faults_left = 1

    def fail(error: BaseException) -> None:
        raise SystemExit

    pool = Pool(service, threads=2)
    monkeypatch.setattr(threading, "excepthook", lambda _: None)  # else pytest fails the test
    monkeypatch.setattr(pool.pool, "_survive", fail)
    with pool as channel:
        channel.put(b"x")
        assert pool.failed.wait(WAIT_S)


def test_faults_without_end_end_the_broker() -> None:
    service = FakeService()
    service.faults_left = 1_000
    pool = Pool(service)
    with pool as channel:
        while not pool.failed.is_set():
            channel.put(b"x")
            pool.failed.wait(0.01)


def test_a_failed_store_stops_the_pool_after_its_answers_were_sent() -> None:
    service = FakeService()
    service.fail = True
    pool = Pool(service)
    with pool as channel:
        channel.put(b"unavailable")
        assert channel.wait_for_replies(1) == [b"unavailable"]
        assert pool.failed.wait(WAIT_S)
        channel.put(b"never answered")
    assert len(channel.sent) == 1


def test_the_service_hears_of_peers_that_could_not_be_reached() -> None:
    service = FakeService()
    pool = Pool(service)
    pool.channel.unreachable = {b"gone": True, b"slow": False}
    with pool as channel:
        channel.put(b"x")
        channel.wait_for_replies(1)
    assert service.lost_routes[0] == {b"gone": True, b"slow": False}


def test_a_store_that_fails_while_it_is_tidied_stops_the_pool_too() -> None:
    service = FakeService()
    service.tidies = False
    pool = Pool(service)
    with pool as channel:
        channel.put(b"answered")
        assert channel.wait_for_replies(1) == [b"answered"]
        assert pool.failed.wait(WAIT_S)
