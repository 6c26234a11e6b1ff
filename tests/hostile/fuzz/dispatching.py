"""The loop over the service: turns of fuzzed requests, world after world, some of them traced."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import count
from random import Random
from typing import Any, Final

from broker.wire.codec import unpack_reply
from broker.wire.envelope import encoder
from broker.wire.limits import FRAMES_PER_MESSAGE_MAX
from tests.hostile.fuzz import cases
from tests.hostile.fuzz.arcs import Arcs
from tests.hostile.fuzz.desk import ROOMS, ROUTES, USERS, Desk
from tests.hostile.fuzz.grammar import COMMANDS, Grammar
from tests.hostile.fuzz.mutate import mutate
from tests.hostile.fuzz.tally import Failure, Tally, resident_bytes

TARGET: Final = "service"
#: Steps in one world; a case that is found is no longer than that.
STEPS: Final = 300
#: Steps between two audits, and between two looks at the tokens that are good.
AUDIT: Final = 50
LOOK: Final = 10
#: The first worlds are traced, and then one of so many.
TRACED_FIRST: Final = 2
TRACED: Final = 12
#: Frames that led to new code, to be sent again and changed.
FRAMES_MAX: Final = 500
_PASSWORDS: Final = ("password", "password", "another-password", "short", "")
#: Send and read more often than administer, and seldom do what ends all sessions: a world without
#: accounts teaches nothing.
_TIMES: Final = {
    **dict.fromkeys(("chat", "send"), 30),
    **dict.fromkeys(("kotakmasuk", "ack", "subscribe", "login", "room_join", "history"), 10),
    **dict.fromkeys(("user_remove", "user_passwd", "passwd", "logout", "key_remove"), 1),
    **dict.fromkeys(("session_revoke", "session_revoke_all", "user_role", "broker_drain"), 1),
}

_encode: Final = encoder()


class Steps:
    """Makes the steps of worlds."""

    def __init__(self, rng: Random) -> None:
        self._rng = rng
        self._frames: deque[bytes] = deque(
            cases.read_all(cases.CORPUS, "request") or [b"\x90"], maxlen=FRAMES_MAX
        )
        words = [word for word in COMMANDS for _ in range(_TIMES.get(word, 4))]
        self._plain = Grammar(
            rng,
            users=(*USERS, *USERS, "eko", "nobody"),
            rooms=ROOMS,
            commands=words,
            passwords=_PASSWORDS,
            oddity=0.02,
        )

    def know(self, tokens: Sequence[str | None]) -> None:
        """Use these tokens from now on."""
        self._plain.know(tokens)

    def step(self) -> list[Any]:
        """Make the next step: nearly always a turn."""
        rng = self._rng
        kind = rng.random()
        if kind < 0.95:
            return self._turn()
        if kind < 0.97:
            return ["tidy", rng.randrange(2_000)]
        if kind < 0.985:
            return ["lost", rng.choice(ROUTES), rng.random() < 0.5]
        if kind < 0.99:
            return ["full", rng.random() < 0.4]
        if kind < 0.997:
            return ["fault", rng.randrange(1, 3)]
        return ["drain", rng.random() < 0.3]

    def learn(self, step: list[Any]) -> None:
        """Keep the frames of a step that led to new code."""
        if step[0] == "turn":
            self._frames.extend(frame for _, frames in step[2] for frame in frames or ())

    def _turn(self) -> list[Any]:
        rng = self._rng
        ms = rng.choice((0, 1, 1, 5, 50, 1_500)) if rng.random() < 0.97 else rng.randrange(70_000)
        arrivals = [
            [rng.choice(ROUTES), self._message()] for _ in range(rng.choice((0, 1, 1, 2, 3)))
        ]
        return ["turn", ms, arrivals, rng.random() < 0.5]

    def _message(self) -> list[bytes] | None:
        rng = self._rng
        kind = rng.random()
        if kind < 0.85:
            return [self._plain.request() for _ in range(rng.randrange(1, 12))]
        if kind < 0.93:
            message = self._plain.message()
            # What the door itself refuses comes without its frames.
            return message if len(message) <= FRAMES_PER_MESSAGE_MAX else None
        pick, chance = rng.choice, rng.random
        return [mutate(pick(self._frames), pick(self._frames), chance) for _ in range(1, 6)]


class Dispatching:
    """One process's share."""

    def __init__(self, seed: str, *, desk: Callable[[int], Desk] = Desk) -> None:
        self._seed = seed
        self._desk = desk
        self._steps = Steps(Random(seed))
        self._arcs = Arcs()
        self.tally = Tally("service")

    def run(self, wanted: int, *, seconds_max: float, told: Callable[[int], None]) -> Tally:
        """Send ``wanted`` requests; ``told`` hears after each world how many have been."""
        tally, began, warm = self.tally, time.monotonic(), 0
        with quiet():
            for number in count():
                if tally.inputs >= wanted or time.monotonic() - began >= seconds_max:
                    break
                traced = number < TRACED_FIRST or not number % TRACED
                self._world(number, wanted - tally.inputs, traced=traced)
                if not warm and tally.inputs >= wanted // 5:
                    warm = resident_bytes()
                told(tally.inputs)
        tally.seconds = time.monotonic() - began
        tally.arcs = tally.new_arcs = len(self._arcs)
        tally.growth_bytes = max(0, resident_bytes() - warm) if warm else 0
        return tally

    def _world(self, variant: int, wanted: int, *, traced: bool) -> None:
        taken: list[list[Any]] = []
        try:
            desk = self._desk(variant)
            for number in range(1, STEPS + 1):
                if not (number - 1) % LOOK:
                    self._steps.know(desk.tokens())
                taken.append(self._steps.step())
                self._take(desk, taken[-1], traced=traced)
                if not number % AUDIT:
                    desk.audit()
                if desk.requests >= wanted:
                    break
            desk.audit()
            self.tally.inputs += desk.requests
        except Exception as error:  # noqa: BLE001 - whatever it is, it has been found
            self.tally.inputs += len(taken)
            self._failed(variant, taken, error)

    def _take(self, desk: Desk, step: list[Any], *, traced: bool) -> None:
        if not traced:
            desk.step(step)
            return
        with self._arcs.watch() as new:
            desk.step(step)
        if new():
            self._steps.learn(step)

    def _failed(self, variant: int, taken: list[list[Any]], error: Exception) -> None:
        name = cases.signature(TARGET, error)
        case = cases.OPEN.get(name, "")
        if not case and all(each.signature != name for each in self.tally.failures):
            fewest = cases.shrink(taken, lambda steps: self._fails(variant, steps, name), tries=300)
            path = cases.keep(cases.FOUND, TARGET, _encode([variant, fewest]))
            case = f"{TARGET}/{path.name}"
        seed = f"{self._seed} +{self.tally.inputs}"
        self.tally.count(Failure(name, case, seed, known=name in cases.OPEN))

    def _fails(self, variant: int, steps: list[list[Any]], name: str) -> bool:
        try:
            replay(_encode([variant, steps]), desk=self._desk)
        except Exception as error:  # noqa: BLE001 - as above
            return cases.signature(TARGET, error) == name
        return False


def replay(case: bytes, *, desk: Callable[[int], Desk] = Desk) -> None:
    """Feed the steps of a case to a new world. Raises what is wrong."""
    variant, steps = unpack_reply(case)
    with quiet():
        world = desk(variant)
        for step in steps:
            world.step(step)
        world.audit()


@contextmanager
def quiet() -> Iterator[None]:
    """Leave the broker's own log out: a fault is reported by what it answers."""
    logger = logging.getLogger("kotak")
    before = logger.disabled, logger.level
    logger.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        logger.setLevel(before[1])
