"""What a server must be set to, and what the end of a batch achieves on it.

Source: docs/DURABILITY.md, "What OK means".
"""

from __future__ import annotations

import logging
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from redis.exceptions import ResponseError

from broker.core.ports import StoreUnusableError
from broker.stores.redis.link import ERRORS, Link
from broker.stores.redis.url import RedisUrl

log = logging.getLogger("kotak.stores")

_VERSION_MIN: Final = (7, 0)
#: From here on a server can wait until replicas have a write on their disks.
_WAITAOF_MIN: Final = (7, 2)
_SETTINGS: Final = ("maxmemory-policy", "appendonly", "appendfsync")


class Server(NamedTuple):
    """What one primary says of itself."""

    version: tuple[int, ...]
    replicas: int
    settings: dict[str, str]

    @property
    def keeps(self) -> bool:
        return self.settings["appendonly"] == "yes"

    @property
    def syncs(self) -> bool:
        return self.keeps and self.settings["appendfsync"] == "always"


def check_server(link: Link, url: RedisUrl) -> str:
    """Return what the end of a batch achieves: ``fsync``, ``replicated=N`` or ``memory``.

    Every primary of a cluster is asked; the weakest decides. Where ``replicas`` are wanted, the
    link waits for them from here on. Errors: `StoreUnusableError`, saying what to set.
    """
    try:
        infos = [_pairs(text) for text in link.everywhere("INFO")]
        settings = _settings(link, infos)
    except ERRORS as error:
        raise StoreUnusableError(f"Redis does not tell its settings ({error})") from error
    servers = [_server(info, each) for info, each in zip(infos, settings, strict=False)]
    for server in servers:
        _check(server, url)
    if url.replicas:
        return _with_replicas(link, url, servers)
    return "fsync" if all(server.syncs for server in servers) else "memory"


def _check(server: Server, url: RedisUrl) -> None:
    if server.version < _VERSION_MIN:
        version = ".".join(map(str, server.version))
        raise StoreUnusableError(f"Redis {version} is too old: 7.0 or later, or Valkey 7.2")
    policy = server.settings["maxmemory-policy"]
    if policy != "noeviction":
        raise StoreUnusableError(
            f"this Redis throws data away when it is full ({policy or 'it does not tell how'}):"
            " set maxmemory-policy noeviction"
        )
    if not server.keeps and not url.allow_memory:
        raise StoreUnusableError(
            "this Redis keeps no append-only file, so a restart loses everything: set"
            " appendonly yes, or add ?allow_memory=yes to the store's URL"
        )


def _with_replicas(link: Link, url: RedisUrl, servers: Iterable[Server]) -> str:
    fewest = min(server.replicas for server in servers)
    if fewest < url.replicas:
        # Not refused: after a failover, say, one of them is on its way.
        log.warning(
            "a Redis primary has %d replicas: nothing is stored until it has replicas=%d",
            fewest,
            url.replicas,
        )
    fsync = all(server.keeps and server.version >= _WAITAOF_MIN for server in servers)
    link.require_replicas(url.replicas, fsync=fsync, timeout_ms=url.timeout_ms)
    return f"replicated={url.replicas}"


def _settings(link: Link, infos: list[dict[str, str]]) -> list[dict[str, str]]:
    """Return what each is set to; where CONFIG is forbidden, as far as INFO tells."""
    try:
        found = link.everywhere("CONFIG GET", *_SETTINGS)
    except ResponseError:
        return [
            {
                "maxmemory-policy": info.get("maxmemory_policy", ""),
                "appendonly": "yes" if info.get("aof_enabled") == "1" else "no",
                "appendfsync": "",  # not told: then nothing is promised
            }
            for info in infos
        ]
    return [
        dict.fromkeys(_SETTINGS, "") | dict(zip(words[::2], words[1::2], strict=True))
        for words in ([word.decode() for word in flat] for flat in found)
    ]


def _server(info: dict[str, str], settings: dict[str, str]) -> Server:
    version = info.get("redis_version", "0").split(".")[:2]
    return Server(
        tuple(int(part) for part in version if part.isdecimal()),
        int(info.get("connected_slaves", 0)),
        settings,
    )


def _pairs(text: Any) -> dict[str, str]:
    """Take the answer to INFO apart: lines of ``name:value``."""
    lines = (line.partition(":") for line in text.decode().splitlines())
    return {name: value for name, colon, value in lines if colon}
