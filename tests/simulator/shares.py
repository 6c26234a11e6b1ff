"""Many seeds on all cores: each process takes a few at a time."""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from contextlib import AbstractContextManager
from itertools import islice
from typing import Final

from tests.simulator.disk import Place, disks
from tests.simulator.redis_disk import redis_place
from tests.simulator.run import Result, run

#: Seeds that a process is given at once: half a second of work.
_SHARE: Final = 5


def place(*, redis: bool) -> AbstractContextManager[Place]:
    """Make a place for runs over the local engines, or over a Redis server."""
    return redis_place() if redis else disks()


def results(
    seeds: Sequence[int], processes: int, until: float, *, redis: bool = False
) -> Iterator[Result]:
    """Run the seeds, in no order; begin no further share when it is ``until`` (monotonic)."""
    shares = (seeds[at : at + _SHARE] for at in range(0, len(seeds), _SHARE))
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=spawn) as pool:
        # One share more than there are processes: none waits for its next.
        running = {pool.submit(_run_all, share, redis) for share in islice(shares, processes + 1)}
        while running:
            done, running = wait(running, return_when=FIRST_COMPLETED)
            if time.monotonic() < until:
                more = islice(shares, len(done))
                running |= {pool.submit(_run_all, share, redis) for share in more}
            for share in done:
                yield from share.result()


def _run_all(seeds: Sequence[int], redis: bool) -> list[Result]:  # noqa: FBT001 - as `submit` has it
    with place(redis=redis) as there:
        return [run(seed, there) for seed in seeds]
