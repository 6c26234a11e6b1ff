"""The connection: calls that are collected and sent in one round trip, and what its errors mean.

One caller at a time. A call is a tuple, ``("ZRANGE", key, ...)``, or a script by its name,
`script("append", place, ...)`.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Final

import redis
from redis.backoff import NoBackoff
from redis.cluster import ClusterNode, RedisCluster
from redis.exceptions import (
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.retry import Retry

from broker.core.ports import (
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnusableError,
)
from broker.stores.redis.url import RedisUrl

Call = tuple[Any, ...]
OnReply = Callable[[Any], None]

#: Calls in one pipeline: bounds what is held in memory for a batch, here and at the server.
CALLS_MAX: Final = 1_000
_SCRIPTS: Final = {
    path.name.removesuffix(".lua"): path.read_bytes()
    for path in (resources.files(__package__) / "scripts").iterdir()
    if path.name.endswith(".lua")
}
_DIGESTS: Final = {
    name: hashlib.sha1(text, usedforsecurity=False).hexdigest() for name, text in _SCRIPTS.items()
}
#: All that the client raises; those of a cluster have a tree of their own.
ERRORS: Final = (RedisError, RedisClusterException, OSError)
#: What a server says, by first word, that is not able to serve for a while.
_PASSES: Final = ("NOREPLICAS", "MASTERDOWN", "MISCONF", "BUSY", "CLUSTERDOWN", "LOADING", "UNKILL")


def script(name: str, place: str, *args: object) -> Call:
    """Make the call of a script on one user or room."""
    return ("EVALSHA", _DIGESTS[name], 1, place, *args)


class Link:
    """One client of one server or cluster. What is told is sent with what is asked next."""

    def __init__(self, url: RedisUrl) -> None:
        self._client = _connect(url)
        self._told: list[tuple[Call, OnReply | None]] = []
        try:
            self._load_scripts()
        except ERRORS as error:
            self.close()
            raise StoreUnusableError(
                f"no Redis answers at {url.hosts[0][0]}:{url.hosts[0][1]} ({_told_of(error)}):"
                " start it, or correct the address"
            ) from error

    def tell(self, call: Call, on_reply: OnReply | None = None) -> None:
        """Have something done by the end of the batch; ``on_reply`` hears the answer then."""
        self._told.append((call, on_reply))
        if len(self._told) >= CALLS_MAX:
            self.flush()

    def ask(self, calls: Sequence[Call]) -> list[Any]:
        """Do all that was told, then these, and return the answers to these.

        Errors: `StoreFullError`, `StoreUnavailableError`, `StoreFailedError`.
        """
        told, self._told = self._told, []
        if not told and not calls:
            return []
        replies = self._send([*(call for call, _ in told), *calls])
        for (_, on_reply), reply in zip(told, replies, strict=False):
            if on_reply is not None:
                on_reply(reply)
        return replies[len(told) :]

    def one(self, call: Call) -> Any:
        """Ask one thing."""
        (reply,) = self.ask([call])
        return reply

    def flush(self) -> None:
        """Do all that was told."""
        self.ask([])

    def drop(self) -> None:
        """Forget what was told and not yet sent."""
        self._told.clear()

    def everywhere(self, *args: object) -> list[Any]:
        """Ask every primary server the same. Errors: `RedisError`."""
        if isinstance(self._client, RedisCluster):
            nodes = self._client.get_primaries()
            return [self._client.execute_command(*args, target_nodes=[node]) for node in nodes]
        return [self._client.execute_command(*args)]

    def close(self) -> None:
        self._client.close()

    def _send(self, calls: list[Call]) -> list[Any]:
        try:
            replies = self._pipelined(calls)
            missing = [at for at, each in enumerate(replies) if isinstance(each, NoScriptError)]
            if missing:  # a server that was started anew, or has become a primary
                self._load_scripts()
                again = self._pipelined([calls[at] for at in missing])
                for at, reply in zip(missing, again, strict=True):
                    replies[at] = reply
        except ERRORS as error:
            raise judged(error) from error
        for reply in replies:
            if isinstance(reply, Exception):
                raise judged(reply) from reply
        return replies

    def _pipelined(self, calls: list[Call]) -> list[Any]:
        # Not a transaction: each call is a step of its own, on whatever node has its slot.
        with self._client.pipeline(transaction=False) as pipeline:
            for call in calls:
                pipeline.execute_command(*call)
            replies: list[Any] = pipeline.execute(raise_on_error=False)
        return replies

    def _load_scripts(self) -> None:
        for text in _SCRIPTS.values():
            self.everywhere("SCRIPT LOAD", text)


def _connect(url: RedisUrl) -> redis.Redis | RedisCluster:
    options: dict[str, Any] = {
        "username": url.username,
        "password": url.password,
        "ssl": url.tls,
        "socket_timeout": url.timeout_ms / 1_000,
        "socket_connect_timeout": url.timeout_ms / 1_000,
        "client_name": "kotak",
        "protocol": 2,  # one shape of answers, whatever the server offers
        # Once more after a connection broke: every step may be repeated.
        "retry": Retry(NoBackoff(), 1),
    }
    if not url.cluster:
        host, port = url.hosts[0]
        return redis.Redis(host, port, **options)
    try:
        nodes = [ClusterNode(host, port) for host, port in url.hosts]
        return RedisCluster(startup_nodes=nodes, **options)
    except ERRORS as error:
        raise StoreUnusableError(
            f"no Redis Cluster answers at {url.hosts[0][0]}:{url.hosts[0][1]}"
            f" ({_told_of(error)}): start it, or correct the addresses"
        ) from error


def judged(error: Exception) -> Exception:
    """Tell what is full, what passes, and what is a fault. No text of a message gets into it."""
    if isinstance(error, OutOfMemoryError):
        return StoreFullError("Redis has reached its maxmemory")
    passing = (BusyLoadingError, ReadOnlyError, ClusterDownError, ClusterError, TryAgainError)
    if isinstance(error, (*passing, RedisClusterException)):
        return StoreUnavailableError(_told_of(error))
    if isinstance(error, ResponseError):
        text = str(error)
        if text.startswith("OOM"):
            return StoreFullError("Redis has reached its maxmemory")
        if text.startswith(_PASSES):
            return StoreUnavailableError(text.partition(" ")[0])
        return StoreFailedError(f"Redis refused a step: {_told_of(error)}")
    return StoreUnavailableError(_told_of(error))


def _told_of(error: Exception) -> str:
    """Return an error's first line, cut short: scripts are quoted in it, arguments are not."""
    return str(error).partition("\n")[0][:200] or type(error).__name__
