"""What a server tells of itself, as far as no server here is like that."""

from __future__ import annotations

from typing import Any, cast

import pytest
from redis.exceptions import ResponseError

from broker.core.ports import (
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnusableError,
)
from broker.stores.redis.link import Link, judged
from broker.stores.redis.server import check_server
from broker.stores.redis.url import parse_url


class Told(Link):
    """A link to servers that are only described."""

    def __init__(self, *servers: dict[str, str], config: bool = True) -> None:
        self._servers = servers
        self._config = config
        self.required: tuple[int, bool] | None = None

    def everywhere(self, *call: object) -> list[Any]:
        if call == ("INFO",):
            return [
                "\r\n".join(f"{k}:{v}" for k, v in each.items()).encode() for each in self._servers
            ]
        if not self._config:
            raise ResponseError("NOPERM this user has no permissions to run 'config'")
        return [
            [word.encode() for name in call[1:] for word in (str(name), each[str(name)])]
            for each in self._servers
        ]

    def require_replicas(self, count: int, *, fsync: bool, timeout_ms: int) -> None:
        assert timeout_ms > 0
        self.required = (count, fsync)


def server(version: str = "7.0.15", **changes: str) -> dict[str, str]:
    return {
        "redis_version": version,
        "connected_slaves": "1",
        "maxmemory-policy": "noeviction",
        "maxmemory_policy": "noeviction",
        "appendonly": "yes",
        "aof_enabled": "1",
        "appendfsync": "always",
    } | {name.replace("__", "-"): value for name, value in changes.items()}


def test_what_is_too_old_is_refused() -> None:
    for version in ("6.2.14", "6.9", "0"):
        with pytest.raises(StoreUnusableError, match=r"too old: 7\.0 or later"):
            check_server(Told(server(version)), parse_url("redis://db"))
    assert check_server(Told(server("10.1.0")), parse_url("redis://db")) == "fsync"


def test_the_weakest_of_a_cluster_decides() -> None:
    url = parse_url("redis+cluster://db")
    assert check_server(Told(server(), server(appendfsync="everysec")), url) == "memory"
    with pytest.raises(StoreUnusableError, match="appendonly yes"):
        check_server(Told(server(), server(appendonly="no")), url)


def test_where_settings_may_not_be_asked_for_nothing_is_promised_of_the_disk() -> None:
    url = parse_url("redis://db")
    assert check_server(Told(server(), config=False), url) == "memory"
    for change, says in (({"aof_enabled": "0"}, "appendonly"), ({"maxmemory_policy": ""}, "tell")):
        with pytest.raises(StoreUnusableError, match=says):
            check_server(Told(server() | change, config=False), url)


@pytest.mark.parametrize(
    ("servers", "fsync"),
    [
        ([server("7.0.15")], False),
        ([server("7.2.4")], True),
        ([server("8.0.0"), server("7.0.1")], False),
        ([server("8.0.0", appendonly="no")], False),
    ],
)
def test_replicas_are_waited_for_on_their_disks_where_all_servers_can(
    servers: list[dict[str, str]], *, fsync: bool
) -> None:
    link = Told(*servers)
    url = parse_url("redis+cluster://db?replicas=1&allow_memory=yes")
    assert check_server(link, url) == "replicated=1"
    assert link.required == (1, fsync)


def test_too_few_confirmations_of_either_kind_are_no_answer() -> None:
    link = Link.__new__(Link)
    link._replicas = 2
    for enough in (2, 3, [1, 2]):
        link._require_confirmed(enough)
    for few in (1, 0, [0, 2], [1, 1]):
        with pytest.raises(StoreUnavailableError):
            link._require_confirmed(cast("Any", few))


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("OOM command not allowed when used memory > 'maxmemory'.", StoreFullError),
        ("NOREPLICAS Not enough good replicas to write.", StoreUnavailableError),
        ("MISCONF Redis is configured to save RDB snapshots", StoreUnavailableError),
        ("ERR Script attempted to access a non local key in a cluster node", StoreUnavailableError),
        ("WRONGTYPE Operation against a key", StoreFailedError),
    ],
)
def test_a_refusal_is_full_or_passes_or_is_a_fault(text: str, kind: type[Exception]) -> None:
    assert type(judged(ResponseError(text))) is kind
