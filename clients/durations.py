"""Spans of time as people write and read them: ``5m`` in, ``5 minutes ago`` out."""

from __future__ import annotations

import re
from typing import Final

from broker.wire.limits import TTL_MS_MAX, TTL_MS_MIN

_SECOND_MS: Final = 1_000
_MINUTE_MS: Final = 60 * _SECOND_MS
_HOUR_MS: Final = 60 * _MINUTE_MS
_DAY_MS: Final = 24 * _HOUR_MS
_UNITS_MS: Final = {"s": _SECOND_MS, "m": _MINUTE_MS, "h": _HOUR_MS, "d": _DAY_MS}
_WORDS: Final = ((_DAY_MS, "day"), (_HOUR_MS, "hour"), (_MINUTE_MS, "minute"))
#: No more digits than the longest time has in seconds.
_GIVEN: Final = re.compile(r"([0-9]{1,9})([smhd])")


def ttl_ms(text: str) -> int:
    """Return how long ``30s``, ``5m``, ``2h`` or ``7d`` is, in milliseconds.

    Errors: `ValueError`, whose text says what is allowed (docs/PROTOCOL.md, "chat").
    """
    match = _GIVEN.fullmatch(text)
    span_ms = int(match[1]) * _UNITS_MS[match[2]] if match else 0
    if not TTL_MS_MIN <= span_ms <= TTL_MS_MAX:
        raise ValueError(
            "give a number and a unit, as 30s, 5m, 2h or 7d: "
            f"{TTL_MS_MIN // _SECOND_MS}s at least, {TTL_MS_MAX // _DAY_MS}d at most"
        )
    return span_ms


def ago(span_ms: int) -> str:
    """Say how long ago something was, to its largest unit; clocks that disagree make no future."""
    for unit_ms, word in _WORDS:
        count = span_ms // unit_ms
        if count > 0:
            return f"{count} {word}{'s' * (count > 1)} ago"
    return "just now"
