"""Message ids: ULIDs, 26 characters that sort by time and never repeat.

48 bits of milliseconds and 80 random bits, in Crockford's base 32. Within one generator they
grow strictly, even when the clock steps back. The specification: https://github.com/ulid/spec.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Final

_ALPHABET: Final = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
#: Two characters at a time: ten bits.
_PAIRS: Final = tuple(a + b for a in _ALPHABET for b in _ALPHABET)

#: The last four characters are a counter of 20 bits; the 22 before them change with the clock.
_COUNTER_END: Final = 1 << 20
#: The random start of the counter leaves its upper half free: 2^19 ids for each millisecond.
_COUNTER_START_MASK: Final = (1 << 19) - 1
#: Random bits in front of the counter.
_RANDOM_BITS: Final = 60
#: What a new prefix takes of random bytes: those bits, and the counter's start.
_RANDOM_BYTES: Final = 8
_COUNTER_BYTES: Final = 4


class MessageIds:
    """A generator of ids for one thread; call it, or take `many`.

    ``clock_ns`` returns nanoseconds since the Unix epoch, ``random_bytes`` so many random bytes.
    """

    def __init__(
        self,
        *,
        clock_ns: Callable[[], int] = time.time_ns,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._clock_ns = clock_ns
        self._random_bytes = random_bytes
        self._ms = -1
        self._ms_end_ns = 0  # of the millisecond that the prefix is for
        self._random = 0
        self._prefix = ""
        self._counter = _COUNTER_END

    def __call__(self) -> str:
        # Hot path: an id costs a clock reading and two look-ups; the prefix is made once a
        # millisecond. (0.2 us against 2.5 us for encoding all 26 characters.)
        now_ns = self._clock_ns()
        if now_ns >= self._ms_end_ns or self._counter >= _COUNTER_END:
            self._renew(now_ns // 1_000_000)
        counter = self._counter
        self._counter = counter + 1
        return self._prefix + _PAIRS[counter >> 10] + _PAIRS[counter & 1023]

    def many(self, count: int) -> list[str]:
        """Return so many ids, as that many calls would."""
        # Hot path: all but the last two characters is the same for those of one 1024th of a
        # counter, so that most ids cost one concatenation. (0.06 us against 0.25 us for a call.)
        ids: list[str] = []
        now_ns = self._clock_ns()
        while len(ids) < count:
            if now_ns >= self._ms_end_ns or self._counter >= _COUNTER_END:
                self._renew(now_ns // 1_000_000)
            head = self._prefix + _PAIRS[self._counter >> 10]
            begin = self._counter & 1023
            tails = _PAIRS[begin : begin + count - len(ids)]
            ids += [head + tail for tail in tails]
            self._counter += len(tails)
        return ids

    def _renew(self, now_ms: int) -> None:
        # Who sends one by one comes here for each message: one system call, eleven look-ups.
        random = self._random_bytes(_RANDOM_BYTES + _COUNTER_BYTES)
        if now_ms > self._ms:
            self._ms = now_ms
            self._random = int.from_bytes(random[:_RANDOM_BYTES]) >> (64 - _RANDOM_BITS)
        else:
            # The counter is used up, or the clock stepped back: the next prefix, same time.
            self._random += 1
            if self._random >> _RANDOM_BITS:
                self._random = 0
                self._ms += 1
        self._ms_end_ns = (self._ms + 1) * 1_000_000
        self._counter = int.from_bytes(random[_RANDOM_BYTES:]) & _COUNTER_START_MASK
        self._prefix = _encode(self._ms << _RANDOM_BITS | self._random)


#: Where the pairs of a prefix begin in its 110 bits, most significant first.
_SHIFTS: Final = tuple(range(100, -1, -10))


def _encode(prefix: int) -> str:
    return "".join([_PAIRS[prefix >> shift & 1023] for shift in _SHIFTS])
