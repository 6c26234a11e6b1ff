"""Power cuts under a whole broker, with clients of the library at its door."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

from argon2 import PasswordHasher

from clients.client import Client
from tests.load.broker_process import BrokerProcess
from tests.proof.disk.course import USERS, Batch, Said
from tests.proof.disk.crowd import Crowd, Operation
from tests.proof.disk.interposer import Interposer
from tests.proof.disk.model import content_of, put_back
from tests.proof.disk.power import Breach, PowerCuts, cuts_of, judge_cut
from tests.proof.disk.running import scratch
from tests.proof.disk.store_calls import StoreCalls
from tests.proof.history import Record

CUTS_PER_KILL: Final = 4
_PASSWORD: Final = "kotak-disk"
_ANSWERS: Final = (30, 400)
_SECONDS_MAX: Final = 30.0


@contextmanager
def surrounded(variables: Mapping[str, str]) -> Iterator[None]:
    """Let processes that are started meanwhile find these variables."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value


def add_users(data: Path) -> None:
    """Make the accounts, with a cheap hash: nobody guesses passwords here."""
    hasher = PasswordHasher(time_cost=1, memory_cost=8, parallelism=1)
    with closing(StoreCalls(data)) as store:
        store.add_users(USERS, hasher.hash(_PASSWORD))


def log_in(address: str) -> dict[str, str]:
    """Return a token for each user."""
    tokens = {}
    for user in USERS:
        with Client(address) as client:
            tokens[user] = client.login(user, _PASSWORD).token
    return tokens


def _epoch(address: str, tokens: dict[str, str]) -> int:
    with Client(address, token=tokens[USERS[0]]) as client:
        return client.inbox(limit=1).epoch


def cut_power_of_broker(
    library: Path, *, kills: int, seed: int, show: Callable[[int], None] = lambda _: None
) -> PowerCuts:
    """Kill a broker under load ``kills`` times, and cut the power `CUTS_PER_KILL` times each.

    It goes on where the last cut left it; its clients keep their tokens throughout.
    """
    result = PowerCuts()
    with scratch() as place:
        machine = _Machine(library, place, seed)
        for kill in range(kills):
            machine.live(kill, result)
            show(result.cycles)
    return result


class _Machine:
    """A broker's folder and clients over all its lives."""

    def __init__(self, library: Path, place: Path, seed: int) -> None:
        self._library, self._place, self._seed = library, place, seed
        self._rng = random.Random(seed)
        self._data = place / "data"
        self._data.mkdir(mode=0o700)
        add_users(self._data)
        self._tokens: dict[str, str] = {}
        self._past: list[Record] = []

    def live(self, life: int, result: PowerCuts) -> None:
        """Serve, be killed, and lose power at a few moments of that life."""
        before, rng = content_of(self._data), self._rng
        with (
            Interposer(self._library, self._data, self._place) as disk,
            surrounded(disk.environment()),
            BrokerProcess(self._data) as broker,
        ):
            if not self._tokens:
                self._tokens = log_in(broker.doors.zmq)
            ready, ready_ns = len(disk.entries()), time.monotonic_ns()
            epoch = _epoch(broker.doors.zmq, self._tokens)
            answers = rng.randint(*_ANSWERS)
            records, faults = _load(broker, self._tokens, life, answers)
            entries = disk.entries()
            result.syncs += disk.syncs
        result.lives += 1
        if faults:  # a token that is no longer valid is one
            result.breaches.append(Breach(self._seed, life, 0, result.cycles, faults))
        said = Said(ready_ns, [_batch(record) for record in records], epoch)
        for cut in cuts_of(before, entries, rng, CUTS_PER_KILL, first=ready):
            found = judge_cut(cut, self._place / "cut", self._past, said, result)
            if found:
                breach = Breach(self._seed, life, cut.entries, result.cycles, found)
                result.breaches.append(breach)
        put_back(self._data, cut.image)
        self._past += records


def _batch(operation: Operation) -> Batch:
    """Return a client's operation as if it had been committed alone: its answer came alone."""
    return Batch([operation], operation.t1, operation.answer)


def _load(
    broker: BrokerProcess, tokens: dict[str, str], life: int, answers: int
) -> tuple[list[Operation], list[str]]:
    """Let clients work until there are so many answers, then kill the broker under them."""
    crowd = Crowd(broker.doors.zmq, tokens, life=life)
    deadline = time.monotonic() + _SECONDS_MAX
    try:
        while crowd.answered() < answers and not crowd.faults:
            assert time.monotonic() < deadline, f"no answers: {broker.last_words()}"
            time.sleep(0.002)
    finally:
        broker.kill()
        records = crowd.stop()
    return records, crowd.faults
