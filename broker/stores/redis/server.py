"""What a server must be set to, and what the end of a batch achieves on it.

Source: docs/DURABILITY.md, "What OK means".
"""

from __future__ import annotations

from typing import Any

from redis.exceptions import ResponseError

from broker.core.ports import StoreUnusableError
from broker.stores.redis.link import ERRORS, Link
from broker.stores.redis.url import RedisUrl

_VERSION_MIN = (7, 0)


def check_server(link: Link, url: RedisUrl) -> str:
    """Return ``fsync`` or ``memory``. Errors: `StoreUnusableError`, saying what to set.

    Every primary of a cluster is asked; the weakest decides.
    """
    try:
        infos = link.everywhere("INFO")
        settings = [_settings(link, index, info) for index, info in enumerate(infos)]
    except ERRORS as error:
        raise StoreUnusableError(f"Redis does not tell its settings ({error})") from error
    for info in infos:
        _check_version(str(info.get("redis_version", "0")))
    for each in settings:
        if each["maxmemory-policy"] != "noeviction":
            raise StoreUnusableError(
                f"this Redis throws data away when it is full ({each['maxmemory-policy']}):"
                " set maxmemory-policy noeviction"
            )
        if each["appendonly"] != "yes" and not url.allow_memory:
            raise StoreUnusableError(
                "this Redis keeps no append-only file, so a restart loses everything: set"
                " appendonly yes, or add ?allow_memory=yes to the store's URL"
            )
    always = all((s["appendonly"], s["appendfsync"]) == ("yes", "always") for s in settings)
    return "fsync" if always else "memory"


def _settings(link: Link, index: int, info: dict[str, Any]) -> dict[str, str]:
    """Return what one server is set to; where CONFIG is forbidden, as far as INFO tells."""
    try:
        found = link.everywhere("CONFIG GET", "appendonly", "appendfsync", "maxmemory-policy")[
            index
        ]
    except ResponseError:
        return {
            "maxmemory-policy": str(info.get("maxmemory_policy", "")),
            "appendonly": "yes" if info.get("aof_enabled") else "no",
            "appendfsync": "",  # not told: then nothing is promised
        }
    return {_text(key): _text(value) for key, value in dict(found).items()}


def _text(value: Any) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


def _check_version(version: str) -> None:
    numbers = tuple(int(part) for part in version.split(".")[:2] if part.isdecimal())
    if numbers < _VERSION_MIN:
        raise StoreUnusableError(f"Redis {version} is too old: 7.0 or later, or Valkey 7.2")
