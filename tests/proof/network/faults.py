"""The faults, and how each comes and goes."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import Final, NamedTuple

from tests.proof.network.proxy import CALM, Proxy, Weather

#: How often connections are reset where that happens again and again.
_RESET_EVERY_S: Final = 0.1


class Fault(NamedTuple):
    """``strike`` lasts for so many seconds and leaves a fault behind that calm weather ends."""

    name: str
    strike: Callable[[Proxy, float], None]


def _weather(weather: Weather, proxy: Proxy, seconds: float) -> None:
    proxy.weather = weather
    time.sleep(seconds)


def _reset_once(proxy: Proxy, seconds: float) -> None:
    time.sleep(seconds)
    proxy.reset()


def _reset_often(proxy: Proxy, seconds: float) -> None:
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        time.sleep(_RESET_EVERY_S)
        proxy.reset()


def _unreachable(proxy: Proxy, seconds: float) -> None:
    proxy.weather = Weather(refuses=True)
    proxy.reset()
    time.sleep(seconds)


def _half_close(proxy: Proxy, seconds: float, *, up: bool) -> None:
    proxy.half_close(up=up)
    time.sleep(seconds)
    proxy.reset()  # nobody need know that half a connection is none


def _falls(name: str, weather: Weather) -> Fault:
    return Fault(name, partial(_weather, weather))


FAULTS: Final = (
    _falls("latency 100 ms", Weather(latency_ms=100)),
    _falls("jitter up to 200 ms", Weather(jitter_ms=200)),
    _falls("20 000 bytes a second", Weather(bytes_per_s=20_000)),
    _falls("single bytes", Weather(slice_bytes=1)),
    _falls("slices of a few bytes", Weather(slice_bytes=7)),
    _falls("a hole towards the broker", Weather(hole_up=True)),
    _falls("a hole towards the client", Weather(hole_down=True)),
    _falls("a partition", Weather(hole_up=True, hole_down=True)),
    Fault("a reset", _reset_once),
    Fault("resets, one after the other", _reset_often),
    Fault("unreachable", _unreachable),
    Fault("the client's half closed", partial(_half_close, up=True)),
    Fault("the broker's half closed", partial(_half_close, up=False)),
)


def strike(fault: Fault, proxy: Proxy, seconds: float) -> int:
    """Let a fault come, stay and go; return when it was gone (ns of CLOCK_MONOTONIC)."""
    try:
        fault.strike(proxy, seconds)
    finally:
        proxy.weather = CALM
    return time.monotonic_ns()
