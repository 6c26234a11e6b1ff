"""The servers behind a URL, and which of them has what.

Connections and parsing are the library's. Its pipeline over a cluster is not used: when a
server does not answer, it repeats each call alone, and each waits for its own time-out, so that one
stopped primary would hold a batch of hundreds for minutes. Here a server that kept silent is left
alone for a while, and what is for it is refused at once.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from typing import Any, Final, Protocol

from redis.backoff import NoBackoff
from redis.connection import Connection, SSLConnection
from redis.crc import key_slot
from redis.exceptions import ClusterDownError, RedisError, ResponseError
from redis.exceptions import ConnectionError as ConnectionLostError
from redis.exceptions import TimeoutError as NoAnswerError
from redis.retry import Retry

from broker.stores.redis.url import Address, RedisUrl

pack_command: Callable[[Any], bytes] | None = None
with suppress(ImportError):  # the extra brings it; who installs the library alone has none
    from hiredis import pack_command

Call = tuple[Any, ...]

#: A sentinel is one of several, and knows the answer by heart: seconds until the next is asked.
_SENTINEL_S: Final = 0.5


class Node:
    """One server, and the one connection to it, which is made when it is needed."""

    def __init__(self, connect: Callable[[], Connection], *, patience_s: float) -> None:
        #: Makes another connection, for the caller. Errors: `RedisError`, `OSError`.
        self.connect = connect
        self._patience_s = patience_s
        self._connection: Connection | None = None
        self._silent_until = 0.0
        #: For the caller: whether it has what it needs, since the connection was made.
        self.prepared = False
        #: How often the connection was lost: what was stored meanwhile may have been, too.
        self.losses = 0

    @property
    def silent(self) -> bool:
        """Tell whether it gave no answer lately."""
        return time.monotonic() < self._silent_until

    def send(self, calls: Sequence[Call]) -> None:
        """Send calls; `receive` as many answers. Errors: `RedisError`, `OSError`."""
        if self.silent:
            raise NoAnswerError("a server gives no answer")
        try:
            if self._connection is None:
                self._connection = self.connect()
            packed = _packed(self._connection, calls)
            self._connection.send_packed_command(packed, check_health=False)
        except NoAnswerError:
            self._give_rest()
            raise

    def receive(self, count: int) -> list[Any]:
        """Return answers in the order of the calls; a refused call's is the exception."""
        assert self._connection is not None
        replies: list[Any] = []
        try:
            for _ in range(count):
                try:
                    replies.append(self._connection.read_response())
                except ResponseError as error:
                    replies.append(error)
        except NoAnswerError:
            self._give_rest()
            raise
        return replies

    def ask(self, *call: object) -> Any:
        """Ask one thing. Errors: `RedisError`, `OSError`."""
        try:
            self.send([call])
            (reply,) = self.receive(1)
        except (RedisError, OSError):
            self.hang_up()
            raise
        if isinstance(reply, Exception):
            raise reply
        return reply

    def hang_up(self) -> None:
        """Close the connection, with all answers that are still to come."""
        if self._connection is not None:
            self._connection.disconnect()
            self._connection = None
            self.prepared = False
            self.losses += 1

    def _give_rest(self) -> None:
        # As long as it was waited for: so half of the time at most goes by waiting.
        self._silent_until = time.monotonic() + self._patience_s


class Nodes(Protocol):
    """Who is to be asked what."""

    def of(self, call: Call) -> Node:
        """Return the server that has the call's key. Errors: as `Node.ask`."""

    def beside(self, key: str) -> Callable[[str], bool]:
        """Return what tells whether a key is now where this one is. Errors: as `Node.ask`."""

    def moved_to(self, host: str, port: int) -> Node:
        """Return a server that another one named."""

    def primaries(self) -> list[Node]:
        """Return all that hold something. Errors: as `Node.ask`."""

    def look_again(self) -> None:
        """Find out anew who has what, before the next call."""

    @property
    def losses(self) -> int:
        """Count the connections that were lost."""

    def close(self) -> None: ...


class OneNode:
    """A single server, or the one that the sentinels name whenever a connection is made."""

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._sentinels = deque(_sentinel(url, host) for host in url.hosts if url.service)
        self._node = Node(self._connect, patience_s=url.timeout_ms / 1_000)

    def of(self, call: Call) -> Node:
        del call
        return self._node

    def beside(self, key: str) -> Callable[[str], bool]:
        del key
        return lambda _: True

    def moved_to(self, host: str, port: int) -> Node:
        raise ClusterDownError(f"{host}:{port} is of a cluster: begin with redis+cluster://")

    def primaries(self) -> list[Node]:
        return [self._node]

    def look_again(self) -> None:
        self._node.hang_up()

    @property
    def losses(self) -> int:
        return self._node.losses

    def close(self) -> None:
        self._node.hang_up()
        for sentinel in self._sentinels:
            sentinel.hang_up()

    def _connect(self) -> Connection:
        address = self._url.hosts[0]
        if self._sentinels:
            address = self._primary()
        return connect(self._url, address)

    def _primary(self) -> Address:
        """Ask one sentinel after the other for the primary. Errors: as `Node.ask`."""
        failure: Exception = ConnectionLostError("no sentinel answers")
        for _ in range(len(self._sentinels)):
            try:
                found = self._sentinels[0].ask(
                    "SENTINEL", "GET-MASTER-ADDR-BY-NAME", self._url.service
                )
            except (RedisError, OSError) as error:
                failure = error
            else:
                if found is not None:
                    return found[0].decode(), int(found[1])
                failure = ConnectionLostError(f"no sentinel knows {self._url.service!r}")
            self._sentinels.rotate(-1)  # the next one first, from now on
        raise failure


class ClusterNodes:
    """A cluster: slots by what any of its servers says, looked up again when one says otherwise."""

    def __init__(self, url: RedisUrl) -> None:
        self._url = url
        self._nodes: dict[Address, Node] = {}
        self._by_slot: list[Node] = []

    def of(self, call: Call) -> Node:
        if not self._by_slot:
            self._find_out()
        key = call[3] if call[0] == "EVALSHA" else call[1]
        return self._by_slot[key_slot(key.encode())]

    def beside(self, key: str) -> Callable[[str], bool]:
        node = self.of(("", key))
        by_slot = self._by_slot  # as it is: what is moved meanwhile was here
        return lambda other: by_slot[key_slot(other.encode())] is node

    def moved_to(self, host: str, port: int) -> Node:
        return self._node((host, port))

    def primaries(self) -> list[Node]:
        if not self._by_slot:
            self._find_out()
        return list(dict.fromkeys(self._by_slot))

    def look_again(self) -> None:
        self._by_slot = []

    @property
    def losses(self) -> int:
        return sum(node.losses for node in self._nodes.values())

    def close(self) -> None:
        for node in self._nodes.values():
            node.hang_up()

    def _node(self, address: Address) -> Node:
        node = self._nodes.get(address)
        if node is None:
            node = self._nodes[address] = Node(
                lambda: connect(self._url, address), patience_s=self._url.timeout_ms / 1_000
            )
        return node

    def _find_out(self) -> None:
        """Ask one server after the other who has which slots. Errors: as `Node.ask`."""
        known = [*self._nodes]
        random.shuffle(known)  # not all brokers the same one
        failure: Exception = ClusterDownError("no server of the cluster answers")
        for address in dict.fromkeys([*known, *self._url.hosts]):
            node = self._node(address)
            if node.silent:
                continue
            try:
                self._by_slot = self._slots(node.ask("CLUSTER SLOTS"), address[0])
            except (RedisError, OSError) as error:
                failure = error
                if isinstance(error, NoAnswerError):
                    break  # one that keeps silent is enough for once
            else:
                return
        raise failure

    def _slots(self, ranges: Iterable[Any], asked: str) -> list[Node]:
        found: list[Node | None] = [None] * 16_384
        for low, high, (host, port, *_), *_ in ranges:
            # Nameless: the one that was asked.
            node = self._node((host.decode() if host else asked, port))
            found[low : high + 1] = [node] * (high + 1 - low)
        slots = [node for node in found if node is not None]
        if len(slots) < len(found):
            raise ClusterDownError("the cluster does not cover all slots")
        return slots


def _packed(connection: Connection, calls: Sequence[Call]) -> Any:
    """Write calls as a server reads them.

    The library packs word by word and sends in pieces of 6 kB: an append would take 14 us of a
    processor instead of 10, all told.
    """
    if pack_command is None:
        return connection.pack_commands(calls)
    words = (call if " " not in call[0] else (*call[0].split(), *call[1:]) for call in calls)
    return [b"".join(map(pack_command, words))]


def nodes_of(url: RedisUrl) -> Nodes:
    """Return the servers of a URL; nothing is connected yet."""
    return ClusterNodes(url) if url.cluster else OneNode(url)


def connect(url: RedisUrl, address: Address) -> Connection:
    """Make a connection that is logged in. Errors: `RedisError`, `OSError`."""
    return _connected(url, address, url.timeout_ms / 1_000, url.username, url.password)


def _sentinel(url: RedisUrl, address: Address) -> Node:
    return Node(lambda: _connected(url, address, _SENTINEL_S), patience_s=_SENTINEL_S)


def _connected(
    url: RedisUrl,
    address: Address,
    timeout_s: float,
    username: str | None = None,
    password: str | None = None,
) -> Connection:
    # By name and by whoever the system, or SSL_CERT_FILE, trusts; older libraries ask for less.
    tls: dict[str, Any] = (
        {"ssl_check_hostname": True, "ssl_cert_reqs": "required"} if url.tls else {}
    )
    connection = (SSLConnection if url.tls else Connection)(
        **tls,
        host=address[0],
        port=address[1],
        username=username,
        password=password,
        socket_timeout=timeout_s,
        socket_connect_timeout=timeout_s,
        client_name="kotak",
        protocol=2,  # one shape of answers, whatever the server offers
        retry=Retry(NoBackoff(), 0),  # whoever asks repeats, and knows what may be
    )
    connection.connect()
    return connection
