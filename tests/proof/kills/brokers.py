"""Lives of a whole broker with clients of the library at its door, each killed and judged."""

from __future__ import annotations

import random
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from tests.load.broker_process import BrokerProcess, EndedAtStartError
from tests.proof.disk.crowd import Crowd, Operation
from tests.proof.disk.model import content_of, put_back
from tests.proof.disk.running import scratch
from tests.proof.disk.verdict import judge
from tests.proof.disk.whole import add_users, log_in, surrounded
from tests.proof.history import Record, Send
from tests.proof.kills.chain import Kills
from tests.proof.kills.points import BROKER, Point

#: After so many lives the folder is a new one: what is judged grows with each.
LIVES_PER_FOLDER: Final = 6
#: Milliseconds under load until a kill that comes from outside.
_KILL_MS: Final = (50, 250)
#: At which time of coming to a point the broker ends itself.
_NUMBERS: Final = (2, 40)
#: ... where each time is a second of messages that are purged, or a quarter MiB of log.
_RARE: Final = (1, 4)
#: A point that is not come to by then is given up, and the kill comes from outside.
_POINT_SECONDS_MAX: Final = 5.0
#: Retention is short, so that there is something to purge.
_OPTIONS: Final = ("--retention-read-ms", "1000", "--dedup-window-ms", "1000")


def kill_brokers(cycles: int, seed: int, show: Callable[[int], None] = lambda _: None) -> Kills:
    """Kill so many lives of a broker under load, at each of the points in turn."""
    result = Kills()
    with scratch() as place:
        for first in range(0, cycles, LIVES_PER_FOLDER):
            machine = _Machine(place / str(first), seed + first)
            for cycle in range(first, min(first + LIVES_PER_FOLDER, cycles)):
                machine.live(BROKER[cycle % len(BROKER)], result)
                show(cycle + 1)
    return result


class _Machine:
    """A broker's folder and clients over all its lives; its doors stay where they are."""

    def __init__(self, place: Path, seed: int) -> None:
        self._data, self._copy = place / "data", place / "copy"
        self._data.mkdir(mode=0o700, parents=True)
        add_users(self._data)
        self._seed, self._rng = seed, random.Random(seed)
        self._broker = BrokerProcess(
            self._data, program="tests.proof.kills.broker_life", options=_OPTIONS
        )
        self._tokens: dict[str, str] = {}
        self._past: list[Record] = []
        self._life = 0

    def live(self, point: Point, result: Kills) -> None:
        """Serve until the kill, and judge a copy of what is left."""
        rare = point in (Point.PURGE, Point.CHECKPOINT)
        number = self._rng.randint(*(_RARE if rare else _NUMBERS))
        variables = {
            "KILL_POINT": point.value,
            "KILL_NUMBER": str(number),
            "KILL_FOLDER": str(self._data),
        }
        if not self._tokens:  # logging in must not end by the kill
            with self._broker_of({**variables, "KILL_POINT": Point.ANY_TIME.value}) as broker:
                self._tokens = log_in(broker.doors.zmq)
        records: list[Operation] = []
        faults: list[str] = []
        at_point = True
        try:
            with self._broker_of(variables) as broker:
                records, faults, at_point = self._load(broker, point)
        except EndedAtStartError as error:  # which moves the log of the life before, too
            if error.code != -signal.SIGKILL:
                raise
        put_back(self._copy, content_of(self._data))
        found = faults + judge(self._copy, [*self._past, *records], repeat=records)
        result.cycles += 1
        result.killed[point.value] += at_point
        result.answered += sum(isinstance(r, Send) and r.answer is not None for r in records)
        result.silent += any(record.answer is None for record in records)
        result.breaches += [
            f"seed {self._seed}, life {self._life}, {point.value} ({number}): {each}"
            for each in found
        ]
        self._past += records
        self._life += 1

    def _broker_of(self, variables: dict[str, str]) -> BrokerProcess:
        """Return the broker, which will start with these variables."""
        broker = self._broker
        start = BrokerProcess.start

        def started() -> None:
            with surrounded(variables):
                start(broker)

        broker.start = started  # type: ignore[method-assign]
        return broker

    def _load(self, broker: BrokerProcess, point: Point) -> tuple[list[Operation], list[str], bool]:
        """Let clients work until the broker is dead; tell whether it died where it was to."""
        crowd = Crowd(broker.doors.zmq, self._tokens, life=self._life)
        outside = point is Point.ANY_TIME
        patience = self._rng.uniform(*_KILL_MS) / 1_000 if outside else _POINT_SECONDS_MAX
        until = time.monotonic() + patience
        while broker.alive and time.monotonic() < until:
            time.sleep(0.002)
        at_point = outside == broker.alive
        try:
            broker.kill()
        finally:
            records = crowd.stop()
        return records, crowd.faults, at_point
