"""The connection: calls that are collected and sent in one round trip, and what its errors mean.

One caller at a time. A call is a tuple, ``("ZRANGE", key, ...)``, or a script by its name,
`script("append", place, ...)`.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Sequence
from importlib import resources
from typing import Any, Final

from redis.exceptions import (
    AskError,
    AuthenticationError,
    BusyLoadingError,
    ClusterDownError,
    ClusterError,
    MovedError,
    NoScriptError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisClusterException,
    RedisError,
    ResponseError,
    TryAgainError,
)
from redis.exceptions import ConnectionError as ConnectionLostError
from redis.exceptions import TimeoutError as NoAnswerError

from broker.core.ports import (
    StoreFailedError,
    StoreFullError,
    StoreUnavailableError,
    StoreUnusableError,
)
from broker.stores.redis.nodes import Call, Node, Nodes, nodes_of
from broker.stores.redis.url import RedisUrl

__all__ = ["CALLS_MAX", "ERRORS", "Call", "Link", "OnReply", "judged", "script"]

OnReply = Callable[[Any], None]

#: Calls in one pipeline: bounds what is held in memory for a batch, here and at the server.
CALLS_MAX: Final = 1_000
#: Times that calls are sent: where to, is found out on the way.
_ROUNDS_MAX: Final = 4
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
#: Refusals of a server that belong to its place in the cluster, or to what it was before.
_PASSING: Final = (ReadOnlyError, ClusterDownError, ClusterError, TryAgainError, AskError)
#: What a server says, by first word, that is not able to serve for a while.
_PASSES: Final = ("NOREPLICAS", "MASTERDOWN", "MISCONF", "BUSY", "CLUSTERDOWN", "LOADING", "UNKILL")
#: What a script says in whose midst the keys of its slot are being moved to another server.
_IN_MOTION: Final = "non local key"
#: What no promise rests on: it is only read, or made good by itself. No replica is waited for.
_LIGHT: Final = frozenset(
    {"GET", "EXISTS", "HGET", "HGETALL", "HMGET", "SCARD", "SISMEMBER", "SMISMEMBER"}
    | {"ZRANGE", "ZRANGEBYLEX", "ZRANGEBYSCORE", "ZREVRANGEBYSCORE", "ZSCORE"}
    | {"SPUBLISH", "XADD", "XRANGE", "XREVRANGE", "ZREMRANGEBYSCORE"}
)
_LIGHT_KEYS: Final = (":seen", ":due")
_LIGHT_SCRIPTS: Final = frozenset(
    _DIGESTS[name]
    for name in (
        "attempt",
        "draw",
        "expire",
        "give",
        "page",
        "peek",
        "pull",
        "read",
        "sent",
        "states",
        "tidy",
        "verify",
    )
)


def script(name: str, place: str, *args: object) -> Call:
    """Make the call of a script on one user or room."""
    # Two keys, of which the first never exists: while their slot is moved to another server, keys
    # are there in part, and a step would find half a mailbox. So a cluster answers TRYAGAIN.
    return ("EVALSHA", _DIGESTS[name], 2, place, f"{place}:meta", *args)


class Link:
    """One way to one server or cluster. What is told is sent with what is asked next.

    With ``replicas`` a batch counts only once as many have it.
    """

    def __init__(self, url: RedisUrl) -> None:
        self._nodes: Nodes = nodes_of(url)
        self._told: list[tuple[Call, OnReply | None]] = []
        self._confirm: Call | None = None
        self._replicas = 0
        self._lost: Callable[[], None] = lambda: None
        self._comparing = False
        try:
            self.everywhere("PING")
        except ERRORS as error:
            self.close()
            raise StoreUnusableError(_unreachable(url, error)) from error

    def require_replicas(self, count: int, *, fsync: bool, timeout_ms: int) -> None:
        """Have each batch confirmed from now on; ``fsync``: on their disks (7.2 and later)."""
        patience_ms = timeout_ms * 3 // 4  # less than the answer is waited for
        wait: Call = ("WAITAOF", 1, count, patience_ms) if fsync else ("WAIT", count, patience_ms)
        self._confirm, self._replicas = wait, count

    def when_lost(self, compare: Callable[[], None]) -> None:
        """Have ``compare`` called after a loss, before anything is repeated on the new one."""
        self._lost = compare

    @property
    def losses(self) -> int:
        """Count the connections that were lost: a server may have come back with less."""
        return self._nodes.losses

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

    def mend(self, calls: Sequence[Call]) -> list[Any]:
        """Ask without waiting for replicas: for what is done again should it be lost again."""
        confirm, self._confirm = self._confirm, None
        try:
            return self.ask(calls)
        finally:
            self._confirm = confirm

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

    def everywhere(self, *call: object) -> list[Any]:
        """Ask every primary server the same. Errors: `RedisError`, `OSError`."""
        return [node.ask(*call) for node in self._nodes.primaries()]

    def close(self) -> None:
        self._nodes.close()

    def _send(self, calls: list[Call]) -> list[Any]:
        try:
            replies = self._carried_out(calls)
        except ERRORS as error:
            raise judged(error) from error
        for reply in replies:
            if isinstance(reply, Exception):
                if isinstance(reply, ReadOnlyError | ClusterDownError):
                    self._nodes.look_again()  # it has become a replica
                raise judged(reply) from reply
        return replies

    def _carried_out(self, calls: list[Call]) -> list[Any]:
        """Send calls to whom they belong, until each has its answer."""
        replies: list[Any] = [None] * len(calls)
        left: Sequence[int] = range(len(calls))
        asking: dict[int, Node] = {}
        for number in range(_ROUNDS_MAX):
            try:
                by_node = self._divided(calls, left, asking)
                self._round(by_node, calls, replies, asking)
            except (BusyLoadingError, AuthenticationError):
                raise
            except ConnectionLostError:
                # Once more, since every step may be repeated: the server may have gone and come.
                self._nodes.look_again()
                if number or self._comparing:
                    raise
                self._compare()
                continue
            except ERRORS:
                self._nodes.look_again()
                raise
            left = self._not_there_yet(by_node, replies, asking)
            if not left:
                break
        return replies

    def _compare(self) -> None:
        self._comparing = True
        try:
            self._lost()
        finally:
            self._comparing = False

    def _divided(
        self, calls: list[Call], left: Sequence[int], asking: dict[int, Node]
    ) -> dict[Node, list[int]]:
        by_node: defaultdict[Node, list[int]] = defaultdict(list)
        for at in left:
            by_node[asking.get(at) or self._nodes.of(calls[at])].append(at)
        for node in by_node:
            if not node.prepared:  # or what is behind a script it lacks would come before it
                _load_scripts(node)
        return by_node

    def _round(
        self,
        by_node: dict[Node, list[int]],
        calls: list[Call],
        replies: list[Any],
        asking: dict[int, Node],
    ) -> None:
        """Send to all servers, then hear all."""
        if any(node.silent for node in by_node):
            raise NoAnswerError("a server gives no answer")  # before anybody is told anything
        batches = [self._batch(calls, places, asking) for places in by_node.values()]
        answers: list[list[Any]] = []
        try:
            for node, batch in zip(by_node, batches, strict=True):
                node.send(batch)
            for node, batch in zip(by_node, batches, strict=True):
                answers.append(node.receive(len(batch)))
        except BaseException:
            for node in [*by_node][len(answers) :]:
                node.hang_up()  # answers nobody hears would be taken for the next call's
            raise
        for places, batch, heard in zip(by_node.values(), batches, answers, strict=True):
            if batch[-1] is self._confirm:
                self._require_confirmed(heard.pop())
            told = (each for call, each in zip(batch, heard, strict=False) if call is not _ASKING)
            for at, answer in zip(places, told, strict=True):
                replies[at] = answer

    def _batch(self, calls: list[Call], places: list[int], asking: dict[int, Node]) -> list[Call]:
        batch = [calls[at] for at in places]
        if asking:
            batch = [each for at in places for each in _asked(calls[at], at in asking)]
        # On the same connection: after a failover it breaks, and is not answered by another server.
        if self._confirm is not None and not all(_is_light(call) for call in batch):
            batch.append(self._confirm)
        return batch

    def _require_confirmed(self, answer: Any) -> None:
        """Errors: `StoreUnavailableError`, where too few replicas have what was stored."""
        if isinstance(answer, ResponseError):
            raise judged(answer)
        local, reached = answer if isinstance(answer, list) else (1, answer)
        if local < 1 or reached < self._replicas:
            raise StoreUnavailableError(f"only {reached} of {self._replicas} replicas confirmed")

    def _not_there_yet(
        self, by_node: dict[Node, list[int]], replies: list[Any], asking: dict[int, Node]
    ) -> list[int]:
        """Return which calls have to be sent again, and see to it that they will be answered."""
        again: list[int] = []
        asking.clear()
        for node, places in by_node.items():
            lacking = False
            for at in places:
                reply = replies[at]
                if not isinstance(reply, NoScriptError | AskError):
                    continue
                again.append(at)
                lacking = lacking or isinstance(reply, NoScriptError)
                if isinstance(reply, MovedError):
                    self._nodes.look_again()
                elif isinstance(reply, AskError):
                    asking[at] = self._nodes.moved_to(reply.host, reply.port)
            if lacking:  # a server that was started anew, or has become a primary
                _load_scripts(node)
        again.sort()
        return again


def _load_scripts(node: Node) -> None:
    for text in _SCRIPTS.values():
        node.ask("SCRIPT LOAD", text)
    node.prepared = True


_ASKING: Final[Call] = ("ASKING",)


def _asked(call: Call, asking: bool) -> tuple[Call, ...]:  # noqa: FBT001 - what is in the name
    return (_ASKING, call) if asking else (call,)


def _is_light(call: Call) -> bool:
    if call[0] == "EVALSHA":
        return call[1] in _LIGHT_SCRIPTS
    return call[0] in _LIGHT or (len(call) > 1 and str(call[1]).endswith(_LIGHT_KEYS))


def _unreachable(url: RedisUrl, error: Exception) -> str:
    if isinstance(error, AuthenticationError):
        return f"Redis at {url.where} does not let us in ({_told_of(error)}): correct the password"
    if isinstance(error, BusyLoadingError):
        return f"Redis at {url.where} is still reading its data: start again in a moment"
    if isinstance(error, ClusterDownError) or "cluster support disabled" in str(error):
        return f"no Redis Cluster serves at {url.where} ({_told_of(error)})"
    return f"no Redis answers at {url.where} ({_told_of(error)}): start it, or correct the address"


def judged(error: Exception) -> Exception:
    """Tell what is full, what passes, and what is a fault. No text of a message gets into it."""
    text = str(error)
    if isinstance(error, OutOfMemoryError) or text.startswith("OOM"):
        return StoreFullError("Redis has reached its maxmemory")
    if isinstance(error, ResponseError) and not isinstance(error, _PASSING):
        if text.startswith(_PASSES) or _IN_MOTION in text:
            return StoreUnavailableError(text.partition(" ")[0])
        return StoreFailedError(f"Redis refused a step: {_told_of(error)}")
    return StoreUnavailableError(_told_of(error))


def _told_of(error: Exception) -> str:
    """Return an error's first line, cut short: scripts are quoted in it, arguments are not."""
    return str(error).partition("\n")[0][:200] or type(error).__name__
